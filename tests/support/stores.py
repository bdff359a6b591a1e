"""Stores for tests whose subject is not the first start of a platform."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from functools import cache
from pathlib import Path
from typing import Any

from controller import store
from controller.store.shared_file import shared_path


def open_store(path: Path, **options: Any) -> store.SqliteStore:
    """Open the state as the daemon does. Where there is none, it begins as a copy of the files that a first start has
    made: running all migrations takes longer than most of the tests that need a store."""
    if not any(file.exists() for file in _files(path)):
        for made, wanted in zip(_files(_first_start()), _files(path), strict=True):
            wanted.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(made, wanted)
    return store.open_store(path, **options)


def _files(path: Path) -> tuple[Path, Path]:
    return path, shared_path(path)


@cache
def _first_start() -> Path:
    """Let the state be made once in each process."""
    folder = tempfile.TemporaryDirectory(prefix="prichal-first-start-")
    weakref.finalize(store, folder.cleanup)
    path = Path(folder.name) / "state.db"
    store.open_store(path).close()
    return path
