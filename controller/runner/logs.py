"""The log of an attempt as a file that only grows: a separate thread follows what its container writes.

A second file records the length of the log and the corresponding position in the container's log. A piece is
written first, then its position: after a crash the log is cut back to the recorded length, and the piece is
read again. So nothing is lost or duplicated, and offsets that readers remember stay valid.
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
from controller.domain.reasons import Reason
from controller.domain.units import render_size
from controller.ports import Clock, Jobs
from controller.safe_paths import open_below

log = logging.getLogger(__name__)

_CUT = "cut"  # instead of a position: nothing more is written
_MODE = 0o640  # the group, and so the web process, can read it
_RECORD = 160  # bytes, padded: written in one piece over the previous one
_TRIES = 3  # attempts to read the log of an ended container
_PAUSE = 1.0  # seconds before another attempt after an error of the disk or the engine


class LogFile:
    """A log of at most `limit` bytes. If it was cut, its last line says so."""

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
        """Return the recorded length and position, or the start if they do not fit the log, as after a loss
        of power.
        """
        size, _, place = os.pread(self._beside, _RECORD, 0).decode(errors="replace").strip().partition(" ")
        if not size.isdecimal() or int(size) > os.fstat(self._log).st_size:
            return 0, ""
        return int(size), place

    @property
    def size(self) -> int:
        return self._size

    def close(self) -> None:
        self._close()

    @property
    def is_cut(self) -> bool:
        return self.place == _CUT

    def append(self, piece: bytes, place: str) -> bool:
        """Append a piece, and return whether more can be appended."""
        if len(piece) > self._limit - self._size:
            head = piece[: self._limit - self._size]
            piece, place = head[: head.rfind(b"\n") + 1] + self._note, _CUT
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
    """Open a file. Raises OSError if it, or the folder of the run that contains it, is a link."""
    place = (path.parent.name, path.name)
    descriptor = open_below(path.parent.parent, place, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, mode)
    stack.callback(os.close, descriptor)
    return descriptor


def follow(
    jobs: Jobs,
    id: str,
    path: Path,
    limit: int,
    clock: Clock,
    stop: Callable[[], bool],
    ended: Callable[[], bool] = lambda: False,
) -> None:
    """Follow a log until the container has ended and all is written, the log is full, or `stop()`. Problems
    with the log do not fail a run: while the disk is full it waits, and so does a container that writes much.
    If the engine refuses the log of a container that has `ended`, a few attempts are made.
    """
    trouble, tries = "", 0
    while not stop() and tries < _TRIES:
        try:
            with LogFile(path, limit) as file:
                _append_all(jobs, id, file, stop)
            return
        except ControllerError as error:
            if error.reason == Reason.CONTAINER_LOST:
                return
            found = error.message
            tries += ended()
        except OSError as error:
            found = str(error)
        except Exception:
            log.exception("bug while a log was followed", extra={"log": path.name})
            return
        if found != trouble:
            log.warning("could not write a log: %s", found, extra={"log": path.name})
        trouble = found
        clock.sleep(_PAUSE)


def _append_all(jobs: Jobs, id: str, file: LogFile, stop: Callable[[], bool]) -> None:
    if file.is_cut:
        return
    for place, piece in jobs.logs(id, file.place, stop):
        if not file.append(piece, place):
            return
