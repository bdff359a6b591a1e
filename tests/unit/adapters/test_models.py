"""The cache of models: one folder for each content, complete or not at all. Over a storage in memory; the real ones are
in tests/integration/storage/test_models.py."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from controller.adapters.models import ModelCache
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.runs.file_index import index_head, unfinished
from controller.domain.storage.box import ModelPin, ObjectPage, StoredObject
from controller.domain.volumes import StagingArea, Volume
from tests.support.fake_objects import FakeObjects, FakeStorage

BUCKET = "prichal.demo.weights"


class Stored(FakeStorage):
    """Reached by these objects' way."""

    def __init__(self, objects: FakeObjects) -> None:
        super().__init__()
        self._objects = objects


class Bucket(FakeObjects):
    """With the bucket of a box, whose developer area the tests fill; counts downloads and may hold them up."""

    def __init__(self) -> None:
        super().__init__()
        self.create_bucket(BUCKET)
        self.opened: list[str] = []
        self.gate: threading.Barrier | None = None

    def upload(self, path: str, content: bytes) -> None:
        self.put(BUCKET, f"developer/{path}", io.BytesIO(content), len(content))

    def delete(self, path: str) -> None:
        self.remove(BUCKET, [f"developer/{path}"])

    @contextmanager
    def open(self, bucket: str, key: str, etag: str = "") -> Iterator[Iterator[bytes]]:
        self.opened.append(key)
        if self.gate:
            self.gate.wait(10)
        with super().open(bucket, key, etag) as pieces:
            yield pieces


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def cache(folder: Path, bucket: Bucket) -> ModelCache:
    return ModelCache(folder, Stored(bucket), capacity=100)


def staged(cache: ModelCache, path: str) -> ModelPin:
    pin = cache.pin(BUCKET, path)
    cache.stage(pin)
    return pin


def below(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def reason(error: type[ControllerError], cache: ModelCache, path: str) -> str:
    with pytest.raises(error) as caught:
        staged(cache, path)
    return caught.value.reason


# --- what lies where --------------------------------------------------------------------------------------------


def test_a_copy_outlives_the_cache(cache: ModelCache, bucket: Bucket, folder: Path, tmp_path: Path) -> None:
    bucket.upload("m/a", b"1")
    for path, name in (("m", "whole"), ("m/a", "file")):
        cache.copy_to(staged(cache, path), tmp_path / name)
    assert (tmp_path / "file").stat().st_nlink == 2, "it takes no space of its own"
    shutil.rmtree(folder)
    assert ((tmp_path / "whole" / "a").read_bytes(), (tmp_path / "file").read_bytes()) == (b"1", b"1")


def test_a_file_keeps_its_name(cache: ModelCache, bucket: Bucket, folder: Path) -> None:
    bucket.upload("resnet/model.onnx", b"weights")
    pin = cache.pin(BUCKET, "resnet/model.onnx")
    assert (pin.key, pin.name, pin.size, pin.present) == (
        "developer/resnet/model.onnx",
        "model.onnx",
        7,
        False,
    )
    cache.stage(pin)
    assert below(folder / pin.digest) == {"model.onnx": b"weights"}
    assert pin.volume == cache.volume(pin.digest) == Volume(StagingArea.MODELS, (pin.digest,))
    assert cache.pin(BUCKET, "resnet/model.onnx") == replace(pin, present=True)


@pytest.mark.parametrize("path", ["nets/resnet", "nets/resnet/"])
def test_a_folder_keeps_its_name_and_what_is_below_it(
    cache: ModelCache, bucket: Bucket, path: str, folder: Path
) -> None:
    for name in ("resnet/a.bin", "resnet/deep/er/ü b+c#?%.bin", "resnet-50/other.bin", "resnet.txt"):
        bucket.upload(f"nets/{name}", name.encode())
    pin = staged(cache, path)
    assert (pin.key, pin.name) == ("developer/nets/resnet/", "resnet")
    assert sorted(below(folder / pin.digest)) == ["resnet/a.bin", "resnet/deep/er/ü b+c#?%.bin"]


def test_more_objects_than_a_page_holds(cache: ModelCache, bucket: Bucket, folder: Path) -> None:
    for number in range(2001):
        bucket.upload(f"shards/{number}", b"")
    assert len(below(folder / staged(cache, "shards").digest)) == 2001


def test_everybody_may_read_and_nobody_else_may_write_whatever_the_umask(
    cache: ModelCache, bucket: Bucket, folder: Path
) -> None:
    bucket.upload("m/deep/a", b"1")
    before = os.umask(0o077)
    try:
        pin = staged(cache, "m")
    finally:
        os.umask(before)
    modes = {
        stat.S_IMODE(path.stat().st_mode) for path in (folder / pin.digest, *(folder / pin.digest).rglob("*"))
    }
    assert modes == {0o755, 0o644}
    assert stat.S_IMODE((folder / pin.digest / "m/deep/a").stat().st_mode) == 0o644


def test_equal_content_is_one_model_and_any_change_is_another(cache: ModelCache, bucket: Bucket) -> None:
    def digest() -> str:
        return cache.pin(BUCKET, "m").digest

    bucket.upload("m/a", b"1")
    bucket.upload("m/b", b"2")
    first = digest()
    bucket.upload("neighbour", b"3")
    bucket.upload("m/a", b"1")
    assert digest() == first
    seen = [first]
    bucket.upload("m/a", b"2")
    seen.append(digest())
    bucket.upload("m/c", b"")
    seen.append(digest())
    bucket.delete("m/b")
    assert len({*seen, digest()}) == 4


def test_what_is_not_there(cache: ModelCache, bucket: Bucket, folder: Path) -> None:
    bucket.upload("resnet-50/other.bin", b"1")
    for path in ("resnet", "resnet/", "resnet-50/other.bin/"):
        assert reason(Stalled, cache, path) == "ModelMissing"
    with pytest.raises(Stalled) as caught:
        cache.pin("no-such-bucket", "resnet")
    assert caught.value.reason == "BucketMissing"
    assert not folder.exists()


# --- strange and changing content -------------------------------------------------------------------------------


class Listed(Bucket):
    """Lists these keys below `developer/m/`, whatever a storage in its right mind would take."""

    keys: tuple[str, ...] = ()

    def stat(self, bucket: str, key: str) -> StoredObject | None:
        return None

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000, folders: bool = False
    ) -> ObjectPage:
        return ObjectPage(tuple(StoredObject(f"developer/m/{key}", 1, "e", 0.0) for key in self.keys))


@pytest.mark.parametrize(
    "keys",
    [
        ("../escape",),
        ("../../../etc/cron.d/x",),
        ("a/../../b",),
        ("./a",),
        ("a//b",),
        ("/etc/passwd",),
        ("a\nb",),
        ("a\\b",),
        ("x" * 256,),
        ("a", "a/b"),
    ],
)
def test_keys_that_are_no_names_of_files_are_refused(folder: Path, keys: tuple[str, ...]) -> None:
    listed = Listed()
    listed.keys = keys
    cache = ModelCache(folder, Stored(listed), capacity=100)
    assert reason(Stalled, cache, "m") == "ModelInvalid"
    crafted = ModelPin(
        BUCKET,
        "developer/m/",
        "d" * 64,
        Volume(StagingArea.MODELS, ("x",)),
        False,
        listed.page(BUCKET).objects,
    )
    with pytest.raises(Stalled, match=r"name|below"):
        cache.stage(crafted)
    assert listed.opened == []
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize("path", ["../users/ann", "a/../b", "a//b", "/a", "."])
def test_paths_that_lead_out_of_the_developer_area_are_refused(cache: ModelCache, path: str) -> None:
    assert reason(Stalled, cache, path) == "ModelInvalid"


def test_empty_objects_that_stand_for_folders_are_left_out(folder: Path) -> None:
    listed = Listed()
    listed.keys = ("", "deep/", "deep/a")
    pin = ModelCache(folder, Stored(listed), capacity=100).pin(BUCKET, "m")
    assert [found.key for found in pin.objects] == ["developer/m/deep/a"]


def test_a_model_that_is_replaced_or_removed_on_the_way_leaves_nothing(
    cache: ModelCache, bucket: Bucket, folder: Path
) -> None:
    bucket.upload("m/a", b"1")
    bucket.upload("m/b", b"2")
    replaced = cache.pin(BUCKET, "m")
    bucket.upload("m/b", b"3")
    removed = cache.pin(BUCKET, "m")
    bucket.delete("m/b")
    for pin in (replaced, removed):
        with pytest.raises(Transient) as caught:
            cache.stage(pin)
        assert caught.value.reason == "ModelChanged"
    assert list(folder.iterdir()) == []


# --- published by runs ------------------------------------------------------------------------------------------

HEAD = index_head("19c0a7f3e2d5b1f04a6", "fit", 1)


def publish(bucket: Bucket, files: dict[str, bytes], folder: str = "m/") -> None:
    for name, content in files.items():
        bucket.upload(folder + name, content)
    listed = [{"name": name, "size": len(content), "sha256": ""} for name, content in files.items()]
    bucket.upload(f"{folder}.manifest.json", f'{HEAD}, "files": {json.dumps(listed)}}}'.encode())


def test_the_manifest_is_no_part_of_the_model(cache: ModelCache, bucket: Bucket, folder: Path) -> None:
    publish(bucket, {"!a": b"1", "deep/b": b"2"})
    pin = staged(cache, "m")
    assert below(folder / pin.digest) == {"m/!a": b"1", "m/deep/b": b"2"}
    publish(bucket, {"!a": b"1", "deep/b": b"2"})
    assert cache.pin(BUCKET, "m/").digest == pin.digest, "whoever has made it"


@pytest.mark.parametrize("path", ["m", "m/"])
def test_what_is_being_published_is_not_taken(cache: ModelCache, bucket: Bucket, path: str) -> None:
    publish(bucket, {"a": b"1", "b": b"2"})
    bucket.upload("m/.manifest.json", unfinished(HEAD).encode())
    assert reason(Transient, cache, path) == "ModelIncomplete"
    assert staged(cache, "m/a").size == 1, "a file is there or not"


def test_files_that_the_manifest_does_not_list(cache: ModelCache, bucket: Bucket, folder: Path) -> None:
    publish(bucket, {"a": b"1", "b": b"2"})
    bucket.upload("m/by-hand", b"3")
    assert reason(Transient, cache, "m") == "ModelIncomplete"
    bucket.delete("m/by-hand")
    bucket.upload("m/b", b"another size")
    assert reason(Transient, cache, "m") == "ModelIncomplete"
    bucket.delete("m/.manifest.json")
    assert len(below(folder / staged(cache, "m").digest)) == 2, "as it is, if somebody wants it so"


@pytest.mark.parametrize("content", ["", "{}", "[]", "1", '{"name": "shop"}', "[" * 100_000, '{"run": "r"}'])
def test_somebodys_own_file_of_that_name(
    cache: ModelCache, bucket: Bucket, content: str, folder: Path
) -> None:
    bucket.upload("m/a", b"1")
    bucket.upload("m/.manifest.json", content.encode())
    assert below(folder / staged(cache, "m").digest).keys() == {"m/a", "m/.manifest.json"}


class Busy(Bucket):
    """Where a run publishes while somebody looks: before and after a listing, or after the manifest was looked at."""

    acts: dict[str, list[Callable[[], object]]]

    def stat(self, bucket: str, key: str) -> StoredObject | None:
        found = super().stat(bucket, key)
        self._act("stat")
        return found

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000, folders: bool = False
    ) -> ObjectPage:
        page = super().page(bucket, prefix, after, limit, folders)
        self._act("page")
        return page

    def _act(self, when: str) -> None:
        acts, self.acts[when] = self.acts.get(when, []), []
        for act in acts:
            act()


@pytest.mark.parametrize("when", ["stat", "page"])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_published_during_the_look_is_not_taken_by_half(folder: Path, when: str, first: bool) -> None:
    busy = Busy()
    busy.acts = {}
    cache = ModelCache(folder, Stored(busy), capacity=100)
    if first:
        busy.upload("m/a", b"0")
    else:
        publish(busy, {"a": b"1"})
    busy.acts = {when: [lambda: publish(busy, {"a": b"2", "b": b"2"})]}
    assert reason(Transient, cache, "m/") == "ModelIncomplete"
    assert len(cache.pin(BUCKET, "m/").objects) == 2


# --- several at once --------------------------------------------------------------------------------------------


def test_however_many_ask_one_downloads(cache: ModelCache, bucket: Bucket) -> None:
    bucket.upload("m", b"1")
    pin = cache.pin(BUCKET, "m")
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(cache.stage, pin) for _ in range(8)]:
            future.result()
    assert bucket.opened == ["developer/m"]


def test_different_models_do_not_wait_for_each_other(cache: ModelCache, bucket: Bucket) -> None:
    bucket.upload("one", b"1")
    bucket.upload("two", b"2")
    bucket.gate = threading.Barrier(2)  # opens when both are on their way, or breaks
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(staged, cache, path) for path in ("one", "two")]:
            assert cache.has(future.result().digest)


# --- what is here -----------------------------------------------------------------------------------------------


def test_what_is_here_needs_no_storage(cache: ModelCache, bucket: Bucket) -> None:
    bucket.upload("m", b"1")
    pin = staged(cache, "m")
    bucket.delete("m")
    cache.stage(pin)
    assert cache.has(pin.digest)
    assert not cache.has("0" * 64)


def test_what_a_dead_daemon_had_begun_is_removed(cache: ModelCache, bucket: Bucket, folder: Path) -> None:
    cache.recover()  # nothing is there yet
    bucket.upload("m", b"1")
    pin = staged(cache, "m")
    draft = folder / ".draft-abc" / "m"
    draft.mkdir(parents=True)
    (draft / "half").write_bytes(b"1")
    cache.recover()
    assert [path.name for path in folder.iterdir()] == [pin.digest]


def test_a_folder_that_cannot_be_written(cache: ModelCache, bucket: Bucket, folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    bucket.upload("m", b"1")
    assert reason(Transient, cache, "m") == "StateIOError"


# --- prune ------------------------------------------------------------------------------------------------------


def filled(cache: ModelCache, bucket: Bucket, folder: Path, *names: str) -> list[str]:
    """Models of 40 bytes, used in this order."""
    digests = []
    for age, name in enumerate(names):
        bucket.upload(name, name.encode() * 40)
        pin = staged(cache, name)
        os.utime(folder / pin.digest, (age, age))
        digests.append(pin.digest)
    return digests


def test_those_used_longest_ago_go_first_until_the_rest_fits(
    cache: ModelCache, bucket: Bucket, folder: Path
) -> None:
    cache.prune(lambda: frozenset())  # nothing is there yet
    a, *_, d = filled(cache, bucket, folder, "a", "b", "c", "d")
    assert cache.has(a)  # asking is a use
    cache.prune(lambda: frozenset())
    assert {path.name for path in folder.iterdir()} == {a, d}
    cache.prune(lambda: frozenset())
    assert {path.name for path in folder.iterdir()} == {a, d}


def test_what_is_in_use_stays_even_if_it_is_too_much(cache: ModelCache, bucket: Bucket, folder: Path) -> None:
    *used, _ = filled(cache, bucket, folder, "a", "b", "c", "d")
    cache.prune(lambda: frozenset(used))
    assert {path.name for path in folder.iterdir()} == set(used)
