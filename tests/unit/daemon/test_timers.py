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
from controller.daemon.timers import PacedStep, Timers
from controller.domain.apps.spec import GitRef, PlatformAppSpec, PlatformSpec, RefKind, RepositorySpec
from controller.domain.names import PLATFORM, AppName, RepositoryName
from controller.guards import GuardedGroup
from controller.reconcile.catalog import PlatformCatalog
from controller.store import SqliteStore
from tests.support.failing import BUGS, Faults, failing_store
from tests.support.fake_engine import FakeEngine
from tests.support.fake_sources import FakeSources
from tests.support.specs import make
from tests.support.stores import open_store
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


def test_a_scan_that_takes_long_is_called_less_often() -> None:
    """Ticks come each minute; sizes of all volumes may take the engine longer than that."""
    now, took, scans = 0.0, 90.0, []

    def scan() -> None:
        nonlocal now
        scans.append(now)
        now += took

    step = PacedStep(scan, lambda: now)
    for _ in range(30):
        step()
        now += 60.0
    assert scans == [0.0, 990.0], "90 s, and ten times as long without one"
    took = 1.0
    for _ in range(20):
        step()
        now += 60.0
    assert len(scans) > 10


def test_a_scan_that_fails_has_its_pause_too() -> None:
    now, failures = 0.0, 0

    def fail() -> None:
        nonlocal now, failures
        now += 30.0
        failures += 1
        raise OSError("timed out")

    step = PacedStep(fail, lambda: now)
    with pytest.raises(OSError, match="timed out"):
        step()
    step()
    assert failures == 1
