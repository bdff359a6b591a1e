"""GPUs of components: from one pool, no GPU for two, and what does not fit waits and says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.config.settings import RunSettings
from controller.domain.apps.conditions import ConditionType
from controller.domain.names import AppName
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
        "late waits for 1 GPU; this host lends 2, and components have 2 of them and stages of runs 0"
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
