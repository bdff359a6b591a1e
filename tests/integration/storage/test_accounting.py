"""Accounting on real servers: what was allowed never goes over, what goes over all the same is noticed, and what is
written down is what is there."""

from __future__ import annotations

import http.client
import io
import logging
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest

from controller.adapters.clock import SystemClock
from controller.domain.apps.requests import Outcome
from controller.domain.errors import Stalled
from controller.domain.names import AppName, ComponentName
from controller.domain.secret import Secret
from controller.domain.storage.box import BoxRecord, BoxUsage, ObjectPage, PendingUpload, StorageAccess
from controller.ports import Objects, Storage
from controller.reconcile.box_usage import UsageScanner
from controller.store import SqliteStore
from tests.support.storage_servers import StorageServer, embedded_server, minio_binary, minio_server
from tests.support.stores import open_store
from tests.support.waiting import wait_for

APP, DATA = AppName("demo"), ComponentName("data")
BUCKET = "prichal.demo.data"
CAPACITY = 400_000
DAY = 86400.0


class OneServer:
    """`ports.Storage` as far as accounting needs it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def objects(self) -> Objects:
        return self._objects

    def access(self) -> StorageAccess:
        url = "http://storage.example:9000"
        return StorageAccess(url, url, "web", Secret("unused"))


class Box:
    """One box with all that works on it: the state, the storage, and what the web process does with links."""

    def __init__(self, store: SqliteStore, objects: Objects) -> None:
        self.store = store
        self.objects = objects
        self.clock = SystemClock()

    def usage_scanner(self, objects: Objects | None = None, abandon_after: float = DAY) -> UsageScanner:
        storage = cast(Storage, OneServer(objects or self.objects))
        return UsageScanner(self.store, storage, self.clock, abandon_after)

    @contextmanager
    def accounting(self, usage_scanner: UsageScanner | None = None) -> Iterator[None]:
        """The daemon's thread."""
        stop = threading.Event()
        thread = threading.Thread(target=(usage_scanner or self.usage_scanner()).run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def allow(self, key: str, size: int, upload: str = "") -> int | BoxUsage:
        now = self.clock.now()
        return self.store.boxes.reserve(PendingUpload(0, BUCKET, key, size, now, now + 900, upload), now)

    def link(self, key: str, **query: str) -> str:
        return self.objects.sign("PUT", BUCKET, key, 900, query)

    def announced(self, key: str, size: int) -> bool:
        """The whole of an upload as a user does it; False if it was refused."""
        if isinstance(self.allow(key, size), BoxUsage):
            return False
        send(self.link(key), b"x" * size)
        return True

    def remove(self, key: str) -> None:
        self.objects.remove(BUCKET, [key])
        self.store.boxes.touch(BUCKET)

    @property
    def record(self) -> BoxRecord:
        record = self.store.boxes.get(APP, DATA)
        assert record is not None
        return record

    def really(self) -> tuple[int, int]:
        """Bytes and files."""
        found = self.objects.page(BUCKET).objects
        return sum(each.size for each in found), len(found)

    def pass_asked_for(self) -> tuple[str, ...]:
        request = self.store.requests.claim(self.clock.now())
        if request is None:
            return ()
        self.store.requests.finish(request.id, Outcome.READY, "", "")
        return request.reasons


def send(link: str, content: bytes) -> None:
    """With nothing but the link, as a user's program does."""
    url = urlsplit(link)
    assert url.hostname is not None
    with closing(http.client.HTTPConnection(url.hostname, url.port, timeout=30)) as connection:
        connection.request("PUT", f"{url.path}?{url.query}", body=content)
        response = connection.getresponse()
        assert response.status == 200, response.read()


@pytest.fixture(scope="module", params=["embedded", "minio"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StorageServer]:
    if request.param == "minio" and minio_binary() is None:
        pytest.skip("no minio binary: make minio")
    start = {"embedded": embedded_server, "minio": minio_server}[request.param]
    with start(tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def box(server: StorageServer, tmp_path: Path) -> Iterator[Box]:
    with (
        closing(open_store(tmp_path / "db" / "state.db")) as store,
        closing(server.objects()) as objects,
    ):
        objects.create_bucket(BUCKET)
        store.boxes.save(BoxRecord(APP, DATA, BUCKET, CAPACITY))
        yield Box(store, objects)
        objects.remove_bucket(BUCKET)


def test_a_race_of_announced_uploads_never_goes_over(box: Box) -> None:
    users, files = 8, 12

    def work(user: int) -> list[tuple[str, int, bool]]:
        rng = random.Random(user)
        wishes = [(f"users/{user}/{n}", rng.randrange(1_000, 20_000)) for n in range(files)]
        return [(key, size, box.announced(key, size)) for key, size in wishes]

    def settled() -> bool:
        return not box.store.boxes.pending() and box.record.used == box.really()[0]

    with box.accounting(), ThreadPoolExecutor(users) as pool:
        running = [pool.submit(work, user) for user in range(users)]
        while not all(future.done() for future in running):
            assert box.really()[0] <= CAPACITY
        tried = [wish for future in running for wish in future.result()]
        uploaded = sum(size for _, size, taken in tried if taken)
        wait_for(settled)
        assert box.record.used == uploaded
        # An upload counts twice until it is measured, so that some were refused which fit now.
        for key, size, taken in tried:
            if not taken and box.announced(key, size):
                uploaded += size
                wait_for(settled)
    assert box.really()[0] == uploaded <= CAPACITY
    assert uploaded > CAPACITY - 20_000, "only what did not fit was refused"


def test_measured_equals_reality_after_overwrites_and_removals(box: Box) -> None:
    rng = random.Random(4)

    def work(user: int) -> None:
        for _ in range(15):
            key = f"users/{user}/{rng.randrange(3)} ü%+#.bin"
            if rng.random() < 0.3:
                box.remove(key)
            else:
                box.announced(key, rng.randrange(1, 9_000))

    with box.accounting():
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        for gone in [pending.id for pending in box.store.boxes.pending()]:
            box.store.boxes.release([gone])  # of files that were removed before they were seen
        wait_for(lambda: (box.record.used, box.record.files) == box.really())
    assert box.really()[1] > 0


def test_an_unannounced_upload_that_goes_over_is_noticed_and_forgiven(box: Box) -> None:
    with box.accounting():
        assert isinstance(box.allow("users/x", 0), int)
        send(box.link("users/x"), b"x" * (CAPACITY + 1))
        wait_for(lambda: box.record.used == CAPACITY + 1)
        wait_for(box.pass_asked_for, lambda reasons: reasons == ("box",))
        assert isinstance(box.allow("users/y", 0), BoxUsage)
        box.remove("users/x")
        wait_for(box.pass_asked_for, lambda reasons: reasons == ("box",))
        assert box.announced("users/y", CAPACITY)


def test_another_model_asks_for_a_pass(box: Box) -> None:
    with box.accounting():
        for content in (b"v1", b"v2"):
            assert isinstance(box.allow("developer/model.onnx", 2), int)
            send(box.link("developer/model.onnx"), content)
            wait_for(box.pass_asked_for, lambda reasons: reasons == ("box",))
            wait_for(lambda: not box.store.boxes.pending())


def begin_upload(box: Box, key: str, content: bytes) -> str:
    upload = box.objects.begin_upload(BUCKET, key)
    assert isinstance(box.allow(key, len(content), upload), int)
    send(box.link(key, uploadId=upload, partNumber="1"), content)
    return upload


def test_an_upload_in_parts_keeps_its_room_until_it_is_counted(box: Box) -> None:
    usage_scanner = box.usage_scanner()
    upload = begin_upload(box, "users/big", b"x" * 70_000)
    usage_scanner.scan_next()
    assert box.store.boxes.usage(BUCKET, box.clock.now()) == BoxUsage(CAPACITY, used=0, pending=70_000)
    box.objects.complete_upload(BUCKET, "users/big", upload, box.objects.parts(BUCKET, "users/big", upload))
    box.store.boxes.touch(BUCKET)
    wait_for(usage_scanner.scan_next)
    assert box.store.boxes.usage(BUCKET, box.clock.now()) == BoxUsage(CAPACITY, used=70_000, pending=0)


def test_an_upload_in_parts_that_nobody_completes_is_collected(box: Box) -> None:
    upload = begin_upload(box, "users/half", b"x" * 70_000)
    box.usage_scanner(abandon_after=DAY).scan_next()
    assert len(box.objects.parts(BUCKET, "users/half", upload)) == 1
    wait_for(box.usage_scanner(abandon_after=0.0).scan_next)
    with pytest.raises(Stalled) as caught:
        box.objects.parts(BUCKET, "users/half", upload)
    assert caught.value.reason == "UploadMissing"
    assert box.store.boxes.pending() == ()
    assert box.store.boxes.usage(BUCKET, box.clock.now()).free == CAPACITY


class Interrupted:
    """The server, with small pages and something that happens after the first one."""

    def __init__(self, objects: Objects, happens: Callable[[], None]) -> None:
        self._objects = objects
        self._happens = happens

    def page(self, bucket: str, after: str = "") -> ObjectPage:
        page = self._objects.page(bucket, after=after, limit=3)
        if not after:
            self._happens()
        return page


def test_a_storage_that_goes_down_during_a_listing(
    box: Box, server: StorageServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(10):
        box.objects.put(BUCKET, f"users/{number}", io.BytesIO(b"x" * 100), 100)
    kills = iter([server.kill])
    interrupted = cast(Objects, Interrupted(box.objects, lambda: next(kills, lambda: None)()))
    with box.accounting(box.usage_scanner(interrupted)):
        wait_for(lambda: "could not measure boxes" in caplog.text)
        assert box.record.measured == 0.0, "half a listing counts for nothing"
        server.start()
        wait_for(lambda: box.record.used, lambda used: used == 1000)
        wait_for(lambda: "boxes are measured again" in caplog.text)
    assert caplog.text.count("could not measure boxes") == 1


def test_a_bucket_that_was_deleted_by_hand(box: Box) -> None:
    box.store.boxes.measured(BUCKET, used=5, files=1, at=1.0, settled=())
    box.objects.remove_bucket(BUCKET)
    with box.accounting():
        wait_for(box.pass_asked_for, lambda reasons: reasons == ("box",))
        box.objects.create_bucket(BUCKET)
        wait_for(lambda: box.record.used == 0)
