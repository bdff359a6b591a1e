"""Keeps the logs of components' containers past their end, up to a bound for each app. A thread of the daemon, which
alone may talk to the engine; where the logs lie and who reads them: controller/kept_logs.py.

The same mechanism as for logs of runs: `LogFile` records with each piece the position in the container's log, so a
daemon that dies repeats and loses nothing. A piece is cleaned before it is written: values of Secrets are replaced,
and what a terminal would obey is escaped. A log is read only once a pass has told which Secrets its app has.

What a container writes faster than it is read, the engine may have rotated away; a line in the log says so. Reading
takes a tenth of one processor at most.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.domain.apps.observed import LoggedContainer
from controller.domain.errors import ControllerError
from controller.domain.names import AppName, is_dns_label
from controller.domain.secret import Secret, scrub
from controller.domain.text import Shown
from controller.domain.units import parse_rfc3339
from controller.guards import GuardedStep
from controller.kept_logs import MARK, ContainerLog, KeptLogs, LogSegment
from controller.ports import ContainerLogReader, Engine
from controller.runner.logs import LogFile

log = logging.getLogger(__name__)

PAUSE: Final = 0.5  # seconds between two rounds
GROWTH, LONGEST = 1.5, 4.0  # of the pause of a container that writes nothing, in seconds
REST: Final = 9.0  # seconds of rest for each CPU second
SEGMENTS: Final = 16  # of the bound of an app, at most
SMALLEST: Final = 2**16  # bytes of a segment
MOST_CONTAINERS: Final = 5  # of one component whose logs are kept
MARK_EVERY: Final = 1.0  # seconds
READER_TIMEOUT: Final = 5.0  # seconds to wait for the reader when a container is removed
_FULL: Final = 2**62  # LogFile shall not cut: segments are shorter

#: The Secrets of an app; None before they are known.
Secrets = Callable[[AppName], tuple[Secret, ...] | None]


class SegmentedLog:
    """The log of one container as files that only grow, of `segment` bytes at most. Must be closed."""

    def __init__(self, kept: ContainerLog, segment: int) -> None:
        self._kept = kept
        self._segment = segment
        kept.folder.mkdir(parents=True, exist_ok=True, mode=0o2750)
        self._start = self._newest()
        self._file = self._open()
        self._marked = 0.0

    def _newest(self) -> int:
        """Return the start of the newest segment. An empty one has no position: it is removed, and the one before
        is continued.
        """
        *earlier, last = self._kept.segments() or (LogSegment(0, Path()),)
        if earlier and not last.size:
            remove_segment(last)
            return earlier[-1].start
        return last.start

    def _open(self) -> LogFile:
        return LogFile(self._path, _FULL)

    @property
    def _path(self) -> Path:
        return self._kept.folder / f"{self._start:016d}.log"

    @property
    def folder(self) -> Path:
        return self._kept.folder

    @property
    def place(self) -> str:
        return self._file.place

    def append(self, piece: bytes, place: str, at: float) -> None:
        if self._file.size and self._file.size + len(piece) > self._segment:
            self._start += self._file.size
            self._file.close()
            self._file = self._open()
            self._marked = 0.0
        if at - self._marked >= MARK_EVERY:
            _append(self._path.with_suffix(".times"), MARK.pack(self._start + self._file.size, at))
            self._marked = at
        self._file.append(piece, place)

    def close(self) -> None:
        self._file.close()


def remove_segment(segment: LogSegment) -> None:
    for path in (segment.path, segment.path.with_name(f"{segment.path.name}.at"), segment.times):
        path.unlink(missing_ok=True)


def _append(path: Path, record: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        os.write(descriptor, record)
    finally:
        os.close(descriptor)


@dataclass
class _Followed:
    """A container whose log is kept. `due` is when it is read next."""

    container: LoggedContainer
    reader: ContainerLogReader
    kept: SegmentedLog
    text: Shown = field(default_factory=Shown)
    pause: float = PAUSE
    due: float = 0.0


class ComponentLogs:
    """`bound` is for the logs of each app, in bytes; `folder` has those of all. `known` tells the connected apps, None
    before they are known."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        bound: int,
        secrets: Secrets,
        known: Callable[[], Iterable[AppName] | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._kept = KeptLogs(folder)
        self._bound = bound
        self._segment = max(SMALLEST, bound // SEGMENTS)
        self._secrets = secrets
        self._known = known
        self._clock = clock
        self._followed: dict[str, _Followed] = {}
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        step = GuardedStep("logs of components cannot be kept", self.collect)
        try:
            while not stop.is_set():
                began = time.thread_time()
                step(stop)
                stop.wait(max(PAUSE, (time.thread_time() - began) * REST))
        finally:
            self.close()

    def close(self) -> None:
        with self._lock:
            for followed in self._followed.values():
                followed.kept.close()
            self._followed.clear()

    def collect(self, stop: threading.Event) -> None:
        """Read what is new of all logs that are due, then hold each app to its bound."""
        there = {each.id: each for each in self._engine.logged() if is_dns_label(each.component)}
        with self._lock:
            for id in self._followed.keys() - there.keys():
                self._followed.pop(id).kept.close()
        written = set()
        for container in there.values():
            if stop.is_set():
                return
            with self._lock:
                if self._read(container):
                    written.add(container.app)
        for app in written:
            self._hold(app)
        self._forget(written)

    def finish(self, id: str) -> None:
        """Read the rest of a container that has stopped and is about to be removed. Called by other threads."""
        if not self._lock.acquire(timeout=READER_TIMEOUT):
            log.warning("the end of a log was not kept: the reader was busy", extra={"container": id[:12]})
            return
        try:
            followed = self._followed.get(id)
            if followed is not None:
                followed.due = 0.0
                self._read(followed.container)
        except (ControllerError, OSError) as error:
            log.warning("the end of a log was not kept: %s", error, extra={"container": id[:12]})
        finally:
            self._lock.release()

    # --- one container ------------------------------------------------------------------------------------------

    def _read(self, container: LoggedContainer) -> bool:
        """Append what is new; return whether there was anything."""
        secrets = self._secrets(container.app)
        if secrets is None:
            return False
        followed = self._followed.get(container.id) or self._follow(container)
        if self._clock() < followed.due:
            return False
        found = False
        try:
            for place, piece in followed.reader.unread():
                text = scrub(followed.text.take(piece), secrets)
                followed.kept.append(text.encode("utf-8", "replace"), place, written_at(place, self._clock()))
                found = True
        except ControllerError as error:  # the container was removed, or the engine is away
            log.debug("a log could not be read: %s", error)
        followed.pause = PAUSE if found else min(LONGEST, followed.pause * GROWTH)
        followed.due = self._clock() + followed.pause
        return found

    def _follow(self, container: LoggedContainer) -> _Followed:
        name = f"{int(container.created * 1000):014d}-{container.id[:12]}"
        kept = ContainerLog(self._kept.folder / container.app / container.component / name)
        segmented = SegmentedLog(kept, self._segment)
        made = _Followed(container, self._engine.log_reader(container.id, segmented.place), segmented)
        self._followed[container.id] = made
        return made

    # --- the bounds ---------------------------------------------------------------------------------------------

    def _hold(self, app: AppName) -> None:
        """Remove the oldest parts of the app's logs until they fit; the newest segment of a log always stays."""
        logs = self._without_old(self._kept.of(app))
        segments = [(log, segment) for log in logs for segment in log.segments()]
        size = sum(segment.size for _, segment in segments)
        newest = {log.segments()[-1].path for log in logs if log.segments()}
        for _, segment in sorted(segments, key=lambda pair: (pair[0].name, pair[1].start)):
            if size <= self._bound:
                return
            if segment.path not in newest:
                size -= segment.size
                remove_segment(segment)

    def _without_old(self, logs: tuple[ContainerLog, ...]) -> list[ContainerLog]:
        """Remove the logs of a component's oldest containers, and return the rest."""
        open_now = {followed.kept.folder for followed in self._followed.values()}
        rest: dict[str, list[ContainerLog]] = {}
        for each in logs:
            rest.setdefault(each.component, []).append(each)
        for component, own in rest.items():
            for old in own[:-MOST_CONTAINERS]:
                if old.folder not in open_now:
                    shutil.rmtree(old.folder, ignore_errors=True)
            rest[component] = own[-MOST_CONTAINERS:]
        return [each for own in rest.values() for each in own]

    def _forget(self, written: set[AppName]) -> None:
        """Remove the logs of apps that are no longer connected."""
        known = self._known()
        if known is None or not self._kept.folder.is_dir():
            return
        left = set(known) | {followed.container.app for followed in self._followed.values()}
        for name in os.listdir(self._kept.folder):
            if name not in left and name not in written:
                shutil.rmtree(self._kept.folder / name, ignore_errors=True)


def written_at(place: str, now: float) -> float:
    """Return when an entry was written: a position begins with the engine's time."""
    try:
        return parse_rfc3339(place.partition("/")[0])
    except ValueError:
        return now
