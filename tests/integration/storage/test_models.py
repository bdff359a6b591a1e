"""Models from real storages into the cache, and what a crash, a full disk and a dead storage do to it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from controller.adapters.models import ModelCache
from controller.adapters.objects import S3Objects
from controller.domain.errors import Stalled, Transient
from controller.domain.secret import Secret
from controller.domain.storage.box import ModelPin, StorageAccess
from controller.ports import StorageAdmin
from tests.support.storage_servers import StorageServer, embedded_server, minio_binary, minio_server
from tests.support.waiting import wait_for

BUCKET = "prichal.demo.weights"
SERVERS = {"embedded": embedded_server, "minio": minio_server}


class External:
    """`controller.ports.Storage` over one server; only what the cache asks for."""

    def __init__(self, objects: S3Objects) -> None:
        self._objects = objects

    def objects(self) -> S3Objects:
        return self._objects

    def admin(self) -> StorageAdmin | None:
        return None

    def access(self) -> StorageAccess:
        raise AssertionError("models need no access of the web process")

    def close(self) -> None:
        self._objects.close()


@pytest.fixture(params=sorted(SERVERS))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StorageServer]:
    if request.param == "minio" and minio_binary() is None:
        pytest.skip("no minio binary: `make minio` builds one")
    folder = tmp_path / "storage"
    folder.mkdir()
    with SERVERS[request.param](folder) as server, closing(server.objects()) as objects:
        objects.create_bucket(BUCKET)
        yield server


@pytest.fixture
def objects(server: StorageServer) -> Iterator[S3Objects]:
    with closing(server.objects()) as objects:
        yield objects


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def cache(objects: S3Objects, folder: Path) -> ModelCache:
    return ModelCache(folder, External(objects), capacity=10**9)


@pytest.fixture
def upload(objects: S3Objects) -> Callable[[str, bytes], None]:
    def put(path: str, content: bytes) -> None:
        objects.put(BUCKET, f"developer/{path}", io.BytesIO(content), len(content))

    return put


def staged(cache: ModelCache, path: str) -> ModelPin:
    pin = cache.pin(BUCKET, path)
    cache.stage(pin)
    return pin


def below(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_files_and_folders(cache: ModelCache, upload: Callable[[str, bytes], None], folder: Path) -> None:
    large = os.urandom(3 * 2**20)
    names = ("resnet/a.bin", "resnet/deep/ü b+c%.bin", "resnet/empty", "resnet-50/other.bin")
    for name in names:
        upload(f"nets/{name}", large if name.endswith("a.bin") else b"")
    whole, file = staged(cache, "nets/resnet"), staged(cache, "nets/resnet/a.bin")
    assert below(folder / whole.digest) == {
        "resnet/a.bin": large,
        "resnet/deep/ü b+c%.bin": b"",
        "resnet/empty": b"",
    }
    assert below(folder / file.digest) == {"a.bin": large}


def test_only_another_content_is_another_model(
    cache: ModelCache, upload: Callable[[str, bytes], None]
) -> None:
    upload("m/a", b"1")
    first = cache.pin(BUCKET, "m")
    upload("m/a", b"1")
    assert cache.pin(BUCKET, "m").digest == first.digest
    upload("m/a", b"2")
    assert cache.pin(BUCKET, "m").digest != first.digest
    with pytest.raises(Transient) as caught:
        cache.stage(first)
    assert caught.value.reason == "ModelChanged"


def test_what_is_not_there(cache: ModelCache, upload: Callable[[str, bytes], None]) -> None:
    upload("nets/resnet/a.bin", b"1")
    for path in ("nets/res", "nets/resnet/a.bin/", "nets/resnet/a"):
        with pytest.raises(Stalled) as caught:
            cache.pin(BUCKET, path)
        assert caught.value.reason == "ModelMissing"
    with pytest.raises(Stalled) as caught:
        cache.pin("no-such-bucket", "resnet")
    assert caught.value.reason == "BucketMissing"


def test_a_dead_storage_is_missed_only_for_what_is_not_here(
    cache: ModelCache, server: StorageServer, upload: Callable[[str, bytes], None], folder: Path
) -> None:
    upload("here", b"1")
    upload("there", b"2")
    here, there = staged(cache, "here"), cache.pin(BUCKET, "there")
    server.kill()
    cache.stage(here)
    assert cache.has(here.digest)
    for ask in (lambda: cache.stage(there), lambda: cache.pin(BUCKET, "here")):
        with pytest.raises(Transient) as caught:
            ask()
        assert caught.value.reason == "StorageUnreachable"
    assert [path.name for path in folder.iterdir()] == [here.digest]
    server.start()
    cache.stage(there)
    assert below(folder / there.digest) == {"there": b"2"}


def test_a_daemon_killed_in_the_middle_leaves_a_draft_that_the_next_one_removes(
    cache: ModelCache, server: StorageServer, upload: Callable[[str, bytes], None], folder: Path
) -> None:
    for number in range(40):
        upload(f"m/{number}", os.urandom(2**20))
    command = [sys.executable, "-m", "tests.integration.storage.test_models", server.url, str(folder)]
    victim = subprocess.Popen(command, env={**os.environ, "SECRET": server.secret_key.reveal()})
    wait_for(lambda: list(folder.glob(".draft-*/m/*")))
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    pin = cache.pin(BUCKET, "m")
    assert not pin.present
    assert list(folder.glob(".draft-*"))
    cache.recover()
    assert list(folder.iterdir()) == []
    cache.stage(pin)
    assert len(below(folder / pin.digest)) == 40


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a full disk needs the right to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_in_numbers_and_keeps_no_drafts(
    cache: ModelCache, upload: Callable[[str, bytes], None], folder: Path
) -> None:
    upload("small", b"1")
    upload("large", bytes(3 * 2**20))
    with small_disk(folder, "2m"):
        with pytest.raises(Transient, match=r"large needs 3.15 MB, but only 2.\d+ MB are free") as caught:
            staged(cache, "large")
        assert caught.value.reason == "StateDiskFull"
        assert list(folder.iterdir()) == []
        staged(cache, "small")


def test_a_disk_that_fills_up_meanwhile(
    cache: ModelCache, upload: Callable[[str, bytes], None], folder: Path
) -> None:
    """More files than the disk has inodes: that there is no room shows only on the way."""
    for number in range(20):
        upload(f"m/{number}", b"1")
    with small_disk(folder, "2m,nr_inodes=10"):
        with pytest.raises(Transient) as caught:
            staged(cache, "m")
        assert caught.value.reason == "StateDiskFull"
        assert list(folder.iterdir()) == []


if __name__ == "__main__":  # the victim of a crash
    url, place = sys.argv[1:]
    source = S3Objects(url, "storage-root", Secret(os.environ["SECRET"]))
    staged(ModelCache(Path(place), External(source), capacity=0), "m")
