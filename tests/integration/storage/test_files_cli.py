"""`prichal file` through a real web process against real storages: the embedded one and MinIO."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.client.errors import Stopped
from controller.client.files import FilesClient
from controller.client.files.links import LinkTransport
from controller.client.server import new_pool
from controller.domain.errors import Transient
from controller.domain.names import ComponentName
from controller.domain.routing.passwords import hash_token
from controller.domain.secret import Secret
from controller.domain.storage.addresses import BoxAddress, parse_address
from controller.domain.storage.box import BoxRecord, StorageAccess
from tests.integration.web.conftest import Web, echo, serving
from tests.support.files_server import composite
from tests.support.gateway import APP, make_service
from tests.support.serve_web import objects_address, settings_of
from tests.support.storage_servers import StorageServer, embedded_server, minio_binary, minio_server
from tests.support.stores import open_store
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[3]
BOX = ComponentName("data")
BUCKET = "prichal.demo.data"
CAPACITY = 2 * 10**9
MIB = 2**20
PART = 16 * MIB  # what the API cuts files of these sizes into
SERVERS = {"embedded": embedded_server, "minio": minio_server}


@dataclass
class Machine:
    """Somebody's machine: `prichal file` in the folder `here`, with nothing but the variables that it reads."""

    web: Web
    storage: StorageServer
    here: Path

    @property
    def url(self) -> str:
        host, port = self.web.address
        return f"http://{host}:{port}"

    def start(self, *arguments: str, token: str = "anns-token") -> subprocess.Popen[str]:
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "XDG_CACHE_HOME": str(self.here.parent / "cache"),
            "PRICHAL_SERVER": self.url,
            "PRICHAL_TOKEN": token,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "controller", "file", *arguments],
            cwd=self.here,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, token: str = "anns-token") -> str:
        """What it prints on standard output."""
        with self.start(*arguments, token=token) as process:
            stdout, stderr = process.communicate(timeout=90)
        assert process.returncode == Exit.OK, stderr
        return stdout

    @contextmanager
    def client(self) -> Iterator[FilesClient]:
        with FilesClient(Secret("Bearer anns-token"), self.here.parent / "cache") as client:
            yield client

    def address(self, path: str) -> BoxAddress:
        return replace(parse_address(f"demo:data/{path}"), server=self.url)

    def uploads(self) -> list[str]:
        """Ids of the uploads in parts that the platform knows of."""
        return [pending.upload for pending in self.web.store.boxes.pending(BUCKET) if pending.upload]

    def parts(self, path: str) -> int:
        (upload,) = self.uploads()
        reply = self.web.ask(
            "GET", f"/demo/files/data/{path}?upload={upload}", None, Authorization="Bearer anns-token"
        )
        return len(reply.json["parts"])


@pytest.fixture(scope="module", params=SERVERS)
def storage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StorageServer]:
    if request.param == "minio" and minio_binary() is None:
        pytest.skip("no minio: `make minio` builds it")
    with SERVERS[request.param](tmp_path_factory.mktemp("storage")) as running:
        yield running


@pytest.fixture(scope="module")
def web(storage: StorageServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    state = tmp_path_factory.mktemp("state")
    tokens = (("ann", hash_token("anns-token")), ("dev", hash_token("devs-token")))
    with closing(open_store(settings_of(state).database)) as store, echo("none") as component:
        store.routes.publish(APP, (make_service(developers=("dev",), tokens=tokens),))
        store.boxes.record_access(
            StorageAccess(
                storage.url, f"http://{objects_address(state)}", storage.access_key, storage.secret_key
            )
        )
        with serving(state, store, component) as running:
            yield running


@pytest.fixture
def machine(web: Web, storage: StorageServer, tmp_path: Path) -> Machine:
    """With an empty box."""
    (tmp_path / "here").mkdir()
    with closing(storage.objects()) as objects:
        objects.remove_bucket(BUCKET)
        objects.create_bucket(BUCKET)
    web.store.boxes.save(BoxRecord(APP, BOX, BUCKET, CAPACITY))
    pending = [upload.id for upload in web.store.boxes.pending(BUCKET)]
    web.store.boxes.measured(BUCKET, 0, 0, time.time(), pending)
    web.store.boxes.release(pending)
    return Machine(web, storage, tmp_path / "here")


def write(path: Path, size: int) -> Path:
    """Every mebibyte is another one."""
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            file.write((hashlib.sha256(str(start).encode()).digest() * (MIB // 32))[: size - start])
    return path


NAMES = ["plain", "two words", "файл 🐈.bin", "a+b", "100%", "%41", "a#b?c&d=e;f", "..a", "~", "a:b", "-x"]


def test_any_name_goes_there_and_back(machine: Machine) -> None:
    for name in NAMES:
        (machine.here / name).write_bytes(name.encode())
    assert machine.run("cp", "-r", ".", "demo:data/g 1/ü").startswith(f"{len(NAMES)} files copied")
    assert machine.run("ls", "demo:data/g 1/ü/").splitlines() == sorted(NAMES)
    for name in NAMES:
        machine.run("get", f"demo:data/g 1/ü/{name}", "./copy")
        assert (machine.here / "copy").read_bytes() == name.encode()
        machine.run("rm", f"demo:data/g 1/ü/{name}")
    assert machine.run("ls", "demo:data").strip() == ""
    (box,) = json.loads(machine.run("ls", "demo:", "-o", "json"))["boxes"]
    assert (box["name"], box["capacity"]) == ("data", CAPACITY)


def test_a_large_file_goes_in_parts_and_its_checksum_is_known(machine: Machine) -> None:
    size = 70 * MIB + 1
    large = write(machine.here / "large", size)
    found = json.loads(machine.run("put", "large", "demo:data/g", "-o", "json"))
    etag = composite(large.read_bytes(), PART)
    assert found == {"place": "demo:data/g/large", "size": size, "etag": etag}
    machine.run("get", "demo:data/g/large", "copy")
    assert (machine.here / "copy").read_bytes() == large.read_bytes()
    machine.run("cp", "demo:data/g/large", "demo:data/h/other")
    (listed,) = json.loads(machine.run("ls", "demo:data/h", "-o", "json"))["files"]
    assert (listed["name"], listed["size"], listed["etag"]) == ("other", size, etag)


def test_a_tree_is_copied_once(machine: Machine) -> None:
    tree = machine.here / "tree"
    for number in range(30):
        (tree / f"d{number % 3}").mkdir(parents=True, exist_ok=True)
        (tree / f"d{number % 3}" / f"f{number}").write_bytes(b"x" * number)
    write(tree / "large", 65 * MIB)
    copied = json.loads(machine.run("cp", "-r", "tree", "demo:data/t", "-o", "json"))
    assert (copied["copied"], copied["skipped"], copied["failed"]) == (31, 0, [])
    assert (
        machine.run("cp", "-r", "tree", "demo:data/t")
        == "0 files copied (0 bytes), 31 skipped (already there)\n"
    )
    assert machine.run("cp", "-r", "demo:data/t", "back").startswith("31 files copied")
    assert (
        machine.run("cp", "-r", "demo:data/t", "tree")
        == "0 files copied (0 bytes), 31 skipped (already there)\n"
    )
    assert machine.run("rm", "-r", "--yes", "demo:data/t") == "demo:data/t/: 31 files removed\n"


def test_a_killed_upload_goes_on(machine: Machine) -> None:
    size = 24 * PART
    large = write(machine.here / "large", size)
    with machine.start("put", "large", "demo:data/g") as first:
        wait_for(lambda: machine.uploads() and machine.parts("g/large") >= 2)
        with machine.storage.frozen():
            first.kill()
            assert first.wait() == -signal.SIGKILL
    there, begun = machine.parts("g/large"), machine.uploads()
    assert there >= 2
    assert machine.run("ls", "demo:data/g") == "", "no half a file"
    found = json.loads(machine.run("put", "large", "demo:data/g", "-o", "json"))
    assert found["etag"] == composite(large.read_bytes(), PART)
    assert machine.uploads() == begun, "no other upload was begun"


def test_an_interrupted_download_goes_on(machine: Machine) -> None:
    large = write(machine.here / "large", 65 * MIB)
    machine.run("put", "large", "demo:data/g/f")
    target, address = machine.here / "copy", machine.address("g/f")
    moved: list[int] = []

    def stop_in_the_middle(count: int) -> None:
        moved.append(count)
        if sum(moved) > 20 * MIB:
            raise Stopped

    with machine.client() as client, pytest.raises(Stopped):
        client.download(address, target, stop_in_the_middle)
    there = (machine.here / "copy.part").stat().st_size
    assert 20 * MIB < there < 65 * MIB
    moved.clear()
    with machine.client() as client:
        client.download(address, target, moved.append)
    assert moved[0] == there
    assert target.read_bytes() == large.read_bytes()


def test_a_storage_that_dies_in_the_middle_is_waited_for(machine: Machine) -> None:
    large = write(machine.here / "large", 12 * PART)
    with machine.start("put", "large", "demo:data/g/f", "-o", "json") as process:
        wait_for(lambda: machine.uploads() and machine.parts("g/f") >= 1)
        machine.storage.kill()
        machine.storage.start()
        stdout, stderr = process.communicate(timeout=90)
    assert process.returncode == Exit.OK, stderr
    assert json.loads(stdout)["etag"] == composite(large.read_bytes(), PART)


def test_the_storage_refuses_what_does_not_fit_its_checksum(machine: Machine) -> None:
    content = write(machine.here / "f", 1000).open("rb")
    asked = machine.web.ask("PUT", "/demo/files/data/g/f?size=1000", None, Authorization="Bearer anns-token")
    with content, new_pool() as pool, pytest.raises(Transient) as failed:
        link = asked.json["presigned_put_url"]
        LinkTransport(pool).put(link, content, 1000, "AAAAAAAAAAAAAAAAAAAAAA==", "cannot write")
    assert failed.value.reason == "ChecksumMismatch"
    assert machine.run("ls", "demo:data/g") == ""


def test_a_full_box_and_a_foreign_area_are_told_in_words(machine: Machine) -> None:
    with (machine.here / "huge").open("wb") as file:
        file.truncate(CAPACITY + 1)
    with machine.start("put", "huge", "demo:data/g") as process:
        _, stderr = process.communicate(timeout=90)
    assert process.returncode == Exit.FAILED
    assert stderr.startswith(
        f"error (BoxFull): cannot write demo:data/g/huge: Box data has {CAPACITY} bytes free"
    )
    (machine.here / "model").write_bytes(b"weights")
    machine.run("put", "model", "demo:data/m", "--area", "developer", token="devs-token")
    with machine.start("ls", "demo:data/m", "--area", "developer") as process:
        _, stderr = process.communicate(timeout=90)
    assert process.returncode == Exit.FAILED
    assert "error (AccessDenied)" in stderr
