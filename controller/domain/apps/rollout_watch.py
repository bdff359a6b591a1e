"""Watching a version that has just taken over: whether it fails its calls or keeps crashing, so that the app has to go
back to the revision before it. Pure.

A version becomes ready before anybody calls it, so being ready proves little. `rollout.watch` of its component says for
how long its calls and crashes are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.apps.samples import NO_REQUESTS, RequestCounts, grown, request_values
from controller.domain.apps.spec import Rollout
from controller.domain.localizable import Localizable
from controller.domain.names import short
from controller.domain.routing.routes import Route
from controller.domain.units import render_duration

#: Who is said to have rolled back an app if no person has.
AUTOMATIC: Final = "prichal"
LEAST_FAILED: Final = 3  # calls: fewer of them say nothing, however few calls there were
MOST_RESTARTS: Final = 3  # repairs of a container that has ended; at the last of them the version is given up
SETTLE: Final = 1.5  # seconds, as the workers of the gateway write their counts once a second
_LOOKS: Final = 12  # within the time of a watch
_SHORTEST, _LONGEST = 1.0, 10.0  # seconds between two looks


@dataclass(frozen=True)
class RolloutWatch:
    """`version` took over at `since` (Unix seconds) from what `revision`, a release, had declared, when so many calls
    of the component had been answered, and so many of them had failed. `pending` calls were under way then, with the
    version before: as many failures may be its own, and all that is counted until the watch is `settled`."""

    version: str
    since: float
    revision: str
    requests: int = 0
    failed: int = 0
    pending: int = 0
    settled: bool = True


@dataclass(frozen=True)
class FailedRollout:
    """Why the deployment of `revision` was given up after it had succeeded. `replaced` is the newest release of then,
    which may have waited, and until whose successor the rollback holds."""

    revision: str
    message: str
    replaced: str = ""


def counts_of(route: Route, by_api: Mapping[str, RequestCounts]) -> RequestCounts:
    """Return the counts of a component over all its paths. `by_api` has those of each API, as `<app>/<path>`."""
    found = (by_api.get(f"{route.app}/{api.path}", NO_REQUESTS) for api in route.apis)
    return sum(found, NO_REQUESTS)


def watch_of(
    before: RolloutWatch | None,
    route: Route,
    served: str,
    revision: str,
    counts: RequestCounts,
    now: float,
    present: str = "",
) -> RolloutWatch | None:
    """Return the watch of the version in `route`, None if there is nothing to go back to. `served` is the version that
    was in service at the last look, "" if none was, `revision` the release that was in force then, and `present` the
    one that is now, "" if it is the commit of the route. A version that
    follows another one within its watch goes back to what was there before both."""
    if before and before.version == route.fingerprint:
        is_due = not before.settled and now - before.since >= SETTLE
        return _settled(before, counts) if is_due else before
    proven = before.revision if before and before.version == served else revision
    if served in ("", route.fingerprint) or proven in ("", present or route.revision):
        return None
    requests, failed = _totals(counts)
    return RolloutWatch(
        route.fingerprint, now, proven, requests, failed, pending=counts.in_flight, settled=False
    )


def _settled(watch: RolloutWatch, counts: RequestCounts) -> RolloutWatch:
    """Begin to count: what was written down late is there now."""
    requests, failed = _totals(counts)
    pending = max(0, watch.pending - grown(failed, watch.failed))
    return replace(watch, requests=requests, failed=failed, pending=pending, settled=True)


def _totals(counts: RequestCounts) -> tuple[int, int]:
    """Return how many calls were answered, and how many of them failed."""
    values = request_values(counts)
    return int(values["requests"]), int(values["failed"])


def is_over(watch: RolloutWatch, rollout: Rollout, now: float) -> bool:
    """A clock that was set back does not keep a watch for ever."""
    return rollout.watch is None or not 0 <= now - watch.since < rollout.watch


def fault_of(
    watch: RolloutWatch, rollout: Rollout, counts: RequestCounts, restarts: Iterable[float], now: float
) -> str:
    """Return why the version has to go, as a sentence without an end; "" as long as it may stay. `restarts` are the
    times at which containers of the component were repaired."""
    passed = render_duration(max(1.0, round(now - watch.since)))
    crashes = sum(at > watch.since for at in restarts)
    if crashes >= MOST_RESTARTS:
        return Localizable(
            "version {version} ended {crashes} times within {passed} of taking over",
            version=short(watch.version),
            crashes=crashes,
            passed=passed,
        )
    if not watch.settled:
        return ""
    answered, failures = _totals(counts)
    failed = max(0, grown(failures, watch.failed) - watch.pending)
    requests = max(failed, grown(answered, watch.requests))
    if failed < LEAST_FAILED or failed <= rollout.max_errors * requests:
        return ""
    told = Localizable(
        "version {version} failed {failed} of {requests} calls within {passed} of taking over",
        version=short(watch.version),
        failed=failed,
        requests=requests,
        passed=passed,
    )
    return Localizable(
        "{told}, and {max_errors}% may fail", told=told, max_errors=format(rollout.max_errors * 100, ".4g")
    )


def next_look(watch: RolloutWatch, rollout: Rollout, now: float) -> float:
    """Return the seconds until the version should be looked at again."""
    if not watch.settled:
        return max(0.0, watch.since + SETTLE - now)
    left = watch.since + (rollout.watch or 0.0) - now
    return max(0.0, min(left, max(_SHORTEST, min((rollout.watch or 0.0) / _LOOKS, _LONGEST))))
