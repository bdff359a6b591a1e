"""Decides which pages of other origins may call an API from a browser (cross-origin resource sharing, the Fetch
standard). Called by the ASGI application for every API whose manifest has `restfulApi.cors`, independent of what
answers it: a component, the event loop or the Flask application.

Promises: a preflight is answered here, before authentication, since it never carries credentials; every other
response, also an error, has the CORS headers for its caller's origin; an origin that is not listed gets none;
CORS headers of a component are replaced, so that browsers never see two answers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.domain.apps.spec import ANY_ORIGIN, CorsSpec
from controller.web.gateway.body import Message, Send
from controller.web.gateway.headers import Header

METHODS: Final = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE")
#: Headers of the platform's APIs that browsers hide from a page unless they are exposed.
EXPOSED: Final = (
    "Accept-Ranges",
    "Allow",
    "Content-Disposition",
    "Content-Location",
    "Content-Range",
    "ETag",
    "Inference-Header-Content-Length",
    "Link",
    "Location",
    "Preference-Applied",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)

_PREFIX: Final = b"access-control-"
_CREDENTIALS: Final[Header] = (b"access-control-allow-credentials", b"true")
_NAMED: Final = b"access-control-request-headers"
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")


@dataclass(frozen=True)
class CorsRequest:
    """The origin of a request as it states it. `method` and `names` belong to a preflight: the method and the
    header fields of the request that will follow."""

    origin: bytes | None = None
    method: bytes | None = None
    names: bytes = b""

    @classmethod
    def by(cls, headers: Iterable[Header]) -> CorsRequest:
        """Read the fields. Names of header fields are a list; another field that is repeated is ignored."""
        found: dict[bytes, bytes | None] = {}
        names = b""
        for name, value in headers:
            if name == _NAMED:
                names = b"%b, %b" % (names, value) if names else value
            elif name == b"origin" or name.startswith(b"access-control-request-"):
                found[name] = None if name in found else value
        return cls(found.get(b"origin"), found.get(b"access-control-request-method"), names)


@dataclass(frozen=True)
class CorsPolicy:
    """The prepared rule of one API. `always` are the header fields of every response, `allowed` the
    further ones of a response to a listed origin."""

    origins: frozenset[bytes]
    any: bool
    max_age: bytes
    always: tuple[Header, ...]
    allowed: tuple[Header, ...]

    @classmethod
    def of(cls, spec: CorsSpec) -> CorsPolicy:
        exposed = ", ".join((*EXPOSED, *spec.expose_headers)).encode()
        expose: Header = (b"access-control-expose-headers", exposed)
        if ANY_ORIGIN in spec.origins:
            always: tuple[Header, ...] = ((b"access-control-allow-origin", b"*"), expose)
            return cls(frozenset(), True, b"%d" % spec.max_age, always, ())
        credentials: tuple[Header, ...] = ()
        if spec.credentials:
            credentials = (_CREDENTIALS,)
        origins = frozenset(origin.encode() for origin in spec.origins)
        # Caches must not give one origin's answer to another, not even that of a request without an origin.
        return cls(origins, False, b"%d" % spec.max_age, ((b"vary", b"Origin"),), (*credentials, expose))

    @property
    def with_credentials(self) -> bool:
        """True if pages of the listed origins may send cookies and passwords along."""
        return _CREDENTIALS in self.allowed

    def headers(self, asked: CorsRequest) -> list[Header]:
        """Return the response headers for the page that asked."""
        if self.any or asked.origin is None or asked.origin not in self.origins:
            return list(self.always)
        return [*self.always, (b"access-control-allow-origin", asked.origin), *self.allowed]

    def preflight(self, asked: CorsRequest) -> list[Header]:
        """Answer a preflight. Everything that a page can ask for is allowed: the API itself refuses what it does
        not accept."""
        headers = [
            *self.headers(asked),
            (b"vary", b"Access-Control-Request-Method, Access-Control-Request-Headers"),
        ]
        if not self.any and asked.origin not in self.origins:
            return headers
        method = asked.method or b""
        more = (method,) if method not in METHODS and _TOKEN.fullmatch(method) else ()
        headers.append((b"access-control-allow-methods", b", ".join((*METHODS, *more))))
        if _NAMES.fullmatch(asked.names):
            headers.append((b"access-control-allow-headers", asked.names))
        return [*headers, (b"access-control-max-age", self.max_age)]

    def sending(self, send: Send, asked: CorsRequest) -> Send:
        """Return a `send` that sets the fields of `headers` in each response, and removes other CORS headers."""

        async def shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [
                    header for header in message["headers"] if not header[0].lower().startswith(_PREFIX)
                ]
                message = {**message, "headers": [*others, *self.headers(asked)]}
            await send(message)

        return shared
