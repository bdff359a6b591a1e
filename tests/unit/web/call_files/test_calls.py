"""Calls with files: a component and a storage made of real sockets, and whatever can go wrong between them."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from controller.domain.names import AppName, ComponentName
from controller.domain.storage.box import BoxRecord, BoxState, StorageAccess
from controller.ports import Objects
from controller.store import SqliteStore
from controller.web.call_files import calls as staging
from controller.web.call_files.calls import CallFileStaging
from controller.web.call_files.locations import FileLocations
from controller.web.call_files.presigned import PresignedClient
from controller.web.gateway.body import IncomingBody, RequestBody
from controller.web.gateway.forward import ForwardedCall, Forwarder, ResponseState
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.router import Router, UpstreamTarget
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.storage import StorageClient
from tests.support.fake_objects import INTERNAL_URL, ROOT, ROOT_SECRET, FakeObjects, FakeServer
from tests.support.gateway import (
    APP,
    Caller,
    Handler,
    NobodyWaits,
    component,
    make_route,
    read_request,
    response,
)
from tests.support.git_servers import make_certificate
from tests.support.loops import run
from tests.support.publishing import publishing

AREA = "users/ann/file_groups/"
CAT = os.urandom(3_000_000)
SILENCE = 0.3


class LinkedObjects(FakeObjects):
    """Its internal links lead to a real socket."""

    endpoint = ""

    def sign(self, *args: Any, **fields: Any) -> str:
        return super().sign(*args, **fields).replace(INTERNAL_URL, self.endpoint)


@dataclass
class Shop:
    """A storage on a socket. Tests change what it does: `faults` maps a method to a handler that plays in its place."""

    server: FakeServer = field(default_factory=FakeServer)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    faults: dict[str, Handler] = field(default_factory=dict)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.split(": ", 1) for line in head[1:] if line)
            method, target, _ = head[0].split(" ")
            self.requests.append((f"{method} {unquote(urlsplit(target).path)}", fields))
            if method in self.faults:
                await self.faults[method](reader, writer)
                return
            content = await reader.readexactly(int(fields.get("content-length", 0)))
            status, body = FakeObjects(self.server).follow(method, INTERNAL_URL + target, content)
            writer.write(response(body, status=f"{status} x"))
            await writer.drain()

    def put(self, key: str, content: bytes, bucket: str = "b-userdata") -> None:
        FakeObjects(self.server).follow("PUT", FakeObjects(self.server).sign("PUT", bucket, key, 60), content)

    def get(self, key: str, bucket: str = "b-userdata") -> bytes | None:
        found = self.server.buckets[bucket].get(key)
        return None if found is None else found[1]


@dataclass
class Scene:
    """A gateway's staging between a caller, a component and a storage."""

    staging: CallFileStaging
    forwarder: Forwarder
    pool: ConnectionPool
    target: UpstreamTarget
    store: SqliteStore
    shop: Shop

    async def call(
        self,
        document: Any,
        user: str = "ann",
        caller: Caller | None = None,
        lines: bytes = b"x-request-id: r1\r\n",
    ) -> Caller:
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        caller = caller or Caller(content)
        special = {b"content-length": b"%d" % len(content)}
        body = RequestBody(IncomingBody(caller.receive, special), special, 10**6)
        await body.begin()
        call = ForwardedCall(self.target, "POST", b"/predict", lines, b"r1")
        try:
            await self.staging.forward(call, user, body, caller.send, ResponseState())
        finally:
            assert not self.pool.busy
        return caller

    async def refused(self, document: Any, user: str = "ann") -> HttpProblem:
        with pytest.raises(RequestRefused) as caught:
            await self.call(document, user)
        return caught.value.problem

    @property
    def pending(self) -> list[tuple[str, int]]:
        return [(upload.key, upload.size) for upload in self.store.boxes.pending()]

    async def until(self, pending: list[tuple[str, int]]) -> None:
        """Room is given back in a thread."""
        while self.pending != pending:
            await asyncio.sleep(0.005)


@pytest.fixture
def boxed(store: SqliteStore) -> SqliteStore:
    """Boxes `userdata` of 10 MB and `archive`."""
    for name in ("userdata", "archive"):
        store.boxes.save(BoxRecord(APP, ComponentName(name), f"b-{name}", 10**7))
    store.boxes.record_access(StorageAccess(INTERNAL_URL, "", ROOT, ROOT_SECRET))
    return store


@asynccontextmanager
async def harness(
    store: SqliteStore,
    *handlers: Handler,
    timeout: float = 5.0,
    tls: tuple[Path, Path] | None = None,
) -> AsyncIterator[Scene]:
    shop = Shop()
    for bucket in ("b-userdata", "b-archive"):
        FakeObjects(shop.server).create_bucket(bucket)
    shop.put(AREA + "g/cat.png", CAT)

    def connect(access: StorageAccess) -> Objects:
        objects = LinkedObjects.of(access, shop.server)
        linked = LinkedObjects(shop.server, objects._name, objects._secret)
        linked.endpoint = url
        return linked

    trusted = ssl.create_default_context(cafile=str(tls[1])) if tls else None
    async with running(shop.serve, tls) as endpoint, components(handlers) as endpoints:
        url = f"{'https' if tls else 'http'}://{endpoint}"
        boxes = (ComponentName("userdata"), ComponentName("archive"))
        table = Router.build(1, [make_route(upstreams=endpoints, timeout=timeout, boxes=boxes)])
        target = next(iter(table.targets.values()))
        pool = ConnectionPool(1.0)
        forwarder = Forwarder(pool, lambda _: target, lambda _: None, NobodyWaits())
        client = StorageClient(store, connect)
        links = PresignedClient(1.0, trusted, SILENCE)
        made = CallFileStaging(FileLocations(store, client, 60.0), links, forwarder, max_json=10_000)
        try:
            yield Scene(made, forwarder, pool, target, store, shop)
        finally:
            made.close()
            client.close()
            pool.close()


@asynccontextmanager
async def components(handlers: tuple[Handler, ...]) -> AsyncIterator[tuple[str, ...]]:
    if not handlers:
        yield ()
        return
    async with component(handlers[0]) as endpoint, components(handlers[1:]) as others:
        yield (endpoint, *others)


@asynccontextmanager
async def running(handler: Handler, tls: tuple[Path, Path] | None) -> AsyncIterator[str]:
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls[0])
    async with component(handler, context) as endpoint:
        yield endpoint


def file(path: str = "g/cat.png", **members: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "FILE", "data": path, **members}


def framed(document: Any, *files: tuple[int, bytes], length: int = 0) -> bytes:
    """A component's reply with files behind it."""
    content = json.dumps(document).encode()
    ends = "".join(f"; {index}={len(data)}" for index, data in files)
    body = b"".join((content, *(data for _, data in files)))
    return response(
        body, "content-type: application/json", f"X-Prichal-Files: {length or len(content)}{ends}"
    )


class Echo:
    """A component that answers with files in the form that it got them."""

    def __init__(self, reply: bytes = b"") -> None:
        self.reply = reply
        self.seen: list[tuple[dict[str, str], bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, headers, body = await read_request(reader)
            self.seen.append((headers, body))
            writer.write(self.reply or response())
            await writer.drain()


def test_inputs_follow_the_json(boxed: SqliteStore) -> None:
    echo = Echo()

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            here.shop.put(AREA + "h/dog.png", b"dog", "b-archive")
            here.shop.put(AREA + "g/empty", b"")
            document = {"inputs": [file(), file("g/empty"), {"name": "n"}, file("h/dog.png", box="archive")]}
            content = json.dumps(document).encode()
            for _ in range(3):
                caller = await here.call(document)
                assert (caller.status, caller.body, caller.complete) == (200, b"ok", True)
                headers, body = echo.seen.pop()
                assert headers["x-prichal-files"] == f"{len(content)}; 0={len(CAT)}; 1=0; 3=3"
                assert body == content + CAT + b"dog"
            assert here.shop.connections == 3, "connections to the storage are used again"

    run(scenario())


def test_a_coded_request_is_read_and_passed_on_decoded(boxed: SqliteStore) -> None:
    async def scenario() -> None:
        echo = Echo()
        async with harness(boxed, echo) as it:
            document = json.dumps({"inputs": [file()]}).encode()
            lines = b"x-request-id: r1\r\ncontent-encoding: gzip\r\n"
            await it.call(gzip.compress(document), lines=lines)
            headers, body = echo.seen[0]
            assert "content-encoding" not in headers
            assert body == document + CAT

    run(scenario())


def test_the_caller_chooses_the_area(boxed: SqliteStore) -> None:
    echo = Echo()

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            here.shop.put("users/%anonymous/file_groups/g/x", b"anonymous")
            here.shop.put("users/b%C3%B6b/file_groups/g/x", b"b\xc3\xb6b's")
            await here.call({"inputs": [file("g/x")]}, user="")
            await here.call({"inputs": [file("g/x")]}, user="böb")
            assert [body.rpartition(b"}")[2] for _, body in echo.seen] == [b"anonymous", b"b\xc3\xb6b's"]
            problem = await here.refused({"inputs": [file("g/x")]}, user="ann")
            assert problem.kind is ProblemKind.INVALID

    run(scenario())


def test_a_request_without_files_passes_and_says_so(boxed: SqliteStore) -> None:
    echo = Echo()

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            caller = Caller(b'{"inputs": ', b"[]}")
            await here.call(b'{"inputs": []}', caller=caller)
            assert caller.body == b"ok"
            headers, body = echo.seen[0]
            assert (headers["x-prichal-files"], body) == ("14", b'{"inputs": []}')
            assert here.shop.requests == []

    run(scenario())


def test_all_that_is_not_there_is_told_before_the_component_is_asked(boxed: SqliteStore) -> None:
    echo = Echo()

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            problem = await here.refused({"inputs": [file("g/none"), file(), file("g/no", box="archive")]})
            assert (problem.kind, problem.extra["errors"]) == (
                ProblemKind.INVALID,
                [
                    {"pointer": "/inputs/0/data", "detail": "there is no file 'g/none' in box userdata"},
                    {"pointer": "/inputs/2/data", "detail": "there is no file 'g/no' in box archive"},
                ],
            )
            assert echo.seen == []

    run(scenario())


def test_outputs_are_stored_before_the_caller_hears_of_them(boxed: SqliteStore) -> None:
    outputs = [
        {"name": "mask", "datatype": "FILE", "data": "mask.png"},
        {"name": "label", "datatype": "str", "data": "cat"},
        {"name": "text", "datatype": "FILE", "data": "t", "content_type": "text/x-t"},
    ]
    echo = Echo(framed({"id": "7", "outputs": outputs}, (0, CAT), (2, b"")))

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            for _ in range(2):
                caller = await here.call({"inputs": []})
                assert json.loads(caller.body) == {
                    "id": "7",
                    "outputs": [
                        {**outputs[0], "data": "predictions/r1/mask.png", "content_type": "image/png"},
                        outputs[1],
                        {**outputs[2], "data": "predictions/r1/t"},
                    ],
                }
                assert int(caller.headers["content-length"]) == len(caller.body)
                assert "x-prichal-files" not in caller.headers
            assert here.shop.get(AREA + "predictions/r1/mask.png") == CAT
            assert here.shop.get(AREA + "predictions/r1/t") == b""
            types = [fields["content-type"] for _, fields in here.shop.requests]
            assert types == ["image/png", "text/x-t"] * 2
            assert sorted(here.pending) == [
                (AREA + "predictions/r1/mask.png", len(CAT)),
                (AREA + "predictions/r1/t", 0),
            ]

    run(scenario())


def test_the_caller_may_choose_where_an_output_lies(boxed: SqliteStore) -> None:
    echo = Echo(framed({"outputs": [{"name": "mask", "datatype": "FILE", "data": "m.png"}]}, (0, b"new")))
    request = {
        "inputs": [],
        "output_fields": [{"name": "mask", "datatype": "FILE", "data": "results/today/m.png"}],
    }

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            caller = await here.call(request)
            assert json.loads(caller.body)["outputs"][0]["data"] == "results/today/m.png"
            assert here.shop.get(AREA + "results/today/m.png") == b"new"
            for other in ("results/today", "results/today/m.png/x"):
                request["output_fields"] = [{"name": "mask", "data": other}]
                problem = await here.refused(request)
                assert problem.kind is ProblemKind.PATH_CONFLICT
            assert len(echo.seen) == 1, "told before the component has worked"

    run(scenario())


def test_a_group_that_is_being_published_is_neither_read_nor_written(boxed: SqliteStore) -> None:
    echo = Echo(framed({"outputs": [{"name": "mask", "datatype": "FILE", "data": "m.png"}]}, (0, b"new")))

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            with publishing(boxed, APP, "b-userdata", AREA + "g/"):
                for request in (
                    {"inputs": [file("g/cat.png")]},
                    {"inputs": [], "output_fields": [{"name": "mask", "data": "g/deep/m.png"}]},
                ):
                    problem = await here.refused(request)
                    assert problem.kind is ProblemKind.PUBLISHING
            assert echo.seen == []
            assert here.shop.requests == []

    run(scenario())


@pytest.mark.parametrize("size", [1, 1000, 2_000_000])
@pytest.mark.parametrize("before", ["the reply", "its last byte"])
def test_an_output_that_comes_when_a_run_has_begun_to_publish_there(
    boxed: SqliteStore, size: int, before: str
) -> None:
    outputs = [{"name": "mask", "datatype": "FILE", "data": "mask.png"}]
    whole = framed({"outputs": outputs}, (0, bytes(size)))
    request = {"inputs": [], "output_fields": [{"name": "mask", "data": "h/mask.png"}]}

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if before == "its last byte":
            writer.write(whole[:-1])
            await writer.drain()
            while not boxed.boxes.pending():
                await asyncio.sleep(0.005)
        with publishing(boxed, APP, "b-userdata", AREA + "h/"):
            writer.write(whole if before == "the reply" else whole[-1:])
            await writer.drain()
            await reader.read(-1)

    async def scenario() -> None:
        async with harness(boxed, slow) as here:
            problem = await here.refused(request)
            assert problem.kind is ProblemKind.PUBLISHING
            while any(key == f"{AREA}h/mask.png" for key, _ in here.pending):
                await asyncio.sleep(0.005)
            assert here.shop.get(AREA + "h/mask.png") is None

    run(scenario())


def test_what_does_not_fit_is_not_stored(boxed: SqliteStore) -> None:
    outputs = [{"name": name, "datatype": "FILE", "data": name} for name in ("small", "large")]
    echo = Echo(framed({"outputs": outputs}, (0, b"x"), (1, bytes(10**7))))

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            problem = await here.refused({"inputs": []})
            assert problem.kind is ProblemKind.BOX_FULL
            assert (problem.extra["capacity"], problem.extra["size"]) == (10**7, 10**7)
            assert here.shop.requests == []
            assert here.pending == [], "all or none"

    run(scenario())


# --- faults of the storage --------------------------------------------------------------------------------------


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return


def begin(size: int, then: Handler) -> Handler:
    """The first half of a file, then a fault."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size // 2))
        await writer.drain()
        await then(reader, writer)

    return handler


def answer(data: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return handler


@pytest.mark.parametrize(
    "fault",
    [
        stall, close, begin(1000, stall), begin(1000, close), begin(3_000_000, stall), begin(3_000_000, close),
        answer(response(status="503 Slow Down")), answer(b"no http\r\n\r\n"),
        answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    ],
)  # fmt: skip
def test_a_storage_that_fails_while_it_is_read_from_is_named(boxed: SqliteStore, fault: Handler) -> None:
    echo = Echo()

    async def scenario() -> None:
        async with harness(boxed, echo, timeout=10) as here:
            here.shop.faults["GET"] = fault
            problem = await here.refused({"inputs": [file()]})
            assert problem.kind is ProblemKind.STORAGE_UNREACHABLE
            assert problem.detail.startswith("File 'g/cat.png' of box userdata cannot be read")
            assert problem.retry_after
            assert echo.seen == []

    run(scenario())


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (stall, ProblemKind.STORAGE_UNREACHABLE),
        (close, ProblemKind.STORAGE_UNREACHABLE),
        (answer(response(b"StorageFull", "connection: close", status="507 x")), ProblemKind.STORAGE_FULL),
        (
            answer(response(b"StorageDenied", "connection: close", status="403 x")),
            ProblemKind.STORAGE_REFUSED,
        ),
        (answer(response(b"BucketMissing", "connection: close", status="404 x")), ProblemKind.BUCKET_MISSING),
    ],
)
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_storage_that_fails_while_it_is_written_to_is_named(
    boxed: SqliteStore, fault: Handler, kind: ProblemKind, size: int
) -> None:
    outputs = [{"name": name, "datatype": "FILE", "data": name} for name in ("mask", "other")]
    echo = Echo(framed({"outputs": outputs}, (0, bytes(size)), (1, b"x")))

    async def scenario() -> None:
        async with harness(boxed, echo, timeout=10) as here:
            here.shop.faults["PUT"] = fault
            problem = await here.refused({"inputs": []})
            assert problem.kind is kind
            assert problem.detail.startswith("Output 'mask' cannot be stored. ")
            await here.until(pending=[])

    run(scenario())


def test_a_storage_that_is_not_there(boxed: SqliteStore) -> None:
    async def scenario() -> None:
        async with harness(boxed, Echo()) as here:
            objects = here.staging._places._storage.objects()
            assert isinstance(objects, LinkedObjects)
            objects.endpoint = "http://127.0.0.1:1"
            problem = await here.refused({"inputs": [file()]})
            assert problem.kind is ProblemKind.STORAGE_UNREACHABLE

    run(scenario())


def test_a_kept_connection_that_the_storage_has_closed_is_replaced(boxed: SqliteStore) -> None:
    echo = Echo()

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            await here.call({"inputs": [file()]})
            here.shop.faults["GET"] = close  # the next request on the kept one
            call = asyncio.create_task(here.call({"inputs": [file()]}))
            while len(here.shop.requests) < 2:
                await asyncio.sleep(0)
            del here.shop.faults["GET"]
            await call
            assert len(echo.seen) == 2

    run(scenario())


@pytest.mark.parametrize("state", [BoxState.KEPT, None])
def test_a_box_that_is_not_there(boxed: SqliteStore, state: BoxState | None) -> None:
    record = boxed.boxes.get(AppName(APP), ComponentName("userdata"))
    assert record is not None
    if state is None:
        boxed.boxes.forget(record.bucket)
    else:
        boxed.boxes.save(replace(record, state=state))

    async def scenario() -> None:
        async with harness(boxed, Echo()) as here:
            problem = await here.refused({"inputs": [file()]})
            assert problem.kind is ProblemKind.BUCKET_MISSING

    run(scenario())


def test_the_storage_may_be_behind_tls(boxed: SqliteStore, tmp_path: Path) -> None:
    outputs = [{"name": "mask", "datatype": "FILE", "data": "mask.png"}]
    echo = Echo(framed({"outputs": outputs}, (0, CAT)))

    async def scenario() -> None:
        async with harness(boxed, echo, tls=make_certificate(tmp_path)) as here:
            await here.call({"inputs": [file()]})
            assert echo.seen[0][1].endswith(CAT)
            assert here.shop.get(AREA + "predictions/r1/mask.png") == CAT

    run(scenario())


# --- faults of the component ------------------------------------------------------------------------------------


async def read_head(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")


def test_a_component_that_answers_early_is_heard(boxed: SqliteStore) -> None:
    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(response(b"later", "retry-after: 1", status="503 x"))
        await writer.drain()
        await reader.read(-1)

    async def scenario() -> None:
        async with harness(boxed, busy) as here:
            here.shop.put(AREA + "g/large", bytes(50_000_000))
            caller = await here.call({"inputs": [file("g/large")]})
            assert (caller.status, caller.body) == (503, b"later")

    run(scenario())


def test_a_component_that_does_not_read_is_named(boxed: SqliteStore) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with harness(boxed, deaf, timeout=SILENCE / 3) as here:
            here.shop.put(AREA + "g/large", bytes(50_000_000))
            problem = await here.refused({"inputs": [file("g/large")]})
            assert problem.kind is ProblemKind.UPSTREAM_TIMEOUT

    run(scenario())


def test_the_components_time_is_not_spent_on_the_way(boxed: SqliteStore) -> None:
    """The storage takes longer than the component has."""
    echo = Echo()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")
        for _ in range(6):
            await asyncio.sleep(SILENCE / 3)
            writer.write(b"x")

    async def scenario() -> None:
        async with harness(boxed, echo, timeout=SILENCE / 2) as here:
            here.shop.faults["GET"] = slow
            caller = await here.call({"inputs": [file()]})
            assert caller.status == 200

    run(scenario())


def test_bytes_that_flowed_are_not_sent_to_another_replica(boxed: SqliteStore) -> None:
    other = Echo()

    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await reader.readexactly(100_000)

    async def scenario() -> None:
        async with harness(boxed, dying) as here, component(other) as endpoint:
            route = here.target.route
            object.__setattr__(route, "upstreams", (*route.upstreams, endpoint))
            here.pool.enter(endpoint)  # busy: the other one is chosen first
            with pytest.raises(RequestRefused) as caught:
                await here.staging.forward(*call_of(here, {"inputs": [file()]}))
            assert caught.value.problem.kind is ProblemKind.UPSTREAM_DIED
            assert other.seen == []

    run(scenario())


def test_a_replica_that_takes_no_connection_is_passed_over(boxed: SqliteStore) -> None:
    other = Echo()

    async def scenario() -> None:
        async with harness(boxed) as here, component(other) as endpoint:
            object.__setattr__(here.target.route, "upstreams", ("127.0.0.1:1", endpoint))
            here.pool.enter(endpoint)
            await here.staging.forward(*call_of(here, {"inputs": [file()]}))
            assert other.seen[0][1].endswith(CAT)
            assert len(here.shop.requests) == 1

    run(scenario())


def call_of(here: Scene, document: Any) -> tuple[ForwardedCall, str, RequestBody, Any, ResponseState]:
    caller = Caller(json.dumps(document).encode())
    special = {b"content-length": b"%d" % len(caller._parts[0])}
    body = RequestBody(IncomingBody(caller.receive, special), special, 10**6)
    body.head, incoming = caller._parts[0], body._incoming
    incoming._more = False
    call = ForwardedCall(here.target, "POST", b"/predict", b"", b"r1")
    return call, "ann", body, caller.send, ResponseState()


@pytest.mark.parametrize(
    "reply",
    [
        response(b"{}", "x-prichal-files: x"),
        response(b"{}", "x-prichal-files: 2; 0=1"),
        response(b"{x", "x-prichal-files: 2; 0=0"),
        response(b'{"outputs":[]}', "x-prichal-files: 14; 0=0"),
        response(bytes(20_000), "x-prichal-files: 20000; 0=0"),
        response(b"{", "x-prichal-files: 2; 0=1"),
    ],
)
def test_a_reply_whose_files_do_not_fit_is_no_answer(boxed: SqliteStore, reply: bytes) -> None:
    async def scenario() -> None:
        async with harness(boxed, Echo(reply)) as here:
            problem = await here.refused({"inputs": []})
            assert problem.kind is ProblemKind.UPSTREAM_GARBAGE
            assert here.pending == []

    run(scenario())


@pytest.mark.parametrize("rest", [b"", bytes(1_000_000)])
def test_a_component_that_ends_in_the_middle_of_an_output(boxed: SqliteStore, rest: bytes) -> None:
    outputs = [{"name": "mask", "datatype": "FILE", "data": "mask.png"}]
    whole = framed({"outputs": outputs}, (0, bytes(2_000_000)))

    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(whole[: len(whole) - 2_000_000] + rest)
        await writer.drain()

    async def scenario() -> None:
        async with harness(boxed, dying) as here:
            problem = await here.refused({"inputs": []})
            assert problem.kind is ProblemKind.UPSTREAM_DIED
            await here.until(pending=[])
            assert here.shop.get(AREA + "predictions/r1/mask.png") is None, "nothing is torn"

    run(scenario())


def test_a_component_that_stalls_in_the_middle_of_an_output_is_named(boxed: SqliteStore) -> None:
    outputs = [{"name": "mask", "datatype": "FILE", "data": "mask.png"}]
    whole = framed({"outputs": outputs}, (0, bytes(2_000_000)))

    async def stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(whole[:-1])
        await reader.read(-1)

    async def scenario() -> None:
        async with harness(boxed, stalling, timeout=0.1) as here:
            problem = await here.refused({"inputs": []})
            assert problem.kind is ProblemKind.UPSTREAM_TIMEOUT

    run(scenario())


# --- callers ----------------------------------------------------------------------------------------------------


def test_a_caller_who_leaves_ends_it_all(boxed: SqliteStore) -> None:
    ended: list[str] = []

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n" + bytes(1_000_000))
        await reader.read(-1)
        ended.append("storage")

    async def reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        while await reader.read(100_000):
            arrived.set()
        ended.append("component")

    arrived = asyncio.Event()

    async def scenario() -> None:
        async with harness(boxed, reading) as here:
            here.shop.faults["GET"] = endless
            call = asyncio.create_task(here.call({"inputs": [file()]}))
            await arrived.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            while sorted(ended) != ["component", "storage"]:
                await asyncio.sleep(0.005)

    run(scenario())


def test_a_caller_who_leaves_while_an_output_is_stored_gives_back_the_room(boxed: SqliteStore) -> None:
    outputs = [{"name": "mask", "datatype": "FILE", "data": "mask.png"}]
    echo = Echo(framed({"outputs": outputs}, (0, CAT)))
    begun = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            here.shop.faults["PUT"] = slow
            call = asyncio.create_task(here.call({"inputs": []}))
            await begun.wait()
            assert here.pending == [(AREA + "predictions/r1/mask.png", len(CAT))]
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await here.until(pending=[])

    run(scenario())


def test_requests_that_are_held_are_limited(boxed: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "HELD", 100)

    async def scenario() -> None:
        async with harness(boxed, Echo()) as here:
            caller = Caller(b"x" * 60, b"x" * 60)
            with pytest.raises(RequestRefused) as caught:
                await here.call(b"x" * 120, caller=caller)
            assert caught.value.problem.kind is ProblemKind.OVERLOADED
            assert (await here.call(b"x" * 90)).status == 200, "what was held is let go of"

    run(scenario())


def test_odd_names_reach_the_storage(boxed: SqliteStore) -> None:
    echo = Echo()
    name = "g/файл #?+%&= 1.txt"

    async def scenario() -> None:
        async with harness(boxed, echo) as here:
            here.shop.put(AREA + name, b"odd")
            await here.call({"inputs": [file(name)]})
            assert echo.seen[0][1].endswith(b"odd")
            assert quote(name) not in here.shop.requests[0][0]

    run(scenario())
