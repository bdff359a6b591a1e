"""The daemon's part of `prichal plan`, over the reconciler's stage."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.daemon.previews import PreviewWorker
from controller.domain.apps.previews import PlanPreview
from controller.domain.errors import Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.store.previews import KEEP, MOST
from tests.support.waiting import wait_for
from tests.unit.reconcile.harness import APP, Harness, app, ml, secret


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path)
    yield made
    made.store.close()


def planned(harness: Harness, name: str = APP) -> PlanPreview:
    """Ask, and compute what was asked for."""
    id = harness.store.previews.ask(AppName(name))
    worker = PreviewWorker(harness.deps)
    while worker.work():
        pass
    found = harness.store.previews.get(id)
    assert found is not None
    return found


def test_what_a_push_would_do(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    assert "start prichal.demo.classify" in planned(harness).text
    assert harness.engine.observe(APP).workloads == (), "nothing was done"
    assert harness.status().attempted_revision == ""
    harness.run()
    assert planned(harness).empty
    commit = harness.push(ml(replicas=2))
    found = planned(harness)
    assert (found.revision, found.empty, found.problem) == (commit, False, "")
    assert found.actions[0].action.startswith("start prichal.demo.classify")
    assert harness.store.previews.manifests(found.id) != harness.store.history.manifests(APP, 1)


def test_a_commit_that_cannot_be_applied(harness: Harness) -> None:
    harness.connect()
    good = harness.push(ml())
    harness.run()
    harness.push(ml(replicas="many"))
    found = planned(harness)
    assert (found.revision, found.empty, len(found.warnings)) == (good, True, 1)
    assert found.warnings[0].startswith("ManifestInvalid: ")


def test_of_a_suspended_app_what_would_be_done_then(harness: Harness) -> None:
    harness.connect(app(suspend=True))
    harness.push(ml())
    found = planned(harness)
    assert (found.empty, found.warnings[0].split(":")[0]) == (False, "Suspended")


def test_what_cannot_be_kept_fills_no_queue(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    previews, path = harness.store.previews, harness.database.with_name("previews.db")
    path.mkdir()
    id = previews.ask(APP)
    with pytest.raises(IsADirectoryError):
        PreviewWorker(harness.deps).work()
    path.rmdir()
    assert (previews.get(id), previews.begin()) == (None, None)
    assert not planned(harness).problem


def test_what_prevents_a_plan(harness: Harness) -> None:
    found = planned(harness)
    assert (found.problem, found.is_transient) == (Reason.NOT_RUNNING, True)
    harness.connect()
    assert planned(harness, "other").problem == Reason.UNKNOWN_APP
    harness.sources.fault = Transient(Reason.ENGINE_UNREACHABLE, "not now")
    found = planned(harness)
    assert (found.problem, found.message, found.is_transient) == (Reason.ENGINE_UNREACHABLE, "not now", True)


def test_a_bug_concerns_one_preview(
    harness: Harness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.connect()
    harness.push(ml())
    monkeypatch.setattr(harness.engine, "observe", lambda app: 1 / 0)
    assert planned(harness).problem == Reason.INTERNAL_ERROR
    assert "bug: cannot compute" in caplog.text


def test_no_secret_is_shown(harness: Harness) -> None:
    harness.connect(secrets=(secret("keys", TOKEN="hunter2-horse"),))
    harness.push(ml(env=[{"name": "hunter2-horse", "value": "x"}]))
    found = planned(harness)
    shown = repr((found, harness.store.previews.manifests(found.id)))
    assert "***" in shown
    assert "hunter2" not in shown


def test_those_who_ask_meanwhile_share_one(harness: Harness) -> None:
    previews = harness.store.previews
    first, second = previews.ask(APP), previews.ask(APP)
    assert first == second
    asked = previews.begin()
    assert asked is not None
    later = previews.ask(APP)
    assert later != first, "what was begun before may not know of what has happened since"
    assert previews.begin() == asked, "a daemon that died has not computed it"
    for id in (first, later):
        previews.finish(PlanPreview(id, APP), ())
    assert previews.begin() is None


def test_what_is_kept_is_bounded(harness: Harness) -> None:
    previews = harness.store.previews
    ids = []
    for number in range(MOST + 10):
        ids.append(previews.ask(AppName(f"app-{number // (KEEP + 2)}")))
        asked = previews.begin()
        assert asked is not None
        previews.finish(PlanPreview(asked.id, asked.app), ())
    kept = [id for id in ids if previews.get(id)]
    assert previews.get(ids[-1]) is not None
    assert len(kept) < MOST
    assert [bool(previews.get(id)) for id in ids[-(KEEP + 2) - 6 : -6]].count(True) == KEEP


def test_what_others_put_there_is_dropped(harness: Harness) -> None:
    harness.connect()
    with harness.store._database.write() as db:
        for id, app in (("'../x'", "'../demo'"), ("CAST(x'fffe' AS TEXT)", "'demo'"), ("''", "'demo'")):
            db.execute(f"INSERT INTO asked_previews (id, app) VALUES ({id}, {app})")  # noqa: S608
        asked = harness.store.previews.ask(AppName("other"))
    assert PreviewWorker(harness.deps).work()
    assert harness.store.previews.get(asked) is not None
    with harness.store._database.read() as db:
        assert db.execute("SELECT count(*) FROM asked_previews").fetchone()[0] == 0


def test_the_thread(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    stop = threading.Event()
    thread = threading.Thread(target=PreviewWorker(harness.deps).run, args=(stop,))
    thread.start()
    id = harness.store.previews.ask(APP)
    wait_for(lambda: harness.store.previews.get(id))
    stop.set()
    thread.join()
