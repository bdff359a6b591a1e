"""Wait for a request to finish while its events are shown, and follow events in general. Commands that wait or watch
go on while the platform does not answer for a while (`Persistence`).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from controller.cli.output import console, event_line, label, print_message
from controller.client.platform.api import AppRequest
from controller.domain.apps.requests import Outcome, RequestState
from controller.domain.apps.status import EventType
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.units import render_duration

if TYPE_CHECKING:
    from controller.client.platform import Document, Platform

T = TypeVar("T")

_STALE = 2.0  # seconds after which a state without a change is looked at again
_WAIT = 5.0  # seconds of one wait for news, after which it is checked whether the daemon still runs
_OUTAGE = 120.0  # seconds without an answer after which a command that waits or watches gives up
_PAUSE = 1.0  # seconds between two attempts
_RESTART = 60.0  # seconds that a daemon which ran a moment ago may be away, as while it is updated
#: Outcomes that are not final, with the seconds until another pass is requested. We request it rather than
#: look for the daemon's own next request, which may finish before we see it; an extra pass changes nothing.
_PASSING = {Outcome.SUPERSEDED: 0.0, Outcome.WAITING: 1.0}


def last_event(platform: Platform, app: str | None) -> int:
    newest = platform.events(app, limit=1)
    return int(newest[-1]["id"]) if newest else 0


class Persistence:
    """Repeats questions of one command that waits. What fails before the first answer (`has_answered`) is raised at
    once: the address may be wrong. Later a Transient error is told and the question repeated until there was no answer
    for `_OUTAGE` seconds, or until `deadline`, in monotonic seconds: a restart of the server or of the daemon, say.
    """

    def __init__(self, has_answered: bool = True, deadline: float = math.inf) -> None:
        self._has_answered = has_answered
        self._deadline = deadline

    def ask(self, question: Callable[[], T]) -> T:
        """Return the answer. Raises the last Transient error."""
        end: float | None = None
        while True:
            try:
                answer = question()
            except Transient as error:
                now = time.monotonic()
                if not self._has_answered or (end is not None and now >= end):
                    raise
                if end is None:
                    end = min(now + _OUTAGE, self._deadline)
                    left = render_duration(max(0.0, round(end - now)))
                    print_message(f"{error.message.rstrip('.')}. Waiting {left} at most for an answer.")
                time.sleep(min(_PAUSE, max(0.0, end - now)))
            else:
                self._has_answered = True
                return answer


def follow(platform: Platform, app: str | None, after: int) -> Iterator[Document]:
    """Yield events newer than the event `after`, forever."""
    persistence = Persistence()
    while True:
        for event in persistence.ask(partial(platform.events, app, after, 1000, 20.0)):
            after = max(after, int(event["id"]))
            yield event


def looks(platform: Platform, look: Callable[[], T]) -> Iterator[T]:
    """Yield what `look` returns at once and after each change of the state, forever. The state changes about
    once a second while the daemon runs; without a change it is looked at again after `_STALE` seconds, since
    the daemon may have ended.
    """
    persistence = Persistence(has_answered=False)
    while True:
        yield persistence.ask(look)
        persistence.ask(lambda: platform.wait_for_change(_STALE))


def wait_for(platform: Platform, request: Document, timeout: float, after: int) -> Document:
    """Return the finished request; its events are shown on stderr meanwhile. Raises Stalled `TimedOut` after
    `timeout` seconds, and `NotRunning` if the daemon does not run, or was away for too long.
    """
    app = str(request["app"])
    deadline = time.monotonic() + timeout
    persistence, daemon = Persistence(deadline=deadline), _DaemonWatch()
    with _progress(f"waiting for {app}") as show:
        while True:
            left = max(0.0, min(_WAIT, deadline - time.monotonic()))
            found = persistence.ask(partial(platform.progress, app, int(request["id"]), after, left))
            for event in found["events"]:
                after = max(after, int(event["id"]))
                show(event)
            request = found["request"]
            if request["state"] == RequestState.DONE and not found["events"]:
                if request["outcome"] not in _PASSING:
                    return request
                time.sleep(_PASSING[Outcome(request["outcome"])])
                request = persistence.ask(partial(platform.request, app, AppRequest.RETRY))
            if time.monotonic() > deadline:
                message = f"{app} is not done after {timeout:g} s; follow it with: prichal events {app} -f"
                raise Stalled(Reason.TIMED_OUT, message)
            daemon.look(runs=found["daemon"] is not False)


class _DaemonWatch:
    """Tells a daemon that does not run from one that is restarted while somebody waits for it."""

    def __init__(self) -> None:
        self._has_run = False
        self._gone: float | None = None  # since when, in monotonic seconds

    def look(self, runs: bool) -> None:
        """Raises Stalled `NotRunning`."""
        now = time.monotonic()
        if runs:
            self._has_run, self._gone = True, None
            return
        if not self._has_run or (self._gone is not None and now - self._gone > _RESTART):
            message = "the daemon does not run; it handles the request once you start it with: prichal daemon"
            raise Stalled(Reason.NOT_RUNNING, message)
        if self._gone is None:
            self._gone = now
            print_message(f"the daemon does not run any more; waiting {_RESTART:g} s for it to come back")


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
