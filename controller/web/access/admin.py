"""Who may see and do what is the administrator's: the rule, as a pure function, for Flask and the event loop alike.

The admin token opens everything, as `Authorization: Bearer <token>`, or as the password of HTTP Basic, so that a
browser can show the page. Without it, and if `web.trustLoopback` is on, callers on the host itself are admitted,
provided that no proxy speaks for someone else and no browser is being tricked:

- any forwarding header means that the caller is someone else;
- `Host` must name the loopback interface, so that a foreign name that resolves to 127.0.0.1 opens nothing;
- a script in a page (also of a module, which shares our origin) is told by `Sec-Fetch-*` and `Origin`, which
  browsers set and scripts cannot: only a person's own navigation may read;
- whatever changes something needs the header `X-Prichal: 1`, which neither a form nor a link can send.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from controller.config import WebSettings
from controller.web.access.auth import decode_basic

SAFE = frozenset(("GET", "HEAD"))
_FORWARDING = ("x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-host")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Visitor:
    """The facts the rule looks at. `address` is the socket's, `headers` have lower-case names."""

    method: str
    address: str
    headers: Mapping[str, str]


def is_admin(visitor: Visitor, settings: WebSettings) -> bool:
    if _has_token(visitor, settings):
        return True
    if not settings.trust_loopback or not is_loopback(visitor.address):
        return False
    if any(name in visitor.headers for name in _FORWARDING) or not _names_loopback(
        visitor.headers.get("host", "")
    ):
        return False
    return _is_read(visitor) if visitor.method in SAFE else _is_deliberate(visitor)


def _has_token(visitor: Visitor, settings: WebSettings) -> bool:
    if not settings.admin_token:
        return False
    scheme, _, value = visitor.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        # Browsers send it along with any request to us, so it counts for less: see `_is_deliberate`.
        pair = decode_basic(value.encode())
        if pair is None or not (visitor.method in SAFE or _is_deliberate(visitor)):
            return False
        value = pair[1]
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(value.strip().encode(), settings.admin_token.reveal().encode())


def _is_read(visitor: Visitor) -> bool:
    return visitor.headers.get("sec-fetch-mode", "navigate") == "navigate" and "origin" not in visitor.headers


def _is_deliberate(visitor: Visitor) -> bool:
    from_page = any(name in visitor.headers for name in ("origin", "sec-fetch-site", "sec-fetch-mode"))
    return visitor.headers.get("x-prichal") == "1" and not from_page


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _names_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name.lower() in _LOOPBACK_NAMES
