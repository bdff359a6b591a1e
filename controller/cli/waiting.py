"""Wait for a request to finish while its events are shown, and follow events in general."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from controller.cli.output import console, event_line, label
from controller.client.platform.api import AppRequest
from controller.domain.apps.requests import Outcome, RequestState
from controller.domain.apps.status import EventType
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason

if TYPE_CHECKING:
    from controller.client.platform import Document, Platform

T = TypeVar("T")

_STALE = 2.0  # seconds after which a state without a change is looked at again
_WAIT = 5.0  # seconds of one wait for news, after which it is checked whether the daemon still runs
#: Outcomes that are not final, with the seconds until another pass is requested. We request it rather than
#: look for the daemon's own next request, which may finish before we see it; an extra pass changes nothing.
_PASSING = {Outcome.SUPERSEDED: 0.0, Outcome.WAITING: 1.0}


def last_event(platform: Platform, app: str | None) -> int:
    newest = platform.events(app, limit=1)
    return int(newest[-1]["id"]) if newest else 0


def follow(platform: Platform, app: str | None, after: int) -> Iterator[Document]:
    """Yield events newer than the event `after`, forever."""
    while True:
        for event in platform.events(app, after, limit=1000, wait=20.0):
            after = max(after, int(event["id"]))
            yield event


def looks(platform: Platform, look: Callable[[], T]) -> Iterator[T]:
    """Yield what `look` returns at once and after each change of the state, forever. The state changes about
    once a second while the daemon runs; without a change it is looked at again after `_STALE` seconds, since
    the daemon may have ended.
    """
    while True:
        yield look()
        platform.wait_for_change(_STALE)


def wait_for(platform: Platform, request: Document, timeout: float, after: int) -> Document:
    """Return the finished request; its events are shown on stderr meanwhile. Raises Stalled `TimedOut` after
    `timeout` seconds, and `NotRunning` if the daemon does not run.
    """
    app = str(request["app"])
    deadline = time.monotonic() + timeout
    with _progress(f"waiting for {app}") as show:
        while True:
            left = max(0.0, min(_WAIT, deadline - time.monotonic()))
            found = platform.progress(app, int(request["id"]), after, left)
            for event in found["events"]:
                after = max(after, int(event["id"]))
                show(event)
            request = found["request"]
            if request["state"] == RequestState.DONE and not found["events"]:
                if request["outcome"] not in _PASSING:
                    return request
                time.sleep(_PASSING[Outcome(request["outcome"])])
                request = platform.request(app, AppRequest.RETRY)
            if time.monotonic() > deadline:
                message = f"{app} is not done after {timeout:g} s; follow it with: prichal events {app} -f"
                raise Stalled(Reason.TIMED_OUT, message)
            if found["daemon"] is False:
                message = (
                    "the daemon does not run; it handles the request once you start it with: prichal daemon"
                )
                raise Stalled(Reason.NOT_RUNNING, message)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[Document], None]]:
    """Show events as lines, with a live status line below them on a terminal. rich shows no status line in a
    pipe.
    """
    out = console(sys.stderr)
    with out.status(title) as status:

        def show(event: Document) -> None:
            out.print(
                label(event_line(event)),
                soft_wrap=True,
                style="yellow" if event["type"] == EventType.WARNING else None,
            )
            status.update(label(f"{title}: {event['reason']}"))

        yield show
