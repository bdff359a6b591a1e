"""Runs that start by the clock, over a real store: once a tick, as the overlap rule says, and nobody's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.adapters.cron import CronTicks
from controller.domain.conditions import Condition, ConditionType
from controller.domain.names import AppName, ComponentName
from controller.domain.pipelines import Pipeline, Stage
from controller.domain.runs import Area, Run, RunState
from controller.domain.spec import Overlap, Schedule
from controller.domain.status import AppStatus
from controller.ports import RunLimits
from controller.runner.timetable import Timetable
from controller.store import SqliteStore, open_store
from tests.support.clock import FakeClock

APP, TRAIN = AppName("demo"), ComponentName("train")
MINUTE = 60.0
MINUTELY = Schedule("* * * * *", overlap=Overlap.ALLOW)


def pipeline(schedule: Schedule | None = MINUTELY, name: str = "train", revision: str = "c0ffee") -> Pipeline:
    stage = Stage("fit", "sha256:1", outputs=("model",))
    return Pipeline(APP, ComponentName(name), revision, (stage,), concurrency=10, schedule=schedule)


class Scene:
    def __init__(self, path: Path) -> None:
        self.clock = FakeClock(1_699_999_980.0 + 30.0)  # half a minute past
        self.store: SqliteStore = open_store(path, clock=self.clock.now)
        self.timetable = Timetable(self.store, self.clock, CronTicks())

    def publish(self, *pipelines: Pipeline) -> None:
        self.store.runs.publish(APP, pipelines)
        self.timetable.look()

    def minutes(self, count: float = 1) -> None:
        """They pass, and then somebody looks."""
        self.clock.advance(count * MINUTE)
        self.timetable.look()

    def set_clock(self, seconds: float) -> None:
        self.clock.jump(seconds)
        self.timetable.look()

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
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "db" / "state.db")
    yield made
    made.store.close()


def test_a_run_a_tick(scene: Scene) -> None:
    scene.publish(pipeline(), pipeline(None, "by-hand"))
    assert scene.runs == [], "it begins with the next tick"
    scene.minutes()
    scene.timetable.look()
    (run,) = scene.runs
    assert (run.name, run.cause, run.public, run.user, run.state) == (TRAIN, "schedule", True, None, "QUEUED")
    assert run.area is Area.DEVELOPER
    scene.minutes()
    assert len(scene.runs) == 2


def test_nobody_looked_for_a_while(scene: Scene) -> None:
    scene.publish(pipeline())
    scene.minutes(1000)
    assert len(scene.runs) == 1
    scene.minutes()
    assert len(scene.runs) == 2


def test_the_same_pipeline_published_again(scene: Scene) -> None:
    scene.publish(pipeline())
    scene.minutes()
    scene.publish(pipeline())
    scene.publish(pipeline(revision="another"))
    assert len(scene.runs) == 1
    scene.minutes()
    assert [run.pipeline.revision for run in scene.runs] == ["c0ffee", "another"]


def test_a_schedule_whose_time_zone_is_gone_stops_no_other(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    broken = pipeline(Schedule("* * * * *", "Atlantis/Poseidonis"), "broken")
    scene.publish(broken, pipeline())
    scene.minutes()
    assert [run.name for run in scene.runs] == [TRAIN]
    assert "bug in a schedule" in caplog.text


def test_gone_and_back_again_it_begins_anew(scene: Scene) -> None:
    scene.publish(pipeline())
    scene.minutes()
    scene.publish()
    assert scene.store.schedules.all() == ()
    scene.minutes(10)
    scene.publish(pipeline())
    assert len(scene.runs) == 1, "nothing is made up for"
    scene.minutes()
    assert len(scene.runs) == 2


def test_changed_and_changed_back_no_tick_comes_twice(scene: Scene) -> None:
    scene.publish(pipeline())
    scene.minutes(1)
    scene.clock.jump(-31.0)  # right before the tick that was run
    scene.publish(pipeline(replace(MINUTELY, timezone="Europe/Berlin")))
    scene.publish(pipeline())
    scene.set_clock(2.0)
    assert len(scene.runs) == 1
    scene.minutes()
    assert len(scene.runs) == 2


def test_a_clock_that_leaps_forward_is_made_up_for_once_and_back_stalls_nothing(scene: Scene) -> None:
    scene.publish(pipeline())
    scene.minutes()
    scene.set_clock(10 * 365 * 86400.0)
    assert len(scene.runs) == 2
    scene.set_clock(-10 * 365 * 86400.0)
    assert len(scene.runs) == 2
    scene.minutes()
    assert len(scene.runs) == 3, "the years in between need not come first"


def test_a_clock_that_is_set_back_repeats_nothing(scene: Scene) -> None:
    scene.publish(pipeline())
    for _ in range(5):
        scene.minutes()
    scene.set_clock(-4 * MINUTE)
    for _ in range(4):
        scene.minutes()
    assert len(scene.runs) == 5
    scene.minutes()
    assert len(scene.runs) == 6


def test_forbidden_while_one_is_not_over(scene: Scene) -> None:
    scene.publish(pipeline(replace(MINUTELY, overlap=Overlap.FORBID)))
    for _ in range(4):
        scene.minutes()
    assert len(scene.runs) == 1
    assert scene.told == ["RunSkipped"], "told once"
    (event,) = scene.store.events.list(APP)
    assert (event.component, scene.runs[0].id in event.message) == (TRAIN, True)
    scene.end(scene.runs[0])
    scene.minutes()
    assert len(scene.runs) == 2
    scene.minutes()
    assert scene.told == ["RunSkipped", "RunSkipped"]


def test_runs_that_people_started_are_in_nobodys_way(scene: Scene) -> None:
    scene.publish(pipeline(replace(MINUTELY, overlap=Overlap.FORBID)))
    scene.minutes()
    (first,) = scene.runs
    scene.store.runs.submit(replace(first, id="f" * 19, cause="retry", created=first.created + 1))
    scene.end(first)
    scene.minutes()
    assert [run.cause for run in scene.runs] == ["schedule", "retry", "schedule"]


def test_replaced_while_one_is_not_over(scene: Scene) -> None:
    scene.publish(pipeline(replace(MINUTELY, overlap=Overlap.REPLACE)))
    scene.minutes()
    assert scene.store.runs.claim(RunLimits(10, 10), scene.clock.now())
    scene.minutes()
    first, second = scene.runs
    assert (first.state, second.state) == (RunState.CANCELING, RunState.QUEUED)
    assert second.id in first.message
    scene.minutes()
    assert [run.state for run in scene.runs] == ["CANCELING", "CANCELED", "QUEUED"]
    assert scene.told == ["RunReplaced", "RunReplaced"], "each once"


@pytest.mark.parametrize("by", ["a person", "the manifest"])
def test_what_is_missed_while_suspended_is_not_made_up_for(scene: Scene, by: str) -> None:
    scene.publish(pipeline())
    condition = Condition(ConditionType.SUSPENDED, True, "Suspended", "")
    if by == "a person":
        scene.store.apps.set_suspended(APP, True)
    else:
        scene.store.apps.save(AppStatus(APP, conditions=(condition,)))
    scene.minutes(3)
    scene.store.apps.set_suspended(APP, False)
    scene.store.apps.save(AppStatus(APP))
    scene.timetable.look()
    assert scene.runs == []
    scene.minutes()
    assert len(scene.runs) == 1


def test_whoever_looks_with_what_is_outdated_changes_nothing(scene: Scene) -> None:
    scene.publish(pipeline())
    (before,) = scene.store.schedules.all()
    scene.minutes()
    (after,) = scene.store.schedules.all()
    assert before.mark
    assert after.mark
    assert not scene.store.schedules.advance(before, after.mark)
    assert not scene.store.schedules.advance(replace(after, schedule=Schedule("1 * * * *")), before.mark)
    assert scene.store.schedules.all() == (after,)


def test_ticks_of_long_ago_are_forgotten(scene: Scene) -> None:
    scene.publish(pipeline())
    scene.minutes()
    assert not scene.store.schedules.take(APP, TRAIN, scene.clock.now() - 30.0)
    scene.clock.advance(36 * 86400.0)
    scene.store.prune()
    assert scene.store.schedules.take(APP, TRAIN, scene.clock.now() - 30.0 - 36 * 86400.0)
