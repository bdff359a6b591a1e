"""The log of a stage for callers: the files of its attempts, concatenated, so that offsets never change their
meaning. Also formats a piece of it as a server-sent event. Used by the run API's answers on the event loop.

The files are the runner's: they only grow, except that the last bytes before a crash of the daemon are
written again, unchanged; and an attempt's log is complete in its file before its end is stored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.domain.runs.run import Run
from controller.web.sse import event_of

PIECE: Final = 2**16  # bytes of one event, and of one step of a download


@dataclass(frozen=True)
class StoredStageLog:
    """The log files of a stage. Missing files count as empty."""

    files: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path, run: Run, stage: str, attempt: int | None = None) -> StoredStageLog:
        """Return the logs of one attempt, or of all that have begun. `folder` holds the folders of all runs."""
        begun = [each.number for each in run.stage(stage).attempts]
        numbers = begun if attempt is None else [attempt]
        return cls(tuple(folder / run.id / f"{stage}.{number}.log" for number in numbers))

    @property
    def tail(self) -> Path | None:
        """Return the file that still grows, if there is one."""
        return self.files[-1] if self.files else None

    def size(self) -> int:
        return sum(map(file_size, self.files))

    def read(self, offset: int, limit: int = PIECE) -> bytes:
        """Return a piece; it has less than `limit` bytes only at the current end."""
        pieces = []
        for path in self.files:
            size = file_size(path)
            if offset < size and limit > 0:
                pieces.append(_read(path, offset, min(limit, size - offset)))
                limit -= len(pieces[-1])
            offset = max(0, offset - size)
        return b"".join(pieces)


def file_size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _read(path: Path, offset: int, limit: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), limit, offset)
    except FileNotFoundError:
        return b""


# --- as events --------------------------------------------------------------------------------------------------


def whole_lines(data: bytes, full: bool) -> int:
    """Return how many bytes of the piece can be sent: up to the end of its last line, since the next line may
    be incomplete. `full`: the line is longer than a piece, so its first part is sent, but no partial
    character."""
    # A \r at the very end may be half of a \r\n.
    cut = max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1
    if cut or not full:
        return cut
    return len(data) - _half_character(data)


def _half_character(data: bytes) -> int:
    """Return the number of bytes of an incomplete UTF-8 character at the end."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return back if needed > back else 0
    return 0


def log_event(data: bytes, end: int | str) -> bytes:
    """Return an event with these lines; its id is the offset after them. An event stream is UTF-8 with one
    kind of line end, so other bytes are replaced."""
    text = data.decode("utf-8", "replace").encode()
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n")
    return event_of(lines, str(end))
