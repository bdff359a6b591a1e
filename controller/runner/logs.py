"""The log of an attempt as a file that only grows: what its container writes, followed from a thread of its own.

Beside it lies how far it goes and the place in the container's log that belongs to it. The piece is written first, then
its place: after a crash the file is cut back to the place, and the piece comes again. So nothing is lost, nothing is
there twice, and offsets that readers remember stay good.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from controller.domain.errors import ControllerError
from controller.domain.units import render_size
from controller.ports import Clock, Jobs

log = logging.getLogger(__name__)

_CUT = "cut"  # in place of a place: nothing more is written
_MODE = 0o640  # the web process reads it, as one of the group
_RECORD = 160  # bytes, padded: written in one piece over the last one
_PAUSE = 1.0  # seconds before a disk or an engine that refused is tried again


class LogFile:
    """Bounded: `limit` bytes at the most, the last line saying that it was cut."""

    def __init__(self, path: Path, limit: int) -> None:
        self._note = f"[cut here: logs are kept up to {render_size(limit)}]\n".encode()
        self._limit = limit - len(self._note)
        with ExitStack() as opened:
            self._log = _opened(opened, path, _MODE)
            self._beside = _opened(opened, path.with_name(f"{path.name}.at"), 0o600)
            self._size, self.place = self._read_place()
            os.ftruncate(self._log, self._size)
            self._close = opened.pop_all().close

    def _read_place(self) -> tuple[int, str]:
        """From the start, if it fits nothing that we wrote: power was lost."""
        size, _, place = os.pread(self._beside, _RECORD, 0).decode(errors="replace").strip().partition(" ")
        if not size.isdecimal() or int(size) > os.fstat(self._log).st_size:
            return 0, ""
        return int(size), place

    @property
    def is_cut(self) -> bool:
        return self.place == _CUT

    def append(self, piece: bytes, place: str) -> bool:
        """Whether there is room for more."""
        if len(piece) > self._limit - self._size:
            room = piece[: self._limit - self._size]
            piece, place = room[: room.rfind(b"\n") + 1] + self._note, _CUT
        self._write(piece)
        self._size, self.place = self._size + len(piece), place
        os.pwrite(self._beside, f"{self._size} {place}".encode().ljust(_RECORD), 0)
        return not self.is_cut

    def _write(self, piece: bytes) -> None:
        done = 0
        while done < len(piece):
            done += os.pwrite(self._log, piece[done:], self._size + done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._close()
        return False


def _opened(stack: ExitStack, path: Path, mode: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    stack.callback(os.close, descriptor)
    return descriptor


def follow(jobs: Jobs, id: str, path: Path, limit: int, clock: Clock, stop: Callable[[], bool]) -> None:
    """Until the container has ended and all is written, its log is full, or `stop()`. A run does not fail for its log:
    while the disk is full it waits, and so does a container that writes much."""
    trouble = ""
    while not stop():
        try:
            with LogFile(path, limit) as file:
                _append_all(jobs, id, file, stop)
            return
        except ControllerError as error:
            if error.reason == "ContainerLost":
                return
            found = error.message
        except OSError as error:
            found = str(error)
        if found != trouble:
            log.warning("log not written: %s", found, extra={"log": path.name})
        trouble = found
        clock.sleep(_PAUSE)


def _append_all(jobs: Jobs, id: str, file: LogFile, stop: Callable[[], bool]) -> None:
    if file.is_cut:
        return
    for place, piece in jobs.logs(id, file.place, stop):
        if not file.append(piece, place):
            return
