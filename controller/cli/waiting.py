"""Waiting for a request to be done while its events are shown, and following events in general."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from controller.cli.output import console, event_line
from controller.cli.session import is_running
from controller.domain.errors import Stalled
from controller.domain.status import Event, Request, RequestState

if TYPE_CHECKING:
    from controller.domain.names import AppName
    from controller.ports import Store

_LOOK = 0.05  # seconds between looks at the database's change counter
#: Outcomes that are no end, with the seconds until the next pass is asked for. Asked for, not looked for: the daemon's
#: own next request may be done before we see it, and one pass too many changes nothing.
_PASSING = {"Superseded": 0.0, "Waiting": 1.0}


def last_event(store: Store, app: AppName | None) -> int:
    newest = store.events.list(app, limit=1)
    return newest[-1].id if newest else 0


def follow(store: Store, app: AppName | None, after: int) -> Iterator[tuple[Event, ...]]:
    """Batches of events newer than the event `after`, for ever; an empty one at every look without news, so that
    the caller can do its own checks."""
    while True:
        events = store.events.list(app, after) if after else store.events.list(app, limit=1000)
        if events:
            after = events[-1].id
        yield events
        time.sleep(_LOOK)


def wait_for(store: Store, request: int, timeout: float, after: int) -> Request:
    """The request as it ended, its events shown on stderr on the way. Stalled `TimedOut` after `timeout` seconds,
    `NotRunning` if nobody works on it."""
    found = _get(store, request)
    deadline = time.monotonic() + timeout
    with _progress(f"waiting for {found.app}") as show:
        for events in follow(store, found.app, after):
            for event in events:
                show(event)
            found = _get(store, request)
            if found.state is RequestState.DONE and not events:
                if found.outcome not in _PASSING:
                    return found
                request = store.requests.enqueue(found.app, "retry", time.time() + _PASSING[found.outcome])
            if time.monotonic() > deadline:
                message = (
                    f"{found.app} is not done after {timeout:g} s; it goes on: prichal events {found.app} -f"
                )
                raise Stalled("TimedOut", message)
            if not is_running(store):
                message = "the daemon does not run; the request is kept until it does: prichal daemon"
                raise Stalled("NotRunning", message)
    raise AssertionError("follow never ends")


def _get(store: Store, request: int) -> Request:
    found = store.requests.get(request)
    if found is None:
        raise Stalled("UnknownRequest", f"request {request} is not known (any more)")
    return found


@contextmanager
def _progress(title: str) -> Iterator[Callable[[Event], None]]:
    """Events as lines, below them on a terminal a line that moves. rich shows nothing moving into a pipe."""
    out = console(sys.stderr)
    with out.status(title) as status:

        def show(event: Event) -> None:
            out.print(
                event_line(event), soft_wrap=True, style="yellow" if event.type.value == "Warning" else None
            )
            status.update(f"{title}: {event.reason}")

        yield show
