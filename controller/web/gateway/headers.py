"""Decides which header fields cross the gateway, and with what value. Pure; called once per request and response.

Dropped on the way in: hop-by-hop fields (RFC 9110 §7.6.1, those named in `Connection` too), the framing, which the
gateway rebuilds, credentials, which the gateway checks, and everything that a component might take for the
caller's identity from the platform."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from controller.web.gateway.rewrite import REWRITTEN, cookies

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer trailers "
    b"transfer-encoding upgrade http2-settings".split()
)

#: Fields in which proxies and identity-aware front ends pass the caller to an application. Only the gateway
#: may set them.
IDENTITY = frozenset(
    b"x-forwarded-user x-forwarded-email x-forwarded-groups x-forwarded-preferred-username x-forwarded-access-token "
    b"x-auth-request-user x-auth-request-email x-auth-request-groups x-auth-request-preferred-username "
    b"x-auth-request-access-token x-authenticated-user x-authenticated-userid x-remote-user remote-user remote-name "
    b"remote-email remote-groups x-user x-user-id x-webauth-user unip-user x-unip-user x-prichal-user "
    b"x-ssl-client-cert x-client-cert x-forwarded-client-cert".split()
)

_REWRITTEN = frozenset(
    b"host content-length expect authorization x-request-id forwarded x-forwarded-for x-forwarded-proto "
    b"x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-server x-real-ip "
    b"x-prichal-files x-prichal-security x-prichal-pass x-prichal-call x-prichal-timeout x-prichal-webhook "
    b"traceparent tracestate".split()
)

#: Fields that browsers apply to a whole origin, which all apps may share, so no component may set them. Each with
#: its reason in docs/security.md.
ORIGIN_WIDE = frozenset(
    b"""
    accept-ch activate-storage-access ad-auction-allowed alt-svc attribution-reporting-register-os-source
    attribution-reporting-register-os-trigger attribution-reporting-register-source
    attribution-reporting-register-trigger clear-site-data critical-ch delegate-ch expect-ct idp-signin-status nel
    observe-browsing-topics origin-agent-cluster public-key-pins public-key-pins-report-only report-to
    reporting-endpoints sec-session-challenge sec-session-registration secure-session-challenge
    secure-session-registration secure-session-skipped service-worker-allowed set-login shared-storage-write
    strict-transport-security use-as-dictionary
    """.split()
)

#: Fields that proxies in front of the platform obey: a component must not make them send files or other pages.
TO_PROXIES = frozenset(
    b"""
    cdn-cache-control cloudflare-cdn-cache-control edge-control netlify-cdn-cache-control
    proxy-authentication-info proxy-status surrogate-control vercel-cdn-cache-control x-accel-charset
    x-accel-expires x-accel-limit-rate x-accel-redirect x-lighttpd-send-file x-lighttpd-send-tempfile
    x-litespeed-cache-control x-litespeed-location x-litespeed-purge x-proxy-authentication-info x-reproxy-url
    x-sendfile x-sendfile-type x-sendfile2
    """.split()
)

DROPPED_IN = HOP_BY_HOP | IDENTITY | _REWRITTEN
DROPPED_OUT = (
    HOP_BY_HOP
    | ORIGIN_WIDE
    | TO_PROXIES
    | {b"x-request-id", b"server", b"x-prichal-files", b"x-prichal-call"}
)

#: Those among them whose lines are one list. The last address of `X-Forwarded-For` is the one that a trusted proxy saw.
_LISTS = frozenset((b"connection", b"x-forwarded-for"))

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_COOKIE = b"cookie: "
_ORDINARY_CONNECTION = frozenset((b"", b"keep-alive", b"close", b"Keep-Alive", b"Close"))


def combined(headers: Iterable[Header]) -> dict[bytes, bytes]:
    """Return the fields of a request by name. The lines of one that is repeated are its list (RFC 9110 §5.3); one that
    holds a single value becomes a value that nothing fits."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        before = found.get(name)
        between = b"; " if name == b"cookie" else b", "
        found[name] = value if before is None else before + between + value
    return found


def combined_text(headers: Iterable[Header]) -> dict[str, str]:
    """Return the same for code that reads texts."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in combined(headers).items()}


class RequestFields(list[Header]):
    """The fields of a request that is read once and may come again: `split` keeps what it has found."""

    __slots__ = ("parts",)

    parts: tuple[dict[bytes, bytes], list[bytes]]


def split(headers: Iterable[Header]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Request fields with lower-case names → (those the gateway acts on, the lines that go to the component).

    A repeated list among the first is one list; another field keeps its last value. gunicorn has refused repeated
    singletons that change how a message is read.
    Names with an underscore are dropped: CGI-like servers cannot tell `x_forwarded_user` from `x-forwarded-user`.
    Nobody changes what this returns.
    """
    if not isinstance(headers, RequestFields):
        return _split(headers)
    try:
        return headers.parts
    except AttributeError:
        headers.parts = _split(headers)
        return headers.parts


def _split(headers: Iterable[Header]) -> tuple[dict[bytes, bytes], list[bytes]]:
    special: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    for name, value in headers:
        if name in DROPPED_IN:
            before = special.get(name) if name in _LISTS else None
            special[name] = value if before is None else b"%b, %b" % (before, value)
        elif b"_" not in name:
            lines.append(b"%b: %b\r\n" % (name, value))
    if special.get(b"connection", b"") not in _ORDINARY_CONNECTION:
        named = tuple(b"%b: " % name for name in connection_options(special[b"connection"]))
        lines = [line for line in lines if not line.startswith(named)] if named else lines
    return special, lines


def connection_options(value: bytes) -> list[bytes]:
    """The field names that a `Connection` field lists, in lower case."""
    return [option for option in (part.strip().lower() for part in value.split(b",")) if option]


def lines_for(prefix: bytes, lines: list[bytes]) -> bytes:
    """Return the header lines for the component at `prefix`, without cookies of other APIs."""
    joined = b"".join(lines)
    if joined.find(_COOKIE) < 0:
        return joined
    cut = len(_COOKIE)
    parts = [cookies(line[cut:], prefix) if line.startswith(_COOKIE) else None for line in lines]
    return b"".join(
        line if part is None else b"cookie: %b\r\n" % part
        for line, part in zip(lines, parts, strict=True)
        if part != b""
    )


@lru_cache(maxsize=1024)
def host_for(sent: bytes) -> bytes:
    """Return the caller's host as the component's `Host`; empty if it is ambiguous. With several proxies, the
    first one names it."""
    host = sent.partition(b",")[0].strip()
    return host if _HOST.fullmatch(host) else b""


def response_headers(
    headers: list[Header], request_id: bytes, rewrite: Callable[[bytes, bytes], bytes]
) -> list[Header]:
    """Return the header that the caller sees: the component's end-to-end fields, and our request id. `rewrite`
    translates fields that hold addresses."""
    kept: list[Header] = [(b"x-request-id", request_id), (b"server", b"prichal")]
    options: list[bytes] = []
    for header in headers:
        name = header[0].lower()
        if name not in DROPPED_OUT:
            kept.append(header if name not in REWRITTEN else (header[0], rewrite(name, header[1])))
        elif name == b"connection" and header[1] not in _ORDINARY_CONNECTION:
            options += connection_options(header[1])
    return [header for header in kept if header[0].lower() not in options] if options else kept


def request_id(sent: bytes | None) -> bytes:
    """The caller's request id if it is safe to put into headers and logs, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent
    return b"%032x" % random.getrandbits(128)
