"""Keeps the logs of builds past their end, as controller/kept_logs.py reads them. Passes and the runner write them,
each line as soon as the builder says it, so that those who wait can follow a build.

A line is cleaned before it is written: values of Secrets are replaced, and what a terminal would obey is escaped. Each
log has a bound, within which its oldest lines go first, and an app has few of them. A log is never worth a build: what
cannot be written is left out, and the daemon's log says so once.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from controller.domain.errors import ControllerError
from controller.domain.names import AppName
from controller.domain.secret import Secret, scrub
from controller.domain.text import excerpt, shown
from controller.kept_logs import BUILDS, ENDED, MARK, ContainerLog, KeptLogs

log = logging.getLogger(__name__)

MOST_BUILDS: Final = 5  # of an app whose logs are kept
SEGMENTS: Final = 8  # of the bound of one log
SMALLEST: Final = 2**16  # bytes of a segment
LONGEST: Final = 2**14  # characters of one line
MARK_EVERY: Final = 1.0  # seconds
_DIGEST: Final = 12  # characters of an image's tag in the name of a log

#: The values that must not appear in the logs of an app.
Secrets = Callable[[AppName], tuple[Secret, ...] | None]


class BuildLog:
    """The log of one build under way, of `bound` bytes at most. One thread writes it."""

    def __init__(
        self, folder: Path, bound: int, secrets: tuple[Secret, ...], clock: Callable[[], float]
    ) -> None:
        self._kept = ContainerLog(folder)
        self._segment = max(SMALLEST, bound // SEGMENTS)
        self._secrets = secrets
        self._clock = clock
        self._descriptor: int | None = None
        self._start = self._size = 0
        self._marked = 0.0
        self._is_lost = False

    def line(self, text: str) -> None:
        """Append a line. Raises nothing: a full disk ends no build."""
        if self._is_lost:
            return
        clean = excerpt(scrub(shown(text), self._secrets), LONGEST)
        try:
            self._append(f"{clean}\n".encode("utf-8", "replace"))
        except OSError as error:
            self._is_lost = True
            log.warning("the log of a build is not kept: %s", error, extra={"log": str(self._kept.folder)})

    def end(self, text: str) -> None:
        """Append the last line, and say that nothing follows."""
        self.line(text)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        _mark_ended(self._kept.folder)

    def _append(self, line: bytes) -> None:
        if self._descriptor is None or self._size + len(line) > self._segment:
            self._begin_segment()
        assert self._descriptor is not None
        if (now := self._clock()) - self._marked >= MARK_EVERY:
            _write_new(self._path.with_suffix(".times"), MARK.pack(self._start + self._size, now))
            self._marked = now
        self._size += os.write(self._descriptor, line)

    def _begin_segment(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._start, self._size, self._marked = self._start + self._size, 0, 0.0
        self._kept.folder.mkdir(parents=True, exist_ok=True, mode=0o2750)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o640)
        for old in self._kept.segments()[:-SEGMENTS]:
            old.path.unlink(missing_ok=True)
            old.times.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self._kept.folder / f"{self._start:016d}.log"


def _mark_ended(folder: Path) -> None:
    try:
        (folder / ENDED).touch(mode=0o640)
    except OSError as error:
        log.debug("the end of a log was not marked: %s", error)


def _write_new(path: Path, record: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        os.write(descriptor, record)
    finally:
        os.close(descriptor)


class BuildLogs:
    """Of all apps. `folder` is that of their components' logs, which is removed with an app; `bound` is for each
    log."""

    def __init__(
        self, folder: Path, bound: int, secrets: Secrets, clock: Callable[[], float] = time.time
    ) -> None:
        self._kept = KeptLogs(folder)
        self._bound = bound
        self._secrets = secrets
        self._clock = clock

    def end_abandoned(self) -> None:
        """Mark the logs of builds that ended with an earlier daemon: who waits for a push reads one build after the
        other. Called before any build begins."""
        for app in self._kept.apps():
            for found in self._kept.builds(app):
                _mark_ended(found.folder)

    @contextmanager
    def of(self, app: AppName, tag: str) -> Iterator[Callable[[str], None]]:
        """Yield what takes each line of a build of the image with this tag. The last line says how the build ended."""
        begun = self._clock()
        name = f"{int(begun * 1000):014d}-{tag.rpartition(':')[2][:_DIGEST]}"
        folder = self._kept.folder / app / BUILDS / name
        kept = BuildLog(folder, self._bound, self._secrets(app) or (), self._clock)
        try:
            yield kept.line
        except ControllerError as error:
            kept.end(f"prichal: not built after {self._clock() - begun:.1f} s: {error.reason}")
            raise
        except BaseException:
            kept.end(f"prichal: not built after {self._clock() - begun:.1f} s")
            raise
        else:
            kept.end(f"prichal: built in {self._clock() - begun:.1f} s")
        finally:
            for old in self._kept.builds(app)[:-MOST_BUILDS]:
                shutil.rmtree(old.folder, ignore_errors=True)
