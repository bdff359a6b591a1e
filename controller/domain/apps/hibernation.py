"""Decides when a component hibernates: after its idle time without a call. Pure; the reconciler calls it.

Only a version in service hibernates: it has been ready, so starting it again is an ordinary start. A version
that is new or does not start is not idle, even without calls."""

from __future__ import annotations

from controller.domain.apps.desired import DesiredComponent
from controller.domain.routing.routes import Route

#: Seconds that the report of a call may take from the gateway to here.
NEWS_DELAY = 2.0


def sleeps_in(
    component: DesiredComponent, route: Route | None, last_used: float | None, now: float
) -> float | None:
    """Return the seconds until the component may hibernate, 0 if it may now, None if it may not. `last_used`
    is the time of the last call, or of the last change of its route, in Unix seconds; None if it is not
    known."""
    idle_after = component.spec.idle_after
    if idle_after is None or route is None or not route.in_service:
        return None
    if route.fingerprint not in component.fingerprints:
        return None
    if last_used is None:
        return 0.0 if route.asleep else None
    return max(0.0, last_used + idle_after + NEWS_DELAY - now)
