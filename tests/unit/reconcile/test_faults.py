"""Bad input and a bad day: nothing that runs suffers, and the app says what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.spec import BuildImage
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from tests.support.engines import context_of
from tests.support.fake_engine import image_id
from tests.support.specs import make
from tests.unit.reconcile.harness import APP, Harness, api, app, built, manifest, ml

UNREACHABLE = Transient(Reason("Unreachable"), "git.example.org does not answer")


def test_invalid_manifests_touch_nothing_and_all_problems_are_told_with_their_place(harness: Harness) -> None:
    harness.connect()
    good = harness.push(ml(), api())
    harness.run()
    before, route = harness.running(), harness.route()
    bad = harness.push(ml(servicePort=99999), api(component="nobody"), ml("broken", replicas="many"))
    outcome = harness.run("webhook")
    assert (outcome.name, outcome.revision) == ("Failed", bad)
    assert (harness.running(), harness.route()) == (before, route)
    invalid = harness.condition(ConditionType.MANIFEST_INVALID)
    assert invalid is not None
    assert invalid.revision == bad
    assert all(place in invalid.message for place in ("m0.yaml:1:", "m1.yaml:1:", "m2.yaml:1:"))
    assert (harness.status().attempted_revision, harness.status().applied_revision) == (bad, good)
    assert harness.types() == [ConditionType.READY, ConditionType.MANIFEST_INVALID]


def test_invalid_manifests_of_a_first_commit(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(servicePort=99999))
    outcome = harness.run()
    assert (outcome.name, outcome.retry_after) == ("Failed", None)
    assert harness.engine.names() == []
    assert harness.types() == [ConditionType.READY, ConditionType.MANIFEST_INVALID]
    events = harness.events()
    harness.settle()
    assert harness.events() == events


def test_drift_is_healed_while_the_manifests_are_invalid(harness: Harness) -> None:
    harness.connect()
    good = harness.push(ml())
    harness.run()
    harness.push(ml(servicePort=99999))
    harness.run()
    events = harness.events()
    harness.engine.vanish(harness.running()[0].id)
    harness.run("drift")
    assert [w.revision for w in harness.running()] == [good]
    assert harness.condition(ConditionType.MANIFEST_INVALID) is not None
    assert harness.events()[len(events) :] == ["Switched", "Started", "BecameReady", "Switched"]


def test_what_a_partly_applied_commit_brought_stays_when_the_next_one_is_invalid(harness: Harness) -> None:
    """`good` is at the second commit already, `bad` of it failed: neither goes back."""
    harness.connect()
    harness.push(ml("good"), ml("bad"))
    harness.run()
    second = harness.push(ml("good", "demo:2"), ml("bad", "demo:2"))
    harness.prober.unready["bad"] = "model not loaded"
    harness.run()
    assert [w.revision for w in harness.running("good")] == [second]
    starts = list(harness.engine.starts)
    harness.push(ml("good", servicePort=99999))
    harness.run()
    harness.sources.fault = UNREACHABLE
    harness.run()
    assert harness.engine.starts == starts
    assert [w.revision for w in harness.running("good")] == [second]


def test_a_missing_folder_touches_nothing_and_drift_is_healed(harness: Harness) -> None:
    harness.connect(app(path="manifests"))
    harness.sources.push("demo", {"manifests/m.yaml": ml()})
    assert harness.run().name == "Ready"
    harness.sources.push("demo", {"elsewhere/m.yaml": ml()})
    outcome = harness.run()
    assert outcome.name == "Failed"
    assert "no folder manifests" in outcome.message
    harness.engine.vanish(harness.running()[0].id)
    harness.run("drift")
    assert len(harness.running()) == 1


def test_an_unreachable_git_server_stops_nothing_and_drift_is_healed(harness: Harness) -> None:
    harness.connect()
    good = harness.push(ml())
    harness.run()
    harness.sources.fault = UNREACHABLE
    outcomes = [harness.run("poll") for _ in range(3)]
    assert [o.name for o in outcomes] == ["Failed"] * 3
    assert [o.retry_after for o in outcomes] == [2.0, 4.0, 8.0]
    assert harness.types() == [ConditionType.READY, ConditionType.FETCH_FAILED]
    ready = harness.condition(ConditionType.READY)
    assert ready is not None
    assert ready.status
    harness.engine.vanish(harness.running()[0].id)
    harness.run("drift")
    assert [w.revision for w in harness.running()] == [good]
    events = harness.events()
    assert events.count("Unreachable") == 1
    harness.settle()
    assert harness.events() == events
    harness.sources.fault = None
    assert harness.run().name == "Ready"
    assert harness.types() == [ConditionType.READY]


def test_a_git_server_that_was_never_reached(harness: Harness) -> None:
    harness.connect()
    harness.sources.fault = UNREACHABLE
    pauses = [harness.run("retry").retry_after for _ in range(10)]
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]
    assert harness.types() == [ConditionType.READY, ConditionType.FETCH_FAILED]
    assert harness.events() == ["Unreachable"]


def test_a_repository_that_is_not_declared(harness: Harness) -> None:
    harness.connect(repositories=[])
    outcome = harness.run()
    assert outcome.name == "Failed"
    assert "'demo' does not exist" in outcome.message


def test_an_image_that_does_not_exist_leaves_the_old_version_and_the_neighbours_alone(
    harness: Harness,
) -> None:
    harness.connect()
    good = harness.push(ml(), ml("other"))
    harness.run()
    second = harness.push(ml(image="hub/demo:9"), ml("other", "demo:2"))
    outcome = harness.run()
    assert (outcome.name, outcome.retry_after) == ("Degraded", None)
    assert [w.revision for w in harness.running()] == [good]
    assert [w.revision for w in harness.running("other")] == [second]
    degraded = harness.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert degraded.reason == "ImageNotFound"
    assert "hub/demo:9" in degraded.message
    events = harness.events()
    harness.settle()
    assert harness.events() == events
    harness.engine.vanish(harness.running()[0].id)
    harness.run("drift")
    assert [w.revision for w in harness.running()] == [good]


def test_an_image_that_appears_later_is_deployed(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(image="hub/demo:9"))
    assert harness.run().name == "Failed"
    assert harness.condition(ConditionType.STALLED) is not None
    harness.engine.registry["hub/demo:9"] = "sha256:9"
    harness.clock.advance(2.0)
    assert harness.run("poll").name == "Ready"
    assert harness.engine.pulls == ["hub/demo@sha256:9"]


def test_an_unreachable_registry_is_asked_again_and_the_neighbours_go_on(harness: Harness) -> None:
    harness.connect()
    harness.engine.registry_down = True
    harness.push(ml(image="hub/demo:9"), ml("other"))
    pauses = [harness.run().retry_after, harness.retry().retry_after, harness.retry().retry_after]
    assert pauses == [2.0, 4.0, 8.0]
    assert len(harness.running("other")) == 1
    assert harness.condition(ConditionType.APPLY_FAILED) is not None
    events = harness.events()
    harness.settle()
    assert harness.events() == events
    harness.engine.registry_down = False
    harness.engine.registry["hub/demo:9"] = "sha256:9"
    assert harness.retry().name == "Ready"


def test_a_tag_that_moves_is_followed_by_commits_and_people_alone(harness: Harness) -> None:
    harness.connect()
    harness.engine.registry["hub/demo:latest"] = "sha256:1"
    harness.push(ml(image="hub/demo:latest"))
    harness.run()
    harness.engine.registry["hub/demo:latest"] = "sha256:2"
    harness.settle()
    harness.engine.registry_down = True
    assert harness.settle().name == "Ready"
    harness.engine.registry_down = False
    assert harness.engine.pulls == ["hub/demo@sha256:1"]
    harness.run("manual")
    assert harness.engine.pulls == ["hub/demo@sha256:1", "hub/demo@sha256:2"]
    harness.engine.registry["hub/demo:latest"] = "sha256:3"
    harness.push(ml(image="hub/demo:latest"), README="again")
    harness.run()
    assert harness.engine.pulls[-1] == "hub/demo@sha256:3"


def test_an_image_that_was_deleted_is_fetched_again(harness: Harness) -> None:
    harness.connect()
    harness.engine.registry["hub/demo:1"] = "sha256:1"
    harness.push(ml(image="hub/demo:1"))
    harness.run()
    harness.engine.vanish(harness.running()[0].id)
    harness.engine.images.discard("hub/demo@sha256:1")
    assert harness.run("drift").retry_after is not None
    harness.clock.advance(10.0)
    assert harness.run("retry").name == "Ready"
    assert harness.engine.pulls == ["hub/demo@sha256:1"] * 2


def test_a_build_happens_once_for_the_same_content(harness: Harness) -> None:
    harness.connect()
    harness.push(built(), Dockerfile="FROM base")
    assert harness.run().name == "Ready"
    harness.settle()
    assert len(harness.engine.builds) == 1
    harness.push(built(), Dockerfile="FROM other")
    assert harness.run().name == "Ready"
    assert len(set(harness.engine.builds)) == 2


def test_what_a_build_says_is_kept_line_by_line(harness: Harness) -> None:
    """Of passes, and of a run whose image is gone."""
    kept: list[str] = []

    @contextmanager
    def log(app: AppName, tag: str) -> Iterator[Callable[[str], None]]:
        kept.append(f"{app}: begin")
        yield kept.append
        kept.append("end")

    harness.deps = replace(harness.deps, build_log=log)
    harness.connect()
    harness.push(built(), Dockerfile="FROM base")
    assert harness.run().name == "Ready"
    assert kept[0] == f"{APP}: begin"
    assert kept[-1] == "end"
    assert len(kept) > 2


def several(count: int = 3) -> tuple[str, ...]:
    """That many components, and a stage, of one Dockerfile."""
    stage = {"name": "fit", "image": {"build": {"context": "."}}}
    return (
        *(built(f"c{number}") for number in range(count)),
        manifest("ExperimentPipeline", "train", stages=[stage]),
    )


def test_all_that_need_one_image_share_its_build(harness: Harness) -> None:
    harness.connect()
    harness.push(*several(6), Dockerfile="FROM base")
    assert harness.run().name == "Ready"
    assert len(harness.engine.builds) == 1
    assert harness.events().count("Building") == 1
    assert all(harness.running(f"c{number}") for number in range(6))
    images = {c.image for c in harness.status().components}
    assert images == {harness.store.runs.pipelines(APP)[0].stages[0].image}


def test_one_image_that_cannot_be_built_fails_all_that_need_it_at_once(harness: Harness) -> None:
    harness.connect()
    harness.engine.build_failures["Dockerfile"] = "RUN false: exit code 1"
    harness.push(*several(6), Dockerfile="FROM base")
    assert harness.run().name == "Failed"
    assert len(harness.engine.builds) == 1
    assert {c.failure_reason for c in harness.status().components} == {"BuildFailed"}
    harness.settle()
    assert len(harness.engine.builds) == 1


def test_equal_content_restarts_nobody_even_if_its_tag_is_gone(harness: Harness) -> None:
    harness.connect()
    context = {"svc/Dockerfile": "FROM base"}
    declared = ml(image={"build": {"context": "svc"}})
    harness.push(declared, **context)
    harness.run()
    before = harness.running()
    harness.engine.images -= set(harness.engine.builds)
    harness.engine.images -= {image_id(tag) for tag in harness.engine.builds}
    harness.push(declared, **context, **{"README.md": "hello"})
    assert harness.run().name == "Ready"
    assert len(harness.engine.builds) == 1
    assert [w.id for w in harness.running()] == [w.id for w in before]


@pytest.mark.parametrize("passed", ["a restart of the daemon", "a while"])
def test_old_images_that_could_not_be_removed_go_with_a_later_pass(harness: Harness, passed: str) -> None:
    """Because the daemon ended, or because a container of a run still used them."""
    harness.connect()
    harness.push(built(), Dockerfile="FROM base")
    harness.run()
    serving = set(harness.engine.builds)
    for number in range(5):
        tag = f"prichal.local/{APP}/build:{number}"
        harness.engine.build(
            tag, BuildInput("c", make(BuildImage, ".")), context_of({"Dockerfile": ""}), print
        )
    if passed == "a while":
        harness.clock.advance(30.0)
    else:
        harness.deps = replace(harness.deps, tidied={})
    harness.settle()
    left = {tag for tag in harness.engine.builds if tag in harness.engine.images}
    assert len(left - serving) == 2
    assert serving <= left


def test_a_build_that_fails_is_told_and_not_repeated(harness: Harness) -> None:
    harness.connect()
    good = harness.push(built(), Dockerfile="FROM base")
    harness.run()
    harness.push(built(), Dockerfile="FROM base\nRUN false")
    harness.engine.build_failures["Dockerfile"] = "The command 'false' returned 1"
    outcome = harness.run()
    assert outcome.name == "Degraded"
    assert "The command 'false' returned 1" in outcome.message
    assert [w.revision for w in harness.running()] == [good]
    builds = list(harness.engine.builds)
    harness.settle()
    assert harness.engine.builds == builds


def test_an_engine_that_is_away_is_tried_again_with_growing_pauses(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    harness.engine.down = True
    pauses = [harness.run_unchecked("retry").retry_after for _ in range(10)]
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]
    assert harness.events().count("EngineUnreachable") == 1
    harness.engine.down = False
    assert harness.run("retry").name == "Ready"
    assert harness.status().failures == 0


def test_a_component_that_cannot_start_is_told_with_the_engines_words(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(), ml("other"))
    harness.engine.start_failures["classify"] = Stalled(Reason.NO_PYTHON, "the image has no Python")
    outcome = harness.run()
    assert outcome.name == "Failed"
    assert "the image has no Python" in outcome.message
    assert len(harness.running("other")) == 1
    assert harness.settle().name == "Failed"


def broken() -> ObservedApp:
    raise ZeroDivisionError("division by zero")


def test_a_bug_is_told_and_the_next_pass_starts_afresh(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.connect(app(), app("other"))
    harness.push(ml())
    observe = harness.engine.observe
    harness.engine.observe = lambda app: broken() if app == APP else observe(app)  # type: ignore[method-assign]
    outcome = harness.run_unchecked()
    assert (outcome.name, outcome.retry_after) == ("Failed", 300.0)
    failed = harness.condition(ConditionType.APPLY_FAILED)
    assert failed is not None
    assert (failed.reason, failed.message) == ("InternalError", "ZeroDivisionError: division by zero")
    assert "bug in a pass" in caplog.text
    assert harness.run_unchecked(app=AppName("other")).name == "Ready"
    harness.engine.observe = observe  # type: ignore[method-assign]
    assert harness.run("retry").name == "Ready"


def test_two_troubles_at_once_are_each_told_once(harness: Harness) -> None:
    """The commit in force is degraded, the newest one invalid: both stay so, and the history stays short."""
    harness.connect()
    harness.push(ml())
    harness.run()
    harness.push(ml(servicePort=99999))
    harness.prober.unready["classify"] = "worker 1 is stuck"
    harness.run()
    assert harness.types() == [ConditionType.READY, ConditionType.DEGRADED, ConditionType.MANIFEST_INVALID]
    events = harness.events()
    harness.settle()
    assert harness.events() == events
    assert events.count("Degraded") == events.count("ManifestInvalid") == 1


def test_an_engine_without_a_network_for_the_app_is_asked_again(harness: Harness) -> None:
    """An operator makes room for more; nobody has to push or retry."""
    ensure = harness.engine.ensure_network

    def exhausted(app: AppName) -> None:
        raise Transient(Reason.ADDRESSES_EXHAUSTED, "Docker has no subnet left: add `default-address-pools`")

    harness.engine.ensure_network = exhausted  # type: ignore[method-assign]
    harness.connect()
    harness.push(ml())
    outcome = harness.run_unchecked()
    assert outcome.retry_after, outcome
    ready = harness.condition(ConditionType.READY)
    assert ready
    assert "default-address-pools" in ready.message
    harness.engine.ensure_network = ensure  # type: ignore[method-assign]
    harness.clock.advance(3600.0)
    assert harness.settle().name == "Ready"
