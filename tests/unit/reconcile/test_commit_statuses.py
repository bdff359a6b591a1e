"""What passes put into the outbox for the forge: the word on each commit once, and the newest word only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.spec import CommitStatusSpec, StatusProvider
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import Message
from controller.ports import WebhookUnderWay
from tests.unit.reconcile.crashing import ENOUGH, die_at
from tests.unit.reconcile.harness import Harness, app, ml, secret
from tests.unit.reconcile.test_deploy_gate import APPROVAL
from tests.unit.reconcile.test_rollout_watch import count, take_over, version

pytestmark = pytest.mark.slow

LATER = 10.0**12


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "state")
    follow(made)
    yield made
    made.store.close()


def follow(harness: Harness, *, told: bool = True, **rules: Any) -> None:
    """Connect the app, with or without statuses."""
    harness.connect(app(**rules), secrets=[secret("bot", None, token="s3cret-of-a-bot")])
    if told:
        spec = harness.catalog.spec
        wanted = CommitStatusSpec(StatusProvider.GITEA, "bot", "https://git.example.org/api/v1")
        (repository,) = spec.repositories
        url = "https://git.example.org/team/demo.git"
        followed = replace(repository, url=url, commit_status=wanted)
        harness.catalog.replace(replace(spec, repositories=(followed,)))


def outbox(harness: Harness) -> list[Message]:
    return list(harness.store.webhooks.due(LATER, WebhookUnderWay()))


def words(harness: Harness) -> list[tuple[str, str, str]]:
    """Take what is in the outbox: commit, state and reason."""
    found = []
    while messages := outbox(harness):
        for message in messages:
            revision, state, reason, *_ = json.loads(message.body)
            found.append((revision, state, reason))
            harness.store.webhooks.delivered(message.id)
    return found


def test_a_commit_that_becomes_ready(harness: Harness) -> None:
    commit = harness.push(ml())
    harness.run()
    assert words(harness) == [(commit, "success", "Ready")], "the newer word replaces the one that waited"
    harness.settle()
    harness.run("manual")
    assert words(harness) == [], "a commit gets each status once"


def test_it_is_pending_from_the_first_action_on(harness: Harness) -> None:
    commit = harness.push(ml())
    seen: list[tuple[str, str, str]] = []

    class Watched:
        """The engine; what is in the outbox is taken before each of its calls."""

        def __getattr__(self, name: str) -> Any:
            seen.extend(words(harness))
            return getattr(harness.engine, name)

    harness.deps = replace(harness.deps, engine=Watched())
    harness.run()
    assert seen == [(commit, "pending", "Applying")]
    assert words(harness) == [(commit, "success", "Ready")]


def test_later_trouble_is_not_the_verdict_on_the_commit(harness: Harness) -> None:
    harness.push(ml())
    harness.run()
    words(harness)
    while not harness.condition(ConditionType.DEGRADED):
        (workload,) = harness.running()
        harness.engine.exit(workload.id)
        harness.run("drift")
    assert words(harness) == []


def test_a_commit_that_fails_and_then_recovers(harness: Harness) -> None:
    commit = harness.push(ml(image="later:1"))
    harness.run()
    assert words(harness) == [(commit, "failure", "ImageNotFound")]
    harness.settle()
    assert words(harness) == [], "the same failure is no news"
    harness.engine.images.add("later:1")
    harness.run("manual")
    assert words(harness) == [(commit, "success", "Ready")]


def test_a_commit_with_invalid_manifests_beside_one_that_serves(harness: Harness) -> None:
    harness.push(ml())
    harness.run()
    words(harness)
    bad = harness.push(ml(servicePort="many"))
    harness.run()
    assert words(harness) == [(bad, "failure", "ManifestInvalid")]
    harness.settle()
    assert words(harness) == []


def test_git_that_does_not_answer_says_nothing_about_a_commit(harness: Harness) -> None:
    harness.push(ml())
    harness.run()
    words(harness)
    harness.sources.fault = Transient(Reason.FETCH_FAILED, "no route")
    harness.run()
    assert words(harness) == []


def test_words_that_were_not_delivered_give_way_to_newer_ones_of_the_same_commit(harness: Harness) -> None:
    first = harness.push(ml(image="later:1"))
    harness.run()
    harness.engine.images.add("later:1")
    harness.run("manual")
    second = harness.push(ml(image="demo:2"))
    harness.run()
    assert words(harness) == [(first, "success", "Ready"), (second, "success", "Ready")]


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_whatever_the_call_at_which_the_daemon_dies_the_forge_gets_the_verdict_once(
    tmp_path: Path, after: bool
) -> None:
    for number in range(1, ENOUGH):
        harness = Harness(tmp_path / str(number))
        try:
            follow(harness)
            commit = harness.push(ml())
            died = die_at(harness, number, after)
            for _ in range(3):
                harness.clock.advance(harness.run("start").retry_after or 0.0)
            verdicts = [word for word in words(harness) if word[1] != "pending"]
            assert verdicts == [(commit, "success", "Ready")], f"after death at call {number}"
        finally:
            harness.store.close()
        if not died:
            return
    pytest.fail("the pass makes more calls than ENOUGH")


def test_no_secret_is_in_the_state(harness: Harness) -> None:
    harness.push(ml())
    harness.run()
    assert outbox(harness)
    assert b"s3cret-of-a-bot" not in harness.all_stored()


def test_without_a_wish_nothing_is_told(harness: Harness) -> None:
    follow(harness, told=False)
    commit = harness.push(ml())
    harness.run()
    assert outbox(harness) == []
    follow(harness)
    harness.run()
    assert words(harness) == [(commit, "success", "Ready")], (
        "the verdict that holds is told when it is asked for"
    )


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_a_version_fails_while_a_newer_commit_waits_and_the_daemon_dies_anywhere(
    tmp_path: Path, after: bool
) -> None:
    """The commit that failed gets the verdict, and the one that waited does not stay pending for good."""
    for number in range(1, ENOUGH):
        harness = Harness(tmp_path / str(number))
        try:
            callers = count(harness)
            first, second = take_over(harness)
            follow(harness, deploy=APPROVAL)
            third = harness.push(*version(3))
            harness.run()
            assert words(harness) == [(third, "pending", "AwaitingApproval")]
            callers.codes[500] += 100
            harness.clock.advance(10.0)
            died = die_at(harness, number, after)
            for _ in range(4):
                harness.run("retry")
            assert harness.route().revision == first
            told = words(harness)
            assert sorted(told) == sorted(
                [(third, "canceled", "RolledBack"), (second, "failure", "RolloutFailed")]
            ), f"after death at call {number}"
        finally:
            harness.store.close()
        if not died:
            return
    pytest.fail("the pass makes more calls than ENOUGH")


def test_what_waited_behind_a_version_that_failed_is_pending_again_after_resume(harness: Harness) -> None:
    callers = count(harness)
    _, second = take_over(harness)
    follow(harness, deploy=APPROVAL)
    third = harness.push(*version(3))
    harness.run()
    callers.codes[500] += 100
    harness.retry()
    harness.run("rollback")
    words(harness)
    rollback = harness.status().rollback
    assert rollback is not None
    harness.store.apps.end_rollback(harness.status().app, rollback)
    harness.store.apps.approve(harness.status().app, third)
    harness.run("manual")
    assert harness.route().revision == third
    assert words(harness)[-1] == (third, "success", "Ready")
    assert second != third
