from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.store import SqliteStore
from tests.support.stores import open_store


class HandClock:
    """Time as the test sets it, in Unix seconds."""

    def __init__(self) -> None:
        self.at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db" / "state.db"


@pytest.fixture
def store(path: Path, clock: HandClock) -> Iterator[SqliteStore]:
    store = open_store(path, clock=clock, keep_events=5)
    yield store
    store.close()
