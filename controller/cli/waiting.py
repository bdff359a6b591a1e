"""Wait for a request to finish while its events are shown, and follow events in general."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from controller.cli.output import console, event_line, label
from controller.cli.session import is_running
from controller.domain.apps.requests import Outcome, ReconcileRequest, RequestState, Trigger
from controller.domain.apps.status import Event, EventType
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason

if TYPE_CHECKING:
    from controller.domain.names import AppName
    from controller.ports import Store

T = TypeVar("T")

_LOOK = 0.05  # seconds between checks of the database's change counter
_PAUSE = 0.2  # the same, for what people look at
_STALE = 2.0  # seconds after which a state without a change is looked at again
#: Outcomes that are not final, with the seconds until another pass is requested. We request it rather than
#: look for the daemon's own next request, which may finish before we see it; an extra pass changes nothing.
_PASSING = {Outcome.SUPERSEDED: 0.0, Outcome.WAITING: 1.0}


def last_event(store: Store, app: AppName | None) -> int:
    newest = store.events.list(app, limit=1)
    return newest[-1].id if newest else 0


def follow(store: Store, app: AppName | None, after: int) -> Iterator[tuple[Event, ...]]:
    """Yield batches of events newer than the event `after`, forever. Batches are empty when there is nothing
    new, so that the caller can do its own checks.
    """
    while True:
        events = store.events.list(app, after) if after else store.events.list(app, limit=1000)
        if events:
            after = events[-1].id
        yield events
        time.sleep(_LOOK)


def looks(store: Store, look: Callable[[], T]) -> Iterator[T]:
    """Yield what `look` returns at once and after each change of the state, forever. The state changes about
    once a second while the daemon runs; without a change it is looked at again after `_STALE` seconds, since
    the daemon may have ended.
    """
    while True:
        deadline = time.monotonic() + _STALE
        yield look()
        while not store.changed() and time.monotonic() < deadline:
            time.sleep(_PAUSE)


def wait_for(store: Store, request: int, timeout: float, after: int) -> ReconcileRequest:
    """Return the finished request; its events are shown on stderr meanwhile. Raises Stalled `TimedOut` after
    `timeout` seconds, and `NotRunning` if the daemon does not run.
    """
    found = get_request(store, request)
    deadline = time.monotonic() + timeout
    with _progress(f"waiting for {found.app}") as show:
        for events in follow(store, found.app, after):
            for event in events:
                show(event)
            found = get_request(store, request)
            if found.state is RequestState.DONE and not events:
                if found.outcome not in _PASSING:
                    return found
                request = store.requests.enqueue(
                    found.app, Trigger.RETRY, time.time() + _PASSING[found.outcome]
                )
            if time.monotonic() > deadline:
                message = f"{found.app} is not done after {timeout:g} s; follow it with: prichal events {found.app} -f"
                raise Stalled(Reason.TIMED_OUT, message)
            if not is_running(store):
                message = (
                    "the daemon does not run; it handles the request once you start it with: prichal daemon"
                )
                raise Stalled(Reason.NOT_RUNNING, message)
    raise AssertionError("follow never ends")


def get_request(store: Store, request: int) -> ReconcileRequest:
    found = store.requests.get(request)
    if found is None:
        raise Stalled(Reason.UNKNOWN_REQUEST, f"request {request} does not exist, or is over and was deleted")
    return found


@contextmanager
def _progress(title: str) -> Iterator[Callable[[Event], None]]:
    """Show events as lines, with a live status line below them on a terminal. rich shows no status line in a
    pipe.
    """
    out = console(sys.stderr)
    with out.status(title) as status:

        def show(event: Event) -> None:
            out.print(
                label(event_line(event)),
                soft_wrap=True,
                style="yellow" if event.type is EventType.WARNING else None,
            )
            status.update(label(f"{title}: {event.reason}"))

        yield show
