"""What goes, what waits, and what needs a person's word."""

from __future__ import annotations

from collections.abc import Callable

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from tests.unit.reconcile.harness import APP, Harness, api, app, manifest, ml


def test_a_component_that_left_git_goes(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(), ml("other"))
    harness.run()
    harness.push(ml())
    assert harness.run().name == "Ready"
    assert harness.running("other") == []
    assert [r.component for r in harness.store.routes.of(APP)] == ["classify"]
    assert [c.name for c in harness.status().components] == ["classify"]


def test_without_prune_it_stays_and_is_remembered(harness: Harness) -> None:
    harness.connect(app(prune=False))
    harness.push(ml(), ml("other"))
    harness.run()
    harness.push(ml())
    assert harness.run().name == "Ready"
    assert len(harness.running("other")) == 1
    assert [c.name for c in harness.status().components] == ["classify", "other"]


def test_an_empty_commit_removes_nothing_until_a_person_confirms(harness: Harness) -> None:
    harness.connect()
    good = harness.push(ml(), api())
    harness.run()
    empty = harness.push(README="moved elsewhere")
    outcome = harness.run()
    assert outcome.name == "Failed"
    assert "prichal approve demo" in outcome.message
    assert len(harness.running()) == 1
    assert harness.types() == [ConditionType.READY, ConditionType.PRUNE_PENDING]
    assert (harness.status().attempted_revision, harness.status().applied_revision) == (empty, good)
    events = harness.events()
    assert events.count("PrunePending") == 1
    harness.settle()
    assert harness.events() == events
    harness.store.apps.approve(APP, empty)
    assert harness.run("manual").name == "Ready"
    assert harness.engine.names() == []
    assert harness.store.routes.of(APP) == ()
    assert APP not in harness.engine.apps()
    assert harness.status().applied_revision == empty


def test_a_confirmation_is_for_one_commit(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    first = harness.push(README="empty")
    harness.run()
    harness.store.apps.approve(APP, first)
    harness.push(README="empty, too")
    harness.run()
    assert len(harness.running()) == 1


def test_a_commit_with_manifests_ends_the_waiting_for_a_confirmation(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    harness.push(README="empty")
    harness.run()
    harness.push(ml())
    assert harness.run().name == "Ready"
    assert len(harness.engine.starts) == 1
    assert harness.types() == [ConditionType.READY]


def test_disconnecting_removes_all_and_forgets(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(), ml("other"), api())
    harness.run()
    harness.disconnect()
    assert harness.run("platform").name == "Removed"
    assert harness.engine.names() == []
    assert harness.engine.apps() == frozenset()
    assert harness.store.routes.all() == ()
    assert harness.store.apps.all() == ()
    assert harness.events()[-1] == "Disconnected"


def test_disconnecting_spares_images_that_other_apps_need(harness: Harness) -> None:
    """One may have found an image here that was pulled for the app that goes, and have no container of it now. Of
    several, the first by name gets it."""
    others = [AppName("other"), AppName("another")]
    harness.connect(app(), *map(app, others))
    harness.push(ml())
    harness.run()
    for name in others:
        harness.run(app=name)
    (image,) = {each.image for name in others for each in harness.status(name).components}
    harness.connect(*map(app, others))
    assert harness.run("platform").name == "Removed"
    assert harness.engine.spared[APP] == {image: "another"}


def test_disconnecting_twice_is_told_once(harness: Harness) -> None:
    """The removal itself raises events of the engine, which ask for another pass."""
    harness.connect()
    harness.push(ml())
    harness.run()
    harness.disconnect()
    harness.run("platform")
    assert harness.run("drift").name == "Removed"
    assert harness.events().count("Disconnected") == 1


def test_an_app_that_is_connected_again_starts_afresh(harness: Harness) -> None:
    harness.connect()
    bad = harness.push(ml())
    harness.prober.unready[bad] = "no"
    harness.run()
    harness.disconnect()
    harness.run("platform")
    assert harness.status() == AppStatus(APP)
    harness.prober.unready.clear()
    harness.connect()
    assert harness.run("platform").name == "Ready"


def unreachable(workload_id: str, grace: float, last: Callable[[], object] = lambda: None) -> None:
    raise Transient(Reason.ENGINE_UNREACHABLE, "the engine does not answer")


def test_a_disconnected_app_whose_engine_is_away_is_tried_again(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    harness.disconnect()
    remove = harness.engine.remove
    harness.engine.remove = unreachable  # type: ignore[method-assign]
    outcome = harness.run("platform")
    assert outcome.retry_after is not None
    harness.engine.remove = remove  # type: ignore[method-assign]
    assert harness.retry().name == "Removed"


def test_suspended_by_a_person_nothing_is_changed(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    harness.store.apps.set_suspended(APP, True)
    harness.push(ml(image="demo:2"))
    harness.engine.vanish(harness.running()[0].id)
    fetched = harness.sources.fetched
    assert harness.run().name == "Suspended"
    assert (harness.sources.fetched, harness.engine.names()) == (fetched, [])
    assert harness.types() == [ConditionType.READY, ConditionType.SUSPENDED]
    harness.store.apps.set_suspended(APP, False)
    assert harness.run().name == "Ready"
    assert harness.types() == [ConditionType.READY]


def test_suspended_by_its_manifest_from_the_start(harness: Harness) -> None:
    harness.connect(app(suspend=True))
    harness.push(ml())
    assert harness.run().name == "Suspended"
    assert harness.types() == [ConditionType.READY, ConditionType.SUSPENDED]
    assert harness.engine.names() == []


def test_an_app_waits_for_those_it_depends_on(harness: Harness) -> None:
    base = AppName("base")
    harness.connect(app("base"), app(depends_on=(base,)))
    commit = harness.push(ml())
    outcome = harness.run()
    assert (outcome.name, outcome.retry_after) == ("Waiting", 5.0)
    assert "base" in outcome.message
    assert harness.engine.names() == []
    assert harness.run(app=base).name == "Ready"
    assert harness.run("retry").revision == commit


def test_a_bad_day_of_a_dependency_does_not_stop_healing(harness: Harness) -> None:
    base = AppName("base")
    harness.connect(app("base"), app(depends_on=(base,)))
    harness.push(ml())
    harness.run(app=base)
    harness.run()
    harness.prober.unready["classify"] = "stuck"
    harness.run("drift", app=base)
    harness.prober.unready.clear()
    harness.engine.vanish(harness.running()[0].id)
    assert harness.run("drift").name == "Ready"


def test_an_app_without_containers_is_ready(harness: Harness) -> None:
    harness.connect()
    harness.push(manifest("DataBox", "data", s3DefaultStorage={}))
    assert harness.run().name == "Ready"
    assert harness.settle().name == "Ready"
