"""Secrets that the web process needs: its access to the storage, and what it checks callers and webhooks
against. The daemon writes these files and their group reads them; they are separate from the state, which
operators read, too. Their folder belongs to the group of the web process alone (docs/install.md).

Rows of the state refer to a value by a random handle, which says nothing about the value, not even to a
program that tries many. A value is written to the file before a row with its handle is committed, so a reader
of the row finds the value. Without the file, or the right to read it, handles have no values: no password and
no signature fits, and the daemon's next pass creates new handles.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller.atomic import replace_file
from controller.domain.secret import Secret
from controller.domain.storage.box import StorageAccess

log = logging.getLogger(__name__)

FOLDER_MODE, FILE_MODE = 0o2750, 0o640
HANDLE = "key:"  # followed by random digits


def keys_folder(database: Path) -> Path:
    return database.parent / "keys"


class _File:
    """A file with a JSON object. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: tuple[tuple[int, int], Mapping[str, Any]] | None = None  # by inode and time

    def read(self) -> Mapping[str, Any]:
        """Return the content; empty if nothing was written yet or this process may not read it."""
        try:
            found = self.path.stat()
            stamp = (found.st_ino, found.st_mtime_ns)
            known = self._known
            if known is None or known[0] != stamp:
                content = json.loads(self.path.read_bytes())
                known = self._known = stamp, content if isinstance(content, dict) else {}
        except (OSError, ValueError):
            return {}
        return known[1]

    def write(self, content: Mapping[str, Any]) -> None:
        """Write the content atomically."""
        folder = self.path.parent
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(FOLDER_MODE)
        replace_file(self.path, json.dumps(content), FILE_MODE, durable=True)


class StorageKeys:
    """The access to the storage. Threads may share it."""

    def __init__(self, database: Path) -> None:
        self._file = _File(keys_folder(database) / "storage.json")

    def read(self) -> StorageAccess | None:
        """Return the access; None if there is none yet, or this process may not read it."""
        try:
            access = StorageAccess(**self._file.read())
        except TypeError:
            return None
        return replace(access, secret_key=Secret(str(access.secret_key)))

    def write(self, access: StorageAccess) -> None:
        """Store the access. Writes nothing if it is unchanged."""
        if self.read() != access:
            self._file.write(
                {
                    "internal_url": access.internal_url,
                    "public_url": access.public_url,
                    "access_key": access.access_key,
                    "secret_key": access.secret_key.reveal(),
                    "region": access.region,
                }
            )


class Credentials:
    """Hashes of passwords and tokens, and secrets of webhooks. Only the daemon writes them, in a transaction
    that writes the state: so one thread writes at a time. Threads may share it.
    """

    def __init__(self, database: Path) -> None:
        self._file = _File(keys_folder(database) / "credentials.json")
        self._lock = threading.Lock()

    def handle(self, value: str) -> str:
        """Return the handle of a value, and store both. "" is its own handle."""
        if not value:
            return ""
        with self._lock:
            known = self._file.read()
            found = next((handle for handle, each in known.items() if each == value), None)
            if found is None:
                found = f"{HANDLE}{secrets.token_hex(8)}"
                self._file.write({**known, found: value})
            return found

    def value(self, handle: str) -> str:
        """Return the value, or "" if it is not known here."""
        return str(self._file.read().get(handle, ""))

    def keep(self, handles: Collection[str]) -> None:
        """Delete all other values. Do not call it within a transaction that may be rolled back."""
        with self._lock:
            known = self._file.read()
            kept = {handle: value for handle, value in known.items() if handle in handles}
            if kept != known:
                self._file.write(kept)
