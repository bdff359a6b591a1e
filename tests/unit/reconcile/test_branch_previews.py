"""Previews of branches: apps that come and go with branches, and the daemon that dies at any call in between."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.branch_previews import OpenPull
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import (
    CommitStatusSpec,
    GivenSecrets,
    Limits,
    PlatformSpec,
    StatusProvider,
)
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Transient
from controller.domain.names import PLATFORM, AppName, previews_key
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.storage.box import BoxState
from controller.encryption import SecretKeys
from controller.ports import WebhookUnderWay
from controller.reconcile.branch_previews import look_at_branches
from controller.reconcile.deps import PassOutcome
from tests.unit.reconcile.following import NAME, Following
from tests.unit.reconcile.harness import APP, Harness, api, app, manifest, ml, secret
from tests.unit.reconcile.previewing import BOX, RULES, Platform, die_at, is_gone, named, ref, shape_of


@pytest.fixture
def platform(harness: Harness) -> Platform:
    harness.push(ml(), api(), BOX)
    made = Platform(harness)
    made.work()
    return made


# --- coming and going -------------------------------------------------------------------------------------------


def test_a_branch_gets_an_app_of_its_own_and_takes_it_along(platform: Platform) -> None:
    harness, name = platform.harness, named("feature/x")
    assert platform.push("feature/x", ml(image="demo:2"), api(), BOX)[name].name == "Ready"
    assert platform.images(name) == ["demo:2"]
    assert [api.path for route in harness.store.routes.of(name) for api in route.apis] == ["image"]
    assert [box.bucket for box in harness.store.boxes.of(name)] == [f"prichal.{name}.files"]
    assert platform.images() == ["demo:1"]  # the app itself is as it was
    assert harness.status(name).repository == "demo"

    assert platform.drop("feature/x")[name].name == "Removed"
    assert is_gone(harness, name)
    assert harness.sources.forgotten.count(f"@{name}") >= 1
    assert harness.store.events.list(name) == (), "a role for other apps may fit its name"
    assert len(harness.running()) == 1
    assert [box.state for box in harness.store.boxes.of(APP)] == [BoxState.BOUND]
    assert platform.told() == [
        f"PreviewAdded: {name} is the preview of feature/x",
        "PreviewRemoved: no preview of feature/x: its branch is gone",
    ]


def test_a_push_a_force_push_and_a_branch_that_is_made_again(platform: Platform) -> None:
    name = named("feature/x")
    platform.push("feature/x", ml(image="demo:2"), api())
    for image in ("demo:3", "demo:2"):  # the server says only where a branch is
        commit = platform.commit("feature/x", ml(image=image), api())
        assert platform.look()[name].revision == commit
        assert platform.images(name) == [image]
    platform.drop("feature/x")
    assert platform.push("feature/x", ml(image="demo:3"), api())[name].name == "Ready"
    assert platform.images(name) == ["demo:3"]


def test_a_branch_that_comes_back_before_its_preview_was_removed(platform: Platform) -> None:
    harness, name = platform.harness, named("feature/x")
    platform.push("feature/x", ml(), BOX)
    harness.sources.delete_branch("demo", ref("feature/x"))
    look_at_branches(platform.deps, APP, platform.reconciler.refresh)
    assert platform.previews == []
    platform.commit("feature/x", ml(image="demo:2"), BOX)
    assert platform.look()[name].name == "Ready"
    assert platform.images(name) == ["demo:2"]
    assert [box.state for box in harness.store.boxes.of(name)] == [BoxState.BOUND]


def test_two_at_once_whose_names_are_made_of_the_same_letters(platform: Platform) -> None:
    branches = ("feature/x-y", "feature/x_y", "feature/ветка")
    for branch in branches:
        platform.commit(branch)
    outcomes = platform.look()
    assert {outcomes[named(branch)].name for branch in branches} == {"Ready"}
    assert platform.harness.sources.listed == 2  # at the start and now, however many there are


def test_of_more_than_max_the_newest_stay(platform: Platform) -> None:
    for number in range(5):
        platform.harness.clock.advance(60.0)
        platform.push(f"feature/{number}")
    assert platform.previews == sorted(named(f"feature/{number}") for number in (2, 3, 4))
    assert is_gone(platform.harness, named("feature/0"))
    why = "there are 3 newer ones already, as many as spec.previews.max allows"
    assert [each for each in platform.told() if each.startswith("PreviewRemoved")] == [
        f"PreviewRemoved: no preview of feature/{number}: {why}" for number in (0, 1)
    ]
    platform.harness.clock.advance(60.0)
    platform.push("feature/0")
    assert platform.previews == sorted(named(f"feature/{number}") for number in (0, 3, 4))


def test_what_is_not_made_is_told_once(platform: Platform) -> None:
    for number in range(4):
        platform.commit(f"feature/{number}")
    platform.look()
    platform.look()
    assert [each for each in platform.told() if each.startswith("PreviewLeftOut")] == [
        "PreviewLeftOut: no preview of feature/3: there are 3 newer ones already, as many as spec.previews.max allows"
    ]


# --- time and people --------------------------------------------------------------------------------------------


def test_a_preview_ends_after_its_time_and_the_next_commit_brings_it_back(platform: Platform) -> None:
    name = named("feature/x")
    platform.push("feature/x")
    platform.harness.clock.advance(RULES.ttl - 1)
    platform.work()
    assert platform.previews == [name]
    platform.harness.clock.advance(1)
    assert platform.work()[name].name == "Removed"
    platform.look()  # it is still there, and no newer
    assert platform.previews == []
    platform.push("feature/x")
    assert platform.previews == [name]


def test_time_runs_out_while_a_rollout_waits(platform: Platform) -> None:
    harness, name = platform.harness, named("feature/x")
    platform.push("feature/x")

    def time_runs_out() -> None:
        harness.clock.advance(RULES.ttl)
        platform.tick()

    platform.before_start = time_runs_out
    platform.push("feature/x", ml(image="demo:2"), api())
    platform.before_start = lambda: None
    assert platform.work().get(name, PassOutcome("")).name in ("Removed", "")  # type: ignore[arg-type]
    assert is_gone(harness, name)


def test_a_person_keeps_or_removes_one(platform: Platform) -> None:
    harness, name = platform.harness, named("feature/x")
    platform.push("feature/x")
    harness.clock.advance(RULES.ttl - 1)
    harness.store.branches.keep(name, harness.clock.now())
    harness.clock.advance(RULES.ttl - 1)
    platform.work()
    assert platform.previews == [name]
    preview = harness.store.branches.preview(name)
    assert preview is not None
    harness.store.branches.remove(name, preview.head)
    assert platform.work()[name].name == "Removed"
    platform.push("feature/x")
    assert platform.previews == [name]


def test_one_is_kept_until_its_branch_is_gone(platform: Platform) -> None:
    harness, name = platform.harness, named("feature/x")
    platform.push("feature/x")
    harness.store.branches.keep(name, math.inf)
    platform.work()
    harness.clock.advance(100 * RULES.ttl)
    platform.work()
    assert platform.previews == [name]
    assert not platform.reconciler.is_due(), "it is not put in force again and again"
    platform.drop("feature/x")
    assert platform.previews == []
    assert harness.store.branches.decisions() == {}


def test_to_keep_one_whose_time_is_over_brings_it_back(platform: Platform) -> None:
    harness, name = platform.harness, named("feature/x")
    platform.push("feature/x")
    harness.clock.advance(RULES.ttl)
    platform.work()
    assert [(each.app, str(each.why)) for each in harness.store.branches.left_out()] == [
        (name, "its time is over; the next commit brings it back")
    ]
    harness.store.branches.keep(name, harness.clock.now())
    platform.work()
    assert platform.previews == [name]
    assert harness.store.branches.left_out() == ()


@pytest.mark.parametrize(
    "how", ["suspended by a person", "suspended in the folder", "removed", "rules removed"]
)
def test_previews_go_with_their_app(platform: Platform, how: str) -> None:
    harness, name = platform.harness, named("feature/x")
    platform.push("feature/x", ml(), BOX)
    if how == "suspended by a person":
        harness.store.apps.set_suspended(APP, True)
    elif how == "suspended in the folder":
        platform.apps = (replace(platform.apps[0], suspend=True),)
    else:
        platform.apps = (
            (replace(platform.apps[0], previews=None),) if how == "rules removed" else (app("other"),)
        )
    harness.store.requests.enqueue(PLATFORM, Trigger.PLATFORM)
    assert platform.work()[name].name == "Removed"
    assert is_gone(harness, name)


@pytest.mark.parametrize("how", ["removed", "rules removed"])
def test_what_was_decided_goes_with_the_rules(platform: Platform, how: str) -> None:
    """Else an app of this name that comes later would have previews for ever, or not at all."""
    harness, before = platform.harness, platform.apps
    kept, removed = named("feature/x"), named("feature/y")
    platform.push("feature/x")
    platform.push("feature/y")
    harness.store.branches.keep(kept, math.inf)
    harness.store.branches.remove(removed, platform_head(platform, removed))
    platform.work()
    assert platform.previews == [kept]
    platform.apps = (replace(before[0], previews=None),) if how == "rules removed" else (app("other"),)
    harness.store.requests.enqueue(PLATFORM, Trigger.PLATFORM)
    platform.work()
    assert harness.store.branches.decisions() == {}


def platform_head(platform: Platform, name: AppName) -> str:
    found = platform.harness.store.branches.preview(name)
    assert found is not None
    return found.head


# --- pull requests ----------------------------------------------------------------------------------------------


def opened(platform: Platform, number: int, branch: str, is_fork: bool = False) -> None:
    """What a webhook has told."""
    at = platform.harness.clock.now()
    platform.harness.store.branches.open_pull("demo", OpenPull(number, branch, is_fork), at)


def test_a_request_whose_closing_nobody_has_told_ends_with_its_branch(harness: Harness) -> None:
    harness.push(ml(), api())
    platform = Platform(harness, replace(RULES, pull_requests=True))
    name, branches = named("feature/x"), harness.store.branches
    platform.push("feature/x")
    assert platform.previews == []
    opened(platform, 3, "feature/x")
    opened(platform, 4, "feature/y")
    opened(platform, 5, "feature/of-a-fork", is_fork=True)
    platform.commit("feature/y")
    harness.clock.advance(1.0)
    platform.look()
    assert platform.previews == sorted((name, named("feature/y")))
    platform.drop("feature/x")
    assert platform.previews == [named("feature/y")]
    assert [pull.number for pull in branches.pulls("demo")] == [4, 5]
    harness.clock.advance(1.0)
    platform.push("feature/x")  # a new branch of that name, which nobody wants to merge
    assert platform.previews == [named("feature/y")]


def test_a_request_that_is_opened_while_branches_are_listed_stays(harness: Harness) -> None:
    harness.push(ml(), api())
    platform = Platform(harness, replace(RULES, pull_requests=True))
    platform.work()
    refs = harness.sources.refs

    def listed(*arguments: Any) -> Any:
        found = refs(*arguments)
        platform.commit("feature/x")
        opened(platform, 3, "feature/x")
        return found

    harness.sources.refs = listed  # type: ignore[method-assign, assignment]
    platform.look()
    harness.sources.refs = refs  # type: ignore[method-assign]
    platform.look()
    assert platform.previews == [named("feature/x")]


# --- what others are told, and Git is not -----------------------------------------------------------------------


def test_the_forge_is_told_of_the_commits_of_a_preview(platform: Platform) -> None:
    harness, name = platform.harness, named("feature/x")
    platform.commit_status = CommitStatusSpec(StatusProvider.GITEA, "bot", "https://git.example.org/api/v1")
    platform.secrets = (secret("bot", None, token="s3cret-of-a-bot"),)
    harness.secrets.append("s3cret-of-a-bot")
    platform.start()
    platform.work()
    commit = platform.commit("feature/x")
    platform.look()
    told: list[tuple[str, str]] = []
    while messages := list(harness.store.webhooks.due(10.0**12, WebhookUnderWay())):
        for message in messages:
            told.append((message.run, json.loads(message.body)[0]))
            harness.store.webhooks.delivered(message.id)
    assert commit in {revision for _, revision in told}
    forge = harness.deps.forge(name)
    assert forge is not None
    assert forge.context.endswith(f"/{name}"), "beside the status of the app, and not in its place"
    assert forge.page.endswith(f"/{name}/image/docs")
    main = harness.deps.forge(APP)
    assert main is not None
    assert (main.context == forge.context, main.page.endswith(f"/-/apps/{APP}")) == (False, True)


def test_a_preview_commits_no_image_to_its_branch(harness: Harness) -> None:
    harness.push(ml(), api())
    following, name = Following(harness), named("feature/x")
    harness.engine.registry[f"{NAME}:1.0.0"] = following.push("1.0.0").partition("@")[2]
    newest = following.push("1.3.0")
    platform = Platform(harness)
    platform.push("feature/x", following.manifest(semver="^1", writeBack=True), api())
    (record,) = harness.store.images.of(name)
    assert not record.image.follow.write_back
    following.ask()
    platform.work()
    assert harness.sources.drafts == []
    assert platform.images(name) == [newest]


# --- what a branch may not --------------------------------------------------------------------------------------


def test_a_branch_cannot_take_what_is_the_apps(platform: Platform) -> None:
    """Its namespace, its paths, its boxes: all of them are its own, under its own name."""
    harness, name = platform.harness, named("feature/x")
    own = json.loads(ml(image="demo:2"))
    own["metadata"]["namespace"] = APP  # as in the branch that the app follows
    assert platform.push("feature/x", json.dumps(own), api(), BOX)[name].name == "Ready"
    assert harness.route().upstreams != harness.store.routes.of(name)[0].upstreams
    assert platform.images() == ["demo:1"]
    buckets = {box.bucket for of in (APP, name) for box in harness.store.boxes.of(of)}
    assert len(buckets) == 2


@pytest.mark.parametrize(
    "stolen",
    [
        manifest("PlatformApp", "demo", repository="demo", previews={"max": 50}),
        manifest("Repository", "demo", url="https://evil.example/x.git", ref={"branch": "main"}),
        json.dumps({**json.loads(ml()), "metadata": {"name": "classify", "namespace": "other"}}),
    ],
    ids=["rules of previews", "repository", "another app's namespace"],
)
def test_a_branch_that_wants_to_govern_is_refused(platform: Platform, stolen: str) -> None:
    name = named("feature/x")
    outcome = platform.push("feature/x", stolen)[name]
    assert (outcome.name, outcome.message.partition(":")[0][:8]) == (
        "Failed",
        outcome.message.partition(":")[0][:8],
    )
    assert (
        "belongs into the platform folder" in outcome.message or "must be the app's name" in outcome.message
    )
    assert platform.harness.catalog.spec.apps[0].previews == RULES
    assert len(platform.harness.running()) == 1


def test_a_branch_has_the_limits_of_previews(platform: Platform) -> None:
    platform.apps = (app(previews=replace(RULES, limits=Limits(containers=1))),)
    platform.start()
    outcome = platform.push("feature/x", ml(replicas=2))[named("feature/x")]
    assert "limits of the app" in outcome.message


# --- secrets ----------------------------------------------------------------------------------------------------

WANTS = ml(envFrom=[{"secretRef": {"name": "keys"}}])


@pytest.mark.parametrize(
    ("given", "gets"),
    [
        (GivenSecrets(frozenset()), False),
        (GivenSecrets(frozenset({"others"})), False),
        (GivenSecrets(frozenset({"keys"})), True),
        (GivenSecrets(frozenset(), all=True), True),
    ],
    ids=["none", "another", "named", "inherit"],
)
@pytest.mark.parametrize("where", ["the platform folder", "set by a person"])
def test_secrets_of_the_app_are_given_only_if_its_rules_say_so(
    harness: Harness, given: GivenSecrets, gets: bool, where: str
) -> None:
    harness.store.secrets.unlock(SecretKeys(b"k" * 32))
    harness.secrets.append("s3cr3t-value")
    harness.push(ml())
    platform = Platform(harness, replace(RULES, secrets=given))
    if where == "the platform folder":
        platform.secrets = (secret("keys", "demo", TOKEN="s3cr3t-value"),)
    else:
        own_secret(harness, "keys", TOKEN="s3cr3t-value")
    outcome = platform.push("feature/x", WANTS)[named("feature/x")]
    assert (outcome.name == "Ready") is gets, outcome
    started = [dict(each.env) for each in platform.started.values() if each.app == named("feature/x")]
    assert [env["TOKEN"].reveal() for env in started if "TOKEN" in env] == (["s3cr3t-value"] if gets else [])


def own_secret(harness: Harness, name: str, **values: str) -> None:
    """As `prichal secret set` does it."""
    harness.store.apps.save(AppStatus(APP))
    found = tuple((key, Secret(value)) for key, value in values.items())
    harness.store.secrets.ask(SecretChange(uuid.uuid4().hex, APP, name, found, "ann", harness.clock.now()))


# --- faults -----------------------------------------------------------------------------------------------------


def test_a_server_that_does_not_answer_changes_nothing(platform: Platform) -> None:
    platform.push("feature/x")
    platform.harness.sources.fault = Transient(Reason.FETCH_FAILED, "no route to host")
    outcome = platform.look()[previews_key(APP)]
    assert (outcome.name, outcome.message) == ("Failed", "FetchFailed: no route to host")
    assert outcome.retry_after
    assert platform.previews == [named("feature/x")]


def test_a_restart_knows_its_previews_without_a_server(platform: Platform) -> None:
    platform.push("feature/x")
    platform.harness.sources.fault = Transient(Reason.FETCH_FAILED, "no route to host")
    platform.harness.catalog.replace(PlatformSpec())
    platform.start()
    platform.work()
    assert platform.previews == [named("feature/x")]
    assert len(platform.harness.running(app=named("feature/x"))) == 1


def test_an_app_that_is_declared_under_the_name_of_a_preview_keeps_its_data(platform: Platform) -> None:
    harness, name = platform.harness, named("feature/x")
    platform.push("feature/x", ml(), BOX)
    platform.apps = (*platform.apps, app(name))
    harness.store.requests.enqueue(PLATFORM, Trigger.PLATFORM)
    platform.work()
    assert platform.previews == []
    assert harness.store.branches.preview(name) is None
    platform.apps = platform.apps[:1]
    platform.drop("feature/x")
    harness.store.requests.enqueue(PLATFORM, Trigger.PLATFORM)
    platform.work()
    assert [box.state for box in harness.store.boxes.of(name)] == [BoxState.KEPT]


def makes_one(platform: Platform) -> None:
    platform.commit("feature/x", ml(image="demo:2"), api(), BOX)


def replaces_one(platform: Platform) -> None:
    """The fourth takes the place of the oldest of three."""
    for number in range(3):
        platform.harness.clock.advance(60.0)
        platform.commit(f"feature/{number}", BOX)
        platform.look()
    platform.harness.clock.advance(60.0)
    platform.commit("feature/x", ml(image="demo:2"), BOX)


def removes_one(platform: Platform) -> None:
    platform.push("feature/x", ml(image="demo:2"), api(), BOX)
    platform.harness.sources.delete_branch("demo", ref("feature/x"))


@pytest.mark.slow
@pytest.mark.parametrize(("change", "step"), [(makes_one, 1), (removes_one, 1), (replaces_one, 4)])
def test_the_daemon_dies_before_any_call(
    tmp_path: Path, change: Callable[[Platform], None], step: int
) -> None:
    """Dying after a call is dying before the next one. `step`: so many calls lie between two deaths."""
    expected: object = None
    for number in (0, *range(1, 200, step)):
        harness = Harness(tmp_path / str(number))
        try:
            harness.push(ml(), api(), BOX)
            platform = Platform(harness)
            platform.work()
            change(platform)
            died = die_at(platform, number) if number else False
            platform.start()
            platform.look()
            platform.work()
            shape = shape_of(platform)
            expected = expected or shape
            assert shape == expected, f"after death at call {number}"
        finally:
            harness.store.close()
        if number and not died:
            return
    pytest.fail("it makes more calls than that")
