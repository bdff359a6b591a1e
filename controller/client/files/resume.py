"""The state of interrupted transfers for the next command: the upload in parts of a file, and the object of a
partial download. It is kept in JSON files in the user's cache, readable only by them; without them, only the
transferred bytes are lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

from controller.atomic import replace_file

KEEP: Final = 7 * 86400.0  # seconds; servers give uploads up earlier

Entries = dict[str, dict[str, str | float]]


def cache_folder() -> Path:
    """Return `prichal` below $XDG_CACHE_HOME, by default ~/.cache."""
    home = Path(os.environ.get("HOME") or Path.home())
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "prichal"


class ResumeState:
    """Texts by key in one file, which several processes may use at once. If it cannot be read or written,
    nothing is remembered and nothing fails.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    def recall(self, key: str) -> str:
        """Return the text, or "" if there is none."""
        return str(self._read().get(key, {}).get("value", ""))

    def remember(self, key: str, value: str) -> None:
        with self._changing() as entries:
            entries[key] = {"value": value, "at": self._clock()}

    def forget(self, key: str) -> None:
        if self.recall(key):
            with self._changing() as entries:
                entries.pop(key, None)

    @contextmanager
    def _changing(self) -> Iterator[Entries]:
        import fcntl  # here, so that commands that copy nothing run on systems without it

        with ExitStack() as held:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = held.enter_context(_private(self._path.with_suffix(".lock")))
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:
                yield {}
                return
            entries = self._read()
            yield entries
            self._write(entries)

    def _read(self) -> Entries:
        oldest = self._clock() - KEEP
        try:
            found = json.loads(self._path.read_bytes())
            return {key: entry for key, entry in found.items() if float(entry["at"]) > oldest}
        except (OSError, ValueError, AttributeError, TypeError, KeyError):
            return {}

    def _write(self, entries: Entries) -> None:
        with suppress(OSError):
            replace_file(self._path, json.dumps(entries, indent=1))


def _private(path: Path) -> TextIO:
    """Create an empty file that only its owner may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w")
