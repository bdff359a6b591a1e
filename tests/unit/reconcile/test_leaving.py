"""What goes, what waits, and what needs a person's word."""

from __future__ import annotations

from controller.domain.conditions import ConditionType
from controller.domain.errors import Transient
from controller.domain.names import AppName
from controller.domain.status import AppStatus
from tests.unit.reconcile.scene import APP, Scene, api, app, manifest, ml


def test_a_component_that_left_git_goes(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(), ml("other"))
    scene.run()
    scene.push(ml())
    assert scene.run().name == "Ready"
    assert scene.running("other") == []
    assert [r.component for r in scene.store.routes.of(APP)] == ["classify"]
    assert [c.name for c in scene.status().components] == ["classify"]


def test_without_prune_it_stays_and_is_remembered(scene: Scene) -> None:
    scene.connect(app(prune=False))
    scene.push(ml(), ml("other"))
    scene.run()
    scene.push(ml())
    assert scene.run().name == "Ready"
    assert len(scene.running("other")) == 1
    assert [c.name for c in scene.status().components] == ["classify", "other"]


def test_an_empty_commit_removes_nothing_until_a_person_confirms(scene: Scene) -> None:
    scene.connect()
    good = scene.push(ml(), api())
    scene.run()
    empty = scene.push(README="moved elsewhere")
    outcome = scene.run()
    assert outcome.name == "Failed"
    assert "prichal approve demo" in outcome.message
    assert len(scene.running()) == 1
    assert scene.types() == [ConditionType.READY, ConditionType.PRUNE_PENDING]
    assert (scene.status().attempted_revision, scene.status().applied_revision) == (empty, good)
    events = scene.events()
    assert events.count("PrunePending") == 1
    scene.settle()
    assert scene.events() == events
    scene.store.apps.approve(APP, empty)
    assert scene.run("manual").name == "Ready"
    assert scene.engine.names() == []
    assert scene.store.routes.of(APP) == ()
    assert APP not in scene.engine.apps()
    assert scene.status().applied_revision == empty


def test_a_confirmation_is_for_one_commit(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    first = scene.push(README="empty")
    scene.run()
    scene.store.apps.approve(APP, first)
    scene.push(README="empty, too")
    scene.run()
    assert len(scene.running()) == 1


def test_a_commit_with_manifests_ends_the_waiting_for_a_confirmation(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    scene.push(README="empty")
    scene.run()
    scene.push(ml())
    assert scene.run().name == "Ready"
    assert len(scene.engine.starts) == 1
    assert scene.types() == [ConditionType.READY]


def test_disconnecting_removes_all_and_forgets(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(), ml("other"), api())
    scene.run()
    scene.disconnect()
    assert scene.run("platform").name == "Removed"
    assert scene.engine.names() == []
    assert scene.engine.apps() == frozenset()
    assert scene.store.routes.all() == ()
    assert scene.store.apps.all() == ()
    assert scene.events()[-1] == "Disconnected"


def test_disconnecting_twice_is_told_once(scene: Scene) -> None:
    """The removal itself raises events of the engine, which ask for another pass."""
    scene.connect()
    scene.push(ml())
    scene.run()
    scene.disconnect()
    scene.run("platform")
    assert scene.run("drift").name == "Removed"
    assert scene.events().count("Disconnected") == 1


def test_an_app_that_is_connected_again_starts_afresh(scene: Scene) -> None:
    scene.connect()
    bad = scene.push(ml())
    scene.prober.unready[bad] = "no"
    scene.run()
    scene.disconnect()
    scene.run("platform")
    assert scene.status() == AppStatus(APP)
    scene.prober.unready.clear()
    scene.connect()
    assert scene.run("platform").name == "Ready"


def unreachable(workload_id: str, grace: float) -> None:
    raise Transient("EngineUnreachable", "the engine does not answer")


def test_a_disconnected_app_whose_engine_is_away_is_tried_again(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    scene.disconnect()
    remove = scene.engine.remove
    scene.engine.remove = unreachable  # type: ignore[method-assign]
    outcome = scene.run("platform")
    assert outcome.retry_after is not None
    scene.engine.remove = remove  # type: ignore[method-assign]
    assert scene.run("retry").name == "Removed"


def test_suspended_by_a_person_nothing_is_changed(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    scene.store.apps.set_suspended(APP, True)
    scene.push(ml(image="demo:2"))
    scene.engine.vanish(scene.running()[0].id)
    fetched = scene.sources.fetched
    assert scene.run().name == "Suspended"
    assert (scene.sources.fetched, scene.engine.names()) == (fetched, [])
    assert scene.types() == [ConditionType.READY, ConditionType.SUSPENDED]
    scene.store.apps.set_suspended(APP, False)
    assert scene.run().name == "Ready"
    assert scene.types() == [ConditionType.READY]


def test_suspended_by_its_manifest_from_the_start(scene: Scene) -> None:
    scene.connect(app(suspend=True))
    scene.push(ml())
    assert scene.run().name == "Suspended"
    assert scene.types() == [ConditionType.READY, ConditionType.SUSPENDED]
    assert scene.engine.names() == []


def test_an_app_waits_for_those_it_depends_on(scene: Scene) -> None:
    base = AppName("base")
    scene.connect(app("base"), app(depends_on=(base,)))
    commit = scene.push(ml())
    outcome = scene.run()
    assert (outcome.name, outcome.retry_after) == ("Waiting", 5.0)
    assert "base" in outcome.message
    assert scene.engine.names() == []
    assert scene.run(app=base).name == "Ready"
    assert scene.run("retry").revision == commit


def test_a_bad_day_of_a_dependency_does_not_stop_healing(scene: Scene) -> None:
    base = AppName("base")
    scene.connect(app("base"), app(depends_on=(base,)))
    scene.push(ml())
    scene.run(app=base)
    scene.run()
    scene.prober.unready["classify"] = "stuck"
    scene.run("drift", app=base)
    scene.prober.unready.clear()
    scene.engine.vanish(scene.running()[0].id)
    assert scene.run("drift").name == "Ready"


def test_an_app_without_containers_is_ready(scene: Scene) -> None:
    scene.connect()
    scene.push(manifest("DataBox", "data", s3DefaultStorage={}))
    assert scene.run().name == "Ready"
    assert scene.settle().name == "Ready"
