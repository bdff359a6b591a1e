"""Runs that start by the clock, over a real store: once a tick, as the overlap rule says, and nobody's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.adapters.cron import CronTicks
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.spec import CronSchedule, Overlap
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import AreaKind, Run, RunCause, RunState
from controller.ports import RunLimits
from controller.runner.cron_scheduler import CronScheduler
from controller.store import SqliteStore
from tests.support.clock import FakeClock
from tests.support.specs import make
from tests.support.stores import open_store

APP, TRAIN = AppName("demo"), ComponentName("train")
MINUTE = 60.0
MINUTELY = make(CronSchedule, "* * * * *", overlap=Overlap.ALLOW)


def pipeline(
    schedule: CronSchedule | None = MINUTELY, name: str = "train", revision: str = "c0ffee"
) -> Pipeline:
    stage = make(Stage, "fit", "sha256:1", outputs=("model",))
    return make(Pipeline, APP, ComponentName(name), revision, (stage,), concurrency=10, schedule=schedule)


class Scene:
    def __init__(self, path: Path) -> None:
        self.clock = FakeClock(1_699_999_980.0 + 30.0)  # half a minute past
        self.store: SqliteStore = open_store(path, clock=self.clock.now)
        self.cron_scheduler = CronScheduler(self.store, self.clock, CronTicks())

    def publish(self, *pipelines: Pipeline) -> None:
        self.store.runs.publish(APP, pipelines)
        self.cron_scheduler.run_once()

    def minutes(self, count: float = 1) -> None:
        """They pass, and then somebody looks."""
        self.clock.advance(count * MINUTE)
        self.cron_scheduler.run_once()

    def set_clock(self, seconds: float) -> None:
        self.clock.jump(seconds)
        self.cron_scheduler.run_once()

    @property
    def runs(self) -> list[Run]:
        """Oldest first."""
        return sorted(self.store.runs.list(APP), key=lambda run: run.created)

    @property
    def told(self) -> list[str]:
        return [event.reason for event in self.store.events.list(APP)]

    def end(self, run: Run) -> None:
        assert self.store.runs.save(run.to(RunState.SUCCEEDED, self.clock.now()))


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "db" / "state.db")
    yield made
    made.store.close()


def test_a_run_a_tick(harness: Scene) -> None:
    harness.publish(pipeline(), pipeline(None, "by-hand"))
    assert harness.runs == [], "it begins with the next tick"
    harness.minutes()
    harness.cron_scheduler.run_once()
    (run,) = harness.runs
    assert (run.name, run.cause, run.public, run.user, run.state) == (TRAIN, "schedule", True, None, "QUEUED")
    assert run.area is AreaKind.DEVELOPER
    harness.minutes()
    assert len(harness.runs) == 2


def test_nobody_looked_for_a_while(harness: Scene) -> None:
    harness.publish(pipeline())
    harness.minutes(1000)
    assert len(harness.runs) == 1
    harness.minutes()
    assert len(harness.runs) == 2


def test_the_same_pipeline_published_again(harness: Scene) -> None:
    harness.publish(pipeline())
    harness.minutes()
    harness.publish(pipeline())
    harness.publish(pipeline(revision="another"))
    assert len(harness.runs) == 1
    harness.minutes()
    assert [run.pipeline.revision for run in harness.runs] == ["c0ffee", "another"]


def test_a_schedule_whose_time_zone_is_gone_stops_no_other(
    harness: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    broken = pipeline(make(CronSchedule, "* * * * *", "Atlantis/Poseidonis"), "broken")
    harness.publish(broken, pipeline())
    harness.minutes()
    assert [run.name for run in harness.runs] == [TRAIN]
    assert "could not start pipeline demo/broken by schedule" in caplog.text


def test_gone_and_back_again_it_begins_anew(harness: Scene) -> None:
    harness.publish(pipeline())
    harness.minutes()
    harness.publish()
    assert harness.store.schedules.all() == ()
    harness.minutes(10)
    harness.publish(pipeline())
    assert len(harness.runs) == 1, "nothing is made up for"
    harness.minutes()
    assert len(harness.runs) == 2


def test_changed_and_changed_back_no_tick_comes_twice(harness: Scene) -> None:
    harness.publish(pipeline())
    harness.minutes(1)
    harness.clock.jump(-31.0)  # right before the tick that was run
    harness.publish(pipeline(replace(MINUTELY, timezone="Europe/Berlin")))
    harness.publish(pipeline())
    harness.set_clock(2.0)
    assert len(harness.runs) == 1
    harness.minutes()
    assert len(harness.runs) == 2


def test_a_clock_that_leaps_forward_is_made_up_for_once_and_back_stalls_nothing(harness: Scene) -> None:
    harness.publish(pipeline())
    harness.minutes()
    harness.set_clock(10 * 365 * 86400.0)
    assert len(harness.runs) == 2
    harness.set_clock(-10 * 365 * 86400.0)
    assert len(harness.runs) == 2
    harness.minutes()
    assert len(harness.runs) == 3, "the years in between need not come first"


def test_a_clock_that_is_set_back_repeats_nothing(harness: Scene) -> None:
    harness.publish(pipeline())
    for _ in range(5):
        harness.minutes()
    harness.set_clock(-4 * MINUTE)
    for _ in range(4):
        harness.minutes()
    assert len(harness.runs) == 5
    harness.minutes()
    assert len(harness.runs) == 6


def test_forbidden_while_one_is_not_over(harness: Scene) -> None:
    harness.publish(pipeline(replace(MINUTELY, overlap=Overlap.FORBID)))
    for _ in range(4):
        harness.minutes()
    assert len(harness.runs) == 1
    assert harness.told == ["RunSkipped"], "told once"
    (event,) = harness.store.events.list(APP)
    assert (event.component, harness.runs[0].id in event.message) == (TRAIN, True)
    harness.end(harness.runs[0])
    harness.minutes()
    assert len(harness.runs) == 2
    harness.minutes()
    assert harness.told == ["RunSkipped", "RunSkipped"]


def test_runs_that_people_started_are_in_nobodys_way(harness: Scene) -> None:
    harness.publish(pipeline(replace(MINUTELY, overlap=Overlap.FORBID)))
    harness.minutes()
    (first,) = harness.runs
    harness.store.runs.submit(replace(first, id="f" * 19, cause=RunCause.RETRY, created=first.created + 1))
    harness.end(first)
    harness.minutes()
    assert [run.cause for run in harness.runs] == ["schedule", "retry", "schedule"]


def test_replaced_while_one_is_not_over(harness: Scene) -> None:
    harness.publish(pipeline(replace(MINUTELY, overlap=Overlap.REPLACE)))
    harness.minutes()
    assert harness.store.runs.claim(RunLimits(10, 10), harness.clock.now())
    harness.minutes()
    first, second = harness.runs
    assert (first.state, second.state) == (RunState.CANCELING, RunState.QUEUED)
    assert second.id in first.message
    harness.minutes()
    assert [run.state for run in harness.runs] == ["CANCELING", "CANCELED", "QUEUED"]
    assert harness.told == ["RunReplaced", "RunReplaced"], "each once"


@pytest.mark.parametrize("by", ["a person", "the manifest"])
def test_what_is_missed_while_suspended_is_not_made_up_for(harness: Scene, by: str) -> None:
    harness.publish(pipeline())
    condition = Condition(ConditionType.SUSPENDED, True, Reason.SUSPENDED, "")
    if by == "a person":
        harness.store.apps.set_suspended(APP, True)
    else:
        harness.store.apps.save(AppStatus(APP, conditions=(condition,)))
    harness.minutes(3)
    harness.store.apps.set_suspended(APP, False)
    harness.store.apps.save(AppStatus(APP))
    harness.cron_scheduler.run_once()
    assert harness.runs == []
    harness.minutes()
    assert len(harness.runs) == 1


def test_whoever_looks_with_what_is_outdated_changes_nothing(harness: Scene) -> None:
    harness.publish(pipeline())
    (before,) = harness.store.schedules.all()
    harness.minutes()
    (after,) = harness.store.schedules.all()
    assert before.mark
    assert after.mark
    assert not harness.store.schedules.advance(before, after.mark)
    assert not harness.store.schedules.advance(
        replace(after, schedule=make(CronSchedule, "1 * * * *")), before.mark
    )
    assert harness.store.schedules.all() == (after,)


def test_ticks_of_long_ago_are_forgotten(harness: Scene) -> None:
    harness.publish(pipeline())
    harness.minutes()
    assert not harness.store.schedules.take(APP, TRAIN, harness.clock.now() - 30.0)
    harness.clock.advance(36 * 86400.0)
    harness.store.prune()
    assert harness.store.schedules.take(APP, TRAIN, harness.clock.now() - 30.0 - 36 * 86400.0)
