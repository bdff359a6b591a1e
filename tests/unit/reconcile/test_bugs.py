"""A bug in any call of a pass: the pass ends in words, the next one puts everything right, and nobody else notices.

The bug is an exception that nothing in the code expects, raised by one call to the world outside; every kind of call
that the pass makes has its turn.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.conditions import is_ready
from controller.domain.apps.requests import RequestState, Trigger
from controller.domain.apps.spec import GitRef, PlatformSpec, RefKind, RepositorySpec
from controller.domain.names import PLATFORM, AppName
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.loop import ControlLoop
from controller.reconcile.platform import PlatformReconciler
from controller.reconcile.reconciliation import reconcile
from tests.support.failing import BUGS, Failing, Faults, failing_store
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.reconcile.harness import APP, REPOSITORY, Harness, api, app, built, ml

PORTS = ("engine", "sources", "storage", "prober", "models")


def exposed(harness: Harness, faults: Faults) -> ReconcilerDeps:
    ports: Any = {name: Failing(getattr(harness.deps, name), faults, prefix=f"{name}.") for name in PORTS}
    return replace(harness.deps, store=failing_store(harness.store, faults), **ports)


def prepared(folder: Path) -> Harness:
    harness = Harness(folder)
    harness.connect()
    harness.push(ml(), api())
    assert harness.run().name == "Ready"
    harness.push(ml(image="demo:2"), ml("added"), api())
    return harness


def calls_of_a_pass(folder: Path) -> list[str]:
    faults = Faults()
    harness = prepared(folder)
    reconcile(exposed(harness, faults), harness.request(APP, "poll"))
    harness.store.close()
    return list(dict.fromkeys(faults.names))


def test_a_bug_in_any_call_of_a_pass_ends_in_words_and_is_made_good(tmp_path: Path) -> None:
    names = calls_of_a_pass(tmp_path / "whole")
    assert {"apps.status", "apps.save", "sources.fetch", "engine.observe", "events.add"} <= set(names)
    for number, name in enumerate(names):
        harness, faults = prepared(tmp_path / str(number)), Faults()
        try:
            faults.arm(name, [BUGS[number % len(BUGS)]()])
            outcome = served(harness, faults)
            assert faults.left == 0, name
            assert outcome in ("Failed", "Degraded", "Ready"), name
            assert harness.running(), f"{name}: what serves goes on serving"
            harness.clock.advance(1000.0)
            assert harness.run("retry").name == "Ready", name
            assert len(harness.running("added")) == 1, name
        finally:
            harness.store.close()


def served(harness: Harness, faults: Faults) -> str:
    """The outcome of one request that the real loop serves with such a world."""
    deps, stop = exposed(harness, faults), threading.Event()
    request = harness.store.requests.enqueue(APP, Trigger.POLL)
    loop = ControlLoop(harness.store, harness.clock, lambda found: reconcile(deps, found), 1, lambda: None)
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    found = wait_for(
        lambda: harness.store.requests.get(request), lambda r: bool(r and r.state is RequestState.DONE)
    )
    stop.set()
    thread.join()
    assert found is not None
    return found.outcome


class BuggyAtHead:
    """Sources that meet the same bug whenever they do `call` with the newest commit, or with none."""

    def __init__(self, harness: Harness, call: str, bug: Any) -> None:
        self._inner, self._call, self._bug = harness.sources, call, bug
        self._newest = harness.sources.head(harness.catalog.spec.repositories[0], None)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(first: Any, *rest: Any) -> Any:
            if name == self._call and getattr(first, "commit", self._newest) == self._newest:
                raise self._bug()
            return found(first, *rest)

        return call


@pytest.mark.parametrize("call", ["head", "fetch", "files", "content_id", "build_context"])
def test_with_a_bug_at_the_newest_commit_the_last_good_one_stays_in_force_and_is_healed(
    harness: Harness, call: str
) -> None:
    harness.connect()
    good = harness.push(built(), api(), Dockerfile="FROM demo:1")
    assert harness.run().name == "Ready"
    harness.push(built(), api(), Dockerfile="FROM demo:2")
    for bug in BUGS:
        world: Any = replace(harness.deps, sources=BuggyAtHead(harness, call, bug))
        for reason in ("poll", "webhook", "drift", "manual", "retry"):
            [running] = harness.running()
            harness.engine.vanish(running.id)
            harness.clock.advance(1000.0)
            outcome = reconcile(world, harness.request(APP, reason))
            assert outcome.name in ("Degraded", "Failed", "Ready"), (call, reason)
            [healed] = harness.running()
            assert healed.revision == good or call == "head", (call, reason)
            told = " ".join(condition.message for condition in harness.status().conditions)
            assert call == "head" or type(bug()).__name__ in told, (call, reason)
    harness.clock.advance(1000.0)
    assert harness.run("retry").name == "Ready"
    assert harness.status().applied_revision != good


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug()).__name__)
def test_a_status_that_cannot_be_written_is_one_that_says_so(harness: Harness, bug: Any) -> None:
    """Once for the status itself; the second one, without its content, is written."""
    harness.connect()
    harness.push(ml())
    faults = Faults()
    deps = exposed(harness, faults)
    calls = 0
    save = harness.store.apps.save

    def unwritable(status: Any, events: Any = ()) -> None:
        nonlocal calls
        if status.applied_revision:  # the verdict of the pass
            calls += 1
            raise bug()
        save(status, events)

    harness.store.apps.save = unwritable  # type: ignore[method-assign]
    with pytest.raises(Exception, match="could not be saved"):
        reconcile(deps, harness.request(APP, "poll"))
    harness.store.apps.save = save  # type: ignore[method-assign]
    assert calls == 1
    ready = harness.status().conditions[0]
    assert (ready.status, ready.reason) == (False, "InternalError")
    assert type(bug()).__name__ in ready.message
    assert harness.run("retry").name == "Ready"


def platform_of(folder: Path) -> tuple[Harness, Faults, PlatformReconciler]:
    """One that has not read its folder yet, in which two apps are."""
    harness, faults = Harness(folder), Faults()
    repository = make(
        RepositorySpec, REPOSITORY, "https://git.example.org/demo.git", GitRef(RefKind.BRANCH, "main")
    )
    spec = PlatformSpec((repository,), (app("one"), app("two")))
    return harness, faults, PlatformReconciler(exposed(harness, faults), lambda: (spec, ""))


def test_a_bug_in_any_call_of_the_platform_s_pass_loses_no_app(tmp_path: Path) -> None:
    harness, faults, platform = platform_of(tmp_path / "whole")
    platform.reconcile(harness.request(PLATFORM))
    harness.store.close()
    names = list(dict.fromkeys(faults.names))
    assert {"requests.enqueue", "repositories.replace", "apps.save"} <= set(names)
    for number, name in enumerate(names):
        harness, faults, platform = platform_of(tmp_path / str(number))
        try:
            faults.arm(name, [BUGS[number % len(BUGS)]()])
            with suppress(Exception):  # for the loop to handle
                platform.reconcile(harness.request(PLATFORM))
            assert faults.left == 0, name
            platform.reconcile(harness.request(PLATFORM))
            assert is_ready(harness.status(PLATFORM).conditions), name
            assert all(harness.store.requests.queued(AppName(each)) for each in ("one", "two")), name
        finally:
            harness.store.close()
