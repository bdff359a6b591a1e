"""Which header fields cross the gateway, and with what value. Pure; called once per request and response.

Dropped on the way in: hop-by-hop fields (RFC 9110 §7.6.1, those named in `Connection` too), the framing, which is
made anew, credentials, which are the gateway's to check, and whatever a component might take for the platform's word
on who calls.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer trailers "
    b"transfer-encoding upgrade http2-settings".split()
)

#: What proxies and identity-aware front ends use to tell an application who calls. Only the gateway may say so.
IDENTITY = frozenset(
    b"x-forwarded-user x-forwarded-email x-forwarded-groups x-forwarded-preferred-username x-forwarded-access-token "
    b"x-auth-request-user x-auth-request-email x-auth-request-groups x-auth-request-preferred-username "
    b"x-auth-request-access-token x-authenticated-user x-authenticated-userid x-remote-user remote-user remote-name "
    b"remote-email remote-groups x-user x-user-id x-webauth-user unip-user x-unip-user x-prichal-user "
    b"x-ssl-client-cert x-client-cert x-forwarded-client-cert".split()
)

_REWRITTEN = frozenset(
    b"host content-length expect authorization x-request-id forwarded x-forwarded-for x-forwarded-proto "
    b"x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-server x-real-ip x-prichal-files".split()
)

DROPPED_IN = HOP_BY_HOP | IDENTITY | _REWRITTEN
DROPPED_OUT = HOP_BY_HOP | {b"x-request-id", b"server", b"x-prichal-files"}

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_ORDINARY_CONNECTION = frozenset((b"", b"keep-alive", b"close", b"Keep-Alive", b"Close"))


def split(headers: Iterable[Header]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Request fields with lower-case names → (those the gateway acts on, the lines that go to the component).

    A repeated field among the first keeps its last value; gunicorn has refused repeated singletons before.
    Names with an underscore are dropped: CGI-like servers cannot tell `x_forwarded_user` from `x-forwarded-user`.
    """
    special: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    for name, value in headers:
        if name in DROPPED_IN:
            special[name] = value
        elif b"_" not in name:
            lines.append(b"%b: %b\r\n" % (name, value))
    if special.get(b"connection", b"") not in _ORDINARY_CONNECTION:
        named = tuple(b"%b: " % name for name in connection_options(special[b"connection"]))
        lines = [line for line in lines if not line.startswith(named)] if named else lines
    return special, lines


def connection_options(value: bytes) -> list[bytes]:
    """The field names that a `Connection` field lists, in lower case."""
    return [option for option in (part.strip().lower() for part in value.split(b",")) if option]


def response_headers(headers: list[Header], request_id: bytes) -> list[Header]:
    """What the caller sees of a component's header: end-to-end fields, and our request id."""
    kept: list[Header] = [(b"x-request-id", request_id), (b"server", b"prichal")]
    options: list[bytes] = []
    for header in headers:
        name = header[0].lower()
        if name not in DROPPED_OUT:
            kept.append(header)
        elif name == b"connection" and header[1] not in _ORDINARY_CONNECTION:
            options += connection_options(header[1])
    return [header for header in kept if header[0].lower() not in options] if options else kept


def request_id(sent: bytes | None) -> bytes:
    """The caller's request id if it is safe to put into headers and logs, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent
    return b"%032x" % random.getrandbits(128)
