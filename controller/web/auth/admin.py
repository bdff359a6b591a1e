"""Decides who may use the administrator's interface: a pure function for Flask and the event loop.

The admin token opens everything, as `Authorization: Bearer <token>`, or as the password of HTTP Basic, so
that a browser can show the page. Without it, and if `web.trustLoopback` is on, callers on the host itself are
admitted, unless a proxy forwards for somebody else, or a page of another origin makes the browser send the
request:

- any forwarding header means that the caller is someone else;
- `Host` must name the loopback interface, so that a foreign name that resolves to 127.0.0.1 opens nothing;
- a script in a page (also of a module, which may share our origin) is told by `Sec-Fetch-*` and `Origin`, which
  browsers set and scripts cannot: only a person's own navigation, in a window and in no frame, may read. The same holds
  for the token as a password, which browsers send along by themselves;
- whatever changes something needs the header `X-Prichal: 1`, which neither a form nor a link can send.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from controller.config import WebSettings
from controller.web.auth.attempts import log_failure
from controller.web.auth.authenticate import decode_basic
from controller.web.gateway.proxies import RequestOrigin, TrustedProxies

SAFE = frozenset(("GET", "HEAD"))
_FORWARDING = ("x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-host")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ClientInfo:
    """The facts that the rule uses. `address` is the socket's, `headers` have lower-case names, `path` is decoded."""

    method: str
    address: str
    headers: Mapping[str, str]
    scheme: str = "http"
    path: str = ""


def origin_of(client: ClientInfo, settings: WebSettings) -> RequestOrigin:
    """Return the caller's address, scheme and host, as far as trusted proxies tell them."""
    names = ("host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
    sent = {
        name.encode(): client.headers[name].encode("latin-1", "replace")
        for name in names
        if name in client.headers
    }
    return TrustedProxies(settings.trusted_proxies).origin(client.address, client.scheme, sent)


def is_admin(client: ClientInfo, settings: WebSettings) -> bool:
    return has_token(client, settings) or is_trusted(client, settings)


def is_trusted(client: ClientInfo, settings: WebSettings) -> bool:
    """Return True for a deliberate request of a caller of this host, where the configuration trusts them."""
    if not is_of_this_host(client, settings):
        return False
    return is_read(client) if client.method in SAFE else _is_deliberate(client)


def is_of_this_host(client: ClientInfo, settings: WebSettings) -> bool:
    """Return True if the caller is on this host and the configuration trusts such callers, no matter what made the
    request."""
    if not settings.trust_loopback or not is_loopback(client.address):
        return False
    is_forwarded = any(name in client.headers for name in _FORWARDING)
    return not is_forwarded and names_loopback(client.headers.get("host", ""))


def log_refused(client: ClientInfo, settings: WebSettings) -> None:
    """Log the refusal if the caller tried to sign in."""
    scheme, _, value = client.headers.get("authorization", "").partition(" ")
    if not scheme:
        return
    pair = decode_basic(value.encode("latin-1", "replace")) if scheme.lower() == "basic" else None
    address = origin_of(client, settings).caller.decode("latin-1")
    log_failure(address, "admin", pair[0] if pair else "", "-")


def has_token(client: ClientInfo, settings: WebSettings) -> bool:
    """Return True if the request carries the admin token."""
    if not settings.admin_token:
        return False
    scheme, _, value = client.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        # Browsers add it to every request, so it is not sufficient: see `_is_deliberate`.
        pair = decode_basic(value.encode())
        if pair is None or not (is_read(client) if client.method in SAFE else _is_deliberate(client)):
            return False
        value = pair[1]
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(value.strip().encode(), settings.admin_token.reveal().encode())


def is_read(client: ClientInfo) -> bool:
    """Return True for a person who opens the page in a window, or a program. Over plain HTTP to another host
    browsers do not send these headers: there they are recognised by `Accept-Language`, and refused, since the
    request may come from a script."""
    headers = client.headers
    if "origin" in headers or "service-worker" in headers:
        return False
    if "sec-fetch-mode" not in headers:
        return not any(name.startswith("sec-fetch-") for name in headers) and "accept-language" not in headers
    return headers["sec-fetch-mode"] == "navigate" and headers.get("sec-fetch-dest", "document") == "document"


def _is_deliberate(client: ClientInfo) -> bool:
    from_page = any(name in client.headers for name in ("origin", "sec-fetch-site", "sec-fetch-mode"))
    return client.headers.get("x-prichal") == "1" and not from_page


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def names_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name.lower() in _LOOPBACK_NAMES
