"""A bug in a step of the runner, the cron scheduler or the webhooks: threads continue, nothing else is affected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.cron import CronTicks
from controller.domain.apps.spec import CronSchedule, Overlap, SecretSpec, Webhook
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import RunState, cancel, new_run
from controller.domain.secret import Secret
from controller.runner.cron_scheduler import CronScheduler
from controller.runner.runner import Runner
from controller.runner.webhook_dispatcher import WebhookDispatcher
from tests.support.failing import BUGS, Failing, Faults, failing_store
from tests.support.receivers import WHSEC
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, Harness, pipeline
from tests.unit.runner.test_webhook_dispatcher import FakeSender

ids: Callable[[Callable[[], Exception]], str] = lambda bug: type(bug()).__name__  # noqa: E731


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "state")
    yield made
    made.close()


STEPS = (
    "changed",
    "runs.claim",
    "runs.active",
    "runs.get",
    "runs.save",
    "runs.expired",
    "transaction",
    "free_percent",
)


@pytest.mark.parametrize("bug", BUGS[:2], ids=ids)
@pytest.mark.parametrize("step", STEPS)
def test_a_bug_in_any_step_of_the_runner_ends_no_run(
    harness: Harness, step: str, bug: Callable[[], Exception]
) -> None:
    faults = Faults()

    def free_percent(folder: Path) -> float:
        faults.meet("free_percent")
        return 50.0

    deps = replace(harness.deps, store=failing_store(harness.store, faults), free_percent=free_percent)
    faults.arm(step, [bug(), bug()])
    with harness.running(deps):
        first, second = harness.submit(), harness.submit()
        wait_for(lambda: harness.let_pass() is harness and not faults.left)
        for id in (first, second, harness.submit()):
            ended = wait_for(lambda id=id: harness.let_pass().run(id), lambda run: run.state.terminal)  # type: ignore[misc]
            assert ended.state is RunState.SUCCEEDED


def test_a_runner_that_was_ended_by_force_can_be_started_again(harness: Harness) -> None:
    """As the thread that supervises it does. It ends nobody else: the daemon's own end is another matter."""

    class Ended(BaseException):
        pass

    def end() -> Any:
        raise Ended

    whole = harness.deps
    stop = threading.Event()
    store: Any = Failing(harness.store, Faults())
    store.changed = end
    runner = Runner(replace(whole, store=store))
    with pytest.raises(Ended):
        runner.run(stop)
    assert not stop.is_set()
    del store.changed
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()
    id = harness.submit()
    assert harness.until(id).state is RunState.SUCCEEDED
    stop.set()
    thread.join()


# --- the cron scheduler ----------------------------------------------------------------------------------------------


def published(name: str) -> Pipeline:
    schedule = make(CronSchedule, "* * * * *", overlap=Overlap.ALLOW)
    return make(
        Pipeline,
        APP,
        ComponentName(name),
        "c0ffee",
        (make(Stage, "fit", "sha256:1"),),
        concurrency=10,
        schedule=schedule,
    )


@pytest.mark.parametrize("bug", BUGS[:2], ids=ids)
@pytest.mark.parametrize(
    "step",
    ["schedules.all", "schedules.advance", "schedules.take", "apps.status", "runs.submit", "transaction"],
)
def test_a_bug_in_any_step_of_the_cron_scheduler_stops_no_schedule(
    harness: Harness, step: str, bug: Callable[[], Exception]
) -> None:
    faults = Faults()
    cron_scheduler = CronScheduler(failing_store(harness.store, faults), harness.clock, CronTicks())
    harness.store.runs.publish(APP, (published("one"), published("two")))
    cron_scheduler.run_once()
    harness.clock.advance(60.0)
    faults.arm(step, [bug()])
    stop = threading.Event()
    thread = threading.Thread(target=cron_scheduler.run, args=(stop,))
    thread.start()
    wait_for(lambda: {run.name for run in harness.store.runs.list(APP)} == {"one", "two"})
    stop.set()
    thread.join()
    assert faults.left == 0
    assert len(harness.store.runs.list(APP)) == 2


# --- webhooks ---------------------------------------------------------------------------------------------------


def end_a_run(harness: Harness, id: str) -> None:
    of = pipeline(webhook=Webhook("hooks", f"https://example.org/{id}"))
    queued = harness.store.runs.submit(new_run(id, of, harness.clock.now(), "anna"))
    assert harness.store.runs.save(cancel(queued, harness.clock.now()))


@pytest.mark.parametrize("bug", BUGS[:2], ids=ids)
@pytest.mark.parametrize("step", ["changed", "webhooks.due", "webhooks.delivered", "secret", "send", "ready"])
def test_a_bug_in_any_step_of_the_webhooks_loses_none(
    harness: Harness, step: str, bug: Callable[[], Exception]
) -> None:
    faults, sender = Faults(), FakeSender()
    secret = SecretSpec("hooks", (("secret", Secret(WHSEC)),), APP)

    def met(name: str, answer: Any) -> Any:
        faults.meet(name)
        return answer

    sender.answer = lambda url: met("send", 204)
    deps = replace(
        harness.deps, store=failing_store(harness.store, faults), secret=lambda *_: met("secret", secret)
    )
    faults.arm(step, [bug(), bug()])
    stop = threading.Event()
    thread = threading.Thread(
        target=WebhookDispatcher(deps, sender.every, lambda: met("ready", True), lambda: 0.0).run,
        args=(stop,),
    )
    thread.start()
    for id in ("a1", "a2"):
        end_a_run(harness, id)
    wait_for(
        lambda: (
            harness.let_pass(60.0) is harness
            and not any(harness.store.webhooks.of(id) for id in ("a1", "a2"))
        ),
    )
    stop.set()
    thread.join()
    assert faults.left == 0
    assert {url for url, _ in sender.sent} == {"https://example.org/a1", "https://example.org/a2"}


def test_a_webhook_that_cannot_be_written_down_does_not_hold_up_the_others(harness: Harness) -> None:
    """However often it fails: the second one is sent, written down and forgotten."""
    sender = FakeSender()
    harness.secrets["hooks"] = SecretSpec("hooks", (("secret", Secret(WHSEC)),), AppName("demo"))
    delivered = harness.store.webhooks.delivered
    poisoned: list[str] = []

    def deliver(id: str) -> None:
        if not poisoned:
            poisoned.append(id)
        if id in poisoned:
            raise RuntimeError("a bug")
        delivered(id)

    harness.store.webhooks.delivered = deliver  # type: ignore[method-assign]
    stop = threading.Event()
    thread = threading.Thread(
        target=WebhookDispatcher(harness.deps, sender.every, rng=lambda: 0.0).run, args=(stop,)
    )
    thread.start()
    for id in ("a1", "a2", "a3"):
        end_a_run(harness, id)
    wait_for(lambda: sum(bool(harness.store.webhooks.of(id)) for id in ("a1", "a2", "a3")) == 1)
    stop.set()
    thread.join()
