"""Decides what answers a request, or why nothing does. Pure: it uses a table of routes and services, and the
request's method and path. The gateway calls it for every request, so the table is prepared as far as
possible.

URLs: `/<app>/<path>/predict`, `/openapi.json`, `/docs` and the Open Inference Protocol below `/v2`, OpenAI's
API below `/v1`; for components with their own server any method and path below `/<app>/<path>`. The platform answers
what is below the path of a service, on behalf of the caller. `/` and `/-/…` belong to the platform."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from urllib.parse import unquote_to_bytes

from controller.domain.names import AppName
from controller.domain.routing.async_calls import Key
from controller.domain.routing.routes import Api, Route, Service
from controller.web.gateway.cors import CorsPolicy
from controller.web.problems import HttpProblem, ProblemDialect, ProblemKind, method_problem


@dataclass(frozen=True)
class PublishedApi:
    """A published API, prepared for calls. `credentials` changes whenever anything about the access rules does.
    `reserved` are the names in the credentials of all APIs of the app, which no issuer's account gets."""

    api: Api
    prefix: bytes  # "/<app>/<path>"
    credentials: bytes = field(repr=False)
    reserved: frozenset[str] = field(default=frozenset(), repr=False, kw_only=True)

    @cached_property
    def label(self) -> str:
        return self.prefix[1:].decode()

    @cached_property
    def key(self) -> tuple[bytes, bytes]:
        """Where tables have it: app and path."""
        app, path = self.prefix[1:].split(b"/")
        return app, path


@dataclass(frozen=True)
class UpstreamTarget(PublishedApi):
    """An API that a component answers."""

    route: Route


@dataclass(frozen=True)
class ServiceTarget(PublishedApi):
    """An API that the platform answers itself."""

    service: Service


@dataclass(frozen=True)
class ForwardCall:
    """The request is forwarded to one of the target's upstreams. `path` is the component's, without query."""

    target: UpstreamTarget
    path: bytes


@dataclass(frozen=True)
class ServeService:
    """The platform itself answers the request after authentication. `path` is the rest after the API's path
    and its slash, decoded."""

    target: ServiceTarget
    path: str


class CallPart(StrEnum):
    """What a request for async calls is about: the caller's calls, or one of them, its result or its changes."""

    LIST = ""
    CALL = "call"
    RESULT = "result"
    EVENTS = "events"

    @property
    def methods(self) -> str:
        return "GET, HEAD, DELETE" if self is CallPart.CALL else "GET, HEAD"


@dataclass(frozen=True)
class CallLookup:
    """The gateway itself answers after authentication about async calls of the target. `id` is "" for the list."""

    target: UpstreamTarget
    id: str
    part: CallPart


@dataclass(frozen=True)
class PlatformEndpoint:
    """The Flask application or the live endpoints answer the request."""


Decision = ForwardCall | CallLookup | ServeService | HttpProblem | PlatformEndpoint
LOCAL = PlatformEndpoint()


@dataclass(frozen=True)
class Router:
    """All current routes. `targets` and `services` have published APIs only, so an unpublished one looks like
    none; `usual` are the most frequent calls, decided in advance; `cors` are the rules of APIs that pages of
    other origins may call. `components` are those that have a route, and `apps` those that have any."""

    version: int
    targets: dict[tuple[bytes, bytes], UpstreamTarget]
    services: dict[tuple[bytes, bytes], ServiceTarget]
    endpoints: frozenset[str]
    usual: dict[tuple[str, bytes], ForwardCall]
    cors: dict[tuple[bytes, bytes], CorsPolicy]
    components: frozenset[Key] = frozenset()
    apps: frozenset[AppName] = frozenset()

    @classmethod
    def build(cls, version: int, routes: Iterable[Route], services: Iterable[Service] = ()) -> Router:
        routes, services = tuple(routes), tuple(services)
        declared: dict[AppName, set[str]] = {}
        for app, api in (
            *((r.app, api) for r in routes for api in r.apis),
            *((s.app, s.api) for s in services),
        ):
            declared.setdefault(app, set()).update(name for name, _ in (*api.users, *api.tokens))
        reserved = {app: frozenset(names) for app, names in declared.items()}
        targets = {
            (route.app.encode(), api.path.encode()): _target(route, api, reserved[route.app])
            for route in routes
            for api in route.apis
            if api.published
        }
        own = {
            (service.app.encode(), service.api.path.encode()): _service_target(service, reserved[service.app])
            for service in services
            if service.api.published
        }
        usual = {
            ("POST", target.prefix + b"/predict"): ForwardCall(target, b"/predict")
            for target in targets.values()
        }
        endpoints = frozenset(upstream for route in routes for upstream in route.upstreams)
        published: dict[tuple[bytes, bytes], PublishedApi] = {**targets, **own}
        cors = {
            key: CorsPolicy.of(one.api.cors) for key, one in published.items() if one.api.cors is not None
        }
        components = frozenset((route.app, route.component) for route in routes)
        apps = frozenset(declared) | {app for app, _ in components}
        return cls(version, targets, own, endpoints, usual, cors, components, apps)

    def cors_of(self, path: bytes) -> CorsPolicy | None:
        """Return the CORS rule of the API that a request target lies in, even if there is nothing at it."""
        if not self.cors:
            return None
        segments = path.split(b"/", 3)
        return self.cors.get((segments[1], segments[2])) if len(segments) > 2 else None


EMPTY_TABLE = Router(0, {}, {}, frozenset(), {}, {})


def _target(route: Route, api: Api, reserved: frozenset[str]) -> UpstreamTarget:
    return UpstreamTarget(
        api, _prefix(route.app, api), _credentials(route.app, api), route, reserved=reserved
    )


def _service_target(service: Service, reserved: frozenset[str]) -> ServiceTarget:
    api = service.api
    credentials = _credentials(service.app, api)
    return ServiceTarget(api, _prefix(service.app, api), credentials, service, reserved=reserved)


def _prefix(app: AppName, api: Api) -> bytes:
    return f"/{app}/{api.path}".encode()


def _credentials(app: AppName, api: Api) -> bytes:
    openid = (api.oidc_issuer, api.oidc_audience, api.oidc_client, api.oidc_claims, api.oidc_username)
    rules = repr((api.users, api.tokens, openid))
    return hashlib.sha256(f"{app}/{api.path} {rules}".encode()).digest()


# --- paths ------------------------------------------------------------------------------------------------------

_NAME = rb"[A-Za-z0-9][A-Za-z0-9._-]*"

#: The paths of a platform server: exact ones, then patterns. Values are the methods, as a 405 lists them.
METHODS_OF: dict[bytes, str] = {
    b"/predict": "POST",
    b"/openapi.json": "GET, HEAD",
    b"/docs": "GET, HEAD",
    b"/v2": "GET, HEAD",
    b"/v2/health/live": "GET, HEAD",
    b"/v2/health/ready": "GET, HEAD",
    b"/v2/repository/index": "POST",
    b"/v1/models": "GET, HEAD",
    b"/v1/chat/completions": "POST",
}
PATTERNS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"/v2/models/%b(/versions/%b)?(/ready)?" % (_NAME, _NAME)), "GET, HEAD"),
    (re.compile(rb"/v2/models/%b(/versions/%b)?/infer" % (_NAME, _NAME)), "POST"),
    (re.compile(rb"/v1/models/%b" % _NAME), "GET, HEAD"),
)

_CALL = re.compile(rb"/calls(?:/([A-Za-z0-9]{1,64})(?:/(result|events))?)?")
#: Calls whose callers need not wait for the answer.
_ASYNC = re.compile(rb"/predict|/v2/models/%b(?:/versions/%b)?/infer" % (_NAME, _NAME))

#: Unambiguous paths: no empty segment except the last one, no `.` or `..`, no backslash, control character or space.
_CLEAN = re.compile(rb"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@%\x80-\xff-]+)*/?")
#: Escapes that every decoder reads alike: not malformed, and no separator, dot, percent sign or control character.
_SAFE_ESCAPE = re.compile(
    rb"%(?:2[0-46-9A-Da-d]|[346][0-9A-Fa-f]|5[0-9ABDEFabdef]|7[0-9A-Ea-e]|[89A-Fa-f][0-9A-Fa-f])"
)


def find_route(table: Router, method: str, path: bytes) -> Decision:
    """Find what answers. `path` is the request target before `?`, exactly as it was sent, so that the
    compared path is the forwarded one."""
    usual = table.usual.get((method, path))
    if usual is not None:
        return usual
    if path == b"/" or path.startswith(b"/-/") or path == b"/-":
        return LOCAL
    if path[:1] != b"/":
        return HttpProblem(ProblemKind.BAD_REQUEST, "The request target must be a path that starts with /.")
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


_PROTOCOL = re.compile(rb"/(?!-/)[^/]+/[^/]+/(v1|v2)(?:/.*)?", re.DOTALL)
_DIALECTS = {b"v1": ProblemDialect.OPENAI, b"v2": ProblemDialect.OPEN_INFERENCE}


def dialect_of(path: bytes) -> ProblemDialect:
    """Return whose clients call this path, at any API."""
    found = _PROTOCOL.fullmatch(path)
    return ProblemDialect.OURS if found is None else _DIALECTS[found[1]]


def _any(target: UpstreamTarget, below: bytes) -> Decision:
    if not is_unambiguous(below):
        return HttpProblem(
            ProblemKind.AMBIGUOUS_PATH,
            "Empty segments, '.', '..', backslashes and escaped separators, dots, percent signs or control "
            "characters are refused, because the component might read them differently than the gateway.",
        )
    return ForwardCall(target, below or b"/")


def may_be_async(call: ForwardCall, method: str) -> bool:
    """Return True if the caller of this call may ask for its result later. A server of the component's own decides
    about that itself."""
    return method == "POST" and not call.target.route.any_path and _ASYNC.fullmatch(call.path) is not None


def _known(target: UpstreamTarget, method: str, below: bytes) -> Decision:
    if found := _CALL.fullmatch(below):
        part = CallPart((found[2] or b"call").decode()) if found[1] else CallPart.LIST
        if method in part.methods.split(", "):
            return CallLookup(target, (found[1] or b"").decode(), part)
        return _not_taken(part.methods)
    allowed = METHODS_OF.get(below) or next((m for pattern, m in PATTERNS if pattern.fullmatch(below)), None)
    if allowed is None or not is_unambiguous(below):
        return not_found()
    if method not in allowed.split(", "):
        return _not_taken(allowed)
    return ForwardCall(target, below)


def _not_taken(allowed: str) -> HttpProblem:
    return method_problem(f"This path takes {allowed.replace(', ', ' and ')}.", allowed)


_MALFORMED_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def _serve(target: ServiceTarget, raw: bytes) -> Decision:
    """Route to a service. Names in these paths belong to users, so all characters except ambiguous ones are
    accepted: they are decoded once, and `+` is a plus and `%25` a percent sign. An escaped slash separates
    segments like any other, since no name can have one: clients that were generated from a description escape
    the slashes of a path parameter."""
    if _MALFORMED_ESCAPE.search(raw):
        return _ambiguous(
            "A percent sign is followed by two hexadecimal digits; one of its own is written %25."
        )
    try:
        path = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return _ambiguous("Escaped bytes must be UTF-8.")
    fault = _fault(path)
    return _ambiguous(fault) if fault else ServeService(target, path)


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


def _ambiguous(detail: str) -> HttpProblem:
    return HttpProblem(ProblemKind.AMBIGUOUS_PATH, detail)


def is_unambiguous(path: bytes) -> bool:
    """Return True if every server reads this path alike."""
    if _CLEAN.fullmatch(path) is None:
        return False
    return path.count(b"%") == len(_SAFE_ESCAPE.findall(path))


def not_found() -> HttpProblem:
    return HttpProblem(ProblemKind.NOT_FOUND, "No API is published here.")
