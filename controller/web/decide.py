"""Which component answers a request, or why none does. Pure: a table made of routes, and the request's method and
path; called by the gateway for every request, so everything that can be made ready is made when the table is built.

URLs: `/<app>/<path>/predict`, `/openapi.json`, `/docs` and the Open Inference Protocol below `/v2`; for components with
their own server any method and path below `/<app>/<path>`. `/` and `/-/…` are the platform's own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.domain.routes import Api, Route
from controller.web.problems import Kind, Problem


@dataclass(frozen=True)
class Target:
    """One published API, made ready for calls. `credentials` changes whenever anything about the access rules does."""

    route: Route
    api: Api
    prefix: bytes  # "/<app>/<path>"
    credentials: bytes = field(repr=False)

    @property
    def label(self) -> str:
        return f"{self.route.app}/{self.api.path}"


@dataclass(frozen=True)
class Forward:
    """To be forwarded to one of the target's upstreams. `path` is what the component is asked for, without query."""

    target: Target
    path: bytes


@dataclass(frozen=True)
class Local:
    """The platform's own: answered by the Flask application or by the live endpoints."""


Decision = Forward | Problem | Local
LOCAL = Local()


@dataclass(frozen=True)
class RouteTable:
    """All routes in force. `targets` holds published APIs only, so an unpublished one cannot be told from none;
    `usual` are the calls that most requests make, decided in advance."""

    version: int
    targets: dict[tuple[bytes, bytes], Target]
    endpoints: frozenset[str]
    usual: dict[tuple[str, bytes], Forward]

    @classmethod
    def build(cls, version: int, routes: Iterable[Route]) -> RouteTable:
        routes = tuple(routes)
        targets = {
            (route.app.encode(), api.path.encode()): _target(route, api)
            for route in routes
            for api in route.apis
            if api.published
        }
        usual = {
            ("POST", target.prefix + b"/predict"): Forward(target, b"/predict") for target in targets.values()
        }
        endpoints = frozenset(upstream for route in routes for upstream in route.upstreams)
        return cls(version, targets, endpoints, usual)


EMPTY_TABLE = RouteTable(0, {}, frozenset(), {})


def _target(route: Route, api: Api) -> Target:
    openid = (api.oidc_issuer, api.oidc_audience, api.oidc_client, api.oidc_claims)
    rules = repr((api.users, api.tokens, openid))
    digest = hashlib.sha256(f"{route.app}/{api.path} {rules}".encode()).digest()
    return Target(route, api, f"/{route.app}/{api.path}".encode(), digest)


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
    target = table.targets.get((app, rest[0])) if rest else None
    if target is None:
        return not_found()
    below = b"/" + rest[1] if len(rest) > 1 else b""
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


def is_unambiguous(path: bytes) -> bool:
    """Whether every server reads this path alike."""
    if _CLEAN.fullmatch(path) is None:
        return False
    return path.count(b"%") == len(_SAFE_ESCAPE.findall(path))


def not_found() -> Problem:
    return Problem(Kind.NOT_FOUND, "No API is published here.")
