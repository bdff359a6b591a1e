"""GPUs of components: from one pool, no GPU for two, and what does not fit waits and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.config.settings import RunSettings
from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.desired import Workload
from controller.domain.apps.hibernation import NEWS_DELAY
from controller.domain.errors import Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.reconcile.next_pass import preview
from controller.reconcile.reconciliation import reconcile
from tests.support.fake_engine import FakeEngine
from tests.support.fake_prober import FakeProber
from tests.unit.reconcile.harness import Harness, app, ml


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path)
    gpu_leases = replace(made.settings, runs=RunSettings(gpus=("0", "GPU-b")))
    made.deps = replace(made.deps, settings=gpu_leases)
    yield made
    made.store.close()


def fast(name: str = "classify", image: str = "demo:1", gpus: int = 1, **spec: Any) -> str:
    return ml(name, image, resources={"gpus": gpus}, **spec)


def gpus(harness: Harness, app: str = "demo") -> dict[str, tuple[str, ...]]:
    """By component and replica, those that run."""
    observed = harness.engine.observe(AppName(app))
    return {f"{w.component}.{w.replica}": w.gpus for w in observed.workloads if w.endpoint}


def leases(harness: Harness) -> list[tuple[str, ...]]:
    return [lease.gpus for lease in harness.store.gpus.leases()]


def test_each_gets_its_own(harness: Harness) -> None:
    harness.connect()
    harness.push(fast(), fast("other"), ml("plain"))
    assert harness.run().name == "Ready"
    assert sorted(gpus(harness).values()) == [(), ("0",), ("GPU-b",)]
    assert sorted(leases(harness)) == [("0",), ("GPU-b",)]


def test_replicas_share_none(harness: Harness) -> None:
    harness.connect()
    harness.push(fast(replicas=2))
    harness.run()
    assert sorted(gpus(harness).values()) == [("0",), ("GPU-b",)]


def test_what_does_not_fit_waits_until_another_app_gives_up(harness: Harness) -> None:
    harness.connect(app(path="one"), app("late", path="late"))
    harness.push(**{"one/m.yaml": fast(gpus=2), "late/m.yaml": fast("late")})
    harness.run()
    outcome = harness.run(app=AppName("late"))
    assert (outcome.name, outcome.retry_after) == ("Waiting", 5.0)
    assert outcome.message == (
        "late: waits for 1 GPU; this host lends 2, and components have 2 of them and stages of runs 0"
    )
    condition = harness.condition(ConditionType.READY, AppName("late"))
    assert condition is not None
    assert condition.reason == "WaitingForGpu"
    fewer = fast(gpus=1, rollout={"strategy": "Recreate"})
    harness.push(**{"one/m.yaml": fewer, "late/m.yaml": fast("late")})
    harness.run()
    assert harness.run("retry", app=AppName("late")).name == "Ready"
    assert set(gpus(harness).values()) | set(gpus(harness, "late").values()) == {("0",), ("GPU-b",)}


def test_what_is_removed_gives_its_own_back(harness: Harness) -> None:
    harness.connect()
    harness.push(fast(gpus=2), ml("plain"))
    harness.run()
    harness.push(ml("plain"))
    harness.run()
    assert leases(harness) == []
    harness.push(fast("next", gpus=2), ml("plain"))
    assert harness.run().name == "Ready"


def test_a_new_version_that_would_wait_for_the_old_one_says_so_and_the_old_one_serves(
    harness: Harness,
) -> None:
    harness.connect()
    harness.push(fast(gpus=2))
    harness.run()
    (old,) = harness.running()
    harness.push(fast(image="demo:2", gpus=2))
    outcome = harness.run()
    assert outcome.name == "Waiting"
    assert "strategy: Recreate" in outcome.message
    assert [w.id for w in harness.running()] == [old.id]
    assert harness.route().upstreams == (old.endpoint,)
    harness.push(fast(image="demo:2", gpus=2, rollout={"strategy": "Recreate"}))
    assert harness.run().name == "Ready"
    assert gpus(harness) == {"classify.0": ("0", "GPU-b")}


def test_a_new_version_beside_the_old_one_gets_another(harness: Harness) -> None:
    harness.connect()
    harness.push(fast())
    harness.run()
    assert gpus(harness) == {"classify.0": ("0",)}
    harness.push(fast(image="demo:2"))
    assert harness.run().name == "Ready"
    assert gpus(harness) == {"classify.0": ("GPU-b",)}
    assert leases(harness) == [("GPU-b",)]


def test_leases_follow_what_runs(harness: Harness) -> None:
    """Whatever became of the database, and of containers behind the daemon's back."""
    harness.connect()
    harness.push(fast(), fast("other"))
    harness.run()
    (lost,) = harness.store.gpus.leases()[:1]
    harness.store.gpus.release(lost.workload)
    harness.run("drift")
    assert sorted(leases(harness)) == [("0",), ("GPU-b",)]
    (running,) = harness.running("other")
    harness.engine.remove(running.id, 0)
    harness.run("drift")
    assert sorted(gpus(harness).values()) == [("0",), ("GPU-b",)]
    harness.disconnect()
    harness.run()
    assert leases(harness) == []


def test_without_any_to_lend_it_is_told_what_is_missing(harness: Harness) -> None:
    harness.deps = replace(harness.deps, settings=replace(harness.settings, runs=RunSettings()))
    harness.connect()
    harness.push(fast())
    outcome = harness.run()
    assert "`runs.gpus`" in outcome.message
    assert harness.running() == []


# --- before anything is done ------------------------------------------------------------------------------------


def planned(harness: Harness, app: str = "demo") -> str:
    return preview(harness.deps, AppName(app)).plan.render()


def warned(harness: Harness, app: str = "demo") -> tuple[str, ...]:
    return preview(harness.deps, AppName(app)).warnings


RECREATE = {"strategy": "Recreate"}


def test_a_rollout_without_a_free_gpu_is_told_before_it_starts(harness: Harness) -> None:
    harness.connect()
    harness.push(fast(gpus=2))
    harness.run()
    harness.engine.registry["demo:4"] = "sha256:" + "4" * 64
    harness.push(fast(image="demo:4", gpus=2))
    text = planned(harness)
    assert (
        "hold classify: WaitingForGpu  # waits for 2 GPUs while its other containers have 2 of the 2" in text
    )
    assert "strategy: Recreate" in text
    outcome = harness.run()
    assert outcome.name == "Waiting"
    assert outcome.message.startswith("classify: version ")
    assert "keeps serving. waits for 2 GPUs" in outcome.message
    assert harness.engine.pulls == [], "nothing is pulled for what cannot start"
    assert "start prichal.demo.classify" in planned_with(
        harness, fast(image="demo:4", gpus=2, rollout=RECREATE)
    )


def planned_with(harness: Harness, text: str) -> str:
    harness.push(text)
    return planned(harness)


def test_one_that_will_not_fit_beside_itself_is_warned_of_at_once(harness: Harness) -> None:
    harness.connect()
    harness.push(fast(gpus=2))
    assert any("2 GPUs beside those of the present one" in text for text in warned(harness))
    assert harness.run().name == "Ready"
    condition = harness.condition(ConditionType.WARNING)
    assert condition is not None
    assert "strategy: Recreate" in condition.message
    for fitting in ({"gpus": 1}, {"gpus": 2, "rollout": RECREATE}):
        harness.push(fast(**fitting))
        assert warned(harness) == ()


def test_a_host_that_has_fewer_stops_nothing_for_it(harness: Harness) -> None:
    harness.connect()
    harness.push(fast(rollout=RECREATE))
    harness.run()
    (old,) = harness.running()
    harness.push(fast(image="demo:2", gpus=3, rollout=RECREATE))
    assert any("this host lends 2" in text for text in warned(harness))
    assert harness.run().name == "Degraded"
    assert [w.id for w in harness.running()] == [old.id]
    assert harness.engine.removals == []


@pytest.mark.parametrize("strategy", ["BlueGreen", "Recreate"])
def test_one_that_grows_while_another_app_has_the_rest(harness: Harness, strategy: str) -> None:
    rollout = {"strategy": strategy}
    harness.connect(app(path="one"), app("late", path="late"))
    harness.push(**{"one/m.yaml": fast(rollout=rollout), "late/m.yaml": fast("late")})
    harness.run()
    harness.run(app=AppName("late"))
    (old,) = harness.running()
    grown = fast(gpus=2, rollout=rollout)
    harness.push(**{"one/m.yaml": grown, "late/m.yaml": fast("late")})
    assert harness.run().name == "Waiting"
    assert [w.id for w in harness.running()] == [old.id], "it serves until there is enough for the new one"
    harness.push(**{"one/m.yaml": grown, "late/m.yaml": ml("late")})
    harness.run(app=AppName("late"))
    if strategy == "Recreate":
        assert harness.run("retry").name == "Ready"
        assert gpus(harness) == {"classify.0": ("0", "GPU-b")}
    else:
        assert harness.run("retry").name == "Waiting"
        assert "strategy: Recreate" in harness.outcome.message
        assert [w.id for w in harness.running()] == [old.id]


# --- while it is done -------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The daemon is killed."""


class Interrupted(FakeEngine):
    """Calls `act` right before and right after each call that changes anything."""

    act: Callable[[], None] = staticmethod(lambda: None)

    def start(self, workload: Workload, name: str) -> None:
        self.act()
        super().start(workload, name)
        self.act()

    def remove(self, workload_id: str, grace: float, last: Callable[[], object] = lambda: None) -> None:
        self.act()
        super().remove(workload_id, grace, last)
        self.act()


@pytest.fixture
def contended(harness: Harness) -> Interrupted:
    """A host with one GPU, which the app `demo` has, and the app `late` waits for."""
    engine = Interrupted(images={"demo:1", "demo:2", "demo:3"}, now=harness.clock.now)
    engine.look = harness.engine.look
    harness.engine, prober = engine, FakeProber(engine)
    settings = replace(harness.settings, runs=RunSettings(gpus=("0",)))
    harness.deps = replace(harness.deps, engine=engine, prober=prober, settings=settings)
    harness.connect(app(path="one"), app("late", path="late"))
    push(harness, fast(rollout=RECREATE))
    assert harness.run().name == "Ready"
    assert late(harness) == "Waiting"
    return engine


def push(harness: Harness, manifest: str) -> None:
    harness.push(**{"one/m.yaml": manifest, "late/m.yaml": fast("late")})


def late(harness: Harness) -> str:
    """A pass of the app that waits, at the worst moment."""
    return str(harness.run_unchecked("retry", app=AppName("late")).name)


def test_nobody_takes_what_is_handed_over(harness: Harness, contended: Interrupted) -> None:
    others: list[str] = []
    contended.act = lambda: others.append(late(harness))
    push(harness, fast(image="demo:2", rollout=RECREATE))
    assert harness.run().name == "Ready"
    assert set(others) == {"Waiting"}
    assert len(others) == 4, "around one removal and one start"
    assert gpus(harness) == {"classify.0": ("0",)}
    assert leases(harness) == [("0",)]


def test_a_version_that_fails_gives_its_gpu_back_to_the_old_one(
    harness: Harness, contended: Interrupted
) -> None:
    others: list[str] = []
    contended.exits_at_start["classify"] = 1

    def act() -> None:
        others.append(late(harness))
        if harness.engine.observe(AppName("demo")).workloads:
            contended.exits_at_start.pop("classify", None)

    contended.act = act
    push(harness, fast(image="demo:2", rollout=RECREATE))
    harness.run()
    for _ in range(3):
        harness.clock.advance(60.0)
        harness.run("drift")
    assert set(others) == {"Waiting"}
    assert gpus(harness) == {"classify.0": ("0",)}
    assert leases(harness) == [("0",)]


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("newer", [False, True])
def test_a_daemon_that_is_killed_loses_no_gpu(
    harness: Harness, contended: Interrupted, step: int, newer: bool
) -> None:
    steps = iter(range(10))

    def die() -> None:
        if next(steps) == step:
            raise Killed

    contended.act = die
    push(harness, fast(image="demo:2", rollout=RECREATE))
    with pytest.raises(Killed):
        harness.run()
    contended.act = lambda: None
    if newer:
        push(harness, fast(image="demo:3", rollout=RECREATE))
    harness.deps.gpu_leases.restore()
    assert late(harness) == "Waiting"
    assert harness.run("start").name == "Ready"
    assert gpus(harness) == {"classify.0": ("0",)}
    assert late(harness) == "Waiting"
    assert leases(harness) == [("0",)]


def test_what_a_lost_database_forgot_is_lent_to_nobody_else(harness: Harness, contended: Interrupted) -> None:
    (lease,) = harness.store.gpus.leases()
    harness.store.gpus.release(lease.workload)
    assert planned(harness, "late").count("start") == 1, "the plan knows no better"
    assert late(harness) == "Waiting"
    assert harness.store.gpus.leases() == (lease,)


def test_two_apps_that_ask_for_the_last_one_at_once(harness: Harness, contended: Interrupted) -> None:
    push(harness, ml())
    harness.run()
    push(harness, fast())
    with ThreadPoolExecutor(2) as threads:
        ends = list(
            threads.map(
                lambda name: reconcile(harness.deps, harness.request(AppName(name))), ["demo", "late"]
            )
        )
    assert sorted(end.name for end in ends) == ["Ready", "Waiting"]
    assert leases(harness) == [("0",)]


def test_of_a_suspended_app_what_is_removed_is_free(harness: Harness, contended: Interrupted) -> None:
    harness.store.apps.set_suspended(AppName("demo"), True)
    (running,) = harness.running()
    contended.down = True
    assert harness.run_unchecked("drift").name == "Suspended", "it does not need the engine"
    contended.down = False
    contended.remove(running.id, 0)
    harness.run("drift")
    assert late(harness) == "Ready"


# --- cards that come and go -------------------------------------------------------------------------------------


def lend(harness: Harness, *gpus: str, lost: dict[str, str] | None = None) -> None:
    """The daemon starts again with this configuration."""
    settings = replace(harness.settings, runs=RunSettings(gpus=gpus))
    harness.deps = replace(harness.deps, settings=settings, lost_gpus=lambda: lost or {})


def test_one_that_is_taken_out_of_the_configuration_stays_with_who_has_it(harness: Harness) -> None:
    lend(harness, "0")
    harness.connect()
    harness.push(fast())
    harness.run()
    lend(harness, "GPU-c")
    assert harness.run().name == "Ready"
    assert gpus(harness) == {"classify.0": ("0",)}
    harness.push(fast(image="demo:2"))
    assert harness.run().name == "Ready"
    assert gpus(harness) == {"classify.0": ("GPU-c",)}, "the next version has one of those that are left"


def test_one_that_appears_is_lent_to_who_waits(harness: Harness) -> None:
    lend(harness, "0")
    harness.connect()
    harness.push(fast(), fast("other"))
    assert harness.run().name == "Waiting"
    lend(harness, "0", "1")
    assert harness.retry().name == "Ready"
    assert sorted(gpus(harness).values()) == [("0",), ("1",)]


def test_one_that_does_not_work_is_not_lent(harness: Harness) -> None:
    lend(harness, "0", "1", lost={"0": "GPU is lost"})
    harness.connect()
    harness.push(fast(), fast("other"))
    assert harness.run().name == "Waiting"
    assert "of which 0 does not work (GPU is lost)" in harness.outcome.message
    assert list(gpus(harness).values()) == [("1",)]
    lend(harness, "0", "1")
    assert harness.retry().name == "Ready"


# --- sharing ----------------------------------------------------------------------------------------------------


def shared(name: str = "classify", share: int = 2, **spec: Any) -> str:
    return ml(name, resources={"gpus": 1, "gpuShare": share}, **spec)


def test_who_shares_has_the_same_one(harness: Harness) -> None:
    lend(harness, "0")
    harness.connect()
    names = ("classify", "other", "third")
    harness.push(*(shared(name, rollout=RECREATE) for name in names))
    assert harness.run().name == "Waiting"
    assert sorted(gpus(harness).values()) == [("0",), ("0",)], "each says two, so that two have it"
    harness.push(*(shared(name, share=3, rollout=RECREATE) for name in names))
    assert harness.settle().name == "Ready"
    assert sorted(gpus(harness).values()) == [("0",)] * 3


@pytest.mark.parametrize(("first", "second"), [(1, 8), (8, 1)])
def test_nobody_shares_unless_both_say_so(harness: Harness, first: int, second: int) -> None:
    lend(harness, "0")
    harness.connect(app(path="one"), app("late", path="late"))
    harness.push(**{"one/m.yaml": shared(share=first), "late/m.yaml": shared("late", share=second)})
    assert harness.run().name == "Ready"
    assert harness.run(app=AppName("late")).name == "Waiting"


def test_a_shared_one_has_room_for_the_next_version(harness: Harness) -> None:
    lend(harness, "0")
    harness.connect()
    harness.push(shared())
    harness.run()
    harness.push(shared(image="demo:2"))
    assert warned(harness) == ()
    assert harness.run().name == "Ready"
    assert gpus(harness) == {"classify.0": ("0",)}
    assert leases(harness) == [("0",)]


# --- sleep ------------------------------------------------------------------------------------------------------


def test_who_sleeps_has_none_and_waits_for_one_when_called(harness: Harness) -> None:
    lend(harness, "0")
    harness.connect(app(path="one"), app("late", path="late"))
    sleeper = fast(hibernation={"idleAfter": "10m"})
    harness.push(**{"one/m.yaml": sleeper, "late/m.yaml": fast("late")})
    harness.run()
    harness.clock.advance(600.0 + NEWS_DELAY)
    assert harness.run("drift").name == "Ready"
    assert leases(harness) == []
    assert harness.run(app=AppName("late")).name == "Ready"
    harness.store.activity.touch([(AppName("demo"), ComponentName("classify"))], harness.clock.now())
    outcome = harness.run("wake")
    assert (outcome.name, outcome.retry_after) == ("Degraded", 5.0)
    assert "waits for 1 GPU" in outcome.message
    assert harness.route().asleep, "calls are held until there is one"
    harness.push(**{"one/m.yaml": sleeper, "late/m.yaml": ml("late")})
    harness.run(app=AppName("late"))
    assert harness.run("retry").name == "Ready"
    assert gpus(harness) == {"classify.0": ("0",)}


@pytest.mark.parametrize("image", ["demo:2", "demo:1"], ids=["a new version", "a repair"])
def test_what_is_handed_over_is_kept_while_a_failed_start_waits_for_the_next_attempt(
    harness: Harness, contended: Interrupted, image: str
) -> None:
    def fail(workload: Workload, name: str) -> None:
        raise Transient(Reason.ENGINE_FAILED, "not today")

    if image == "demo:1":
        contended.exit(harness.running()[0].id)
    push(harness, fast(image=image, rollout=RECREATE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contended, "start", fail)
        harness.run()
        assert late(harness) == "Waiting"
    harness.clock.advance(600.0)
    assert harness.run("retry").name == "Ready"
    assert gpus(harness) == {"classify.0": ("0",)}
