"""Boxes of previews that begin as copies of the app's: what is copied, what is refused, and a daemon that dies."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.branch_previews import OpenPull, preview_name
from controller.domain.apps.plan import CopyBox
from controller.domain.apps.requests import Trigger
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.storage.box import BoxRecord, BoxState, ObjectPage, PendingUpload, StoredObject
from controller.reconcile.box_copies import CopyMemory, CopyPace
from controller.reconcile.deps import PassOutcome
from controller.reconcile.next_pass import preview
from tests.support.fake_objects import FakeObjects
from tests.unit.reconcile.harness import APP, Harness, api, app, manifest, ml
from tests.unit.reconcile.previewing import BOX, RULES, Platform, die_at, is_gone, named, shape_of

COPY = replace(RULES, copies_boxes=True)
FILES = ComponentName("files")
MAIN = f"prichal.{APP}.files"
NAME = named("feature/x")
BUCKET = f"prichal.{NAME}.files"
ODD = (
    "users/анна/file_groups/a b/ü +%&=?.txt",
    "developer/😀/w.bin",
    "users/o/.hidden",
    "users/z/" + "я" * 200,
)


def content(harness: Harness, bucket: str = BUCKET) -> dict[str, bytes]:
    return {key: body for key, (_, body) in harness.storage.server.buckets.get(bucket, {}).items()}


def put(harness: Harness, key: str, body: bytes = b"content", bucket: str = MAIN) -> None:
    harness.storage.objects().put(bucket, key, io.BytesIO(body), len(body))


def record(harness: Harness, name: AppName = NAME) -> BoxRecord | None:
    return harness.store.boxes.get(name, FILES)


def box_of(capacity: str) -> str:
    return manifest("DataBox", "files", s3DefaultStorage={"capacity": capacity})


def paced(platform: Platform, **pace: Any) -> CopyMemory:
    """Let the daemon start again, and copy at this pace."""
    memory = CopyMemory(pace=CopyPace(**pace))
    platform.start(replace(platform.harness.deps, copies=memory))
    platform.work()
    return memory


def told(harness: Harness) -> list[str]:
    return [
        f"{e.reason}: {e.message}" for e in harness.store.events.list(NAME, limit=100) if "Box" in e.reason
    ]


@pytest.fixture
def platform(harness: Harness) -> Platform:
    harness.push(ml(), api(), BOX)
    made = Platform(harness, COPY)
    made.work()
    return made


def test_a_box_begins_as_a_copy_and_goes_its_own_way(platform: Platform) -> None:
    harness = platform.harness
    for key in ODD:
        put(harness, key, key.encode())
    assert platform.push("feature/x", ml(image="demo:2"), api(), BOX)[NAME].name == "Ready"
    assert content(harness) == {key: key.encode() for key in ODD}
    found = record(harness)
    assert found is not None
    size = sum(len(key.encode()) for key in ODD)
    assert (found.state, found.files, found.used) == (BoxState.BOUND, 4, size)
    assert f"BoxCopied: box files is a copy of the one of demo: {size} bytes in 4 files" in told(harness)

    put(harness, ODD[0], b"of the preview", BUCKET)
    put(harness, ODD[1], b"of the app")
    assert platform.push("feature/x", ml(image="demo:3"), api(), BOX)[NAME].name == "Ready"
    assert content(harness)[ODD[0]] == b"of the preview", "a newer commit copies nothing again"
    assert content(harness)[ODD[1]] == ODD[1].encode()
    assert content(harness, MAIN)[ODD[0]] == ODD[0].encode()
    platform.drop("feature/x")
    assert is_gone(harness, NAME)
    assert set(content(harness, MAIN)) == set(ODD)


def test_only_boxes_of_the_app_are_copied(platform: Platform) -> None:
    """One that the app only keeps, or does not have, begins empty; one that the branch does not have is not copied."""
    harness = platform.harness
    harness.push(ml(), manifest("DataBox", "other", s3DefaultStorage={}))
    harness.store.requests.enqueue(APP, Trigger.POLL)
    platform.work()
    kept = record(harness, APP)
    assert kept is not None
    assert kept.state is BoxState.KEPT
    put(harness, "users/a/1")
    put(harness, "users/b/1", bucket=f"prichal.{APP}.other")
    platform.push("feature/x", BOX, manifest("DataBox", "mine", s3DefaultStorage={}))
    assert content(harness) == {}
    assert sorted(box.box for box in harness.store.boxes.of(NAME)) == ["files", "mine"]


def test_without_the_rule_boxes_are_empty(harness: Harness) -> None:
    harness.push(ml(), BOX)
    platform = Platform(harness)
    platform.work()
    put(harness, "users/a/1")
    platform.push("feature/x", ml(), BOX)
    assert content(harness) == {}


def test_people_of_forks_get_no_data(harness: Harness) -> None:
    harness.push(ml(), BOX)
    platform = Platform(harness, replace(COPY, pull_requests=True, forks=True))
    platform.work()
    put(harness, "users/a/1")
    harness.store.branches.open_pull("demo", OpenPull(5, "feature/x", True), harness.clock.now())
    harness.sources.push_branch("demo", "refs/pull/5/head", {"m.yaml": BOX})
    name = preview_name(APP, "refs/pull/5/head")
    assert platform.look()[name].name == "Ready"
    assert content(harness, f"prichal.{name}.files") == {}


# --- what does not fit ------------------------------------------------------------------------------------------


def test_a_box_that_is_too_large_is_refused_as_a_whole(platform: Platform) -> None:
    harness = platform.harness
    put(harness, "users/a/1", b"x" * 600)
    put(harness, "users/a/2", b"x" * 600)
    outcome = platform.push("feature/x", ml(image="demo:2"), api(), box_of("1k"))[NAME]
    assert "has more than the 1 kB that this one may have: nothing is copied" in outcome.message
    (status,) = harness.status(NAME).boxes
    assert status.conditions[0].reason == "BoxTooLarge"
    assert record(harness) is None
    assert BUCKET not in harness.storage.objects().buckets()
    assert not harness.running(app=NAME), "a component must not find an empty box"
    assert harness.engine.observe(NAME).workloads == ()
    assert len(harness.running()) == 1, "the app itself is as it was"

    harness.storage.objects().remove(MAIN, ["users/a/2"])
    assert outcome.retry_after is not None
    harness.clock.advance(outcome.retry_after)
    harness.store.requests.enqueue(NAME, Trigger.RETRY)
    assert platform.work()[NAME].name == "Ready"
    assert list(content(harness)) == ["users/a/1"]
    assert len(harness.running(app=NAME)) == 1


def test_a_branch_that_asks_for_more_than_its_limit_is_refused(platform: Platform) -> None:
    limits = replace(COPY.limits, storage=1000)
    platform.apps = (app(previews=replace(COPY, limits=limits)),)
    platform.start()
    put(platform.harness, "users/a/1", b"x" * 2000)
    assert "of storage" in platform.push("feature/x", box_of("10k"))[NAME].message
    assert BUCKET not in platform.harness.storage.objects().buckets()


class Growing(FakeObjects):
    """The source gets more whenever something of it was copied."""

    def copy(self, bucket: str, found: StoredObject, key: str, into: str = "") -> StoredObject:
        self.put(bucket, f"{key}-more", io.BytesIO(b"x" * 400), 400)
        return super().copy(bucket, found, key, into)


def test_what_was_copied_goes_if_the_source_outgrows_the_box(platform: Platform) -> None:
    harness = platform.harness
    put(harness, "users/a/1", b"x" * 400)
    harness.storage._objects = Growing(harness.storage.server)
    paced(platform, batch=1)
    outcome = platform.push("feature/x", box_of("1k"))[NAME]
    assert "nothing is copied" in outcome.message
    assert record(harness) is None
    assert BUCKET not in harness.storage.objects().buckets()
    assert len(content(harness, MAIN)) > 2


# --- what is large ----------------------------------------------------------------------------------------------


class Slow(FakeObjects):
    """Each copy takes a second."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness.storage.server)
        self.harness = harness
        self.copied: list[str] = []
        self.parts_copied: list[int] = []

    def copy(self, bucket: str, found: StoredObject, key: str, into: str = "") -> StoredObject:
        self.harness.clock.advance(1.0)
        self.copied.append(key)
        return super().copy(bucket, found, key, into)

    def copy_part(
        self, bucket: str, found: StoredObject, upload: PendingUpload, number: int, start: int, size: int
    ) -> Any:
        self.harness.clock.advance(1.0)
        self.parts_copied.append(number)
        return super().copy_part(bucket, found, upload, number, start, size)


def test_many_objects_are_copied_over_several_passes(platform: Platform) -> None:
    """Others get their turn in between, and people see how far it is."""
    harness = platform.harness
    wanted = {f"users/a/{number:02}": bytes([number]) for number in range(13)}
    for key, body in wanted.items():
        put(harness, key, body)
    slow = harness.storage._objects = Slow(harness)
    paced(platform, batch=2)
    platform.commit("feature/x", ml(), api(), BOX)
    passes = list(rounds(platform))
    waited = [each for each in passes if each.name == "Waiting"]
    assert [each.message for each in waited] == [
        "copying the box files of demo: 6 files, 6 bytes so far",
        "copying the box files of demo: 12 files, 12 bytes so far",
    ]
    assert passes[-1].name == "Ready"
    assert content(harness) == wanted
    assert sorted(slow.copied) == sorted(wanted), "none was copied twice"
    assert len(harness.running(app=NAME)) == 1


def test_a_batch_whose_objects_take_long_makes_way_for_others(platform: Platform) -> None:
    harness = platform.harness
    wanted = {f"users/a/{number:02}": bytes([number]) for number in range(13)}
    for key, body in wanted.items():
        put(harness, key, body)
    slow = harness.storage._objects = Slow(harness)
    paced(platform)
    platform.commit("feature/x", BOX)
    passes = [each.name for each in rounds(platform)]
    assert (passes[0], passes[-1]) == ("Waiting", "Ready")
    assert sorted(slow.copied) == sorted(wanted), "none was copied twice"
    assert content(harness) == wanted


class Vast(FakeObjects):
    """To list all of the app's box takes longer than a pass may."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness.storage.server)
        self.harness = harness
        self.listed = 0

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000, folders: bool = False
    ) -> ObjectPage:
        if (bucket, limit) == (MAIN, 1000):
            self.listed += 1
            assert self.listed < 4, "its size is asked for again and again"
            self.harness.clock.advance(6.0)
        return super().page(bucket, prefix, after, limit, folders)


def test_a_box_whose_listing_takes_long_is_copied(platform: Platform) -> None:
    harness = platform.harness
    put(harness, "users/a/1")
    vast = harness.storage._objects = Vast(harness)
    paced(platform)
    vast.listed = 0
    platform.commit("feature/x", BOX)
    assert [each.name for each in rounds(platform)] == ["Waiting", "Ready"]
    assert content(harness) == {"users/a/1": b"content"}
    assert vast.listed == 1


def test_a_capacity_that_changes_meanwhile_is_in_force_at_once(platform: Platform) -> None:
    """The storage would refuse the rest of the copy otherwise."""
    harness = platform.harness
    for number in range(13):
        put(harness, f"users/a/{number:02}")
    slow = harness.storage._objects = Slow(harness)
    paced(platform, batch=2)
    platform.commit("feature/x", box_of("1k"))
    passes = rounds(platform)
    assert next(passes).name == "Waiting"
    assert harness.storage.server.quotas[BUCKET] == 1000
    assert platform.push("feature/x", box_of("2k"))[NAME].name == "Waiting"
    assert [each.name for each in passes] == ["Ready"]
    assert harness.storage.server.quotas[BUCKET] == 2000
    assert len(slow.copied) == len(content(harness)) == 13, "none was copied twice"


def rounds(platform: Platform) -> Iterator[PassOutcome]:
    """The passes over the preview, each as soon as it is due. Until its copy is complete, nobody has the box."""
    outcome = platform.look()[NAME]
    while True:
        found = record(platform.harness)
        assert found is not None
        yield outcome
        if outcome.name != "Waiting":
            assert found.state is BoxState.BOUND
            return
        assert found.state is BoxState.COPYING
        assert platform.harness.engine.observe(NAME).workloads == ()
        assert outcome.retry_after is not None
        platform.harness.clock.advance(outcome.retry_after)
        platform.harness.store.requests.enqueue(NAME, Trigger.RETRY)
        outcome = platform.work()[NAME]


LARGE = bytes(range(256)) * 50  # 12,800 bytes: seven parts


def test_a_large_object_is_copied_in_parts_over_several_passes(platform: Platform) -> None:
    harness = platform.harness
    harness.storage.server.min_part = 1
    put(harness, "developer/w.bin", LARGE)
    slow = harness.storage._objects = Slow(harness)
    memory = paced(platform, slice=3.0, whole=10_000, part=2000)
    platform.commit("feature/x", BOX)
    passes = list(rounds(platform))
    assert [each.name for each in passes] == ["Waiting", "Waiting", "Ready"]
    assert content(harness) == {"developer/w.bin": LARGE}
    assert slow.parts_copied == [1, 2, 3, 4, 5, 6, 7]
    assert (slow.copied, memory.versions, memory.progress) == ([], {}, {})
    assert harness.storage.server.uploads == {}
    assert harness.store.boxes.pending(BUCKET) == ()


@pytest.mark.parametrize("restarted", [False, True], ids=["the daemon stays", "the daemon restarts"])
def test_parts_of_two_versions_are_never_joined(platform: Platform, restarted: bool) -> None:
    harness = platform.harness
    harness.storage.server.min_part = 1
    put(harness, "developer/w.bin", LARGE)
    harness.storage._objects = Slow(harness)
    pace = {"slice": 3.0, "whole": 10_000, "part": 2000}
    paced(platform, **pace)
    platform.commit("feature/x", BOX)
    passes = rounds(platform)
    assert next(passes).name == "Waiting"
    put(harness, "developer/w.bin", LARGE[::-1])
    if restarted:
        paced(platform, **pace)
    assert list(passes)[-1].name == "Ready"
    assert content(harness) == {"developer/w.bin": LARGE[::-1]}
    assert harness.storage.server.uploads == {}
    assert harness.store.boxes.pending(BUCKET) == ()


def test_a_preview_that_ends_while_it_is_copied_leaves_nothing(platform: Platform) -> None:
    harness = platform.harness
    harness.storage.server.min_part = 1
    put(harness, "developer/w.bin", LARGE)
    harness.storage._objects = Slow(harness)
    paced(platform, slice=3.0, whole=10_000, part=2000)
    assert platform.push("feature/x", BOX)[NAME].name == "Waiting"
    assert len(harness.storage.server.uploads) == 1
    platform.drop("feature/x")
    assert is_gone(harness, NAME)
    assert harness.storage.server.uploads == {}
    assert content(harness, MAIN) == {"developer/w.bin": LARGE}


# --- what changes meanwhile -------------------------------------------------------------------------------------


class Changing(FakeObjects):
    """`change` is called once, right before the first copy."""

    def __init__(self, harness: Harness, change: Callable[[], object]) -> None:
        super().__init__(harness.storage.server)
        self.change: Callable[[], object] | None = change

    def copy(self, bucket: str, found: StoredObject, key: str, into: str = "") -> StoredObject:
        change, self.change = self.change, None
        if change:
            change()
        return super().copy(bucket, found, key, into)


def test_an_object_is_copied_as_it_is_when_its_turn_comes(platform: Platform) -> None:
    harness = platform.harness
    for number in range(3):
        put(harness, f"users/a/{number}")

    def change() -> None:
        for number in range(3):
            put(harness, f"users/a/{number}", b"newer content")

    harness.storage._objects = Changing(harness, change)
    assert platform.push("feature/x", BOX)[NAME].name == "Ready"
    assert content(harness) == {f"users/a/{number}": b"newer content" for number in range(3)}
    found = record(harness)
    assert found is not None
    assert (found.used, found.files) == (39, 3)


def test_an_object_that_is_removed_before_its_turn_is_not_copied(platform: Platform) -> None:
    harness = platform.harness
    for number in range(3):
        put(harness, f"users/a/{number}")
    gone = [f"users/a/{number}" for number in range(3)]
    harness.storage._objects = Changing(harness, lambda: harness.storage.objects().remove(MAIN, gone))
    assert platform.push("feature/x", BOX)[NAME].name == "Ready"
    assert content(harness) == {}
    found = record(harness)
    assert found is not None
    assert (found.used, found.files) == (0, 0)


@pytest.mark.parametrize("how", ["box removed", "rule removed"])
def test_a_copy_whose_source_is_gone_begins_empty(platform: Platform, how: str) -> None:
    harness = platform.harness
    for number in range(9):
        put(harness, f"users/a/{number}")
    harness.storage._objects = Slow(harness)
    paced(platform, batch=2)
    assert platform.push("feature/x", BOX)[NAME].name == "Waiting"
    if how == "box removed":
        harness.push(ml())
        harness.store.requests.enqueue(APP, Trigger.POLL)
    else:
        platform.apps = (app(previews=RULES),)
        harness.store.requests.enqueue(PLATFORM, Trigger.PLATFORM)
    platform.work()
    harness.store.requests.enqueue(NAME, Trigger.RETRY)
    assert platform.work()[NAME].name == "Ready"
    found = record(harness)
    assert found is not None
    assert (found.state, content(harness)) == (BoxState.BOUND, {})


def test_a_box_that_leaves_the_branch_before_its_copy_is_complete(platform: Platform) -> None:
    harness = platform.harness
    for number in range(9):
        put(harness, f"users/a/{number}")
    harness.storage._objects = Slow(harness)
    paced(platform, batch=2)
    assert platform.push("feature/x", ml(), BOX)[NAME].name == "Waiting"
    assert platform.push("feature/x", ml())[NAME].name == "Ready"
    assert record(harness) is None
    assert BUCKET not in harness.storage.objects().buckets()


# --- models -----------------------------------------------------------------------------------------------------


def test_a_model_is_taken_from_the_complete_copy(platform: Platform) -> None:
    harness = platform.harness
    for number in range(9):
        put(harness, f"developer/m/{number}")
    with_model = {"inference": "app:predict", "modelBox": "files", "modelPath": "m/"}
    harness.storage._objects = Slow(harness)
    paced(platform, batch=2)
    platform.commit("feature/x", ml(mlService=with_model), BOX)
    passes = list(rounds(platform))
    assert [each.name for each in passes] == ["Waiting", "Ready"]
    (started,) = [each for each in platform.started.values() if each.app == NAME]
    assert started.model is not None
    names = [found.key for found in harness.storage.objects().page(BUCKET).objects]
    assert len(names) == 9
    assert harness.status(NAME).models[0][1] == harness.models.pin(BUCKET, "m/").digest


# --- faults -----------------------------------------------------------------------------------------------------


def test_a_storage_that_goes_down_meanwhile_is_waited_for(platform: Platform) -> None:
    harness = platform.harness
    for number in range(5):
        put(harness, f"users/a/{number}")

    def down() -> None:
        harness.storage.down = True

    harness.storage._objects = Changing(harness, down)
    outcome = platform.push("feature/x", ml(), BOX)[NAME]
    assert outcome.name in ("Failed", "Degraded")
    assert not harness.running(app=NAME)
    harness.storage.down = False
    harness.clock.advance(60.0)
    harness.store.requests.enqueue(NAME, Trigger.RETRY)
    assert platform.work()[NAME].name == "Ready"
    assert len(content(harness)) == 5


def test_a_dry_run_says_what_would_be_copied(platform: Platform) -> None:
    harness = platform.harness
    put(harness, "users/a/1")
    harness.storage.down = True
    platform.push("feature/x", BOX)
    harness.storage.down = False
    plan = preview(harness.deps, NAME).plan
    (action,) = plan.actions
    assert isinstance(action, CopyBox)
    assert f"copy box demo/files into bucket {BUCKET} (1 MB)" in plan.render()
    assert BUCKET not in harness.storage.objects().buckets(), "it has done nothing"


def copies_one(platform: Platform) -> None:
    """Seven small objects in batches of two, and one of three parts."""
    harness = platform.harness
    for number in range(7):
        put(harness, f"users/a/{number}", bytes([number]))
    put(harness, "users/b", b"x" * 5000)
    platform.commit("feature/x", ml(), api(), BOX)


PACE = CopyPace(batch=2, whole=4000, part=2000)


@pytest.mark.slow
def test_the_daemon_dies_before_any_call_of_a_copy(tmp_path: Path) -> None:
    """Dying after a call is dying before the next one."""
    expected: object = None
    for number in range(200):
        harness = Harness(tmp_path / str(number))
        harness.deps = replace(harness.deps, copies=CopyMemory(pace=PACE))
        harness.storage.server.min_part = 1
        try:
            harness.push(ml(), api(), BOX)
            platform = Platform(harness, COPY)
            platform.work()
            copies_one(platform)
            died = die_at(platform, number) if number else False
            platform.start(replace(harness.deps, copies=CopyMemory(pace=PACE)))
            assert_nobody_has_half_of_it(harness)
            platform.look()
            platform.work()
            shape = (shape_of(platform), digests(harness), dict(harness.storage.server.uploads))
            expected = expected or shape
            assert shape == expected, f"after death at call {number}"
            assert harness.store.boxes.pending() == ()
        finally:
            harness.store.close()
        if number and not died:
            assert number > 30
            return
    pytest.fail("it makes more calls than that")


def assert_nobody_has_half_of_it(harness: Harness) -> None:
    found = record(harness)
    if found is None or found.state is BoxState.COPYING:
        assert harness.engine.observe(NAME).workloads == ()
    else:
        assert len(content(harness)) == 8


def digests(harness: Harness) -> dict[str, str]:
    return {key: hashlib.sha256(body).hexdigest() for key, body in content(harness).items()}
