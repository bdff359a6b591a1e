"""The timers: what they ask for, and that nothing that one of them meets ends the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.config import Settings
from controller.config.settings import PlatformSource, ReconcileSettings
from controller.daemon.platform_folder import PlatformFolder
from controller.daemon.timers import Timers
from controller.domain.apps.spec import GitRef, PlatformAppSpec, PlatformSpec, RefKind, RepositorySpec
from controller.domain.names import PLATFORM, AppName, RepositoryName
from controller.guards import GuardedGroup
from controller.reconcile.catalog import PlatformCatalog
from controller.store import SqliteStore, open_store
from tests.support.failing import BUGS, Faults, failing_store
from tests.support.fake_engine import FakeEngine
from tests.support.fake_sources import FakeSources
from tests.support.specs import make
from tests.support.waiting import wait_for

ONE, TWO = AppName("one"), AppName("two")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = open_store(tmp_path / "db" / "state.db")
    yield made
    made.close()


@contextmanager
def ticking(tmp_path: Path, store: Any) -> Iterator[Timers]:
    (tmp_path / "platform").mkdir(exist_ok=True)
    settings = Settings(
        state=tmp_path,
        platform=PlatformSource(path=str(tmp_path / "platform"), interval=0.05),
        reconcile=ReconcileSettings(drift_interval=0.05),
    )
    repository = RepositorySpec(
        RepositoryName("demo"),
        "https://git.example.org/demo.git",
        GitRef(RefKind.BRANCH, "main"),
        interval=0.05,
    )
    catalog = PlatformCatalog()
    catalog.replace(
        PlatformSpec((repository,), tuple(make(PlatformAppSpec, app, repository.name) for app in (ONE, TWO)))
    )
    schedule = Timers(settings, store, catalog, PlatformFolder(settings, FakeSources()), FakeEngine())
    stop = threading.Event()
    group = GuardedGroup(stop, lambda name, how: None)
    group.thread("schedule", schedule.run)
    try:
        yield schedule
    finally:
        stop.set()
        schedule.stop()
        group.join(60.0)


def reasons(store: SqliteStore, app: AppName) -> tuple[str, ...]:
    queued = store.requests.queued(app)
    return queued.reasons if queued else ()


def test_the_timers_ask_for_what_is_due(tmp_path: Path, store: SqliteStore) -> None:
    with ticking(tmp_path, store):
        wait_for(lambda: "poll" in reasons(store, PLATFORM))
        wait_for(lambda: all({"drift", "poll"} <= set(reasons(store, app)) for app in (ONE, TWO)))


@pytest.mark.parametrize("bug", BUGS[:2], ids=lambda bug: type(bug()).__name__)
def test_a_bug_in_a_timer_ends_none(tmp_path: Path, store: SqliteStore, bug: Callable[[], Exception]) -> None:
    faults = Faults()
    faults.arm("requests.enqueue", [bug() for _ in range(5)])
    with ticking(tmp_path, failing_store(store, faults)):
        wait_for(lambda: not faults.left)
        wait_for(lambda: "poll" in reasons(store, PLATFORM))
        wait_for(lambda: all("drift" in reasons(store, app) for app in (ONE, TWO)))
