"""Open sockets follow the route table, and their callers are checked again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import wraps
from typing import Any

import pytest

from controller.domain.names import AppName
from controller.domain.routing.passwords import hash_token
from controller.domain.routing.routes import Route
from controller.domain.routing.sockets import CLOSING, GONE_DRAIN, RECHECK, CloseCode, open_for
from controller.store.request_metrics import RequestMetrics
from controller.web.gateway.router import Router, UpstreamTarget
from controller.web.gateway.sockets import OpenSocket, OpenSockets
from controller.web.gateway.tunnel import SocketEnd, Tunnel
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from tests.support.gateway import make_api, make_route, until

OLD, NEW = "10.0.0.1:80", "10.0.0.2:80"
OPEN = make_api("image")
CLOSED = make_api("closed", tokens=(("ci", hash_token("t0ken")),))
ISSUED = make_api("issued", oidc_issuer="https://issuer.example.org")


def serving(*upstreams: str, drain: float = 0.2, **fields: Any) -> Route:
    return make_route(OPEN, CLOSED, ISSUED, any_path=True, upstreams=upstreams, drain=drain, **fields)


class PlayedTunnel(Tunnel):
    """Ends as soon as it is closed."""

    def close(self, code: CloseCode, reason: str) -> None:
        if not self.ended.done():
            self.code = code
            self.ended.set_result(SocketEnd.GATEWAY)


class Worker:
    """`verdict` is what becomes of callers who are checked: a name, or a problem."""

    def __init__(self, *routes: Route) -> None:
        self.table = Router.build(1, routes)
        self.meter = RequestMetrics()
        self.sockets = OpenSockets(self.resolve, self.meter)
        self.verdict: str | HttpProblem | Exception = "ci"
        self.checked: list[str] = []

    def resolve(self, target: UpstreamTarget) -> UpstreamTarget | None:
        _, app, path = target.prefix.split(b"/")
        return self.table.targets.get((app, path))

    def load(self, *routes: Route) -> None:
        self.table = Router.build(self.table.version + 1, routes)
        self.sockets.follow(self.table)

    async def admit(self, target: UpstreamTarget) -> str:
        self.checked.append(target.label)
        if isinstance(self.verdict, HttpProblem):
            raise RequestRefused(self.verdict)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def open(self, path: str = "image", expires: bool = False) -> OpenSocket:
        loop = asyncio.get_running_loop()
        target = self.table.targets[b"demo", path.encode()]
        now = loop.time()
        new = OpenSocket(
            target, OLD, b"r1", "ci", self.admit, expires, PlayedTunnel(loop), now, now, target.credentials
        )
        self.holding = loop.create_task(self.sockets.hold(new, self.table))
        return new


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    async def bounded(*args: object, **kwargs: object) -> None:
        async with asyncio.timeout(20):
            await test(*args, **kwargs)

    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(bounded(*args, **kwargs))

    return run


async def turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def code(socket: OpenSocket) -> CloseCode | None:
    return socket.tunnel.code if socket.tunnel.ended.done() else None


# --- when ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drain", [0.0, 0.5, 2.0, 4.0, 30.0, 3600.0])
def test_a_socket_ends_before_its_container(drain: float) -> None:
    assert 0 <= open_for(drain) <= drain
    assert drain - open_for(drain) == min(CLOSING, drain / 2)


# --- where traffic goes -------------------------------------------------------------------------------------------


@in_loop
async def test_a_rollout_closes_after_the_drain_time() -> None:
    worker = Worker(serving(OLD))
    socket = worker.open()
    await turn()
    worker.load(serving(NEW))
    assert code(socket) is None
    await worker.holding
    assert code(socket) is CloseCode.SERVICE_RESTART


@in_loop
async def test_a_table_that_changed_during_the_handshake() -> None:
    worker = Worker(serving(OLD))
    socket = worker.open()
    worker.load(serving(NEW))  # before the socket is held
    await worker.holding
    assert code(socket) is CloseCode.SERVICE_RESTART


@in_loop
async def test_a_container_that_comes_back_keeps_its_sockets() -> None:
    worker = Worker(serving(OLD))
    socket = worker.open()
    await turn()
    worker.load(serving(drain=3600.0))
    assert socket.leaves is not None
    when = socket.leaves.when()
    worker.load(serving(NEW, drain=3600.0))
    assert socket.leaves.when() == pytest.approx(when), "another table does not prolong it"
    worker.load(serving(NEW, drain=1800.0))
    assert socket.leaves.when() == pytest.approx(when - 1800.0), (
        "another drain time counts from the same moment"
    )
    leaving = socket.leaves
    worker.load(serving(OLD, NEW))
    assert leaving.cancelled()
    worker.sockets.begin_stop()
    await worker.holding


@in_loop
async def test_a_removed_component_has_the_time_of_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.web.gateway.sockets.GONE_DRAIN", 0.1)
    worker = Worker(serving(OLD, drain=3600.0))
    socket = worker.open()
    await turn()
    worker.load()
    assert code(socket) is None
    await worker.holding
    assert code(socket) is CloseCode.GOING_AWAY
    assert GONE_DRAIN == 30.0


@in_loop
async def test_an_api_that_is_not_published_any_more_closes_at_once() -> None:
    worker = Worker(serving(OLD))
    socket = worker.open()
    await turn()
    worker.load(replace(serving(OLD), apis=(replace(OPEN, published=False), CLOSED)))
    await worker.holding
    assert code(socket) is CloseCode.POLICY


@in_loop
async def test_a_worker_that_stops_closes_all_and_opens_none() -> None:
    worker = Worker(serving(OLD))
    first = worker.open()
    holding = worker.holding
    await turn()
    worker.sockets.begin_stop()
    second = worker.open()
    await asyncio.gather(holding, worker.holding)
    assert code(first) is code(second) is CloseCode.SERVICE_RESTART


# --- who may use it -------------------------------------------------------------------------------------------------

REVOKED = HttpProblem(ProblemKind.UNAUTHORIZED, "wrong")
UNREACHABLE = HttpProblem(ProblemKind.ISSUER, "it does not answer")


def changed(route: Route) -> Route:
    """With another list of tokens."""
    return replace(route, apis=(OPEN, replace(CLOSED, tokens=(("ci", hash_token("another")),)), ISSUED))


@in_loop
async def test_a_change_of_the_rules_checks_the_caller_at_once() -> None:
    worker = Worker(serving(OLD))
    socket, other = worker.open("closed"), worker.open("image")
    await turn()
    worker.load(changed(serving(OLD)))
    await turn()
    assert worker.checked == ["demo/closed"]
    assert code(socket) is None
    worker.sockets.look()
    await turn()
    assert worker.checked == ["demo/closed"], "the verdict holds until the rules change again"
    worker.verdict = REVOKED
    worker.load(serving(OLD))
    await until(lambda: code(socket) is CloseCode.POLICY)
    assert code(other) is None
    worker.sockets.begin_stop()


@pytest.mark.parametrize(
    "verdict", [REVOKED, HttpProblem(ProblemKind.CLAIMS, "not this one"), "somebody else"]
)
def test_callers_who_may_not_use_it_any_more(verdict: str | HttpProblem) -> None:
    async def scenario() -> None:
        worker = Worker(serving(OLD))
        socket = worker.open("closed")
        await turn()
        worker.verdict = verdict
        worker.load(changed(serving(OLD)))
        await until(lambda: code(socket) is CloseCode.POLICY)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "verdict", [UNREACHABLE, HttpProblem(ProblemKind.OVERLOADED, "later"), OSError("a bug")]
)
def test_what_is_no_verdict_is_asked_again(verdict: HttpProblem | Exception) -> None:
    async def scenario() -> None:
        worker = Worker(serving(OLD))
        socket = worker.open("closed")
        await turn()
        worker.verdict = verdict
        worker.load(changed(serving(OLD)))
        for count in (1, 2, 3):
            await turn()
            assert (len(worker.checked), code(socket)) == (count, None)
            worker.sockets.look()
        worker.verdict = REVOKED
        worker.sockets.look()
        await turn()
        worker.sockets.look()
        await until(lambda: code(socket) is CloseCode.POLICY)

    asyncio.run(scenario())


@in_loop
async def test_credentials_that_expire_are_checked_from_time_to_time() -> None:
    worker = Worker(serving(OLD))
    socket, lasting = worker.open("issued", expires=True), worker.open("closed")
    await turn()
    worker.sockets.look()
    await turn()
    assert worker.checked == []
    for each in (socket, lasting):
        each.checked -= RECHECK
    worker.sockets.look()
    await turn()
    assert worker.checked == ["demo/issued"]
    worker.verdict = REVOKED
    worker.sockets.look()
    await turn()
    assert code(socket) is None
    socket.checked -= RECHECK
    worker.sockets.look()
    await until(lambda: code(socket) is CloseCode.POLICY)
    assert code(lasting) is None
    worker.sockets.begin_stop()


@in_loop
async def test_an_issuer_that_hangs_delays_no_other_app() -> None:
    other = replace(serving("10.0.0.9:80"), app=AppName("other"))
    worker = Worker(serving(OLD), other)
    hanging = asyncio.Event()

    async def hang(target: UpstreamTarget) -> str:
        await hanging.wait()
        return "ci"

    socket = worker.open("closed")
    socket.admit = hang
    target = worker.table.targets[b"other", b"closed"]
    await turn()
    worker.sockets._open.add(
        found := replace(
            socket,
            target=target,
            endpoint="10.0.0.9:80",
            admit=worker.admit,
            tunnel=PlayedTunnel(asyncio.get_running_loop()),
        )
    )
    worker.verdict = REVOKED
    worker.load(changed(serving(OLD)), changed(other))
    await until(lambda: code(found) is CloseCode.POLICY)
    assert code(socket) is None
    worker.sockets.stop()
    worker.sockets.begin_stop()


# --- counts ---------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_socket_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    worker = Worker(serving(OLD))
    socket = worker.open()
    await turn()
    assert worker.meter.sockets == {"demo/image": 1}
    socket.tunnel.received, socket.tunnel.sent = 10, 20
    worker.sockets.look()
    assert worker.meter.bytes == {("demo/image", "received"): 10, ("demo/image", "sent"): 20}
    socket.tunnel.sent = 50
    worker.sockets.begin_stop()
    await worker.holding
    assert worker.meter.bytes == {("demo/image", "received"): 10, ("demo/image", "sent"): 50}
    assert worker.meter.sockets == {"demo/image": 0}
    assert worker.meter.ended == {("demo/image", "gateway"): 1}
    (record,) = [record for record in caplog.records if record.message == "a WebSocket ended"]
    told = vars(record)
    assert (told["request"], told["api"], told["end"], told["code"]) == ("r1", "demo/image", "gateway", 1012)
    assert (told["received"], told["sent"]) == (10, 50)


@in_loop
async def test_a_caller_who_leaves_is_counted() -> None:
    worker = Worker(serving(OLD))
    worker.open()
    await turn()
    worker.holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker.holding
    assert worker.meter.ended == {("demo/image", "caller"): 1}
    worker.sockets.begin_stop()
