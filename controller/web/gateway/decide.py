"""Who answers a request, or why nobody does. Pure: a table made of routes and services, and the request's method and
path; called by the gateway for every request, so everything that can be made ready is made when the table is built.

URLs: `/<app>/<path>/predict`, `/openapi.json`, `/docs` and the Open Inference Protocol below `/v2`; for components with
their own server any method and path below `/<app>/<path>`. What lies below the path of a service is the platform's to
answer, in the caller's name. `/` and `/-/…` are the platform's own.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from controller.domain.names import AppName
from controller.domain.routes import Api, Route, Service
from controller.web.problems import Kind, Problem


@dataclass(frozen=True)
class Published:
    """One published API, made ready for calls. `credentials` changes whenever anything about the access rules does."""

    api: Api
    prefix: bytes  # "/<app>/<path>"
    credentials: bytes = field(repr=False)

    @property
    def label(self) -> str:
        return self.prefix[1:].decode()


@dataclass(frozen=True)
class Target(Published):
    """An API that a component answers."""

    route: Route


@dataclass(frozen=True)
class ServiceTarget(Published):
    """An API that the platform answers itself."""

    service: Service


@dataclass(frozen=True)
class Forward:
    """To be forwarded to one of the target's upstreams. `path` is what the component is asked for, without query."""

    target: Target
    path: bytes


@dataclass(frozen=True)
class Serve:
    """To be answered by the platform itself once it is known who calls. `path` is what comes after the API's path and
    its slash, decoded."""

    target: ServiceTarget
    path: str


@dataclass(frozen=True)
class Local:
    """The platform's own: answered by the Flask application or by the live endpoints."""


Decision = Forward | Serve | Problem | Local
LOCAL = Local()


@dataclass(frozen=True)
class RouteTable:
    """All that is in force. `targets` and `services` hold published APIs only, so an unpublished one cannot be told
    from none; `usual` are the calls that most requests make, decided in advance."""

    version: int
    targets: dict[tuple[bytes, bytes], Target]
    services: dict[tuple[bytes, bytes], ServiceTarget]
    endpoints: frozenset[str]
    usual: dict[tuple[str, bytes], Forward]

    @classmethod
    def build(cls, version: int, routes: Iterable[Route], services: Iterable[Service] = ()) -> RouteTable:
        routes = tuple(routes)
        targets = {
            (route.app.encode(), api.path.encode()): _target(route, api)
            for route in routes
            for api in route.apis
            if api.published
        }
        own = {
            (service.app.encode(), service.api.path.encode()): _service_target(service)
            for service in services
            if service.api.published
        }
        usual = {
            ("POST", target.prefix + b"/predict"): Forward(target, b"/predict") for target in targets.values()
        }
        endpoints = frozenset(upstream for route in routes for upstream in route.upstreams)
        return cls(version, targets, own, endpoints, usual)


EMPTY_TABLE = RouteTable(0, {}, {}, frozenset(), {})


def _target(route: Route, api: Api) -> Target:
    return Target(api, _prefix(route.app, api), _credentials(route.app, api), route)


def _service_target(service: Service) -> ServiceTarget:
    api = service.api
    return ServiceTarget(api, _prefix(service.app, api), _credentials(service.app, api), service)


def _prefix(app: AppName, api: Api) -> bytes:
    return f"/{app}/{api.path}".encode()


def _credentials(app: AppName, api: Api) -> bytes:
    openid = (api.oidc_issuer, api.oidc_audience, api.oidc_client, api.oidc_claims)
    rules = repr((api.users, api.tokens, openid))
    return hashlib.sha256(f"{app}/{api.path} {rules}".encode()).digest()


# --- paths ------------------------------------------------------------------------------------------------------

_NAME = rb"[A-Za-z0-9][A-Za-z0-9._-]*"

#: What a platform server is asked for: exact paths, then patterns. Values are the methods, as a 405 lists them.
_PATHS: dict[bytes, str] = {
    b"/predict": "POST",
    b"/openapi.json": "GET, HEAD",
    b"/docs": "GET, HEAD",
    b"/v2": "GET, HEAD",
    b"/v2/health/live": "GET, HEAD",
    b"/v2/health/ready": "GET, HEAD",
}
_PATTERNS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"/v2/models/%b(/versions/%b)?(/ready)?" % (_NAME, _NAME)), "GET, HEAD"),
    (re.compile(rb"/v2/models/%b(/versions/%b)?/infer" % (_NAME, _NAME)), "POST"),
)

#: One reading only: no empty segment but a last one, no `.` or `..`, no backslash, control or space.
_CLEAN = re.compile(rb"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@%\x80-\xff-]+)*/?")
#: Escapes that stand for themselves whoever decodes: neither a separator, dot, percent or control nor malformed.
_SAFE_ESCAPE = re.compile(
    rb"%(?:2[0-46-9A-Da-d]|[346][0-9A-Fa-f]|5[0-9ABDEFabdef]|7[0-9A-Ea-e]|[89A-Fa-f][0-9A-Fa-f])"
)


def decide(table: RouteTable, method: str, path: bytes) -> Decision:
    """`path` is the request target before `?`, exactly as it was sent: what is compared is what is forwarded."""
    usual = table.usual.get((method, path))
    if usual is not None:
        return usual
    if path == b"/" or path.startswith(b"/-/") or path == b"/-":
        return LOCAL
    if path[:1] != b"/":
        return Problem(Kind.BAD_REQUEST, "The request target must be a path that starts with /.")
    _, app, *rest = path.split(b"/", 3)
    if not rest:
        return not_found()
    below = b"/" + rest[1] if len(rest) > 1 else b""
    target = table.targets.get((app, rest[0]))
    if target is None:
        service = table.services.get((app, rest[0]))
        return not_found() if service is None else _serve(service, below[1:])
    if target.route.any_path:
        return _any(target, below)
    return _known(target, method, below)


def _any(target: Target, below: bytes) -> Decision:
    if not is_unambiguous(below):
        return Problem(
            Kind.AMBIGUOUS_PATH,
            "Empty segments, '.', '..', backslashes and escaped separators, dots, percent signs or control "
            "characters are refused, because the component might read them differently than the gateway.",
        )
    return Forward(target, below or b"/")


def _known(target: Target, method: str, below: bytes) -> Decision:
    allowed = _PATHS.get(below) or next((m for pattern, m in _PATTERNS if pattern.fullmatch(below)), None)
    if allowed is None or not is_unambiguous(below):
        return not_found()
    if method not in allowed.split(", "):
        return Problem(Kind.METHOD, f"This path takes {allowed.replace(', ', ' and ')}.", allow=allowed)
    return Forward(target, below)


_MALFORMED_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
#: Escapes of a slash and a backslash: whether they separate depends on who decodes, and when.
_ESCAPED_SEPARATOR = re.compile(rb"%(?:2[Ff]|5[Cc])")


def _serve(target: ServiceTarget, raw: bytes) -> Decision:
    """Names in these paths are people's own, so all characters but those that could mislead are let through: decoded
    once, with `+` a plus and `%25` a percent sign."""
    if _MALFORMED_ESCAPE.search(raw):
        return _ambiguous(
            "A percent sign is followed by two hexadecimal digits; one of its own is written %25."
        )
    if _ESCAPED_SEPARATOR.search(raw):
        return _ambiguous(
            "Slashes and backslashes cannot be part of a name, so they cannot be escaped either."
        )
    try:
        path = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return _ambiguous("Escaped bytes must be UTF-8.")
    fault = _fault(path)
    return _ambiguous(fault) if fault else Serve(target, path)


def _fault(path: str) -> str:
    if "\\" in path:
        return "Segments are separated by /, not by a backslash."
    if any(unicodedata.category(char) == "Cc" for char in path):
        return "The path has a control character."
    if not {".", ".."}.isdisjoint(segments := path.split("/")):
        return "Segments . and .. are refused."
    if "" in segments[:-1]:
        return "The path has an empty segment: two slashes in a row."
    return ""


def _ambiguous(detail: str) -> Problem:
    return Problem(Kind.AMBIGUOUS_PATH, detail)


def is_unambiguous(path: bytes) -> bool:
    """Whether every server reads this path alike."""
    if _CLEAN.fullmatch(path) is None:
        return False
    return path.count(b"%") == len(_SAFE_ESCAPE.findall(path))


def not_found() -> Problem:
    return Problem(Kind.NOT_FOUND, "No API is published here.")
