"""Images that are followed: a newer one is rolled out like a commit, and held, rolled back and repaired like one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain.apps.conditions import ConditionType, is_ready
from controller.domain.apps.deploy_gate import DeployRules, DeployWindow
from controller.domain.apps.observed import ObservedWorkload
from controller.domain.apps.releases import release
from controller.domain.apps.requests import Outcome
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.reconcile.next_pass import preview
from tests.unit.reconcile.crashing import ENOUGH, Died, Mortal, MortalStore, die_at
from tests.unit.reconcile.following import INTERVAL, NAME, Following
from tests.unit.reconcile.harness import APP, Harness, api, app, manifest, ml
from tests.unit.reconcile.test_rollback import messages
from tests.unit.reconcile.test_rollout_watch import ROLLOUT, count


@pytest.fixture
def following(harness: Harness) -> Following:
    return Following(harness)


def test_the_newest_match_is_rolled_out_and_is_an_entry_of_the_history(following: Following) -> None:
    harness, commit = following.harness, following.declare()
    assert following.serving.startswith(f"{NAME}@sha256:")
    following.push("2.0.0")
    following.push("latest")
    newest = following.push("1.3.0")
    assert following.ask()
    harness.run("image")
    assert following.serving == newest
    assert len(harness.running()) == 1
    status = harness.status()
    assert status.applied_revision == commit
    assert status.applied_images == (("classify", newest),)
    entry = harness.store.history.list(APP)[0]
    assert (entry.revision, entry.images, entry.triggers) == (commit, (("classify", newest),), ("image",))
    (told,) = messages(harness, Reason.NEW_IMAGE)
    assert told.startswith(f"classify: {NAME}:1.3.0 (")
    assert told.endswith(": 1.3.0 is the highest version within '^1', of 2 among 4 tags")


def test_what_is_not_newer_asks_for_no_pass(following: Following) -> None:
    following.declare()
    following.push("1.3.0")
    following.take()
    following.push("1.2.9")
    following.harness.store.requests.claim(following.harness.clock.now())
    assert not following.ask()
    assert len(following.registry.asked) == 4  # a list and a tag, twice


def test_a_tag_that_is_pushed_again_is_followed(following: Following) -> None:
    following.declare(digest=True, tag="stable")
    following.take()
    again = following.push("stable", "other content")
    following.take()
    assert following.serving == again


def test_it_is_asked_in_its_interval_and_not_more_often(following: Following) -> None:
    following.declare(semver="^1", interval="10m")
    assert len(following.follower.due()) == 1  # at once, the first time
    following.follower._busy.clear()
    following.ask(0)
    assert following.record.state.next == following.harness.clock.now() + 600
    asked = len(following.registry.asked)
    following.ask(599)
    assert len(following.registry.asked) == asked
    following.ask(1)
    assert len(following.registry.asked) > asked


def test_a_person_has_it_asked_at_once_but_not_again_and_again(following: Following) -> None:
    following.declare()
    following.ask(0)
    asked = len(following.registry.asked)
    following.harness.run("manual")
    following.ask(0)
    assert len(following.registry.asked) == asked  # within the least interval
    following.ask(60)
    assert len(following.registry.asked) == asked + 2


def test_without_a_tag_in_git_it_waits_for_the_first_image(following: Following) -> None:
    harness = following.harness
    following.declare(tag="")
    (component,) = harness.status().components
    assert component.failure_reason == Reason.AWAITING_IMAGE
    assert harness.outcome.name is Outcome.WAITING
    newest = following.push("1.3.0")
    following.take()
    assert following.serving == newest
    assert is_ready(harness.status().conditions)


@pytest.mark.parametrize(
    "fault",
    [
        Transient(Reason.REGISTRY_UNREACHABLE, "no answer"),
        Stalled(Reason.REGISTRY_DENIED, "401"),
        Stalled(Reason.REGISTRY_UNTRUSTED, "who is that"),
        Stalled(Reason.REGISTRY_ANSWER_INVALID, "what is that"),
    ],
    ids=lambda fault: str(fault.reason),
)
def test_a_registry_that_does_not_answer_changes_nothing_and_is_told_once(
    following: Following, fault: Transient | Stalled
) -> None:
    harness = following.harness
    following.declare()
    following.push("1.3.0")
    following.take()
    served = following.serving
    following.registry.fault = fault
    for _ in range(3):
        following.ask(7200)
        harness.run("drift")
    assert following.serving == served
    assert is_ready(harness.status().conditions)
    assert harness.events().count(fault.reason) == 1
    warning = harness.condition(ConditionType.WARNING)
    assert warning
    assert f"the image of classify is not followed: {fault.message}" in warning.message
    following.registry.fault = None
    newest = following.push("1.4.0")
    following.take(7200)
    assert following.serving == newest
    harness.run("drift")
    assert harness.condition(ConditionType.WARNING) is None


def test_a_registry_that_limits_requests_is_left_alone_for_all(following: Following) -> None:
    harness = following.harness
    harness.connect()
    harness.push(*(following.manifest("", name, semver="^1") for name in ("one", "two")))
    following.push("1.0.0")
    harness.run()
    following.registry.fault = Transient(Reason.REGISTRY_LIMITED, "slow down", retry_after=1800.0)
    following.ask(0)
    asked = len(following.registry.asked)
    following.registry.fault = None
    following.ask(1799)
    assert len(following.registry.asked) == asked
    following.ask(1)
    assert len(following.registry.asked) == asked + 4


def test_an_image_in_service_stays_when_its_tag_disappears(following: Following) -> None:
    harness = following.harness
    following.declare()
    newest = following.push("1.3.0")
    following.take()
    following.registry.remove(NAME, "1.3.0")
    following.take()
    assert following.serving == newest
    assert following.record.state.problem.startswith("1.3.0 is no longer in the registry")
    harness.run("drift")
    assert following.serving == newest
    newer = following.push("1.3.1")
    following.take()
    assert following.serving == newer


def test_an_image_that_was_never_in_service_goes_with_its_tag(following: Following) -> None:
    harness = following.harness
    following.declare()
    usable = following.push("1.2.0")
    following.push("1.3.0")
    following.ask()
    harness.engine.registry_down = True
    harness.run("image")  # cannot be pulled
    harness.engine.registry_down = False
    following.registry.remove(NAME, "1.3.0")
    following.take()
    assert following.serving == usable


def test_images_without_this_platform_are_passed_over(following: Following) -> None:
    following.declare()
    usable = following.push("1.2.0")
    following.registry.push(NAME, "1.3.0", platforms=frozenset({"linux/s390x"}))
    following.take()
    assert following.serving == usable
    assert following.record.state.why.endswith("; 1.3.0 lack linux/amd64")


def test_a_new_rule_forgets_what_was_found(following: Following) -> None:
    harness = following.harness
    following.declare()
    older = following.push("1.3.0")
    newest = following.push("2.1.0")
    following.take()
    harness.push(following.manifest(semver="^2"), api())
    harness.run()
    assert following.record.state.image == ""
    assert following.serving == older  # what is in service stays until the registry was asked
    following.take(0)
    following.take(60)
    assert following.serving == newest


def test_what_is_no_longer_followed_is_forgotten(following: Following) -> None:
    harness = following.harness
    following.declare()
    harness.push(ml(), api())
    harness.run()
    assert harness.store.images.of(APP) == ()
    harness.push(following.manifest(), api())
    harness.run()
    harness.disconnect()
    harness.run()
    assert harness.store.images.all() == ()


def test_images_of_stages_are_followed(following: Following) -> None:
    harness = following.harness
    harness.connect()
    image = {"existingImageName": NAME, "follow": {"pattern": "build-([0-9]+)"}}
    stage = {"name": "fit", "image": image, "outputs": [{"name": "model"}]}
    harness.push(
        manifest("DataBox", "box", s3DefaultStorage={}),
        manifest(
            "ExperimentPipeline",
            "train",
            connectedBoxes=[{"name": "box", "default": True}],
            vars=[{"name": "model"}],
            stages=[stage],
        ),
    )
    harness.run()
    following.push("build-9")
    newest = following.push("build-10")
    following.take()
    (pipeline,) = harness.store.runs.pipelines(APP)
    assert pipeline.stages[0].image == newest


# --- the gate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (DeployRules(frozen=False, approval=True), "AwaitingApproval"),
        (DeployRules(frozen=True, approval=False), "Frozen"),
        (DeployRules(False, False, (DeployWindow("0 23 1 1 *", "UTC", 60.0),)), "OutsideWindow"),
    ],
    ids=["approval", "frozen", "window"],
)
def test_a_new_image_waits_as_a_commit_does(following: Following, rules: DeployRules, reason: str) -> None:
    harness, commit = following.harness, following.declare()
    first = following.serving
    harness.connect(app(deploy=rules))
    newest = following.push("1.3.0")
    following.take()
    assert following.serving == first
    held = harness.condition(ConditionType.DEPLOY_PENDING)
    assert held
    wanted = release(commit, (("classify", newest),))
    assert (held.reason, held.revision) == (reason, wanted)
    assert held.message.startswith(f"the newer image {NAME}:1.3.0 (classify) waits")
    assert harness.outcome.name is Outcome.HELD
    harness.settle()
    assert harness.events().count(reason) == 1
    assert preview(harness.deps, APP).plan.actions
    if reason != "Frozen":
        harness.store.apps.approve(APP, harness.status().attempted)
        harness.run("manual")
        assert following.serving == newest
        assert harness.condition(ConditionType.DEPLOY_PENDING) is None


def test_the_approval_of_an_image_is_for_no_newer_one(following: Following) -> None:
    harness = following.harness
    following.declare()
    harness.connect(app(deploy=DeployRules(frozen=False, approval=True)))
    following.push("1.3.0")
    following.take()
    approved = harness.status().attempted
    following.push("1.4.0")
    following.take()
    harness.store.apps.approve(APP, approved)
    harness.run("manual")
    assert following.serving.startswith(f"{NAME}@")
    assert harness.condition(ConditionType.DEPLOY_PENDING)


# --- going back ---------------------------------------------------------------------------------------------------


def two_images(following: Following) -> tuple[str, str]:
    following.declare()
    first = following.push("1.1.0")
    following.take()
    second = following.push("1.2.0")
    following.take()
    assert following.serving == second
    return first, second


def test_a_rollback_holds_against_the_follower(following: Following) -> None:
    harness = following.harness
    first, _ = two_images(following)
    harness.roll_back()
    harness.run("rollback")
    assert following.serving == first
    assert len(harness.running()) == 1
    for _ in range(3):
        following.take()
        assert following.serving == first
    said = harness.condition(ConditionType.ROLLED_BACK)
    assert said
    assert "a newer image, a new commit or" in said.message


def test_a_newer_image_ends_the_rollback_of_an_image(following: Following) -> None:
    harness = following.harness
    two_images(following)
    harness.roll_back()
    harness.run("rollback")
    newest = following.push("1.2.1")
    following.take()
    assert following.serving == newest
    assert harness.status().rollback is None
    assert harness.condition(ConditionType.ROLLED_BACK) is None


def test_resuming_goes_on_to_what_was_rolled_back(following: Following) -> None:
    harness = following.harness
    _, second = two_images(following)
    harness.roll_back()
    harness.run("rollback")
    harness.resume()
    harness.run("manual")
    assert following.serving == second
    harness.run("drift")
    assert following.serving == second


def test_a_new_commit_ends_the_rollback_and_what_was_rolled_back_stays_out(following: Following) -> None:
    harness = following.harness
    first, _ = two_images(following)
    harness.roll_back()
    harness.run("rollback")
    harness.push(following.manifest(), api(path="other"))
    harness.run()
    assert harness.status().rollback is None
    assert following.serving == first
    warning = harness.condition(ConditionType.WARNING)
    assert warning
    assert "1.2.0 (" in warning.message
    assert "was rolled back" in warning.message
    newest = following.push("1.3.0")
    following.take()
    assert following.serving == newest


def test_a_rollback_to_an_earlier_commit_holds_against_newer_images(following: Following) -> None:
    harness = following.harness
    first = following.declare()
    image = following.push("1.1.0")
    following.take()
    harness.push(following.manifest(), api(path="other"))
    harness.run()
    harness.roll_back(first)
    harness.run("rollback")
    following.push("1.2.0")
    for _ in range(3):
        following.take()
        assert following.serving == image
        assert harness.route().revision == first
    assert harness.status().rollback


def test_a_watched_image_that_fails_is_not_chosen_again_until_something_newer_comes(harness: Harness) -> None:
    callers, following = count(harness), Following(harness)
    harness.connect()
    first = following.push("1.1.0")
    image: dict[str, object] = {"existingImageName": NAME, "follow": {"semver": "^1"}}
    harness.push(ml(image=image, rollout=ROLLOUT), api())
    harness.run()
    following.take(0)
    harness.clock.advance(600)
    following.push("1.2.0")
    following.take(0)
    harness.retry()
    callers.codes[500] += 5
    harness.retry()
    harness.run("rollback")
    assert following.serving == first
    (told,) = messages(harness, Reason.ROLLOUT_FAILED)
    assert "going back to" in told
    for _ in range(3):
        following.take()
        assert following.serving == first
    newest = following.push("1.2.1")
    following.take()
    assert following.serving == newest
    assert harness.status().rollback is None


def test_an_image_that_does_not_become_ready_leaves_the_last_good_one(following: Following) -> None:
    harness = following.harness
    _, served = two_images(following)
    good = harness.route().fingerprint

    def refuse_others(workload: ObservedWorkload) -> None:
        harness.prober.unready = {} if workload.fingerprint == good else {"classify": "model not loaded"}

    harness.prober.on_probe = refuse_others
    following.push("1.3.0")
    following.take()
    harness.clock.advance(600)
    harness.settle()
    assert following.serving == served
    assert harness.condition(ConditionType.DEGRADED)
    harness.prober.on_probe = lambda workload: None
    harness.prober.unready = {}
    newest = following.push("1.3.1")
    following.take()
    assert following.serving == newest
    assert harness.condition(ConditionType.DEGRADED) is None


# --- deaths -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_daemon_dies_at_any_call_of_a_rollout(harness: Harness, after: bool) -> None:
    following = Following(harness)
    following.declare()
    for number in range(1, ENOUGH):
        newest = following.push(f"1.{number}.0")
        following.ask()
        died = die_at(harness, number, after)
        harness.run("start")
        assert following.serving == newest
        assert len(harness.running()) == 1
        assert harness.status().applied_images == (("classify", newest),)
        if not died:
            return
    raise AssertionError("more calls than expected")


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_daemon_dies_at_any_call_of_a_rollback(harness: Harness, after: bool) -> None:
    following = Following(harness)
    following.declare()
    for number in range(1, ENOUGH):
        first = following.push(f"1.{2 * number}.0")
        following.take()
        following.push(f"1.{2 * number + 1}.0")
        following.take()
        harness.roll_back()
        died = die_at(harness, number, after)
        harness.run("start")
        assert following.serving == first
        following.take()
        assert following.serving == first
        if not died:
            return
    raise AssertionError("more calls than expected")


def test_deaths_of_the_follower_lose_nothing(following: Following) -> None:
    """Whatever was not stored is asked again; what was stored without its request is found by the next pass."""
    harness = following.harness
    following.declare()
    newest = following.push("1.3.0")
    harness.clock.advance(INTERVAL)
    (record,) = following.follower.due()
    state = following.follower._asked(record, ())
    fresh = Following(harness)  # the one before died here, before it stored anything
    fresh.registry = following.registry
    fresh.follower = replace(fresh.follower, registry=following.registry)
    assert [each.image.subject for each in fresh.follower.due()] == ["classify"]
    harness.store.images.save(record, state)  # and here, before it asked for a pass
    harness.run("drift")
    assert following.serving == newest


@pytest.mark.slow
@pytest.mark.parametrize("write_back", [False, True], ids=["deployed", "written"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_follower_dies_at_any_call(harness: Harness, after: bool, write_back: bool) -> None:
    following = Following(harness)
    following.declare(semver="^1", writeBack=write_back)
    for number in range(1, ENOUGH):
        newest = following.push(f"1.{number}.0")
        harness.clock.advance(INTERVAL)
        died = follow_until_death(following, number, after)
        following.follower._busy.clear()
        following.ask()
        harness.run("start")
        assert following.serving == newest
        assert len(harness.running()) == 1
        assert len(harness.sources.drafts) == (number if write_back else 0)
        if not died:
            return
    raise AssertionError("more calls than expected")


def follow_until_death(following: Following, number: int, after: bool) -> bool:
    """Ask for what is due, and die at the call `number`; return whether there were so many."""
    lives, whole = [number], following.follower
    (record,) = whole.due()
    store, sources = MortalStore(whole.deps.store, lives, after), Mortal(whole.deps.sources, lives, after)
    deps = replace(whole.deps, store=store, sources=sources)
    try:
        replace(whole, deps=deps, registry=Mortal(whole.registry, lives, after)).follow(record)
    except Died:
        return True
    return False
