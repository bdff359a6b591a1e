"""A backup is at its place as a whole or not at all, in a folder and in a bucket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from controller.adapters.objects import S3Objects
from controller.backup.places import BackupPlace, BucketPlace, FolderPlace, place_of
from controller.config import Settings
from controller.config.settings import BackupSettings
from controller.domain.backups import name_at
from controller.domain.errors import ControllerError, Transient
from controller.domain.reasons import Reason
from tests.support.fake_objects import FakeObjects, FakeServer

NAME, LATER = name_at("prichal", 1000), name_at("prichal", 2000)


def bucket(
    objects: FakeObjects, journal: Path, pauses: list[float], instance: str = "prichal"
) -> BackupPlace:
    return BucketPlace(cast(S3Objects, objects), "backups", "host", instance, journal, pauses.append)


class World:
    """A place, and what is left at it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.server = FakeServer(min_part=1)
        self.server.buckets["backups"] = {}
        self.pauses: list[float] = []

    def place(self, instance: str = "prichal") -> BackupPlace:
        if self.kind == "folder":
            return FolderPlace(self.folder / "backups", instance)
        return bucket(FakeObjects(self.server), self.folder / f"upload-{instance}", self.pauses, instance)

    def killed(self) -> None:
        """Leave what a process leaves that is killed while it writes."""
        if self.kind == "folder":
            (self.folder / "backups").mkdir()
            (self.folder / "backups" / f".{NAME}.part").write_bytes(b"half")
        else:
            upload = FakeObjects(self.server).begin_upload("backups", f"host/{NAME}")
            (self.folder / "upload-prichal").write_text(f"host/{NAME}\n{upload}\n")

    def left(self) -> list[str]:
        if self.kind == "folder":
            return sorted(path.name for path in (self.folder / "backups").iterdir())
        return sorted(self.server.buckets["backups"]) + [
            str(each.key) for each in self.server.uploads.values()
        ]


@pytest.fixture(params=["folder", "bucket"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(request.param, tmp_path)


def write(place: BackupPlace, name: str, content: bytes) -> None:
    with place.draft(name) as out:
        for start in range(0, len(content), 1000):
            out.write(content[start : start + 1000])


def read(place: BackupPlace, name: str) -> bytes:
    with place.open(name) as source:
        return b"".join(iter(lambda: source.read(777), b""))


@pytest.mark.parametrize("size", [0, 1, 100_000, 20 * 2**20])
def test_what_is_written_is_read(world: World, size: int) -> None:
    content = os.urandom(size)
    place = world.place()
    write(place, NAME, content)
    assert read(place, NAME) == content
    assert [(each.name, each.created, each.size) for each in place.all()] == [(NAME, 1000.0, size)]


def test_nothing_is_there_before_the_end(world: World) -> None:
    place = world.place()
    with place.draft(NAME) as out:
        out.write(b"x")
        assert place.all() == ()
    assert [each.name for each in place.all()] == [NAME]


def test_an_error_leaves_nothing(world: World) -> None:
    place = world.place()
    with pytest.raises(ZeroDivisionError), place.draft(NAME) as out:
        out.write(b"x" * 10_000)
        raise ZeroDivisionError
    assert place.all() == ()
    assert world.left() == []


@pytest.mark.parametrize("prefix", ["", "host", "/a/b/", "of the host", "Sicherung für München/ü"])
def test_a_bucket_whose_names_have_anything_in_them_is_swept_after_a_kill(
    tmp_path: Path, prefix: str
) -> None:
    world = World("bucket", tmp_path)
    objects = cast(S3Objects, FakeObjects(world.server))
    place = BucketPlace(objects, "backups", prefix, "prichal", tmp_path / "upload")
    with pytest.raises(ZeroDivisionError), place.draft(NAME):
        remembered = (tmp_path / "upload").read_bytes()
        raise ZeroDivisionError
    key, ended = remembered.decode().splitlines()
    upload = FakeObjects(world.server).begin_upload("backups", key)
    (tmp_path / "upload").write_text(f"{key}\n{upload}\n")  # as if the attempt had been killed
    place.sweep()
    assert upload != ended
    assert world.left() == []


def test_an_upload_that_cannot_be_remembered_is_not_left(tmp_path: Path) -> None:
    world = World("bucket", tmp_path)
    objects = cast(S3Objects, FakeObjects(world.server))
    place = BucketPlace(objects, "backups", "", "prichal", tmp_path / "missing" / "upload")
    with pytest.raises(FileNotFoundError):
        write(place, NAME, b"x")
    assert world.left() == []


def test_what_a_killed_one_has_left_is_swept(world: World) -> None:
    world.killed()
    place = world.place()
    assert place.all() == ()
    assert len(world.left()) == 1
    place.sweep()
    assert world.left() == []


def test_others_files_stay(world: World) -> None:
    place = world.place()
    write(place, NAME, b"x")
    if world.kind == "folder":
        (world.folder / "backups" / ".prichal-other-20260101T000000Z.tar.gz.age.part").write_text("")
        (world.folder / "backups" / "notes.txt").write_text("")
        (world.folder / "backups" / LATER).symlink_to("/etc/passwd")
        left = 4
    else:
        write(world.place("other"), name_at("other", 1), b"")
        left = 2
    place.sweep()
    assert [each.name for each in place.all()] == [NAME]
    assert len(world.left()) == left
    place.remove(NAME)
    place.remove(NAME)
    assert place.all() == ()


def test_one_that_is_missing(world: World) -> None:
    with pytest.raises(ControllerError) as caught, world.place().open(NAME):
        pass
    assert caught.value.reason == Reason.UNKNOWN_BACKUP
    assert "prichal backup list" in caught.value.message


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(Transient, match="cannot write a backup to"),
        FolderPlace(tmp_path / "file", "prichal").draft(NAME),
    ):
        pass


def test_a_part_that_does_not_arrive_is_sent_again(tmp_path: Path) -> None:
    world = World("bucket", tmp_path)
    objects = FakeObjects(world.server)
    refusals = iter((True, True, False, True, True, True))

    class Flaky(FakeObjects):
        def send_part(self, *arguments: object) -> object:  # type: ignore[override]
            if next(refusals):
                raise Transient(Reason.STORAGE_UNREACHABLE, "it is down")
            return objects.send_part(*arguments)  # type: ignore[arg-type]

    place = bucket(Flaky(world.server), tmp_path / "u", world.pauses)
    write(place, NAME, b"content")
    assert read(place, NAME) == b"content"
    assert world.pauses == [2.0, 4.0]
    with pytest.raises(Transient, match="it is down"):
        write(place, LATER, b"content")
    assert [each.name for each in place.all()] == [NAME]
    assert world.server.uploads == {}


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ({}, "backup.to"),
        ({"to": "s3://backups/host", "endpoint": "http://127.0.0.1:1"}, "backup.credentials"),
    ],
)
def test_without_a_place_there_is_a_sentence(chosen: dict[str, str], problem: str) -> None:
    with pytest.raises(ControllerError, match=problem) as caught:
        place_of(Settings(backup=BackupSettings(**chosen)))  # type: ignore[arg-type]
    assert caught.value.reason == Reason.BACKUP_DISABLED


def test_the_place_of_the_settings(tmp_path: Path) -> None:
    folder = place_of(Settings(backup=BackupSettings(to=str(tmp_path))))
    assert str(folder) == str(tmp_path)
    (tmp_path / "keys").write_text("accessKey: a\nsecretKey: b\n")
    bucket = place_of(
        Settings(
            backup=BackupSettings(
                to="s3://b/c/d", endpoint="http://127.0.0.1:1", credentials=tmp_path / "keys"
            )
        )
    )
    assert str(bucket) == "s3://b/c/d/"
    bucket.close()
