"""Decides what becomes of a request that asks for another protocol (RFC 9110 §7.8): a WebSocket to a component with a
server of its own, a refusal that says why, or nothing, because a server may ignore any other protocol. Pure; called
by the ASGI application for requests with an `Upgrade` field.

Nothing is passed on that the component did not agree to: the handshake is written by the gateway, and bytes flow past
HTTP only after a 101 that proves that the component has read this very handshake (RFC 6455 §4.2.2)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from controller.web.gateway.cors import CorsPolicy
from controller.web.gateway.headers import Header
from controller.web.gateway.router import CallLookup, Decision, ForwardCall, PlatformEndpoint, ServeService
from controller.web.problems import HttpProblem, ProblemKind

VERSION: Final = b"13"
#: What the gateway adds to a handshake and to its answer.
LINES: Final = b"connection: Upgrade\r\nupgrade: websocket\r\n"
_PROTOCOL: Final = b"websocket"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_PORTS: Final = {"http": b":80", "https": b":443"}


@dataclass(frozen=True)
class SocketRequest:
    """A handshake that is well-formed; `key` is its `Sec-WebSocket-Key`."""

    key: bytes

    @property
    def accept(self) -> bytes:
        """The `Sec-WebSocket-Accept` by which a server proves that it has read the handshake."""
        return base64.b64encode(hashlib.sha1(self.key + _GUID).digest())  # noqa: S324 - as the RFC wants it

    def is_accepted(self, headers: Iterable[Header]) -> bool:
        """Return True if the header of a 101 switches to the protocol that this request asked for."""
        fields = list(headers)
        return (
            _PROTOCOL in _names(fields, b"upgrade")
            and b"upgrade" in _names(fields, b"connection")
            and _values(fields, b"sec-websocket-accept") == [self.accept]
        )


def asks_for_socket(http_version: str, headers: Iterable[Header]) -> bool:
    """Return True if the request asks for a WebSocket. All other protocols are ignored, h2c too, and so is `Upgrade`
    where `Connection` does not name it, and in HTTP/1.0."""
    fields = list(headers)
    return (
        http_version == "1.1"
        and _PROTOCOL in _names(fields, b"upgrade")
        and b"upgrade" in _names(fields, b"connection")
    )


def judge_handshake(
    method: str, headers: Iterable[Header], decision: Decision
) -> SocketRequest | HttpProblem:
    """Judge a request that asks for a WebSocket. `decision` is what answers its path."""
    fields = list(headers)
    if isinstance(decision, HttpProblem) and decision.kind is not ProblemKind.METHOD:
        return decision
    if refusal := _without_sockets(decision):
        return HttpProblem(ProblemKind.NO_SOCKETS, refusal)
    if method != "GET":
        return _malformed(f"A WebSocket is opened by GET, not by {method}.")
    if _values(fields, b"transfer-encoding") or _values(fields, b"content-length") not in ([], [b"0"]):
        return _malformed("The request that opens a WebSocket has no body.")
    if _values(fields, b"sec-websocket-version") != [VERSION]:
        detail = "The gateway speaks version 13 of the WebSocket protocol (RFC 6455) alone."
        return HttpProblem(ProblemKind.SOCKET_VERSION, detail, upgrade=_PROTOCOL.decode())
    keys = _values(fields, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return _malformed("Sec-WebSocket-Key must be there once, with 16 bytes in Base64.")
    return SocketRequest(keys[0])


def _without_sockets(decision: Decision) -> str:
    """Return why there are no WebSockets at this path, and what to do; empty if there may be some. A method that a path
    does not take is that of a function, which is called by POST."""
    if isinstance(decision, ForwardCall) and decision.target.route.any_path:
        return ""
    if isinstance(decision, PlatformEndpoint):
        return "The platform's own interface has no WebSockets; what changes is told as server-sent events."
    what = "this path" if isinstance(decision, ServeService) else "a component with an inference function"
    follow = (
        "Ask for it by HTTP."
        if isinstance(decision, CallLookup | ServeService)
        else "Call it by HTTP; a function that yields streams its results with Accept: text/event-stream."
    )
    return f"There are no WebSockets at {what}. {follow} WebSockets need mlService.server: own."


def _malformed(detail: str) -> HttpProblem:
    return HttpProblem(ProblemKind.HANDSHAKE, detail)


# --- pages of other origins -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PageAccess:
    """What the page may bring along that opens the socket. A browser asks nobody before it opens one, and sends cookies
    and passwords along by itself: without `credentials` they do not count."""

    credentials: bool = True


def judge_origin(headers: Iterable[Header], host: bytes, cors: CorsPolicy | None) -> PageAccess | HttpProblem:
    """Judge the page that opens a socket (RFC 6455 §10.2). `host` is the caller's, `cors` the rule of the API. A
    program sends no `Origin`."""
    origins = _values(list(headers), b"origin")
    if not origins or (len(origins) == 1 and _is_of(origins[0], host)):
        return PageAccess()
    if cors is not None and len(origins) == 1 and origins[0] in cors.origins:
        return PageAccess(cors.with_credentials)
    if cors is not None and len(origins) == 1 and cors.any:
        return PageAccess(credentials=False)
    detail = (
        "Pages of this origin may not open WebSockets to the API: it is neither the API's own host nor listed in "
        "restfulApi.cors.origins. A proxy in front of the platform must pass on Host, or be listed in "
        "web.trustedProxies and send X-Forwarded-Host."
    )
    return HttpProblem(ProblemKind.ORIGIN, detail)


def without_credentials(lines: Iterable[bytes]) -> list[bytes]:
    """Return header lines without cookies."""
    return [line for line in lines if not line.startswith(b"cookie: ")]


def _is_of(origin: bytes, host: bytes) -> bool:
    """Return True if a page of this origin and the request have one host. Whether the browser spoke TLS is known only
    to the outermost proxy."""
    try:
        parts = urlsplit(origin.decode("ascii").lower())
    except ValueError:
        return False
    port = _PORTS.get(parts.scheme)
    if port is None or not parts.netloc or origin.lower() != f"{parts.scheme}://{parts.netloc}".encode():
        return False
    asked = host.partition(b",")[0].strip().lower()
    return parts.netloc.encode().removesuffix(port) == asked.removesuffix(port)


# --- fields -----------------------------------------------------------------------------------------------------


def _values(headers: list[Header], name: bytes) -> list[bytes]:
    return [value.strip() for field, value in headers if field.lower() == name]


def _names(headers: list[Header], name: bytes) -> set[bytes]:
    """Return the members of a list-valued field, in lower case."""
    return {part.strip().lower() for value in _values(headers, name) for part in value.split(b",")}


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False
