"""A bus error ends the daemon at once, in the middle of an instruction. The one cause that somebody else has
a hand in is the index of the log of what others ask for: SQLite maps that file into the memory of each
process that has the database open, and who may write the file can cut it off. The next start finds written
down that it was so, and does without that database for a while (store/shared_file.py), so that the daemon
works although it happens again and again."""

from __future__ import annotations

import faulthandler
import logging
import time
from pathlib import Path

from controller.domain.backoff import Backoff

log = logging.getLogger(__name__)

_BEGIN = b"the daemon starts\n"
_BUS_ERROR = b"Bus error"
_SOON = 3600.0  # seconds; older ones are forgotten
_BACKOFF = Backoff(10.0, 600.0)  # without the database of others
_MOST = 2**20  # bytes


class LastFault:
    def __init__(self, private: Path) -> None:
        self._path = private / "fault.log"

    def begin(self) -> float:
        """Write down from now on how a fault ends this process. For so many seconds this one has to do without the
        database of others, because of how the last ones ended."""
        content = self._read()
        *before, last = content.split(_BEGIN)
        number = sum(_BUS_ERROR in life for life in (*before, last))
        if last.strip():
            log.error("the daemon was ended by a fault: %s", last[:2000].decode("ascii", "replace"))
        self._file = self._path.open("ab" if content else "wb", buffering=0)
        self._file.write(_BEGIN)
        faulthandler.enable(self._file, all_threads=False)
        return _BACKOFF.after(number) if _BUS_ERROR in last else 0.0

    def end(self) -> None:
        faulthandler.disable()
        self._file.close()

    def _read(self) -> bytes:
        """Return the recorded fault; nothing if it was long ago, or is too long."""
        try:
            found = self._path.stat()
            is_recent = time.time() - found.st_mtime < _SOON and found.st_size < _MOST
            return self._path.read_bytes() if is_recent else b""
        except FileNotFoundError:
            return b""
