"""The object proxy in front of a storage that looks at no checksum and believes every length, as the embedded one does:
what is not what it says never becomes an object, by a link or by an account, and keeps no room."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from controller.domain.names import AppName, ComponentName
from controller.domain.secret import Secret
from controller.domain.storage.accounts import component_secret
from controller.domain.storage.box import BoxRecord, StorageAccess
from controller.domain.storage.links import ObjectLink, link_key, path_of
from controller.domain.storage.sigv4 import UNSIGNED, Signer
from controller.store import SqliteStore
from controller.tracing import OFF, SpanKind, Tracer
from controller.web.gateway.shares import WorkerShares
from controller.web.objects.caller import CallerConnection
from controller.web.objects.proxy import ObjectProxy
from controller.web.storage import StorageClient
from tests.integration.web.checksums import CHECKSUMS, checksum
from tests.support.fake_objects import FakeObjects
from tests.support.stores import open_store
from tests.support.tracing import KeptSpans

BUCKET, KEY, ACCOUNT = "prichal.demo.data", "users/ann/file_groups/g/f", "prichal.demo.0123456789ab"
SECRET = Secret("the-secret-of-the-web-process")
FRAMED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
CONTENTS = {"nothing": b"", "little": b"little", "much": bytes(range(256)) * 1500}


class Storage:
    """Keeps what came whole."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.connections: list[asyncio.Task[None]] = []
        self.fails = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.append(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                if self.fails:
                    break
                body = await reader.readexactly(int(fields["content-length"]))
                self.objects[lines[0].split()[1]] = body
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\netag: x\r\n\r\n")
        writer.close()


class Scene:
    def __init__(
        self, store: SqliteStore, storage: Storage, access: StorageAccess, transfers: WorkerShares
    ) -> None:
        self.transfers = transfers
        self.store = store
        self.storage = storage
        self.access = access
        self.port = 0
        self.left = asyncio.Queue[CallerConnection]()

    async def send(self, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"PUT {target} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        await self.left.get()
        return int(answer.split()[1]), answer

    async def by_link(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        link = ObjectLink("PUT", BUCKET, KEY, int(time.time()), 60)
        return await self.send(link.url("", link_key(SECRET)), {"host": "h", **headers}, body)

    async def by_account(
        self, headers: Mapping[str, str], body: bytes, payload: str = UNSIGNED
    ) -> tuple[int, bytes]:
        path = path_of(BUCKET, KEY)
        signer = Signer(ACCOUNT, component_secret(SECRET, ACCOUNT), "us-east-1")
        fields = signer.headers("PUT", path, "", {"host": "h", **headers}, time.time(), payload)
        return await self.send(path, fields, body)

    async def framed(self, name: str, claimed: str, content: bytes) -> tuple[int, bytes]:
        size = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
        body = size + f"0\r\nx-amz-checksum-{name}:{claimed}\r\n\r\n".encode()
        headers = {
            "x-amz-decoded-content-length": str(len(content)),
            "x-amz-trailer": f"x-amz-checksum-{name}",
        }
        return await self.by_account(headers, body, FRAMED)


@contextlib.asynccontextmanager
async def a_scene(folder: Path, tracer: Tracer = OFF) -> AsyncIterator[Scene]:
    storage = Storage()
    behind = await asyncio.start_server(storage.serve, "127.0.0.1", 0)
    host, port = behind.sockets[0].getsockname()
    store = open_store(folder / "db" / "state.db")
    access = StorageAccess(f"http://{host}:{port}", "http://h", "web", SECRET)
    store.boxes.record_access(access)
    store.boxes.save(BoxRecord(AppName("demo"), ComponentName("data"), BUCKET, 10**9))
    store.boxes.grant(ACCOUNT, (BUCKET,))
    client = StorageClient(store, lambda _: FakeObjects())
    transfers = WorkerShares("transfers", 9, 1)
    proxy = ObjectProxy(
        store, client, connect_timeout=5.0, transfers=transfers, tracer=tracer, trust="authenticated"
    )
    harness = Scene(store, storage, access, transfers)
    loop = asyncio.get_running_loop()
    front = await loop.create_server(
        lambda: CallerConnection(proxy.answer, harness.left.put_nowait), "127.0.0.1", 0
    )
    harness.port = front.sockets[0].getsockname()[1]
    try:
        yield harness
    finally:
        front.close()
        proxy.close()
        behind.close()
        client.close()
        store.close()
        await asyncio.gather(*storage.connections)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("name", CHECKSUMS)
def test_what_has_another_checksum_is_not_stored(tmp_path: Path, name: str, content: bytes) -> None:
    field, path = f"x-amz-checksum-{name}", path_of(BUCKET, KEY)
    right = checksum(name, content)

    async def look() -> None:
        async with a_scene(tmp_path) as harness:
            ways: dict[str, Callable[[str], Awaitable[tuple[int, bytes]]]] = {
                "link": lambda claimed: harness.by_link({field: claimed}, content),
                "account": lambda claimed: harness.by_account({field: claimed}, content),
                "behind": lambda claimed: harness.framed(name, claimed, content),
            }
            for way, put in ways.items():
                for wrong, code in (
                    (checksum(name, content + b"x"), b"BadDigest"),
                    ("AAAA", b"InvalidRequest"),
                ):
                    status, answer = await put(wrong)
                    assert (status, code in answer) == (400, True), (way, answer)
                assert harness.storage.objects.get(path) is None, way
                assert harness.store.boxes.usage(BUCKET, time.time()).pending == 0, way
                status, answer = await put(right)
                assert (status, harness.storage.objects.pop(path)) == (200, content), (way, answer)
                harness.store.boxes.removed(BUCKET, [KEY], time.time() + 1)

    asyncio.run(look())


CALLER = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


def test_requests_are_spans_and_name_nothing_of_theirs(tmp_path: Path) -> None:
    """An account is believed who its caller is; a link may be in anybody's hands."""
    kept = KeptSpans()

    async def look() -> None:
        async with a_scene(tmp_path, kept) as harness:
            assert (await harness.by_link(CALLER, b"x"))[0] == 200
            assert (await harness.by_account(CALLER, b"x"))[0] == 200
            assert (await harness.send("/nothing?X=1", {"host": "h", **CALLER}, b""))[0] == 403
            harness.storage.fails = True
            assert (await harness.by_link({}, b"x"))[0] == 503

    asyncio.run(look())
    assert all(each.ended for each in kept.spans)
    link, account, refused, broken = [each for each in kept.spans if each.start.kind is SpanKind.SERVER]
    assert [each.name for each in (link, account, refused, broken)] == [
        *["PUT /{bucket}/{key}"] * 2,
        "PUT",
        link.name,
    ]
    assert (link.start.parent, link.start.link is not None) == (None, True)
    assert account.parent == "b" * 16
    assert refused.start.parent is None
    for served in (link, account):
        assert served.attributes["prichal.app"] == "demo"
        assert served.attributes["http.response.status_code"] == 200
        assert kept.children(served) == ["PUT /{bucket}/{key}"]
    (beyond,) = [each for each in kept.spans if each.parent == broken.context.span]  # type: ignore[union-attr]
    assert (broken.failure, beyond.failure) == ("503", "StorageUnreachable")
    assert KEY not in repr(kept.spans)


def test_two_checksums_are_refused_before_anything_is_stored(tmp_path: Path) -> None:
    both = {f"x-amz-checksum-{name}": checksum(name, b"x") for name in ("crc32", "sha1")}

    async def look() -> None:
        async with a_scene(tmp_path) as harness:
            for status, answer in (await harness.by_link(both, b"x"), await harness.by_account(both, b"x")):
                assert (status, b"InvalidRequest" in answer) == (400, True)
            assert not harness.storage.objects

    asyncio.run(look())


def test_a_body_that_is_signed_whole_goes_on_with_its_digest(tmp_path: Path) -> None:
    async def look() -> None:
        async with a_scene(tmp_path) as harness:
            status, answer = await harness.by_account({}, b"signed", sha256(b"signed").hexdigest())
            assert (status, harness.storage.objects[path_of(BUCKET, KEY)]) == (200, b"signed"), answer
            assert harness.store.boxes.usage(BUCKET, time.time()).pending == 6

    asyncio.run(look())


def test_transfers_of_one_app_are_a_share(tmp_path: Path) -> None:
    """By links and by accounts together."""

    async def act() -> None:
        async with a_scene(tmp_path) as scene:
            with scene.transfers.take("another", "app another"):
                assert (await scene.by_link({}, b"x"))[0] == 200
            with scene.transfers.take("demo", "app demo"):
                status, answer = await scene.by_link({}, b"x")
                assert (status, b"1 transfers of app demo under way" in answer) == (503, True)
                status, answer = await scene.by_account({}, b"x")
                assert (status, b"<Code>SlowDown</Code>" in answer) == (503, True)
            assert (await scene.by_account({}, b"x"))[0] == 200

    asyncio.run(act())
