"""What an app uses beside its bounds."""

from __future__ import annotations

import pytest

from controller.domain.apps.observed import ImageUse
from controller.domain.apps.spec import Limits, Resources
from controller.domain.apps.usage import (
    Bounds,
    BuildCount,
    MeasuredUse,
    Resource,
    TakenShare,
    Usage,
    usage,
)
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.async_calls import CallLimits
from controller.domain.routing.shares import shares_of_app
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import RunCount, RunState, new_run
from controller.domain.runs.stage_slots import Use
from controller.domain.storage.box import BoxRecord
from tests.support.specs import make

APP, OTHER = AppName("demo"), AppName("other")
TRAIN = ComponentName("train")
BOUNDS = Bounds(
    runs=3,
    stages=12,
    queue=1000,
    queue_size=64,
    run_files=50,
    images=40,
    pulled_images=41,
    scratch=30,
    build_files=31,
    of_workers=shares_of_app(1000, 250, 200, CallLimits(16, 8, 1000, 2**30, 2**28, 2**24, 3600.0)),
)


def test_what_is_declared_and_what_runs_is_added_up() -> None:
    stages = (make(Stage, "a", "i", resources=make(Resources, cpus=2.0, memory=100)), make(Stage, "b", "i"))
    running = new_run("r1", make(Pipeline, APP, TRAIN, "c0ffee", stages), 0.0).to(RunState.STARTING, 1.0)
    running = running.with_stage(running.stage("a").begin(1.0))
    found = MeasuredUse(
        declared={APP: Use(1.5, 1000, 0, 3), OTHER: Use(9.0, 9, 9, 9)},
        active=(running,),
        counts=(
            RunCount(APP, TRAIN, RunState.QUEUED, 5, "r2"),
            RunCount(APP, TRAIN, RunState.STARTING, 1, "r1"),
            RunCount(APP, TRAIN, RunState.SUCCEEDED, 7, "r0"),
            RunCount(OTHER, TRAIN, RunState.QUEUED, 50, "r3"),
        ),
        boxes=(
            BoxRecord(APP, ComponentName("tables"), "t", 100, used=10),
            BoxRecord(APP, ComponentName("models"), "m", 200, used=20),
            BoxRecord(OTHER, ComponentName("tables"), "o", 100, used=99),
        ),
        queued={APP: 6, OTHER: 60},
        run_files={APP: 7},
        images={OTHER: ImageUse(8, 8, 8), APP: ImageUse(5, 4, 3)},
        scratch={APP: 9},
        builds={APP: BuildCount(1, 2)},
        taken=(
            TakenShare(APP, Resource.CALLS, 3),
            TakenShare(APP, Resource.CALLS, 240),
            TakenShare(OTHER, Resource.CALLS, 250),
            TakenShare(APP, Resource.SOCKETS, 6),
            TakenShare(APP, Resource.PASSWORD_CHECKS, 2),
            TakenShare(APP, Resource.ASYNC_CALLS, 17),
            TakenShare(APP, Resource.ASYNC_RESULTS, 5000),
        ),
    )
    shown = {
        each.resource: (each.used, each.bound)
        for each in usage(APP, Limits(16.0, 4000, 500, 64), BOUNDS, found)
    }
    assert shown == {
        "cpus": (3.5, 16.0),
        "memory": (1100, 4000),
        "containers": (4, 64),
        "storage": (30, 500),
        "box models": (20, 200),
        "box tables": (10, 100),
        "runs": (1, 3),
        "stages": (1, 12),
        "queue": (5, 1000),
        "queue size": (6, 64),
        "run files": (7, 50),
        "images": (5, 40),
        "pulled images": (4, 41),
        "container files": (9, 30),
        "builds": (1, 1),
        "builds waiting": (2, None),
        "build files": (3, 31),
        "calls": (240, 250),
        "sockets": (6, 200),
        "API requests": (0, 24),
        "transfers": (0, 250),
        "password checks": (2, 32),
        "async calls": (17, 1000),
        "async results": (5000, 2**28),
    }
    with_gpus = usage(APP, Limits(gpus=2), BOUNDS, MeasuredUse({}, (), (), ()))
    assert [each.bound for each in with_gpus if each.resource == "gpus"] == [2]


@pytest.mark.parametrize(
    ("resource", "used", "bound", "nearly"),
    [
        ("queue", 79, 100, False),
        ("queue", 80, 100, True),
        ("box tables", 80, 100, True),
        ("storage", 100, None, False),
        ("storage", 0, 0, False),
        ("cpus", 100, 100, False),
        ("stages", 12, 12, False),
        ("builds", 1, 1, False),
        ("calls", 200, 250, True),
        ("password checks", 26, 32, True),
        ("pulled images", 80, 100, True),
        ("async calls", 800, 1000, True),
        ("async results", 80, 100, True),
    ],
)
def test_only_what_fills_up_is_warned_of(resource: str, used: int, bound: int | None, nearly: bool) -> None:
    assert Usage(APP, resource, used, bound).is_nearly_full is nearly
