"""Whatever fails, and whatever asks for passes meanwhile: attempts at it are few, and its neighbours go on.

The table has every action that can fail; half an hour of it is played with the queue's own rules in fake time, while
drift is reported every minute and after each pass in which the engine reported an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.config.settings import StorageSettings
from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.observed import ObservedWorkload
from controller.domain.apps.requests import Trigger
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from controller.reconcile.reconciliation import reconcile
from tests.unit.reconcile.harness import APP, Harness, api, built, manifest, ml
from tests.unit.reconcile.test_models import box, upload, with_model

SPAN = 1800.0  # seconds that are played
DRIFT = 60.0
MOST = 15  # attempts in that time: after pauses of 2, 4, 8, … 256 seconds, then of five minutes
NO = Transient(Reason.ENGINE_FAILED, "it does not work today")
DENIED = Stalled(Reason.ENGINE_REFUSED, "it will never work")


@dataclass
class Failing:
    """In place of one method of a port: fails, and counts how often it was tried."""

    error: Exception
    calls: int = 0

    def __call__(self, *args: object, **options: object) -> Any:
        self.calls += 1
        raise self.error


def play(harness: Harness, seconds: float = SPAN) -> int:
    """What the loop does within that time, with drift told all along. The number of passes."""
    queue, end, tick, passes = harness.store.requests, harness.clock.now() + seconds, harness.clock.now(), 0
    while (now := harness.clock.now()) < end:
        if now >= tick:
            queue.enqueue(APP, Trigger.DRIFT)
            tick = now + DRIFT
        request = queue.claim(now)
        if request is None:
            harness.clock.advance(max(0.001, min(tick, queue.next_due() or tick) - now))
            continue
        told, passes = harness.engine.told, passes + 1
        outcome = reconcile(harness.deps, request)
        queue.finish(request.id, outcome.name, outcome.message, outcome.revision)
        if outcome.retry_after is not None:
            queue.enqueue(APP, Trigger.RETRY, harness.clock.now() + outcome.retry_after)
        if harness.engine.told > told:
            queue.enqueue(APP, Trigger.DRIFT)
    return passes


Case = Callable[[Harness, Exception], Failing]


def starting(harness: Harness, error: Exception) -> Failing:
    return _broken(harness.engine, "start", error)


def starting_again(harness: Harness, error: Exception) -> Failing:
    harness.run()
    harness.engine.vanish(harness.running()[0].id)
    return _broken(harness.engine, "start", error)


def making_the_network(harness: Harness, error: Exception) -> Failing:
    return _broken(harness.engine, "ensure_network", error)


def pulling(harness: Harness, error: Exception) -> Failing:
    harness.engine.registry["hub/demo:1"] = "sha256:1"
    harness.push(ml(image="hub/demo:1"), api(), ml("other"))
    return _broken(harness.engine, "pull", error)


def pinning(harness: Harness, error: Exception) -> Failing:
    harness.push(ml(image="hub/demo:1"), api(), ml("other"))
    broken = Failing(error)
    pin = harness.engine.pin

    def some(source: Any, *rest: Any) -> Any:
        return broken() if getattr(source, "reference", "") == "hub/demo:1" else pin(source, *rest)

    harness.engine.pin = some  # type: ignore[assignment, method-assign]
    return broken


def building(harness: Harness, error: Exception) -> Failing:
    harness.push(built(), api(), ml("other"))
    return _broken(harness.engine, "build", error)


def removing_the_old_version(harness: Harness, error: Exception) -> Failing:
    harness.run()
    harness.push(ml(image="demo:2"), api(), ml("other"))
    return _broken(harness.engine, "remove", error)


def removing_what_left_git(harness: Harness, error: Exception) -> Failing:
    harness.push(ml(), api(), ml("other"), ml("third"))
    harness.run()
    harness.push(ml(), api(), ml("other"))
    return _broken(harness.engine, "remove", error)


def making_a_bucket(harness: Harness, error: Exception) -> Failing:
    harness.push(ml(), api(), ml("other"), manifest("DataBox", "userdata", s3DefaultStorage={}))
    return _broken(harness.storage.objects(), "create_bucket", error)


def limiting_a_bucket(harness: Harness, error: Exception) -> Failing:
    harness.push(ml(), api(), ml("other"), manifest("DataBox", "userdata", s3DefaultStorage={}))
    admin = harness.storage.admin()
    assert admin is not None
    return _broken(admin, "set_quota", error)


def becoming_ready_and_vanishing(harness: Harness, error: Exception) -> Failing:
    """Between readiness and the switch."""
    gone = Failing(error)

    def vanish(workload: ObservedWorkload) -> None:
        if workload.component == "classify":
            gone.calls += 1
            harness.engine.vanish(workload.id)

    harness.prober.on_probe = vanish
    return gone


def looking_at_the_content(harness: Harness, error: Exception) -> Failing:
    harness.push(built(), api(), ml("other"))
    return _broken(harness.sources, "build_context", error)


def bringing_a_model(harness: Harness, error: Exception) -> Failing:
    upload(harness, b"one")
    harness.push(with_model(), box(), api(), ml("other"))
    return _broken(harness.models, "stage", error)


def switching_the_route(harness: Harness, error: Exception) -> Failing:
    broken, switch = Failing(error), harness.store.routes.switch

    def some(route: Any, *rest: Any) -> Any:
        return broken() if route.component == "classify" else switch(route, *rest)

    harness.store.routes.switch = some  # type: ignore[assignment, method-assign]
    return broken


def withdrawing_a_route(harness: Harness, error: Exception) -> Failing:
    harness.push(ml(), api(), ml("other"), ml("third"))
    harness.run()
    harness.push(ml(), api(), ml("other"))
    return _broken(harness.store.routes, "withdraw", error)


def publishing_pipelines(harness: Harness, error: Exception) -> Failing:
    stage = {"name": "fit", "image": {"existingImageName": "demo:1"}}
    harness.push(ml("other"), manifest("ExperimentPipeline", "train", vars=[], stages=[stage]))
    return _broken(harness.store.runs, "publish", error)


def keeping_a_bucket(harness: Harness, error: Exception) -> Failing:
    harness.push(ml(), ml("other"), manifest("DataBox", "userdata", s3DefaultStorage={}))
    harness.run()
    harness.push(ml(), ml("other"))
    return _broken(harness.store.boxes, "save", error)


def putting_to_sleep(harness: Harness, error: Exception) -> Failing:
    harness.push(ml(hibernation={"idleAfter": "1m"}), ml("other"))
    harness.run()
    return _broken(harness.engine, "remove", error)


def _broken(port: object, method: str, error: Exception) -> Failing:
    broken = Failing(error)
    if method == "start":  # of one component alone
        start = scene_start(port, broken)
        setattr(port, method, start)
    else:
        setattr(port, method, broken)
    return broken


def scene_start(port: Any, broken: Failing) -> Callable[..., None]:
    start = port.start

    def some(workload: Any, name: str) -> None:
        if workload.component == "classify":
            broken()
        start(workload, name)

    return some


CASES: tuple[Case, ...] = (
    starting,
    starting_again,
    making_the_network,
    pulling,
    pinning,
    building,
    removing_the_old_version,
    removing_what_left_git,
    making_a_bucket,
    limiting_a_bucket,
    becoming_ready_and_vanishing,
    looking_at_the_content,
    bringing_a_model,
    switching_the_route,
    withdrawing_a_route,
    publishing_pipelines,
    keeping_a_bucket,
    putting_to_sleep,
)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path, StorageSettings())
    made.connect()
    made.push(ml(), api(), ml("other"))
    yield made
    made.store.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize(
    "error",
    [
        NO,
        pytest.param(DENIED, marks=pytest.mark.slow),
        pytest.param(ZeroDivisionError("a bug"), marks=pytest.mark.slow),
    ],
    ids=lambda error: type(error).__name__,
)
def test_attempts_are_few_and_the_neighbours_go_on(harness: Harness, case: Case, error: Exception) -> None:
    broken = case(harness, error)
    passes = play(harness)
    assert 1 <= broken.calls <= MOST * (2 if case is switching_the_route else 1)  # there and back again
    assert passes <= SPAN / DRIFT + 3 * MOST
    if case is not making_the_network:
        assert harness.running("other")
    told = [event.reason for event in harness.store.events.list(APP, limit=10_000)]
    reason = error.reason if isinstance(error, ControllerError) else "InternalError"
    if case is not becoming_ready_and_vanishing:
        assert 1 <= told.count(Reason(reason)) <= 2, "a failure is told once"


# --- an app that goes -------------------------------------------------------------------------------------------

LEAVING: dict[str, Callable[[Harness, Exception], Failing]] = {
    "removing its containers": lambda harness, error: _broken(harness.engine, "remove", error),
    "withdrawing its routes": lambda harness, error: _broken(harness.store.routes, "withdraw", error),
    "removing its network": lambda harness, error: _broken(harness.engine, "remove_network", error),
    "removing its images": lambda harness, error: _broken(harness.engine, "prune_images", error),
    "removing images that were pulled for it": lambda harness, error: _broken(
        harness.engine, "remove_pulled_images", error
    ),
}
#: Cases whose error is in the log of the daemon alone.
WITHOUT_REASON = {"removing its images", "removing images that were pulled for it"}
IN_USE = Transient(Reason.NETWORK_IN_USE, "network prichal.demo has active endpoints")


@pytest.mark.parametrize("case", LEAVING)
@pytest.mark.parametrize(
    "error", [NO, DENIED, ZeroDivisionError("a bug")], ids=lambda error: type(error).__name__
)
def test_an_app_that_cannot_go_says_why_and_is_tried_ever_less_often(
    harness: Harness, case: str, error: Exception
) -> None:
    harness.run()
    harness.disconnect()
    broken = LEAVING[case](harness, error)
    passes = play(harness)
    assert 1 <= broken.calls <= 2 * max(MOST, int(SPAN / DRIFT))  # of two components
    assert passes <= SPAN / DRIFT + 3 * MOST
    told = harness.status().conditions[0]
    assert not told.status or case in WITHOUT_REASON
    if case not in WITHOUT_REASON:
        assert str(error) in told.message
        events = [event.message for event in harness.store.events.list(APP, limit=10_000)]
        assert events.count(told.message) <= 2, "once of each component"


def test_an_app_whose_network_others_use_is_tried_ever_less_often(harness: Harness) -> None:
    harness.run()
    harness.disconnect()
    broken = _broken(harness.engine, "remove_network", IN_USE)
    play(harness)
    assert 1 <= broken.calls <= SPAN / DRIFT + MOST
    assert harness.status().conditions[0].message == IN_USE.message


# --- the version before ------------------------------------------------------------------------------------------


def starting_the_new_version(harness: Harness, error: Exception, old: str, both: bool) -> Failing:
    """`both`: the old one does not start any more, either."""
    harness.push(ml(image="demo:2"), api(), ml("other"))
    broken, start = Failing(error), harness.engine.start

    def some(workload: Any, name: str) -> None:
        if workload.component == "classify" and (both or workload.fingerprint != old):
            broken()
        start(workload, name)

    harness.engine.start = some  # type: ignore[method-assign]
    return broken


NEWER: dict[str, Callable[[Harness, Exception, str], Failing]] = {
    "pulling": lambda harness, error, old: pulling(harness, error),
    "pinning": lambda harness, error, old: pinning(harness, error),
    "building": lambda harness, error, old: building(harness, error),
    "starting": lambda harness, error, old: starting_the_new_version(harness, error, old, both=False),
}
ERRORS = [NO, DENIED, ZeroDivisionError("a bug")]


@pytest.mark.parametrize("case", NEWER)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_while_a_newer_version_fails_the_one_in_service_is_healed(
    harness: Harness, case: str, error: Exception
) -> None:
    harness.run()
    old = harness.route().fingerprint
    broken = NEWER[case](harness, error, old)
    harness.run()
    for _ in range(3):
        [serving] = [workload for workload in harness.running() if workload.fingerprint == old]
        harness.engine.vanish(serving.id)
        play(harness, 400.0)
        assert [workload.fingerprint for workload in harness.running()] == [old]
        assert harness.route().fingerprint == old
        assert harness.route().upstreams
    assert 1 <= broken.calls <= MOST
    assert not harness.status().conditions[0].status or harness.condition(ConditionType.DEGRADED)


@pytest.mark.parametrize("error", [NO, ZeroDivisionError("a bug")], ids=lambda error: type(error).__name__)
def test_where_neither_version_starts_attempts_are_few(harness: Harness, error: Exception) -> None:
    harness.run()
    [serving] = harness.running()
    broken = starting_the_new_version(harness, error, serving.fingerprint, both=True)
    harness.engine.vanish(serving.id)
    passes = play(harness)
    assert 2 <= broken.calls <= 2 * MOST
    assert passes <= SPAN / DRIFT + 4 * MOST
