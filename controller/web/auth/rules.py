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
    """`told` is the word for this act in the audit; empty where nothing changes, or the view records it itself."""

    act: Act
    told: str = ""


RULES: Final[Mapping[tuple[str, str], RouteRule]] = {
    ("GET", "/"): RouteRule(Act.PUBLIC),
    ("GET", "/-/healthz"): RouteRule(Act.PUBLIC),
    ("GET", "/-/readyz"): RouteRule(Act.PUBLIC),
    ("GET", "/-/login"): RouteRule(Act.PUBLIC),
    ("POST", "/-/login"): RouteRule(Act.PUBLIC),
    ("POST", "/-/hooks/<repository>"): RouteRule(Act.SIGNED),
    ("GET", "/-/hooks/<repository>/<delivery>"): RouteRule(Act.SIGNED),
    ("GET", "/-/"): RouteRule(Act.LIST),
    ("GET", "/-/status"): RouteRule(Act.LIST),
    ("GET", "/-/apps"): RouteRule(Act.LIST),
    ("GET", "/-/apps/<name>"): RouteRule(Act.SEE),
    ("GET", "/-/apps/<name>/events"): RouteRule(Act.SEE),
    ("POST", "/-/apps/<name>/reconcile"): RouteRule(Act.STEER, "reconcile"),
    ("POST", "/-/apps/<name>/suspend"): RouteRule(Act.STEER, "suspend"),
    ("POST", "/-/apps/<name>/resume"): RouteRule(Act.STEER, "resume"),
    ("POST", "/-/apps/<name>/approve"): RouteRule(Act.STEER, "approve"),
    ("GET", "/-/metrics"): RouteRule(Act.WATCH),
    ("POST", "/-/logout"): RouteRule(Act.OWN, "logout"),
    ("GET", "/-/sessions"): RouteRule(Act.OWN),
    ("POST", "/-/sessions/<id>/revoke"): RouteRule(Act.OWN, "session revoke"),
    ("GET", "/-/tokens"): RouteRule(Act.OWN),
    ("POST", "/-/tokens"): RouteRule(Act.OWN, "token add"),
    ("POST", "/-/tokens/<id>/revoke"): RouteRule(Act.OWN, "token revoke"),
    ("GET", "/-/audit"): RouteRule(Act.ADMINISTER),
}


def rule_of(method: str, route: str) -> RouteRule | None:
    """Return the rule of a route for a method. `HEAD` counts as `GET`, and `OPTIONS` as any method of the route."""
    if method == "OPTIONS":
        return next((rule for (_, path), rule in RULES.items() if path == route), None)
    return RULES.get(("GET" if method == "HEAD" else method, route))
