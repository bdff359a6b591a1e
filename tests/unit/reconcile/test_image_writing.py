"""Images that are followed into Git: a commit by prichal, made once, on top of what others push."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.domain.apps.spec import GitRef, PlatformSpec, RefKind
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from tests.unit.reconcile.following import INTERVAL, NAME, Following
from tests.unit.reconcile.harness import APP, Harness, api

RULE: dict[str, Any] = {"semver": "^1", "writeBack": True}


@pytest.fixture
def following(harness: Harness) -> Following:
    return Following(harness)


def test_the_newest_image_goes_into_git_and_is_deployed_from_there(following: Following) -> None:
    harness, first = following.harness, following.declare(**RULE)
    newest = following.push("1.3.0")
    assert following.ask()
    (draft,) = harness.sources.drafts
    assert draft.path == "m0.yaml"
    assert draft.message.startswith("Follow demo to 1.3.0 in classify\n\nApp: demo\nFile: m0.yaml\n")
    assert f"Before: {NAME}:1.0.0\nAfter: {newest}\n" in draft.message
    assert "Why: 1.3.0 is the highest version within '^1', of 2 among 2 tags\n" in draft.message
    assert following.serving.startswith(f"{NAME}@")  # nothing is deployed beside Git
    harness.run("image")
    status = harness.status()
    assert following.serving == newest
    assert status.applied_revision not in ("", first)
    assert status.applied_images == ()
    assert "ImageWritten" in harness.events()


def test_it_never_loops(following: Following) -> None:
    harness = following.harness
    following.declare(**RULE)
    following.push("1.3.0")
    for _ in range(4):
        following.take()
    assert len(harness.sources.drafts) == 1
    assert harness.running()


def test_a_commit_that_somebody_takes_back_is_not_made_again(following: Following) -> None:
    harness = following.harness
    following.declare(**RULE)
    following.push("1.3.0")
    following.take()
    harness.push(following.manifest(**RULE), api())  # as before
    for _ in range(3):
        following.take()
    assert len(harness.sources.drafts) == 1
    assert following.serving.startswith(f"{NAME}@")
    following.push("1.4.0")
    following.take()
    assert len(harness.sources.drafts) == 2


def test_a_push_at_the_same_time_is_kept(following: Following) -> None:
    harness = following.harness
    following.declare(**RULE)
    newest = following.push("1.3.0")
    pushes = iter(range(2))

    def push() -> None:
        if (number := next(pushes, None)) is not None:
            harness.push(following.manifest(**RULE), api(path=f"path-{number}"))

    harness.sources.before_commit = push
    following.take()
    assert following.serving == newest
    assert [api.path for api in harness.route().apis] == ["path-1"]
    assert len(harness.sources.drafts) == 1


def test_pushes_without_an_end_are_told_and_tried_again(following: Following) -> None:
    harness = following.harness
    following.declare(**RULE)
    newest = following.push("1.3.0")
    harness.sources.before_commit = lambda: harness.push(following.manifest(**RULE), api())
    following.ask()
    assert following.record.state.reason == Reason.BRANCH_MOVED
    assert harness.sources.drafts == []
    harness.sources.before_commit = lambda: None
    following.take()
    assert following.serving == newest
    assert following.record.state.problem == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ref": GitRef(RefKind.TAG, "v1")}, "follows no branch"),
        ({"signers": "keys"}, "takes signed commits alone"),
    ],
    ids=["tag", "signatures"],
)
def test_repositories_that_cannot_be_written_to(
    following: Following, changes: dict[str, object], words: str
) -> None:
    harness = following.harness
    following.declare(**RULE)
    spec = harness.catalog.spec
    (repository,) = spec.repositories
    harness.catalog.replace(PlatformSpec((replace(repository, **changes),), spec.apps))  # type: ignore[arg-type]
    following.push("1.3.0")
    following.ask()
    assert following.record.state.reason == Reason.IMAGE_WRITE_FAILED
    assert words in following.record.state.problem
    assert harness.sources.drafts == []


@pytest.mark.parametrize(
    "fault",
    [Stalled(Reason.AUTHENTICATION_FAILED, "no"), Transient(Reason.FETCH_FAILED, "gone")],
    ids=lambda fault: str(fault.reason),
)
def test_a_git_server_that_refuses_is_told_once_and_asked_again(
    following: Following, fault: Stalled | Transient
) -> None:
    harness = following.harness
    following.declare(**RULE)
    newest = following.push("1.3.0")
    harness.sources.fault = fault
    for _ in range(3):
        following.ask(7200)
    assert harness.events().count(fault.reason) == 1
    harness.sources.fault = None
    following.take(7200)
    assert following.serving == newest


def test_nothing_is_written_while_the_app_is_suspended_or_rolled_back(following: Following) -> None:
    harness = following.harness
    first = following.declare(**RULE)
    harness.store.apps.set_suspended(APP, True)
    following.push("1.3.0")
    following.ask()
    assert harness.sources.drafts == []
    harness.store.apps.set_suspended(APP, False)
    harness.push(following.manifest(**RULE), api(path="other"))
    harness.run()
    harness.roll_back(first)
    harness.run("rollback")
    following.ask()
    assert (
        harness.sources.drafts == []
    )  # it would end the rollback, and deploy the commit that was the reason
    harness.resume()
    following.take()
    assert len(harness.sources.drafts) == 1


def test_a_newer_image_replaces_the_commit_of_a_bad_one(following: Following) -> None:
    harness = following.harness
    first = following.declare(**RULE)
    following.push("1.3.0")
    following.take()
    harness.roll_back(first)
    harness.run("rollback")
    following.take()
    assert len(harness.sources.drafts) == 1
    newest = following.push("1.3.1")
    following.take()
    assert following.serving == newest
    assert harness.status().rollback is None


def test_what_was_deployed_beside_git_stays_until_it_is_in_git(following: Following) -> None:
    harness = following.harness
    following.declare()
    served = following.push("1.3.0")
    following.take()
    harness.push(following.manifest(**RULE), api())
    version = harness.route().fingerprint
    for _ in range(3):
        harness.run()
        assert following.serving == served
        following.ask()
    harness.run("image")
    assert following.serving == served
    assert harness.route().fingerprint == version  # nothing was started again
    assert harness.status().desired_images == ()
    assert len(harness.sources.drafts) == 1


def test_a_death_after_the_push_makes_no_second_commit(following: Following) -> None:
    harness = following.harness
    following.declare(**RULE)
    newest = following.push("1.3.0")
    save = harness.store.images.save

    class Died(BaseException):
        pass

    def die(*args: object) -> bool:
        raise Died

    harness.store.images.save = die  # type: ignore[assignment,method-assign]
    harness.clock.advance(INTERVAL)
    (record,) = following.follower.due()
    with pytest.raises(Died):
        following.follower.follow(record)
    harness.store.images.save = save  # type: ignore[method-assign]
    following.follower._busy.clear()
    following.take()
    assert len(harness.sources.drafts) == 1
    assert following.serving == newest
    assert following.record.state.written == newest


@pytest.mark.parametrize("rule", [{"semver": "~1.0", "writeBack": True}, {"semver": "^1"}], ids=str)
def test_a_push_that_follows_something_else_by_now_is_not_undone(
    following: Following, rule: dict[str, Any]
) -> None:
    harness = following.harness
    following.declare(**RULE)
    following.push("1.3.0")
    harness.push(following.manifest(**rule), api())  # no pass has seen it yet
    following.ask()
    assert not harness.sources.drafts
