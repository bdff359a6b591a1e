"""Origins as browsers write them in `Origin` (WHATWG URL, "origin" and "host serializing"). Pure; used for the origins
of `restfulApi.cors`, which are compared with that field letter by letter.

Hosts and ports have several spellings, of which browsers send one: `http://127.1:080` is `http://127.0.0.1`. They are
put into that one. An origin that no page can have is refused with what to write.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from controller.domain.localizable import Localizable

#: Of pages; other schemes (`chrome-extension`, `app`) are those of programs, which write their host as it is.
_PORTS: Final = {"http": 80, "https": 443}
#: Of which no page comes: what it loads has the origin of the page.
_INSTEAD: Final = {"ws": "http", "wss": "https", "ftp": "https"}
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]+))?")
_NUMBER = re.compile("0x[0-9a-f]*|0[0-7]*|[1-9][0-9]*")
_LAST_PORT: Final = 65535


class NoOrigin(ValueError):
    """Why no page has an origin, as the rest of a sentence about it."""


def serialized(text: str) -> str:
    """Return the origin of `text` as browsers send it. Raises NoOrigin."""
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        raise NoOrigin(Localizable("is not an origin: write scheme, host and port alone"))
    scheme, host, port = found.groups()
    if scheme in _INSTEAD:
        raise NoOrigin(Localizable("is no origin of a page: write {instead}://", instead=_INSTEAD[scheme]))
    if scheme in _PORTS:
        host = _address(host[1:-1]) if host.startswith("[") else _host(host)
    number = None if port is None else _port(port)
    return f"{scheme}://{host}" if number in (None, _PORTS.get(scheme)) else f"{scheme}://{host}:{number}"


def _port(digits: str) -> int:
    number = int(digits)
    if not 0 < number <= _LAST_PORT:
        raise NoOrigin(
            Localizable("has a port that no server has: write one from 1 to {last}", last=_LAST_PORT)
        )
    return number


def _address(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise NoOrigin(Localizable("has no IPv6 address in its brackets: write one such as [::1]")) from None
    return f"[{_compressed(address)}]"


def _compressed(address: ipaddress.IPv6Address) -> str:
    """Return the address without the dotted form, which Python has for addresses that hold one of IPv4."""
    pieces = [int(piece, 16) for piece in address.exploded.split(":")]
    best, at = 1, -1
    for start in range(len(pieces)):
        length = next((n for n, piece in enumerate(pieces[start:]) if piece), len(pieces) - start)
        if length > best:
            best, at = length, start
    words = [format(piece, "x") for piece in pieces]
    if at < 0:
        return ":".join(words)
    return f"{':'.join(words[:at])}::{':'.join(words[at + best :])}"


def _host(host: str) -> str:
    """Return a host name; one whose last part is a number is an address of IPv4, in whichever form."""
    last = host.rpartition(".")[2]
    if not (last.isdigit() or re.fullmatch("0x[0-9a-f]*", last)):
        return host
    try:
        numbers = [_number(part) for part in host.split(".")]
        *first, rest = numbers
        if len(numbers) > 4 or any(number > 255 for number in first) or rest >= 256 ** (5 - len(numbers)):
            raise ValueError
    except ValueError:
        raise NoOrigin(
            Localizable("has no IPv4 address, and its host ends like one: write four numbers")
        ) from None
    whole = rest + sum(number << 8 * (3 - place) for place, number in enumerate(first))
    return str(ipaddress.IPv4Address(whole))


def _number(text: str) -> int:
    """Read one part of an address: decimal, octal with 0 in front, hexadecimal with 0x. Raises ValueError."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)
