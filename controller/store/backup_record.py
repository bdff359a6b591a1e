"""The record of the last backups, a file in a folder of the daemon. The service that makes backups writes it; the
daemon and the web process read it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from controller.atomic import replace_file
from controller.domain.backups import MOST_RECORD, BackupRecord, read_record, write_record
from controller.store.owners import as_owner_of

_MODE: Final = 0o640


def load_record(path: Path) -> BackupRecord:
    """Return the record; an empty one if there is none, or this process may not read it."""
    try:
        with path.open("rb") as file:
            return read_record(file.read(MOST_RECORD))
    except OSError:
        return BackupRecord()


def save_record(path: Path, record: BackupRecord) -> None:
    """Replace the record. Raises OSError."""
    with as_owner_of(path.parent):
        replace_file(path, write_record(record), _MODE, durable=True)
