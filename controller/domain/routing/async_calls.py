"""Calls of components that their callers do not wait for: states, limits, and which waiting call begins next. Pure.

The web process stores and makes these calls (docs/adr/0032-the-web-process-keeps-async-calls.md); the daemon only
signs and sends the webhooks at their end. The states are those of runs, as far as a call has them."""

from __future__ import annotations

import re
from collections.abc import Container, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from controller.domain.names import AppName, ComponentName
from controller.domain.units import rfc3339

#: A component of an app.
Key = tuple[AppName, ComponentName]
Json = dict[str, object]
K = TypeVar("K", bound=Hashable)

#: What a call takes on disk beside its body and result.
OVERHEAD: Final = 2048
_ID = re.compile(r"[0-9a-f]{32}")
LONGEST_PAUSE: Final = 10.0  # seconds until a call that could not begin is tried again
#: Seconds without a route after which a component is taken for removed: a route may be missing for a moment.
ABSENT: Final = 10.0
SMALL: Final = 2**16  # bytes of a result that is kept even if the disk has little space


class CallState(StrEnum):
    """`FAILED`: the function or the request was wrong. `ERROR`: the platform failed, or the container did."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELING = "CANCELING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ERROR = "ERROR"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"

    @property
    def terminal(self) -> bool:
        return self not in ACTIVE and self is not CallState.QUEUED


#: States of calls that a worker makes now.
ACTIVE: Final = frozenset((CallState.RUNNING, CallState.CANCELING))


@dataclass(frozen=True)
class AsyncCall:
    """A call without its body and its result. `api` is the path of the API by which it came, `user` the caller's name,
    "" without one. `status`, `content_type` and `length` are those of the result, 0 and "" as long as there is none."""

    id: str
    app: AppName
    api: str
    component: ComponentName
    user: str
    state: CallState
    reason: str
    message: str
    created: float
    started: float | None
    ended: float | None
    status: int = 0
    content_type: str = ""
    length: int = 0

    @property
    def has_result(self) -> bool:
        return self.status > 0

    def is_visible_to(self, app: AppName, api: str, user: str) -> bool:
        """Return True if that caller of that API has made the call."""
        return (self.app, self.api, self.user) == (app, api, user)


@dataclass(frozen=True)
class EndedCall:
    """A call that is over, as the web process tells the daemon, which sends webhooks. `webhook` is the receiver that
    its caller has named, "" for none."""

    call: AsyncCall
    webhook: str = ""


@dataclass(frozen=True)
class CallLimits:
    """Bounds of calls on this host. `queued` are the waiting ones of one component. `size` and `size_per_app` bound
    bytes on disk, with `result` reserved for each call that runs. `reserve` is the percentage of the disk that stays
    free."""

    running: int
    running_per_app: int
    queued: int
    size: int
    size_per_app: int
    result: int
    keep: float  # seconds that a result is kept, and that a call may wait until it begins
    reserve: float = 0.0

    def takes_calls(self, free: float) -> bool:
        """Return True if calls are accepted and begin while so many percent of the disk are free."""
        return free >= self.reserve

    def keeps_result(self, size: int, free: float) -> bool:
        """Return True if a result of so many bytes is stored. Calls that had begun may use half of the reserve."""
        return size <= SMALL or free >= self.reserve / 2


@dataclass(frozen=True)
class CallLoad:
    """What is stored now: the oldest call of each component that may begin, the numbers of those that run, and the
    bytes of each app. `leaving`: how many of those that run are with an earlier version, whose slots are not those of
    the version in service."""

    waiting: Mapping[Key, int]
    running: Mapping[Key, int]
    sizes: Mapping[AppName, int]
    leaving: Mapping[Key, int] = field(default_factory=dict)


def is_call_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def next_call(load: CallLoad, slots: Mapping[Key, int], limits: CallLimits) -> int | None:
    """Return the number of the waiting call that begins next; None if none may. A free slot goes to the app with the
    fewest calls under way; within it, the oldest one is first. `slots`: how many each component takes at once."""
    by_app = {app: 0 for app, _ in (*load.waiting, *load.running)}
    for (app, _), number in load.running.items():
        by_app[app] += number
    total = sum(by_app.values())
    free = limits.size - sum(load.sizes.values()) - total * limits.result
    if total >= limits.running or free < limits.result:
        return None
    return min(
        (
            (by_app[key[0]], number)
            for key, number in load.waiting.items()
            if load.running.get(key, 0) - load.leaving.get(key, 0) < slots.get(key, 0)
            and by_app[key[0]] < limits.running_per_app
            and load.sizes.get(key[0], 0) + (by_app[key[0]] + 1) * limits.result <= limits.size_per_app
        ),
        default=(0, None),
    )[1]


def absent_since(
    before: Mapping[K, float], stored: Iterable[K], routed: Container[K], now: float
) -> dict[K, float]:
    """Return since when each component, or app, that has calls has had no route. `before` is what was returned the last
    time."""
    return {key: before.get(key, now) for key in stored if key not in routed}


def absent_for_long(since: Mapping[K, float], now: float) -> tuple[K, ...]:
    return tuple(key for key, first in since.items() if now - first >= ABSENT)


def pause(attempts: int) -> float:
    """Return the seconds until a call that could not begin is tried again, after so many attempts."""
    return min(LONGEST_PAUSE, 0.25 * 2.0 ** min(attempts, 10))


# --- how a call ended ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CallEnd:
    state: CallState
    reason: str = ""
    message: str = ""


LOST: Final = CallEnd(
    CallState.ERROR,
    "WorkerLost",
    "The web process ended while the call ran. It may have run, so it was not repeated.",
)
REMOVED: Final = CallEnd(
    CallState.ERROR, "ComponentRemoved", "The component was removed before the call could begin."
)
CANCELED: Final = CallEnd(CallState.CANCELED, "Canceled", "The caller canceled it.")


def expired(keep: float) -> CallEnd:
    return CallEnd(CallState.EXPIRED, "Expired", f"It could not begin within {keep:g} s.")


def end_of(status: int, slug: str = "", detail: str = "") -> CallEnd:
    """Return how a call ended that was answered with this status: by the component, or by the platform with the
    problem `slug`, whose words become the reason."""
    if status < 400:
        return CallEnd(CallState.SUCCEEDED)
    if not slug:
        return CallEnd(CallState.FAILED, "HttpStatus", f"The component answered {status}.")
    is_code = status < 500 or status in (504, 507)  # too slow, or too large
    return CallEnd(CallState.FAILED if is_code else CallState.ERROR, _reason(slug), detail)


def _reason(slug: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in slug.split("-"))


# --- documents -----------------------------------------------------------------------------------------------------


def call_summary(call: AsyncCall) -> Json:
    """Return what the API and webhooks say alike about a call."""
    result = {"status": call.status, "contentType": call.content_type, "size": call.length}
    return {
        "id": call.id,
        "component": call.component,
        "state": call.state,
        "reason": call.reason,
        "message": call.message,
        "created": rfc3339(call.created),
        "started": rfc3339(call.started),
        "ended": rfc3339(call.ended),
        "user": call.user,
        "result": result if call.has_result else None,
    }


def call_links(call: AsyncCall) -> Json:
    place = f"/{call.app}/{call.api}/calls/{call.id}"
    return {"self": place, "result": f"{place}/result"}


def waiting_by_app(waiting: Iterable[tuple[AppName, ComponentName, int]]) -> dict[AppName, int]:
    """Return how many calls wait for the component of each app that has the most."""
    found: dict[AppName, int] = {}
    for app, _, number in waiting:
        found[app] = max(found.get(app, 0), number)
    return found
