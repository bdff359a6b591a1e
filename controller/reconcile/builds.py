"""Each image is built once in a pass, however many components and stages need it, even at the same time.
Builds of an app run one after the other, in passes and for runs.

Two concurrent builds would not find each other's layers. Builds that begin with the same instructions would
execute them twice; a later build finds only one of the two in the cache, and makes new images, hence
versions, of unchanged content. And one app must not take the host with many builds.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from controller.domain.apps.usage import BuildCount
from controller.domain.names import AppName

#: Holds the log of a build, by app and tag, and yields what takes its lines.
BuildLog = Callable[[AppName, str], AbstractContextManager[Callable[[str], None]]]


def no_build_log(app: AppName, tag: str) -> AbstractContextManager[Callable[[str], None]]:
    """Keep no log."""
    return nullcontext(lambda line: None)


class BuildTurns:
    """Gives each app one build at a time, and counts the others. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns = defaultdict[AppName, threading.Lock](threading.Lock)
        self._asked = Counter[AppName]()
        self._running = Counter[AppName]()

    @contextmanager
    def turn(self, app: AppName) -> Iterator[None]:
        """Wait for the app's other builds, and hold its turn until the end of the block."""
        with self._counted(self._asked, app):
            with self._lock:
                turn = self._turns[app]
            with turn, self._counted(self._running, app):
                yield

    @contextmanager
    def _counted(self, counter: Counter[AppName], app: AppName) -> Iterator[None]:
        with self._lock:
            counter[app] += 1
        try:
            yield
        finally:
            with self._lock:
                counter[app] -= 1

    def counts(self) -> Mapping[AppName, BuildCount]:
        with self._lock:
            return {
                app: BuildCount(self._running[app], asked - self._running[app])
                for app, asked in self._asked.items()
                if asked
            }


class Builds:
    """The builds of one pass. `turn` yields when one may run. Thread-safe."""

    def __init__(self, turn: Callable[[], AbstractContextManager[None]] | None = None) -> None:
        self._lock = threading.Lock()
        self._turn = turn or partial(BuildTurns().turn, AppName(""))
        self._begun: dict[str, Future[None]] = {}

    def once(self, tag: str, build: Callable[[], None]) -> None:
        """Call `build`, or wait for the end of the first call for the same tag; all callers get its error."""
        with self._lock:
            first = tag not in self._begun
            result = self._begun.setdefault(tag, Future())
        if first:
            try:
                with self._turn():
                    build()
                result.set_result(None)
            except Exception as error:  # noqa: BLE001 - raised in all callers that wait, and in this one
                result.set_exception(error)
        result.result()
