"""The act of each route below `/-/`: the one table by which the Flask application and the live endpoints admit
callers. A route without a row here is refused, and a test finds it (tests/unit/web/auth/test_rules.py).

Roles and scopes that an act needs are in `domain/people/roles.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.domain.people.roles import Act


@dataclass(frozen=True)
class RouteRule:
    """`told` is the word for this act in the audit; empty where nothing changes, or the view records it itself.
    `is_page`: a browser gets a page, which the tests open in every language."""

    act: Act
    told: str = ""
    is_page: bool = False


RULES: Final[Mapping[tuple[str, str], RouteRule]] = {
    ("GET", "/"): RouteRule(Act.PUBLIC),
    ("GET", "/-/healthz"): RouteRule(Act.PUBLIC),
    ("GET", "/-/readyz"): RouteRule(Act.PUBLIC),
    ("GET", "/-/login"): RouteRule(Act.PUBLIC, is_page=True),
    ("POST", "/-/login"): RouteRule(Act.PUBLIC),
    ("GET", "/-/language/<language>"): RouteRule(Act.PUBLIC),
    ("GET", "/-/static/<version>/<file>"): RouteRule(Act.PUBLIC),
    ("GET", "/-/login/oidc/<issuer>"): RouteRule(Act.PUBLIC),
    ("GET", "/-/login/oidc/<issuer>/callback"): RouteRule(Act.PUBLIC),
    ("POST", "/-/login/oidc/<issuer>/logout"): RouteRule(Act.SIGNED),
    ("POST", "/-/hooks/<repository>"): RouteRule(Act.SIGNED),
    ("GET", "/-/hooks/<repository>/<delivery>"): RouteRule(Act.SIGNED),
    ("GET", "/-/git/<hosted>.git/info/refs"): RouteRule(Act.SEE),
    ("POST", "/-/git/<hosted>.git/git-upload-pack"): RouteRule(Act.SEE),
    ("POST", "/-/git/<hosted>.git/git-receive-pack"): RouteRule(Act.STEER, "push"),
    ("GET", "/-/"): RouteRule(Act.LIST, is_page=True),
    ("GET", "/-/status"): RouteRule(Act.LIST),
    ("GET", "/-/apps"): RouteRule(Act.LIST, is_page=True),
    ("GET", "/-/apps/<name>"): RouteRule(Act.SEE, is_page=True),
    ("POST", "/-/apps"): RouteRule(Act.CREATE, "app create"),
    ("DELETE", "/-/apps/<name>"): RouteRule(Act.DELETE, "app delete"),
    ("GET", "/-/templates"): RouteRule(Act.LIST, is_page=True),
    ("GET", "/-/orders/<id>"): RouteRule(Act.LIST, is_page=True),
    ("GET", "/-/new"): RouteRule(Act.CREATE, is_page=True),
    ("GET", "/-/new/<template>"): RouteRule(Act.CREATE, is_page=True),
    ("POST", "/-/new/<template>"): RouteRule(Act.CREATE, "app create"),
    ("GET", "/-/apps/<name>/delete"): RouteRule(Act.DELETE, is_page=True),
    ("POST", "/-/apps/<name>/delete"): RouteRule(Act.DELETE, "app delete"),
    ("GET", "/-/apps/<name>/events"): RouteRule(Act.SEE),
    ("GET", "/-/apps/<name>/components/<component>"): RouteRule(Act.SEE, is_page=True),
    ("GET", "/-/apps/<name>/components/<component>/series"): RouteRule(Act.SEE),
    ("POST", "/-/apps/<name>/components/<component>/passes"): RouteRule(Act.SEE, "try"),
    ("GET", "/-/apps/<name>/requests/<int:request>"): RouteRule(Act.SEE),
    ("GET", "/-/apps/<name>/pipelines"): RouteRule(Act.SEE),
    ("GET", "/-/apps/<name>/pipelines/<pipeline>"): RouteRule(Act.SEE, is_page=True),
    ("POST", "/-/apps/<name>/pipelines/<pipeline>/runs"): RouteRule(Act.STEER, "run start"),
    ("GET", "/-/apps/<name>/pipelines/<pipeline>/runs/<id>"): RouteRule(Act.SEE, is_page=True),
    ("POST", "/-/apps/<name>/pipelines/<pipeline>/runs/<id>/cancel"): RouteRule(Act.STEER, "run cancel"),
    ("POST", "/-/apps/<name>/pipelines/<pipeline>/runs/<id>/retry"): RouteRule(Act.STEER, "run retry"),
    ("GET", "/-/apps/<name>/pipelines/<pipeline>/runs/<id>/logs/<stage>"): RouteRule(Act.SEE),
    ("GET", "/-/apps/<name>/files"): RouteRule(Act.SEE, is_page=True),
    ("GET", "/-/apps/<name>/files/<path:target>"): RouteRule(Act.SEE, is_page=True),
    ("PUT", "/-/apps/<name>/files/<path:target>"): RouteRule(Act.STEER, "file upload"),
    ("POST", "/-/apps/<name>/files/<path:target>"): RouteRule(Act.STEER, "file change"),
    ("DELETE", "/-/apps/<name>/files/<path:target>"): RouteRule(Act.STEER, "file rm"),
    ("GET", "/-/apps/<name>/logs"): RouteRule(Act.SEE),
    ("GET", "/-/apps/<name>/components/<component>/logs"): RouteRule(Act.SEE),
    ("GET", "/-/apps/<name>/history"): RouteRule(Act.SEE),
    ("GET", "/-/apps/<name>/diff"): RouteRule(Act.SEE, is_page=True),
    ("GET", "/-/apps/<name>/plan"): RouteRule(Act.SEE),
    ("GET", "/-/events"): RouteRule(Act.LIST),
    ("POST", "/-/apps/<name>/reconcile"): RouteRule(Act.STEER, "reconcile"),
    ("POST", "/-/apps/<name>/retry"): RouteRule(Act.STEER, "retry"),
    ("POST", "/-/apps/<name>/suspend"): RouteRule(Act.STEER, "suspend"),
    ("POST", "/-/apps/<name>/resume"): RouteRule(Act.STEER, "resume"),
    ("POST", "/-/apps/<name>/rollback"): RouteRule(Act.STEER, "rollback"),
    ("POST", "/-/apps/<name>/approve"): RouteRule(Act.STEER, "approve"),
    ("GET", "/-/apps/<name>/secrets"): RouteRule(Act.STEER, is_page=True),
    ("POST", "/-/apps/<name>/secrets"): RouteRule(Act.STEER, "secret set"),
    ("POST", "/-/apps/<name>/secrets/<secret>/remove"): RouteRule(Act.STEER, "secret rm"),
    ("PUT", "/-/apps/<name>/secrets/<secret>"): RouteRule(Act.STEER, "secret set"),
    ("DELETE", "/-/apps/<name>/secrets/<secret>"): RouteRule(Act.STEER, "secret rm"),
    ("POST", "/-/apps/<name>/age-keys"): RouteRule(Act.STEER, "secret key"),
    ("GET", "/-/apps/<name>/notifications"): RouteRule(Act.SEE, is_page=True),
    ("POST", "/-/apps/<name>/notifications/<notification>/test"): RouteRule(Act.STEER, "notify test"),
    ("GET", "/-/previews"): RouteRule(Act.LIST),
    ("GET", "/-/apps/<name>/previews"): RouteRule(Act.SEE),
    ("POST", "/-/apps/<name>/previews/<preview>/keep"): RouteRule(Act.STEER, "preview keep"),
    ("POST", "/-/apps/<name>/previews/<preview>/remove"): RouteRule(Act.STEER, "preview rm"),
    ("GET", "/-/images"): RouteRule(Act.ADMINISTER),
    ("GET", "/-/images/<id>"): RouteRule(Act.ADMINISTER),
    ("POST", "/-/images/prune"): RouteRule(Act.ADMINISTER, "image prune"),
    ("GET", "/-/metrics"): RouteRule(Act.WATCH),
    ("POST", "/-/device"): RouteRule(Act.PUBLIC),
    ("POST", "/-/device/token"): RouteRule(Act.PUBLIC),
    ("GET", "/-/device"): RouteRule(Act.OWN, is_page=True),
    ("POST", "/-/device/answer"): RouteRule(Act.OWN, "device login"),
    ("GET", "/-/me"): RouteRule(Act.SELF),
    ("POST", "/-/me/logout"): RouteRule(Act.SELF, "token revoke"),
    ("POST", "/-/logout"): RouteRule(Act.OWN, "logout"),
    ("GET", "/-/sessions"): RouteRule(Act.OWN, is_page=True),
    ("POST", "/-/sessions/<id>/revoke"): RouteRule(Act.OWN, "session revoke"),
    ("GET", "/-/tokens"): RouteRule(Act.OWN, is_page=True),
    ("POST", "/-/tokens"): RouteRule(Act.OWN, "token add"),
    ("POST", "/-/tokens/<id>/revoke"): RouteRule(Act.OWN, "token revoke"),
    ("GET", "/-/users"): RouteRule(Act.ADMINISTER, is_page=True),
    ("POST", "/-/users"): RouteRule(Act.ADMINISTER, "user add"),
    ("POST", "/-/users/<id>/link"): RouteRule(Act.ADMINISTER, "user passwd"),
    ("POST", "/-/users/<id>/remove"): RouteRule(Act.ADMINISTER, "user rm"),
    ("POST", "/-/users/<id>/roles"): RouteRule(Act.ADMINISTER, "role add"),
    ("POST", "/-/users/<id>/roles/revoke"): RouteRule(Act.ADMINISTER, "role rm"),
    ("GET", "/-/health"): RouteRule(Act.ADMINISTER, is_page=True),
    ("GET", "/-/audit"): RouteRule(Act.ADMINISTER, is_page=True),
}


def rule_of(method: str, route: str) -> RouteRule | None:
    """Return the rule of a route for a method. `HEAD` counts as `GET`, and `OPTIONS` as any method of the route."""
    if method == "OPTIONS":
        return next((rule for (_, path), rule in RULES.items() if path == route), None)
    return RULES.get(("GET" if method == "HEAD" else method, route))
