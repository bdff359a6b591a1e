"""Bad input and a bad day: nothing that runs suffers, and the app says what is wrong."""

from __future__ import annotations

import pytest

from controller.domain.conditions import ConditionType
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.observed import ObservedApp
from tests.unit.reconcile.scene import APP, Scene, api, app, built, ml

UNREACHABLE = Transient("Unreachable", "git.example.org does not answer")


def test_invalid_manifests_touch_nothing_and_all_problems_are_told_with_their_place(scene: Scene) -> None:
    scene.connect()
    good = scene.push(ml(), api())
    scene.run()
    before, route = scene.running(), scene.route()
    bad = scene.push(ml(servicePort=99999), api(component="nobody"), ml("broken", replicas="many"))
    outcome = scene.run("webhook")
    assert (outcome.name, outcome.revision) == ("Failed", bad)
    assert (scene.running(), scene.route()) == (before, route)
    invalid = scene.condition(ConditionType.MANIFEST_INVALID)
    assert invalid is not None
    assert invalid.revision == bad
    assert all(place in invalid.message for place in ("m0.yaml:1:", "m1.yaml:1:", "m2.yaml:1:"))
    assert (scene.status().attempted_revision, scene.status().applied_revision) == (bad, good)
    assert scene.types() == [ConditionType.READY, ConditionType.MANIFEST_INVALID]


def test_invalid_manifests_of_a_first_commit(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(servicePort=99999))
    outcome = scene.run()
    assert (outcome.name, outcome.retry_after) == ("Failed", None)
    assert scene.engine.names() == []
    assert scene.types() == [ConditionType.READY, ConditionType.MANIFEST_INVALID]
    events = scene.events()
    scene.settle()
    assert scene.events() == events


def test_drift_is_healed_while_the_manifests_are_invalid(scene: Scene) -> None:
    scene.connect()
    good = scene.push(ml())
    scene.run()
    scene.push(ml(servicePort=99999))
    scene.run()
    events = scene.events()
    scene.engine.vanish(scene.running()[0].id)
    scene.run("drift")
    assert [w.revision for w in scene.running()] == [good]
    assert scene.condition(ConditionType.MANIFEST_INVALID) is not None
    assert scene.events()[len(events) :] == ["Switched", "Started", "BecameReady", "Switched"]


def test_what_a_partly_applied_commit_brought_stays_when_the_next_one_is_invalid(scene: Scene) -> None:
    """`good` is at the second commit already, `bad` of it failed: neither goes back."""
    scene.connect()
    scene.push(ml("good"), ml("bad"))
    scene.run()
    second = scene.push(ml("good", "demo:2"), ml("bad", "demo:2"))
    scene.prober.unready["bad"] = "model not loaded"
    scene.run()
    assert [w.revision for w in scene.running("good")] == [second]
    starts = list(scene.engine.starts)
    scene.push(ml("good", servicePort=99999))
    scene.run()
    scene.sources.fault = UNREACHABLE
    scene.run()
    assert scene.engine.starts == starts
    assert [w.revision for w in scene.running("good")] == [second]


def test_a_missing_folder_touches_nothing_and_drift_is_healed(scene: Scene) -> None:
    scene.connect(app(path="manifests"))
    scene.sources.push("demo", {"manifests/m.yaml": ml()})
    assert scene.run().name == "Ready"
    scene.sources.push("demo", {"elsewhere/m.yaml": ml()})
    outcome = scene.run()
    assert outcome.name == "Failed"
    assert "no folder manifests" in outcome.message
    scene.engine.vanish(scene.running()[0].id)
    scene.run("drift")
    assert len(scene.running()) == 1


def test_an_unreachable_git_server_stops_nothing_and_drift_is_healed(scene: Scene) -> None:
    scene.connect()
    good = scene.push(ml())
    scene.run()
    scene.sources.fault = UNREACHABLE
    outcomes = [scene.run("poll") for _ in range(3)]
    assert [o.name for o in outcomes] == ["Failed"] * 3
    assert [o.retry_after for o in outcomes] == [2.0, 4.0, 8.0]
    assert scene.types() == [ConditionType.READY, ConditionType.FETCH_FAILED]
    ready = scene.condition(ConditionType.READY)
    assert ready is not None
    assert ready.status
    scene.engine.vanish(scene.running()[0].id)
    scene.run("drift")
    assert [w.revision for w in scene.running()] == [good]
    events = scene.events()
    assert events.count("Unreachable") == 1
    scene.settle()
    assert scene.events() == events
    scene.sources.fault = None
    assert scene.run().name == "Ready"
    assert scene.types() == [ConditionType.READY]


def test_a_git_server_that_was_never_reached(scene: Scene) -> None:
    scene.connect()
    scene.sources.fault = UNREACHABLE
    pauses = [scene.run("retry").retry_after for _ in range(10)]
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]
    assert scene.types() == [ConditionType.READY, ConditionType.FETCH_FAILED]
    assert scene.events() == ["Unreachable"]


def test_a_repository_that_is_not_declared(scene: Scene) -> None:
    scene.connect(repositories=[])
    outcome = scene.run()
    assert outcome.name == "Failed"
    assert "'demo' is not there" in outcome.message


def test_an_image_that_does_not_exist_leaves_the_old_version_and_the_neighbours_alone(scene: Scene) -> None:
    scene.connect()
    good = scene.push(ml(), ml("other"))
    scene.run()
    second = scene.push(ml(image="hub/demo:9"), ml("other", "demo:2"))
    outcome = scene.run()
    assert (outcome.name, outcome.retry_after) == ("Degraded", None)
    assert [w.revision for w in scene.running()] == [good]
    assert [w.revision for w in scene.running("other")] == [second]
    degraded = scene.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert degraded.reason == "ImageNotFound"
    assert "hub/demo:9" in degraded.message
    events = scene.events()
    scene.settle()
    assert scene.events() == events
    scene.engine.vanish(scene.running()[0].id)
    scene.run("drift")
    assert [w.revision for w in scene.running()] == [good]


def test_an_image_that_appears_later_is_deployed(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(image="hub/demo:9"))
    assert scene.run().name == "Failed"
    assert scene.condition(ConditionType.STALLED) is not None
    scene.engine.registry["hub/demo:9"] = "sha256:9"
    assert scene.run("poll").name == "Ready"
    assert scene.engine.pulls == ["hub/demo@sha256:9"]


def test_an_unreachable_registry_is_asked_again_and_the_neighbours_go_on(scene: Scene) -> None:
    scene.connect()
    scene.engine.registry_down = True
    scene.push(ml(image="hub/demo:9"), ml("other"))
    pauses = [scene.run("retry").retry_after for _ in range(3)]
    assert pauses == [2.0, 4.0, 8.0]
    assert len(scene.running("other")) == 1
    assert scene.condition(ConditionType.APPLY_FAILED) is not None
    events = scene.events()
    scene.settle()
    assert scene.events() == events
    scene.engine.registry_down = False
    scene.engine.registry["hub/demo:9"] = "sha256:9"
    assert scene.run("retry").name == "Ready"


def test_a_tag_that_moves_is_followed_by_commits_and_people_alone(scene: Scene) -> None:
    scene.connect()
    scene.engine.registry["hub/demo:latest"] = "sha256:1"
    scene.push(ml(image="hub/demo:latest"))
    scene.run()
    scene.engine.registry["hub/demo:latest"] = "sha256:2"
    scene.settle()
    scene.engine.registry_down = True
    assert scene.settle().name == "Ready"
    scene.engine.registry_down = False
    assert scene.engine.pulls == ["hub/demo@sha256:1"]
    scene.run("manual")
    assert scene.engine.pulls == ["hub/demo@sha256:1", "hub/demo@sha256:2"]
    scene.engine.registry["hub/demo:latest"] = "sha256:3"
    scene.push(ml(image="hub/demo:latest"), README="again")
    scene.run()
    assert scene.engine.pulls[-1] == "hub/demo@sha256:3"


def test_an_image_that_was_deleted_is_fetched_again(scene: Scene) -> None:
    scene.connect()
    scene.engine.registry["hub/demo:1"] = "sha256:1"
    scene.push(ml(image="hub/demo:1"))
    scene.run()
    scene.engine.vanish(scene.running()[0].id)
    scene.engine.images.discard("hub/demo@sha256:1")
    assert scene.run("drift").retry_after is not None
    scene.clock.advance(10.0)
    assert scene.run("retry").name == "Ready"
    assert scene.engine.pulls == ["hub/demo@sha256:1"] * 2


def test_a_build_happens_once_for_the_same_content(scene: Scene) -> None:
    scene.connect()
    scene.push(built(), Dockerfile="FROM base")
    assert scene.run().name == "Ready"
    scene.settle()
    assert len(scene.engine.builds) == 1
    scene.push(built(), Dockerfile="FROM other")
    assert scene.run().name == "Ready"
    assert len(set(scene.engine.builds)) == 2


def test_a_build_that_fails_is_told_and_not_repeated(scene: Scene) -> None:
    scene.connect()
    good = scene.push(built(), Dockerfile="FROM base")
    scene.run()
    scene.push(built(), Dockerfile="FROM base\nRUN false")
    scene.engine.build_failures["Dockerfile"] = "The command 'false' returned 1"
    outcome = scene.run()
    assert outcome.name == "Degraded"
    assert "The command 'false' returned 1" in outcome.message
    assert [w.revision for w in scene.running()] == [good]
    builds = list(scene.engine.builds)
    scene.settle()
    assert scene.engine.builds == builds


def test_an_engine_that_is_away_is_tried_again_with_growing_pauses(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    scene.engine.down = True
    pauses = [scene.run_unchecked("retry").retry_after for _ in range(10)]
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]
    assert scene.events().count("EngineUnreachable") == 1
    scene.engine.down = False
    assert scene.run("retry").name == "Ready"
    assert scene.status().failures == 0


def test_a_component_that_cannot_start_is_told_with_the_engines_words(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(), ml("other"))
    scene.engine.start_failures["classify"] = Stalled("NoPython", "the image has no Python")
    outcome = scene.run()
    assert outcome.name == "Failed"
    assert "the image has no Python" in outcome.message
    assert len(scene.running("other")) == 1
    assert scene.settle().name == "Failed"


def broken() -> ObservedApp:
    raise ZeroDivisionError("division by zero")


def test_a_bug_is_told_and_the_next_pass_starts_afresh(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.connect(app(), app("other"))
    scene.push(ml())
    observe = scene.engine.observe
    scene.engine.observe = lambda app: broken() if app == APP else observe(app)  # type: ignore[method-assign]
    outcome = scene.run_unchecked()
    assert (outcome.name, outcome.retry_after) == ("Failed", 300.0)
    failed = scene.condition(ConditionType.APPLY_FAILED)
    assert failed is not None
    assert (failed.reason, failed.message) == ("InternalError", "ZeroDivisionError: division by zero")
    assert "bug in a pass" in caplog.text
    assert scene.run_unchecked(app=AppName("other")).name == "Ready"
    scene.engine.observe = observe  # type: ignore[method-assign]
    assert scene.run("retry").name == "Ready"


def test_two_troubles_at_once_are_each_told_once(scene: Scene) -> None:
    """The commit in force is degraded, the newest one invalid: both stay so, and the history stays short."""
    scene.connect()
    scene.push(ml())
    scene.run()
    scene.push(ml(servicePort=99999))
    scene.prober.unready["classify"] = "worker 1 is stuck"
    scene.run()
    assert scene.types() == [ConditionType.READY, ConditionType.DEGRADED, ConditionType.MANIFEST_INVALID]
    events = scene.events()
    scene.settle()
    assert scene.events() == events
    assert events.count("Degraded") == events.count("ManifestInvalid") == 1
