"""Backups with real servers of S3: objects keep what is said about them, a bucket as the place of backups, servers that
are killed in the middle, and the embedded storage of a host that is restored."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.embedded import EmbeddedStorage
from controller.adapters.objects import S3Objects
from controller.backup.create import maker
from controller.backup.places import BucketPlace, FolderPlace
from controller.backup.restore import restore, verify
from controller.config import Settings
from controller.daemon.instance_key import instance_key
from controller.domain.backups import name_at
from controller.domain.errors import ControllerError, Transient
from controller.domain.storage.box import StoredObject
from controller.store.keys import StorageKeys
from tests.support.backups import BUCKET, KEY, install, settings_of
from tests.support.fake_objects import FakeStorage
from tests.support.storage_servers import StorageServer, embedded_server, minio_binary, minio_server

NAME = name_at("prichal", 1000)
HEADERS = {"content-type": "text/x-own", "content-encoding": "identity", "x-amz-meta-a": "1"}


@pytest.fixture(params=["embedded", "minio"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StorageServer]:
    folder = tmp_path / "server"
    folder.mkdir()
    if request.param == "minio" and minio_binary() is None:
        pytest.skip("no minio binary: make minio builds it")
    with (minio_server if request.param == "minio" else embedded_server)(folder) as server:
        yield server


@pytest.fixture
def objects(server: StorageServer) -> Iterator[S3Objects]:
    with closing(server.objects()) as objects:
        objects.create_bucket("backups")
        yield objects


def place_at(objects: S3Objects, tmp_path: Path) -> BucketPlace:
    return BucketPlace(objects, "backups", "host", "prichal", tmp_path / "upload", lambda seconds: None)


def read(place: BucketPlace | FolderPlace, name: str) -> bytes:
    with place.open(name) as source:
        return b"".join(iter(lambda: source.read(100_000), b""))


def found(objects: S3Objects, key: str) -> StoredObject:
    stored = objects.stat("backups", key)
    assert stored
    return stored


def test_an_object_keeps_what_is_said_about_it(objects: S3Objects) -> None:
    objects.put_described("backups", "a/ü.txt", io.BytesIO(b"content"), 7, HEADERS)
    with objects.open_described("backups", found(objects, "a/ü.txt")) as (headers, pieces):
        content, said = b"".join(pieces), dict(headers)
    assert content == b"content"
    assert {name: said[name] for name in ("content-type", "x-amz-meta-a")} == {
        "content-type": "text/x-own",
        "x-amz-meta-a": "1",
    }
    objects.put_described("backups", "b", io.BytesIO(b"content"), 7, said)
    with objects.open_described("backups", found(objects, "b")) as (again, _):
        assert dict(again) == said


@pytest.mark.parametrize("size", [0, 5, 40 * 2**20])
def test_a_bucket_has_a_backup_as_a_whole(objects: S3Objects, tmp_path: Path, size: int) -> None:
    place = place_at(objects, tmp_path)
    content = os.urandom(size)
    with place.draft(NAME) as out:
        for start in range(0, size, 10**6):
            out.write(content[start : start + 10**6])
        assert place.all() == ()
    assert [(each.name, each.size) for each in place.all()] == [(NAME, size)]
    assert read(place, NAME) == content
    place.remove(NAME)
    assert place.all() == ()


def test_a_server_that_is_killed_in_the_middle(
    server: StorageServer, objects: S3Objects, tmp_path: Path
) -> None:
    place = place_at(objects, tmp_path)
    with pytest.raises(ControllerError), place.draft(NAME) as out:
        out.write(os.urandom(20 * 2**20))
        server.kill()
        out.write(os.urandom(20 * 2**20))
    server.start()
    assert place.all() == ()
    assert (tmp_path / "upload").exists()  # it could not be aborted
    place.sweep()
    assert not (tmp_path / "upload").exists()
    with place.draft(NAME) as out:
        out.write(b"x")
    assert read(place, NAME) == b"x"


def test_a_backup_goes_to_a_bucket_and_comes_back(
    server: StorageServer, objects: S3Objects, tmp_path: Path
) -> None:
    """All of it by the settings, as the command does it; the server that has the boxes has the backups, too."""
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"accessKey: {server.access_key}\nsecretKey: {server.secret_key.reveal()}\n")
    old = settings_of(tmp_path / "old", "s3://backups/host", endpoint=server.url, credentials=keys)
    old.state.parent.mkdir()
    install(old, FakeStorage())
    objects.create_bucket(BUCKET)
    objects.put_described(BUCKET, "developer/w.bin", io.BytesIO(b"w" * 10**6), 10**6, HEADERS)
    making = replace(maker(old), objects=lambda: objects)
    with closing(making.place):
        made = making.create()
        proof = verify(partial(making.place.open, made.name), (KEY.identity,))
    assert proof.objects == 1


# --- the embedded storage -----------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Iterator[tuple[Settings, EmbeddedStorage]]:
    """An installation whose boxes are in the embedded storage, which runs."""
    settings = settings_of(tmp_path / "old")
    settings.state.parent.mkdir()
    install(settings, FakeStorage())
    key = instance_key(settings.private)
    storage = EmbeddedStorage(settings.storage, settings.embedded_storage, settings.instance, key)
    try:
        storage.objects().create_bucket(BUCKET)
        StorageKeys(settings.database).write(storage.access())
        yield settings, storage
    finally:
        storage.close()


def filled(storage: EmbeddedStorage) -> dict[str, Any]:
    contents = {
        "developer/model.bin": b"m" * 3_000_000,
        "users/%anonymous/file_groups/g/ü": b"x",
        "empty": b"",
    }
    for key, content in contents.items():
        storage.objects().put_described(BUCKET, key, io.BytesIO(content), len(content), HEADERS)
    return contents


def stored(storage: EmbeddedStorage) -> dict[str, bytes]:
    objects = storage.objects()
    contents = {}
    for each in objects.page(BUCKET).objects:
        with objects.open_described(BUCKET, each) as (headers, pieces):
            assert headers["content-type"] == "text/x-own"
            contents[each.key] = b"".join(pieces)
    return contents


def test_the_embedded_storage_comes_back(old: tuple[Settings, EmbeddedStorage], tmp_path: Path) -> None:
    settings, storage = old
    contents = filled(storage)
    etags = {each.key: each.etag for each in storage.objects().page(BUCKET).objects}
    making = maker(settings)
    made = making.create()
    new = settings_of(tmp_path / "new")
    new.state.parent.mkdir()
    restore(new, partial(making.place.open, made.name), (KEY.identity,))
    restored = EmbeddedStorage(new.storage, new.embedded_storage, new.instance, instance_key(new.private))
    with closing(restored):
        assert stored(restored) == contents
        assert {each.key: each.etag for each in restored.objects().page(BUCKET).objects} == etags


def test_a_storage_that_does_not_run(old: tuple[Settings, EmbeddedStorage]) -> None:
    settings, storage = old
    filled(storage)
    storage.close()
    with pytest.raises(Transient, match="--without-boxes"):
        maker(settings).create()
    assert maker(settings).create(boxes=False).size > 0
