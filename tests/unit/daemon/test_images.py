"""The daemon's part of `prichal image`."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.config import Settings
from controller.daemon.images import ImageWorker
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.image_lists import MOST_IMAGES, AskedImages, ImageList
from controller.domain.apps.kept_images import ImageKind
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.store import SqliteStore, open_guest_store
from controller.store.image_lists import KEEP, MOST_WAITING
from tests.support.image_lists import ListedImages, kept
from tests.support.stores import open_store
from tests.support.waiting import wait_for

DEMO = AppName("demo")
A, B = "a" * 40, "b" * 40
ENGINE = (
    kept("demo"),
    kept("gone"),
    kept("gone", ImageKind.PULLED, containers=1),
    kept("", ImageKind.UNFINISHED),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(tmp_path / "state.db")) as store:
        store.apps.save(AppStatus(DEMO))
        yield store


def worker(
    store: SqliteStore, engine: ListedImages, declared: Collection[AppName] | None = ()
) -> ImageWorker:
    return ImageWorker(store, engine, Settings(), time.time, lambda: declared)


def answer(store: SqliteStore, engine: ListedImages, app: str = "", removes: bool = False) -> ImageList:
    """Ask, and answer what was asked for."""
    id = store.image_lists.ask(app, removes)
    assert worker(store, engine).work()
    found = store.image_lists.get(id)
    assert found is not None
    return found


def test_a_list_changes_nothing(store: SqliteStore) -> None:
    engine = ListedImages(*ENGINE)
    found = answer(store, engine)
    assert [each.removed for each in found.images] == [False, True, False, True]
    assert (found.removed, found.removed_size, found.left_out) == (2, 10 * 2**20, 0)
    assert len(engine.images) == 4
    assert [each.image.app for each in answer(store, engine, "gone").images] == ["gone", "gone"]


def test_what_nothing_needs_is_removed(store: SqliteStore) -> None:
    engine = ListedImages(*ENGINE)
    assert answer(store, engine, "demo", removes=True).removed == 0
    found = answer(store, engine, "gone", removes=True)
    assert [(each.removed, each.why) for each in found.images] == [
        (True, "its app is gone"),
        (False, "kept while it is used"),
    ]
    assert answer(store, engine, removes=True).removed == 1
    assert [each.app for each in engine.images] == ["demo", "gone"]


def test_what_something_has_begun_to_use_is_not_told_as_removed(store: SqliteStore) -> None:
    engine = ListedImages(kept("gone"), kept("", ImageKind.UNFINISHED))
    engine.held = frozenset((kept("gone").name,))
    found = answer(store, engine, removes=True)
    assert [(each.removed, each.why) for each in found.images] == [
        (False, "kept, since something has begun to use it"),
        (True, "a build that has ended has left it"),
    ]
    assert (found.removed, found.removed_size) == (1, 5 * 2**20)


def test_why_an_image_is_kept(store: SqliteStore) -> None:
    status = AppStatus(DEMO, desired_revision=B, applied_revision=B, pins=(("now", "build sha256:now"),))
    store.apps.save(status)
    for revision, image in ((A, "before"), (B, "now")):
        pins = ((image, f"build sha256:{image}"),)
        store.history.add(
            AppliedRevision(DEMO, revision, "", "", ("push",), 1.0, 2.0, "Ready", "", "", pins=pins), ()
        )
    engine = ListedImages(*(kept("demo", id=id) for id in ("now", "before", "older")))
    assert [each.why for each in answer(store, engine).images] == [
        f"in force, at {B[:12]}",
        f"kept for a rollback to {A[:12]}, as far as docker.keptImages allows",
        "removed with a change of its app, but for the newest ones",
    ]


def test_images_of_an_app_without_a_status_are_kept(store: SqliteStore) -> None:
    engine = ListedImages(kept("gone"), kept("new"))
    id = store.image_lists.ask(removes=True)
    assert worker(store, engine, None).work()
    found = store.image_lists.get(id)
    assert found is not None
    assert (found.problem, found.message) == (
        Reason.NOT_RUNNING,
        "the platform folder has not been read yet",
    )
    store.image_lists.ask(removes=True)
    assert worker(store, engine, (AppName("new"),)).work()
    assert [each.app for each in engine.images] == ["new"]


def test_what_prevents_a_list(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    engine = ListedImages()
    engine.fault = Transient(Reason.ENGINE_UNREACHABLE, "not now")
    found = answer(store, engine)
    assert (found.problem, found.message, found.is_transient) == (Reason.ENGINE_UNREACHABLE, "not now", True)
    engine.fault = ZeroDivisionError()
    assert answer(store, engine, removes=True).problem == Reason.INTERNAL_ERROR
    assert "bug: cannot list the images" in caplog.text


def test_an_answer_is_bounded_and_has_first_what_is_removed(store: SqliteStore) -> None:
    many = [kept("demo", id=f"{number}") for number in range(MOST_IMAGES)]
    found = answer(store, ListedImages(*many, kept("gone"), kept("", ImageKind.UNFINISHED)))
    assert (len(found.images), found.left_out, found.removed) == (MOST_IMAGES, 2, 2)
    assert [each.removed for each in found.images[:3]] == [True, True, False]


def test_those_who_ask_meanwhile_share_one(store: SqliteStore) -> None:
    lists = store.image_lists
    first = lists.ask("demo")
    assert lists.ask("demo") == first
    others = (lists.ask(), lists.ask("demo", removes=True))
    assert first not in others, "a list is asked for, and nothing to be removed"
    begun = lists.begin()
    assert begun == AskedImages(first, "demo", removes=False)
    assert lists.ask("demo") != first, "what was begun before may not know of what has happened since"
    assert lists.begin() == begun, "a daemon that died has not answered it"
    answered = []
    while asked := lists.begin():
        answered.append((asked.app, asked.removes))
        lists.finish(ImageList(asked.id))
    assert answered == [("demo", False), ("", False), ("demo", True), ("demo", False)]


def test_what_is_kept_and_what_waits_is_bounded(store: SqliteStore, tmp_path: Path) -> None:
    engine = ListedImages()
    ids = [answer(store, engine).id for _ in range(KEEP + 3)]
    assert [bool(store.image_lists.get(id)) for id in ids] == [False] * 3 + [True] * KEEP
    with closing(open_guest_store(tmp_path / "state.db")) as guest:
        for number in range(MOST_WAITING):
            guest.image_lists.ask(f"app-{number}")
        with pytest.raises(Transient) as full:
            guest.image_lists.ask("one-more")
    assert full.value.reason == Reason.QUEUE_FULL


def test_what_others_put_there_is_dropped(store: SqliteStore) -> None:
    good = "'" + "0" * 32 + "'"
    with store._database.write() as db:
        for id, app, removes in (
            ("'../x'", "'demo'", 1),
            ("CAST(x'fffe' AS TEXT)", "'demo'", 1),
            (good, "'../demo'", 1),
            ("''", "''", 7),
        ):
            values = f"{id}, {app}, {removes}"
            db.execute(f"INSERT INTO asked_images (id, app, removes) VALUES ({values})")  # noqa: S608
    engine = ListedImages(*ENGINE)
    assert len(answer(store, engine).images) == len(ENGINE)
    assert (engine.asked, len(engine.images)) == (1, len(ENGINE))
    with store._database.read() as db:
        assert db.execute("SELECT count(*) FROM asked_images").fetchone()[0] == 0


def test_rows_that_look_begun_fill_the_queue_no_longer_than_others(
    store: SqliteStore, tmp_path: Path
) -> None:
    with store._database.write() as db:
        for number in range(MOST_WAITING):
            values = (f"{number:032x}", f"app-{number}", 7)
            db.execute("INSERT INTO asked_images (id, app, begun) VALUES (?, ?, ?)", values)
    lists = store.image_lists
    for _ in range(MOST_WAITING):
        asked = lists.begin()
        assert asked is not None
        lists.finish(ImageList(asked.id))
    assert lists.ask()


def test_an_answer_that_cannot_be_kept_fills_no_queue(store: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "image_lists.db"
    path.mkdir()
    store.image_lists.ask()
    with pytest.raises(IsADirectoryError):
        worker(store, ListedImages()).work()
    path.rmdir()
    assert store.image_lists.begin() is None


def test_the_thread(store: SqliteStore) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=worker(store, ListedImages(*ENGINE)).run, args=(stop,))
    thread.start()
    id = store.image_lists.ask()
    wait_for(lambda: store.image_lists.get(id))
    stop.set()
    thread.join()
