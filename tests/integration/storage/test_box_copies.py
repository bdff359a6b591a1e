"""Copies of boxes on real storages: more objects than one page lists, names of any kind, an object in parts."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.adapters.clock import SystemClock
from controller.domain.errors import Waiting
from controller.domain.names import AppName, ComponentName
from controller.domain.storage.box import BoxRecord, BoxState, StoredObject
from controller.ports import Objects
from controller.reconcile.box_copies import BoxCopies, CopyMemory, CopyPace
from tests.support.engines import unique
from tests.support.storage_worlds import World, a_world
from tests.support.stores import open_store

MEBIBYTE = 2**20
#: A name with a slash may not begin with that of an object: behind the embedded storage are real folders.
NAMES = ("a b", "ü%41", "😀", "file", "file.x", "file-x/1", "z/#?+%&=", "я" * 120)


@pytest.fixture(scope="module", params=["embedded", "minio"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with a_world(request.param, tmp_path_factory.mktemp(request.param)) as world:
        yield world


class StorageOf:
    """The part of `controller.ports.Storage` that copies need."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def objects(self) -> Objects:
        return self._objects


def listed(objects: Objects, bucket: str) -> list[StoredObject]:
    found: list[StoredObject] = []
    after: str | None = ""
    while after is not None:
        page = objects.page(bucket, after=after)
        found += page.objects
        after = page.next
    return found


def test_a_box_of_many_files_is_copied_over_several_passes_and_restarts(world: World, tmp_path: Path) -> None:
    objects, store = world.objects(), open_store(tmp_path / "state.db")
    source = BoxRecord(AppName("demo"), ComponentName("files"), f"t.{unique('demo')}.files", 10**9)
    record = BoxRecord(AppName("demo-x"), ComponentName("files"), f"t.{unique('demo-x')}.files", 10**9)
    objects.create_bucket(source.bucket)
    keys = [f"users/{n % 7}/{n:04}" for n in range(1010)] + [f"developer/{name}" for name in NAMES]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: objects.put(source.bucket, key, io.BytesIO(b"content"), 7), keys))
    large = os.urandom(11 * MEBIBYTE)
    objects.put(source.bucket, "developer/large", io.BytesIO(large), len(large))

    passes, memory, done = 0, CopyMemory(), None
    try:
        while done is None:
            # Each second pass is of a daemon that knows nothing of the one before.
            if passes % 2 == 0:
                memory = CopyMemory(pace=CopyPace(0.5, 100, 6 * MEBIBYTE, 5 * MEBIBYTE))
            storage, clock = StorageOf(objects), SystemClock()
            copies = BoxCopies(storage, store.boxes, clock, memory, lambda record: None)  # type: ignore[arg-type]
            try:
                done = copies.copy(record, source, lambda: False)
            except Waiting as error:
                passes += 1
                time.sleep(error.retry_after)
        assert (done.files, done.size) == (len(keys) + 1, 7 * len(keys) + len(large))
        before = [(each.key, each.size) for each in listed(objects, source.bucket)]
        assert [(each.key, each.size) for each in listed(objects, record.bucket)] == before
        with objects.open(record.bucket, "developer/large") as pieces:
            assert b"".join(pieces) == large
        saved = store.boxes.get(record.app, record.box)
        assert saved is not None
        assert (saved.state, saved.used, saved.files) == (BoxState.BOUND, done.size, done.files)
        assert passes
    finally:
        store.close()
        for bucket in (source.bucket, record.bucket):
            objects.remove_bucket(bucket)
        objects.close()
