"""The client of the storage: made when it is needed, for what the daemon told last."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from controller.domain.errors import Transient
from controller.domain.secret import Secret
from controller.domain.storage.box import StorageAccess
from controller.store import SqliteStore
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects

ACCESS = StorageAccess("http://127.0.0.1:9000", "https://files.example.org", "web", Secret("first"))


class Closing(FakeObjects):
    def __init__(self, access: StorageAccess) -> None:
        super().__init__()
        self.access = access
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Connections:
    def __init__(self) -> None:
        self.made: list[Closing] = []

    def __call__(self, access: StorageAccess) -> Closing:
        self.made.append(Closing(access))
        return self.made[-1]


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def client(store: SqliteStore, connections: Connections) -> StorageClient:
    return StorageClient(store, connections)


def test_nothing_is_made_before_it_is_needed(client: StorageClient, connections: Connections) -> None:
    with pytest.raises(Transient) as raised:
        client.objects()
    assert raised.value.reason == "StorageUnreachable"
    client.close()
    assert connections.made == []


def test_one_client_serves_all(store: SqliteStore, client: StorageClient, connections: Connections) -> None:
    store.boxes.record_access(ACCESS)
    threads = [threading.Thread(target=client.objects) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made.access for made in connections.made] == [ACCESS]
    client.close()
    assert connections.made[0].closed


def test_another_access_makes_another_client(
    store: SqliteStore, client: StorageClient, connections: Connections
) -> None:
    store.boxes.record_access(ACCESS)
    first = client.objects()
    store.boxes.record_access(replace(ACCESS, secret_key=Secret("second")))
    second = client.objects()
    assert first is not second
    assert [made.closed for made in connections.made] == [True, False]
    assert client.objects() is second
    client.close()


def test_questions_are_asked_side_by_side(client: StorageClient) -> None:
    together = threading.Barrier(3, timeout=30)

    def ask(number: int) -> int:
        together.wait()
        return number * 2

    assert list(client.start(ask, [1, 2, 3])) == [2, 4, 6]
    client.close()
