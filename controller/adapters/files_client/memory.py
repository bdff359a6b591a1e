"""What a killed command leaves to the next one: which upload in parts belongs to a file, and which object the beginning
of a download. JSON files in the user's cache, for him alone; losing them costs nothing but the bytes already moved.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

KEEP: Final = 7 * 86400.0  # seconds; servers give uploads up before

Entries = dict[str, dict[str, str | float]]


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """`prichal` below $XDG_CACHE_HOME, which is ~/.cache unless it says otherwise."""
    home = Path(environment.get("HOME") or Path.home())
    return Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "prichal"


class Memory:
    """Texts by key in one file that several processes may use at once. A cache that cannot be read or written remembers
    nothing, and nothing fails for it."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    def recall(self, key: str) -> str:
        """ "" if nothing is remembered."""
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
        """By a rename, so that a killed process leaves the old file or the new one."""
        draft = self._path.with_suffix(".new")
        with suppress(OSError):
            with _private(draft) as file:
                json.dump(entries, file, indent=1)
            draft.replace(self._path)


def _private(path: Path) -> TextIO:
    """An empty file that only its owner may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w")
