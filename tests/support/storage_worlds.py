"""Storages for the contract suite, with the faults of each: the fake, the embedded one and MinIO."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import urllib3

from controller.adapters.objects import S3Objects
from controller.domain.secret import Secret
from controller.ports import Objects, StorageAdmin
from tests.support.fake_objects import FakeAdmin, FakeObjects, FakeServer
from tests.support.storage_servers import (
    StorageServer,
    embedded_server,
    minio_binary,
    minio_server,
)

SECRET = Secret("a-secret-of-an-account")
SERVERS = ("fake", "embedded", "minio")


class World(ABC):
    """One storage, and what may happen to it."""

    @abstractmethod
    def objects(self, access_key: str = "", secret: Secret = SECRET) -> Objects:
        """For an account; for the one with all rights without `access_key`."""

    @abstractmethod
    def admin(self) -> StorageAdmin: ...

    @abstractmethod
    def follow(
        self, method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Use a link: status and content."""

    @abstractmethod
    def kill(self) -> None: ...

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def frozen(self) -> AbstractContextManager[None]: ...


class FakeWorld(World):
    def __init__(self) -> None:
        self.server = FakeServer()

    def objects(self, access_key: str = "", secret: Secret = SECRET) -> Objects:
        return FakeObjects(self.server, access_key, secret) if access_key else FakeObjects(self.server)

    def admin(self) -> StorageAdmin:
        return FakeAdmin(self.server)

    def follow(
        self, method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        return FakeObjects(self.server).follow(method, url, content)

    def kill(self) -> None:
        self.server.down = True

    def start(self) -> None:
        self.server.down = False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.kill()
        yield
        self.start()


class RealWorld(World):
    def __init__(self, server: StorageServer) -> None:
        self.server = server
        self.http = urllib3.PoolManager(retries=False)

    def objects(self, access_key: str = "", secret: Secret = SECRET) -> Objects:
        if not access_key:
            return self.server.objects()
        return S3Objects(self.server.url, access_key, secret)

    def admin(self) -> StorageAdmin:
        return self.server.admin()

    def follow(
        self, method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        answer = self.http.request(method, url, body=content if method == "PUT" else None, headers=headers)
        return answer.status, answer.data

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def frozen(self) -> AbstractContextManager[None]:
        return self.server.frozen()


@contextmanager
def a_world(kind: str, folder: Path) -> Iterator[World]:
    if kind == "fake":
        yield FakeWorld()
        return
    if kind == "minio" and minio_binary() is None:
        pytest.skip("MinIO is not here: `make minio` builds it")
    with (embedded_server if kind == "embedded" else minio_server)(folder) as server:
        world = RealWorld(server)
        yield world
        world.http.clear()
