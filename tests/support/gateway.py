"""Routes, and both ends of a forwarded call: a component on a real socket, and a caller that exchanges ASGI
messages."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop

from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Api, Route, Service, ServiceKind
from controller.store import SqliteStore
from controller.store.request_metrics import RequestMetrics
from controller.web.gateway.activator import Activator
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.router import UpstreamTarget
from controller.web.gateway.watch import RouteWatch

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

APP = AppName("demo")


def make_api(path: str = "image", **fields: Any) -> Api:
    return Api(**{"path": path, "name": ComponentName("api"), "published": True, **fields})


def make_route(*apis: Api, **fields: Any) -> Route:
    known = {
        "app": APP,
        "component": ComponentName("classify"),
        "fingerprint": "1:aaaa",
        "revision": "c0ffee",
        "upstreams": ("127.0.0.1:1",),
        "apis": apis or (make_api(),),
    }
    return Route(**{**known, **fields})


def make_service(
    path: str = "files",
    kind: ServiceKind = ServiceKind.FILES,
    developers: tuple[str, ...] = (),
    **fields: Any,
) -> Service:
    """`fields` are those of its API."""
    return Service(APP, make_api(path, **fields), kind, developers)


class Caller:
    """The ASGI side: `parts` are what `receive` gives, then the caller waits, or leaves if `leaves` is set."""

    def __init__(self, *parts: bytes, leaves: bool = False) -> None:
        self._parts = list(parts)
        self._leaves = leaves
        self.messages: list[MutableMapping[str, Any]] = []
        self.started = asyncio.Event()
        self.got_part = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()

    async def receive(self) -> dict[str, Any]:
        if self._parts:
            part = self._parts.pop(0)
            more = bool(self._parts) or self._leaves
            return {"type": "http.request", "body": part, "more_body": more}
        if self._leaves:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self.reads.wait()
        self.messages.append(message)
        (self.started if message["type"] == "http.response.start" else self.got_part).set()

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def complete(self) -> bool:
        return bool(self.messages) and not self.messages[-1].get("more_body", True)


@asynccontextmanager
async def component(handler: Handler, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[str]:
    """A server on loopback whose connections `handler` plays; gives its endpoint."""
    tasks: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", port, ssl=tls)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Request line, header fields, body; what a component sees."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    if "content-length" in headers:
        return head[0], headers, await reader.readexactly(int(headers["content-length"]))
    body = b""
    while headers.get("transfer-encoding") == "chunked":
        size = int(await reader.readline(), 16)
        body += (await reader.readexactly(size + 2))[:-2]
        if not size:
            break
    return head[0], headers, body


def response(body: bytes = b"ok", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class NobodyWaits:
    """The port `WaitingCalls` for components that take calls."""

    async def wake(self, target: UpstreamTarget) -> None:
        raise AssertionError(f"{target.label} is not asleep")

    def is_healing(self, target: UpstreamTarget) -> bool:
        return False

    async def heal(self, target: UpstreamTarget, deadline: float, why: str) -> None:
        raise AssertionError(f"{target.label} is not waited for")


class GatewayWorker:
    """The parts of a gateway worker in which calls wait."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.pool = ConnectionPool(1.0)
        self.watch = RouteWatch(store, self.pool)
        self.meter = RequestMetrics()
        self.activator = Activator(store, self.watch, self.pool, self.meter)

    @property
    def target(self) -> UpstreamTarget:
        return next(iter(self.watch.table.targets.values()))


W = TypeVar("W", bound=GatewayWorker)


def run_worker(
    scenario: Callable[[W], Coroutine[Any, Any, None]], kind: Callable[[SqliteStore], W], store: SqliteStore
) -> None:
    async def bounded() -> None:
        worker = kind(store)
        async with asyncio.timeout(20):
            await worker.watch.start()
            try:
                await scenario(worker)
            finally:
                await worker.watch.stop()
                await worker.activator.stop()
                worker.pool.close()

    uvloop.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)
