"""Moves of groups: whatever happens in the middle, each file is in one of both places; the same request continues."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask import Flask

from controller.config import Settings
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.people.roles import Grant, Role
from controller.domain.storage.box import BoxRecord, StoredObject
from controller.domain.storage.keys import DEVELOPER_AREA, parse_path, user_area
from controller.reconcile.box_usage import measure
from controller.store import SqliteStore
from controller.web.api.files import moves
from controller.web.api.files.area import BoxArea
from controller.web.api.files.moves import GroupMoves, MoveStep
from controller.web.app import create_app
from controller.web.context import people_context
from controller.web.problems import ProblemKind, RequestRefused
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.people import Browser, add_person, add_token, hidden

APP, BOX, BUCKET = AppName("demo"), ComponentName("data"), "prichal.demo.data"
FILES = "/-/apps/demo/files"
MAKER = user_area("person:maker")
ODD = ("один «два»", 'it\'s "three" & <four>', "100% +?#", "файл №5.csv")


class Died(BaseException):
    """The process ends here."""


class Dying(FakeObjects):
    """Ends before or after the call with this number that changes something."""

    def __init__(self, other: FakeObjects, calls: int, after: bool) -> None:
        super().__init__(other.server)
        self.calls, self.after = calls, after
        self.lock = threading.Lock()

    def copy(self, bucket: str, found: StoredObject, key: str, into: str = "") -> StoredObject:
        copied: StoredObject = self._counted(lambda: FakeObjects.copy(self, bucket, found, key, into))
        return copied

    def remove(self, bucket: str, keys: Any) -> None:
        for key in list(keys):  # a storage may die in the middle of a request
            self._counted(lambda key=key: FakeObjects.remove(self, bucket, [key]))

    def _counted(self, call: Any) -> Any:
        with self.lock:
            self.calls -= 1
            dies = self.calls < 0
        if dies and not self.after:
            raise Died
        result = call()
        if dies:
            raise Died
        return result


@dataclass
class World:
    store: SqliteStore
    storage: StorageClient
    objects: FakeObjects
    capacity: int = 10**9

    def area(self, objects: FakeObjects | None = None, now: float | None = None) -> BoxArea:
        record = BoxRecord(APP, BOX, BUCKET, self.capacity)
        return BoxArea(
            self.store, self.storage, objects or self.objects, record, MAKER, 900.0, now or time.time()
        )

    def step(self, source: str, target: str, objects: FakeObjects | None = None) -> MoveStep:
        return GroupMoves(self.area(objects)).step(parse_path(source), parse_path(target))

    def whole(self, source: str, target: str) -> MoveStep:
        while True:
            step = self.step(source, target)
            if not step.more:
                return step

    def refused(self, source: str, target: str) -> RequestRefused:
        with pytest.raises(RequestRefused) as refused:
            self.step(source, target)
        return refused.value

    def given(self, *names: str, content: bytes = b"content") -> None:
        for name in names:
            self.objects.put(BUCKET, MAKER + name, io.BytesIO(content), len(content))

    def names(self, below: str = "") -> list[str]:
        after, found = "", []
        while True:
            page = self.objects.page(BUCKET, MAKER + below, after)
            found += [each.key.removeprefix(MAKER) for each in page.objects]
            if page.next is None:
                return found
            after = page.next

    def count(self) -> None:
        """As the daemon does after a change."""
        began = time.time() + 10  # the clocks' tolerance has passed
        found = measure(self.objects, BUCKET, self.store.boxes.pending(BUCKET), began)
        self.store.boxes.measured(
            BUCKET, found.used, found.files, began, {each.id for each in self.store.boxes.pending(BUCKET)}
        )


@pytest.fixture
def world(store: SqliteStore, storage: StorageClient, objects: FakeObjects) -> World:
    store.apps.save(AppStatus(APP))
    store.boxes.save(BoxRecord(APP, BOX, BUCKET, 10**9))
    objects.create_bucket(BUCKET)
    return World(store, storage, objects)


def test_a_group_moves_with_all_below(world: World) -> None:
    world.given(*(f"старая/{name}" for name in ODD), "старая/глубже/x", "other/kept", "старая2/kept")
    step = world.step("старая/", "новая «папка»/в ней/")
    assert step == MoveStep(5, 5, 5, 0, more=False)
    moved = [f"новая «папка»/в ней/{name}" for name in (*ODD, "глубже/x")]
    assert sorted(world.names()) == sorted([*moved, "other/kept", "старая2/kept"])
    assert world.store.boxes.moves(BUCKET, MAKER) == ()
    assert world.step("старая/", "новая «папка»/в ней/").moved == 0, "the answer was lost"
    assert world.refused("новая «папка»/в ней/", "новая «папка»/").problem.kind is ProblemKind.PATH_CONFLICT


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("g/", "g/", ProblemKind.PATH_CONFLICT),
        ("g/", "g/deeper/", ProblemKind.PATH_CONFLICT),
        ("g/", "there/", ProblemKind.PATH_CONFLICT),
        ("g/in/", "g/", ProblemKind.PATH_CONFLICT),
        ("g/", "there/file/", ProblemKind.PATH_CONFLICT),
        ("g/", "there/file/below/", ProblemKind.PATH_CONFLICT),
        ("none/", "new/", ProblemKind.NOT_FOUND),
        (
            "g/",
            "x" * 200 + "/" + "y" * 200 + "/" + "z" * 200 + "/" + "w" * 200 + "/" + "v" * 90 + "/",
            ProblemKind.INVALID_PATH,
        ),
        ("", "new/", ProblemKind.INVALID_PATH),
        ("g/", "", ProblemKind.INVALID_PATH),
        ("g/", "new/file", ProblemKind.INVALID_PATH),
    ],
)
def test_what_is_refused_changes_nothing(world: World, source: str, target: str, kind: ProblemKind) -> None:
    world.given("g/file", "g/in/deeper", "there/file")
    before = world.names()
    assert world.refused(source, target).problem.kind is kind
    assert world.names() == before
    assert (world.store.boxes.moves(BUCKET, MAKER), world.store.boxes.pending(BUCKET)) == ((), ())


def test_a_name_like_a_beginning_is_not_inside(world: World) -> None:
    world.given("g/file")
    world.whole("g/", "g2/")
    assert world.names() == ["g2/file"]


@pytest.mark.parametrize("after", [False, True])
def test_a_death_at_any_call_loses_nothing_and_the_move_continues(world: World, after: bool) -> None:
    names = [f"{number}" for number in range(5)]
    for calls in range(2 * len(names) + 1):
        source, target = f"a{calls}/", f"b{calls}/"
        world.given(*(source + name for name in names))
        try:
            world.step(source, target, Dying(world.objects, calls, after))
        except Died:
            there = {name.partition("/")[2] for name in (*world.names(source), *world.names(target))}
            assert there == set(names)
            [move] = world.store.boxes.moves(BUCKET, MAKER)
            assert (move.source, move.target, move.files) == (MAKER + source, MAKER + target, len(names))
        assert not world.whole(source, target).left
        assert (world.names(source), world.names(target)) == ([], [target + name for name in names])
        assert world.store.boxes.moves(BUCKET, MAKER) == ()


def test_an_unfinished_move_is_moved_back(world: World) -> None:
    world.given("a/1", "a/2", "a/3")
    with pytest.raises(Died):
        world.step("a/", "b/", Dying(world.objects, 5, after=True))
    assert world.refused("a/", "c/").problem.kind is ProblemKind.PATH_CONFLICT
    world.whole("b/", "a/")
    assert world.names() == ["a/1", "a/2", "a/3"]
    assert world.store.boxes.moves(BUCKET, MAKER) == ()


def test_what_others_put_into_the_new_place_is_never_replaced(world: World) -> None:
    world.given("a/1", "a/2", "a/3")
    with pytest.raises(Died):
        world.step("a/", "b/", Dying(world.objects, 0, after=False))
    world.given("b/2", content=b"another one")
    step = world.whole("a/", "b/")
    assert (step.left, step.more) == (1, False)
    assert world.names() == ["a/2", "b/1", "b/2", "b/3"]
    assert [each.size for each in world.objects.page(BUCKET, f"{MAKER}b/2").objects] == [11]


class Replaced(FakeObjects):
    """Somebody uploads another file of the same name right after each copy."""

    def copy(self, bucket: str, found: StoredObject, key: str, into: str = "") -> StoredObject:
        copied = super().copy(bucket, found, key, into)
        self.put(bucket, found.key, io.BytesIO(b"newer"), 5)
        return copied


def test_what_is_replaced_meanwhile_stays_in_the_old_place(world: World) -> None:
    world.given("a/1")
    world.step("a/", "b/", Replaced(world.objects.server))
    assert [(each.key, each.size) for each in world.objects.page(BUCKET).objects] == [
        (f"{MAKER}a/1", 5),
        (f"{MAKER}b/1", 7),
    ]


def test_marks_of_empty_folders_go(world: World) -> None:
    world.given("a/1")
    world.objects.put(BUCKET, f"{MAKER}a/empty/", io.BytesIO(b""), 0)
    assert world.whole("a/", "b/").moved == 1
    assert world.names() == ["b/1"]


def test_a_group_larger_than_the_free_space_moves_as_it_is_counted(world: World) -> None:
    world.given(*(f"a/{number}" for number in range(8)), content=b"x" * 100)
    world.store.boxes.save(BoxRecord(APP, BOX, BUCKET, 1000))
    world.store.boxes.measured(BUCKET, 800, 8, time.time(), ())
    steps = [world.step("a/", "b/")]
    assert (steps[0].moved, steps[0].more) == (2, True)
    assert world.step("a/", "b/").moved == 0, "until it is counted"
    for _ in range(10):
        world.count()
        steps.append(world.step("a/", "b/"))
        usage = world.store.boxes.usage(BUCKET, time.time())
        assert usage.used + usage.pending <= 1000
        if not steps[-1].more:
            break
    assert world.names() == [f"b/{number}" for number in range(8)]


def test_no_space_for_a_single_file_is_told(world: World) -> None:
    world.given("a/1", content=b"x" * 600)
    world.store.boxes.save(BoxRecord(APP, BOX, BUCKET, 1000))
    world.store.boxes.measured(BUCKET, 600, 1, time.time(), ())
    assert world.step("a/", "b/").more
    move = world.store.boxes.move(BUCKET, f"{MAKER}a/")
    assert move is not None
    world.store.boxes.save_move(replace(move, stepped=time.time() - moves.RECOUNT_TIMEOUT - 1))
    assert world.refused("a/", "b/").problem.kind is ProblemKind.BOX_FULL
    assert world.names() == ["a/1"]


@pytest.mark.slow
def test_ten_thousand_files_move_in_bounded_steps_that_tell_how_far_they_are(world: World) -> None:
    world.given(*(f"a/{number:05}" for number in range(10_000)))
    far = []
    while True:
        step = world.step("a/", "b/")
        assert step.moved <= moves.MAX_MOVED
        assert step.files == 10_000
        far.append(step.so_far)
        if not step.more:
            break
        world.count()
    assert far == sorted(far)
    assert far[-1] == 10_000
    assert (world.names("a/"), len(world.names("b/"))) == ([], 10_000)


def test_two_who_move_the_same_at_once(world: World) -> None:
    world.given(*(f"a/{number:03}" for number in range(300)))
    refused: list[ProblemKind] = []

    def move() -> None:
        try:
            world.whole("a/", "b/")
        except RequestRefused as error:  # another one has begun, and has copied a file
            refused.append(error.problem.kind)

    threads = [threading.Thread(target=move) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(refused) <= {ProblemKind.PATH_CONFLICT}
    assert len(refused) < 4
    assert (world.names("a/"), len(world.names("b/"))) == ([], 300)


# --- for people -----------------------------------------------------------------------------------------------------


@pytest.fixture
def app(world: World, settings: Settings) -> Flask:
    (settings.state / "web").mkdir(exist_ok=True)
    made = create_app(world.store, settings, world.storage)
    for name, role in (("maker", Role.DEVELOPER), ("other", Role.DEVELOPER), ("guest", Role.VIEWER)):
        add_person(people_context(made).store, name, Grant(name, role, APP))
    return made


def ask(app: Flask, who: str, path: str, **query: str) -> Any:
    headers = {"Authorization": f"Bearer {add_token(people_context(app).store, who)}"}
    return app.test_client().post(FILES + path, query_string=query, headers=headers)


def test_both_ends_are_in_the_area_of_the_person(app: Flask, world: World) -> None:
    world.given("g/mine")
    world.objects.put(BUCKET, f"{DEVELOPER_AREA}m/model", io.BytesIO(b"x"), 1)
    for path in ("/data/g/", "/data/m/"):
        assert ask(app, "guest", path, moveTo="new/", area="developer").status_code == 403
    assert ask(app, "other", "/data/g/", moveTo="new/").status_code == 404
    for to in ("../other/", "new/../../x/", "/new/"):
        assert ask(app, "maker", "/data/g/", moveTo=to).status_code == 400
    assert ask(app, "maker", "/data/g/", moveTo="new/", area="developer").status_code == 404
    reply = ask(app, "maker", "/data/g/", moveTo="new/")
    assert reply.json == {"moved": 1, "soFar": 1, "files": 1, "left": 0, "more": False}
    assert [each.key for each in world.objects.page(BUCKET).objects] == [
        f"{DEVELOPER_AREA}m/model",
        f"{MAKER}new/mine",
    ]


def test_a_move_of_several_requests_is_told_once(app: Flask, world: World) -> None:
    world.given(*(f"g/{number:04}" for number in range(moves.MAX_MOVED + 50)))
    while ask(app, "maker", "/data/g/", moveTo="new/").json["more"]:
        pass
    acts = [(entry.act, entry.detail) for entry in people_context(app).store.acts(20, "maker")]
    assert acts == [("file change", "moved data/g/ to new/")]


def test_forms_move_and_continue_without_scripts(app: Flask, world: World) -> None:
    browser = Browser(app)
    browser.sign_in("maker")
    world.given(*(f"g/{number:04}" for number in range(moves.MAX_MOVED + 50)))
    page = browser.open(f"{FILES}/data/g/")
    assert 'data-move="g/"' in page.text
    form = hidden(page)["form"]
    reply = browser.submit(f"{FILES}/data/g/", {"form": form, "to": "новая"})
    assert (reply.status_code, reply.location) == (303, f"{FILES}/data/g/")
    page = browser.open(f"{FILES}/data/g/")
    assert 'data-key="move-g/"' in page.text
    assert 'data-key="move-g/"' in browser.open(f"{FILES}/data/").text
    reply = browser.submit(f"{FILES}/data/g/", {"form": form, "to": "новая/"})
    assert reply.location == f"{FILES}/data/%D0%BD%D0%BE%D0%B2%D0%B0%D1%8F/"
    assert 'data-key="move-' not in browser.open(reply.location).text
    assert world.names("g/") == []
