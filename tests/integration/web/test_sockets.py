"""WebSockets through a real gunicorn, with a client and a server of the `websockets` library."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from controller.domain.apps.spec import CorsSpec
from controller.domain.names import AppName
from controller.domain.routing.passwords import hash_token
from controller.domain.routing.routes import Route
from tests.support.gateway import make_api
from tests.support.serve_web import settings_of, with_web
from tests.support.socket_server import SocketComponent
from tests.support.stores import open_store
from tests.support.waiting import wait_for

from .conftest import ROOT, Web, demo_route, echo, serving

ANN = "Basic " + b64encode(b"ann:s3cret").decode()
EACH = 20  # sockets of one app in one worker
PAGE = "https://app.example.org"
LISTED = CorsSpec((PAGE,), credentials=False, max_age=600)
TRUSTED = replace(LISTED, credentials=True)
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    state = tmp_path_factory.mktemp("state")
    with_web(state, sockets_per_app=EACH)
    with closing(open_store(settings_of(state).database)) as store, echo("first") as component:
        store.routes.switch(demo_route(component.endpoint))
        with serving(state, store, component) as running:
            yield running


@pytest.fixture
def component(web: Web) -> Iterator[SocketComponent]:
    """It is in service when the test begins."""
    made = SocketComponent()
    made.start()
    web.put(route(made))
    yield made
    made.stop()


def route(component: SocketComponent, **fields: Any) -> Route:
    made = demo_route(component.endpoint, **{"drain": 30.0, **fields})
    more = (make_api("listed", cors=LISTED), make_api("trusted", cors=TRUSTED, users=made.apis[1].users))
    return replace(made, apis=(*made.apis, *more))


@contextmanager
def opened(web: Web, path: str, origin: str | None = None, **options: Any) -> Iterator[ClientConnection]:
    url = "ws://{}:{}".format(*web.address) + path
    with connect(url, origin=origin, max_size=None, open_timeout=60, **options) as client:  # type: ignore[arg-type]
        yield client


def refused(web: Web, path: str, origin: str | None = None, **options: Any) -> tuple[int, str]:
    """The status and the problem of a handshake that fails."""
    with pytest.raises(InvalidStatus) as error, opened(web, path, origin, **options):
        raise AssertionError("it was opened")
    response = error.value.response
    found = re.search(rb'"type": "urn:prichal:problem:([a-z-]+)"', response.body or b"")
    return response.status_code, found[1].decode() if found else ""


def told(client: ClientConnection) -> Any:
    """The header of the answer to the handshake."""
    assert client.response is not None
    return client.response.headers


def closed(client: ClientConnection) -> int | None:
    """The code of the close frame that comes next."""
    with pytest.raises(ConnectionClosed):
        while True:
            client.recv(timeout=60)
    return client.close_code


# --- what passes ------------------------------------------------------------------------------------------------


def test_a_socket_passes_as_it_is(web: Web, component: SocketComponent) -> None:
    with opened(
        web, "/demo/open/echo/a?b=c", subprotocols=["other", "chat"], user_agent_header="test"
    ) as client:
        assert client.subprotocol == "chat"
        assert "permessage-deflate" in told(client)["Sec-WebSocket-Extensions"]
        assert told(client)["Server"] == "prichal"
        for message in ("", "hello", "é" * 5000, b"\x00" * 100_000, os.urandom(300_000)):
            client.send(message)
            assert client.recv() == message
        client.send(["a", "fragmented", " message"])
        assert client.recv() == "afragmented message"
        assert client.ping().wait(30)
    assert client.close_code == 1000
    wait_for(lambda: component.ends == [1000])
    (seen,) = component.seen
    host = "{}:{}".format(*web.address)
    assert (seen["path"], seen["host"], seen["user-agent"]) == ("/echo/a?b=c", host, "test")
    assert (seen["x-forwarded-for"], seen["x-forwarded-host"]) == ("127.0.0.1", host)
    assert (seen["x-forwarded-prefix"], seen["x-forwarded-proto"]) == ("/demo/open", "http")
    assert (seen["connection"], seen["upgrade"]) == ("Upgrade", "websocket")
    assert seen["x-request-id"] == told(client)["X-Request-ID"]


def test_a_component_closes_with_its_own_code(web: Web, component: SocketComponent) -> None:
    with opened(web, "/demo/open/bye") as client:
        assert closed(client) == 4000
        assert client.close_reason == "that is all"


def test_thousands_of_small_frames_keep_their_order(web: Web, component: SocketComponent) -> None:
    with opened(web, "/demo/open/echo", compression=None) as client, ThreadPoolExecutor(1) as threads:
        sent = [str(number) for number in range(5000)]
        sending = threads.submit(lambda: list(map(client.send, sent)))
        assert [client.recv() for _ in sent] == sent
        sending.result()


# --- who may open one -------------------------------------------------------------------------------------------


def test_access_rules_are_those_of_calls(web: Web, component: SocketComponent) -> None:
    assert refused(web, "/demo/closed/echo") == (401, "unauthorized")
    assert refused(web, "/demo/closed/echo", additional_headers={"Authorization": "Bearer wrong"})[0] == 401
    assert refused(web, "/demo/hidden/echo") == (404, "not-found")
    assert component.seen == []
    for authorization, user in ((ANN, "ann"), ("Bearer t0ken", "ci")):
        with opened(web, "/demo/closed/echo", additional_headers={"Authorization": authorization}) as client:
            client.send("hello")
            assert client.recv() == "hello"
        seen = component.seen.pop()
        assert (seen["x-forwarded-user"], seen.get("authorization")) == (user, None)


def test_pages_of_other_origins(web: Web, component: SocketComponent) -> None:
    own = "http://{}:{}".format(*web.address)
    cookie = {"Cookie": "sid=1"}
    assert refused(web, "/demo/open/echo", "https://evil.example.org") == (403, "origin-refused")
    assert refused(web, "/demo/open/echo", "null") == (403, "origin-refused")
    assert refused(web, "/demo/listed/echo", "https://evil.example.org") == (403, "origin-refused")
    assert component.seen == []
    for path, origin, sent in (
        ("/demo/open/echo", own, "sid=1"),
        ("/demo/open/echo", None, "sid=1"),
        ("/demo/listed/echo", PAGE, None),
    ):
        with opened(web, path, origin, additional_headers=cookie):
            assert component.seen.pop().get("cookie") == sent
    # A page that may send no credentials gets nowhere with those that its browser adds.
    with opened(web, "/demo/trusted/echo", PAGE, additional_headers={"Authorization": ANN, **cookie}):
        assert component.seen.pop()["cookie"] == "sid=1"
    web.put(replace(route(component), apis=(replace(route(component).apis[1], cors=LISTED),)))
    assert refused(web, "/demo/closed/echo", PAGE, additional_headers={"Authorization": ANN}) == (
        401,
        "unauthorized",
    )
    with opened(web, "/demo/closed/echo", PAGE, additional_headers={"Authorization": "Bearer t0ken"}):
        pass


def test_an_app_has_a_share_of_sockets(web: Web, component: SocketComponent) -> None:
    """Each worker has its own; others are refused until one is closed."""
    with ExitStack() as clients:
        count = 0
        with pytest.raises(InvalidStatus) as error:
            while True:
                clients.enter_context(opened(web, "/demo/open/echo"))
                count += 1
        assert error.value.response.status_code == 503
        assert EACH <= count <= 2 * EACH
        assert web.ask("GET", "/demo/listed/refuse").status == 403, "calls have another share"
    wait_for(lambda: gauge(web, "prichal_gateway_websockets", "demo/open") == 0)
    with opened(web, "/demo/open/echo"):
        wait_for(lambda: gauge(web, "prichal_gateway_websockets", "demo/open") == 1)


# --- what is refused --------------------------------------------------------------------------------------------


def test_a_component_without_sockets_says_so(web: Web, component: SocketComponent) -> None:
    web.put(route(component, any_path=False))
    for path in ("/demo/open/predict", "/demo/closed/v2"):
        assert refused(web, path) == (400, "no-websockets")
    assert refused(web, "/-/status") == (400, "no-websockets")


def test_other_upgrades_are_answered_by_http(web: Web) -> None:
    web.put(demo_route(web.component.endpoint))
    for upgrade in ("h2c", "TLS/1.3", "h2c, spdy"):
        reply = web.ask(
            "GET", "/demo/open/x", upgrade=upgrade, connection="Upgrade, HTTP2-Settings", http2_settings="AA"
        )
        seen = {name.lower() for name in reply.json["headers"]}
        assert (reply.status, seen & {"upgrade", "connection", "http2-settings"}) == (200, set())
    reply = web.ask("GET", "/demo/open/x", upgrade="websocket")
    assert reply.status == 200, "the field is not named in Connection"


def test_a_component_may_answer_by_http(web: Web, component: SocketComponent) -> None:
    """The connection stays one of HTTP, and what follows on it is another request."""
    second = "GET /demo/nothing/here HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    replies = web.raw((HANDSHAKE.format(path="/demo/open/refuse") + "\r\n" + second).encode())
    assert re.findall(rb"HTTP/1.1 (\d+)", replies) == [b"403", b"404"]
    assert b"not here" in replies
    assert [seen["path"] for seen in component.seen] == ["/refuse"]


@pytest.mark.parametrize(
    ("lines", "status", "problem"),
    [
        ("Content-Length: 5\r\n\r\nhello", 400, "websocket-handshake"),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400, "websocket-handshake"),
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 400, "websocket-handshake"),
        ("Sec-WebSocket-Version: 8\r\n\r\n", 426, "websocket-version"),
    ],
)
def test_handshakes_that_are_refused(
    web: Web, component: SocketComponent, lines: str, status: int, problem: str
) -> None:
    second = "GET /demo/nothing/here HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    replies = web.raw((HANDSHAKE.format(path="/demo/open/echo") + lines + second).encode())
    assert replies.startswith(f"HTTP/1.1 {status} ".encode())
    assert problem.encode() in replies
    assert component.seen == []
    if status == 426:
        assert b"sec-websocket-version: 13\r\n" in replies.lower()


ANSWERS = {
    "another accept": "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: AAAA\r\n",
    "none": "upgrade: websocket\r\nconnection: Upgrade\r\n",
    "another protocol": "upgrade: h2c\r\nconnection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    "no upgrade": "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_component_that_accepts_something_else(web: Web, answer: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:

        def play() -> None:
            with server.accept()[0] as client:
                client.recv(65536)
                client.sendall(f"HTTP/1.1 101 Switching Protocols\r\n{answer}\r\nSECRET".encode())
                client.recv(1)

        playing = threads.submit(play)
        web.put(demo_route(f"127.0.0.1:{server.getsockname()[1]}"))
        replies = web.raw((HANDSHAKE.format(path="/demo/open/x") + "Connection: close\r\n\r\n").encode())
        assert replies.startswith(b"HTTP/1.1 502 ")
        assert b"SECRET" not in replies
        playing.result()


# --- slow ends --------------------------------------------------------------------------------------------------


def memory(web: Web) -> int:
    """Bytes of all workers."""
    pages = (int(Path(f"/proc/{worker}/statm").read_text().split()[1]) for worker in web.workers())
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def settled(amount: Any) -> int:
    """The amount once it does not grow any more."""
    last = [-1, 0]

    def stands() -> bool:
        last[:] = [amount(), last[1] + 1 if amount() == last[0] else 0]
        return last[1] > 20

    wait_for(stands)
    return int(last[0])


def test_a_caller_who_does_not_read_keeps_the_component_waiting(web: Web, component: SocketComponent) -> None:
    before = memory(web)
    with opened(web, "/demo/open/flood", compression=None, max_queue=1) as client:
        sent = settled(lambda: component.sent)
        assert 0 < sent < 64 * 2**20, "buffers of three processes and their kernels"
        assert memory(web) - before < 16 * 2**20
        read = 0
        while read <= sent + 2**20:
            message = client.recv(timeout=60)
            assert set(message) == {ord("x")}
            read += len(message)
        assert component.sent > sent


def test_a_component_that_does_not_read_keeps_the_caller_waiting(
    web: Web, component: SocketComponent
) -> None:
    sent = [0]
    before = memory(web)
    with opened(web, "/demo/open/count", compression=None) as client, ThreadPoolExecutor(1) as threads:

        def send() -> None:
            while sent[0] < 200 * 2**20 and not component.reads.is_set():
                client.send(b"y" * 2**16)
                sent[0] += 2**16

        sending = threads.submit(send)
        assert settled(lambda: sent[0]) < 64 * 2**20
        assert memory(web) - before < 16 * 2**20
        component.reads.set()
        sending.result()
        wait_for(lambda: component.counted == sent[0])


# --- ends -------------------------------------------------------------------------------------------------------


def is_busy(web: Web, endpoint: str) -> bool:
    return not web.store.gateways.drained(endpoint, 0, time.time())


def expect_ends(component: SocketComponent, *codes: int) -> None:
    """Wait until the component's connections have ended, with the codes that their callers got. The gateway waits for a
    caller's answer for 1.5 s (`tunnel.HANDSHAKE`), which a busy machine may need: without it the code is 1006."""
    wait_for(lambda: len(component.ends) == len(codes))
    assert set(component.ends) <= {*codes, 1006}, component.ends


def test_a_rollout_leaves_sockets_open_for_the_drain_time(web: Web, component: SocketComponent) -> None:
    """Until then the old container is in use; new sockets lead to the new one."""
    new = SocketComponent()
    new.start()
    try:
        with opened(web, "/demo/open/echo") as client, opened(web, "/demo/open/echo") as idle:
            web.put(route(new, drain=3600.0))
            client.send("still there")
            assert client.recv() == "still there"
            wait_for(lambda: is_busy(web, component.endpoint))
            with opened(web, "/demo/open/echo") as other:
                other.send("hello")
                assert other.recv() == "hello"
            assert len(new.seen) == 1
            web.put(route(new, drain=0.2))
            assert closed(client) == closed(idle) == 1012
            expect_ends(component, 1012, 1012)
            wait_for(lambda: not is_busy(web, component.endpoint))
    finally:
        new.stop()


def test_an_api_that_is_not_published_any_more(web: Web, component: SocketComponent) -> None:
    with opened(web, "/demo/open/echo") as client, opened(web, "/demo/listed/echo") as other:
        apis = tuple(api for api in route(component).apis if api.path != "open")
        web.put(replace(route(component), apis=apis))
        assert closed(client) == 1008
        other.send("hello")
        assert other.recv() == "hello"


def test_a_token_that_is_revoked(web: Web, component: SocketComponent) -> None:
    """Callers who may still call keep their sockets."""
    made = route(component)
    with (
        opened(web, "/demo/closed/echo", additional_headers={"Authorization": "Bearer t0ken"}) as token,
        opened(web, "/demo/closed/echo", additional_headers={"Authorization": ANN}) as password,
    ):
        closed_api = replace(made.apis[1], tokens=(("ci", hash_token("another")),))
        web.put(replace(made, apis=(made.apis[0], closed_api, *made.apis[2:])))
        assert closed(token) == 1008
        password.send("hello")
        assert password.recv() == "hello"
    expect_ends(component, 1000, 1008)


def test_a_container_that_is_killed(web: Web) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.socket_server"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert server.stdout is not None
    try:
        web.put(demo_route(f"127.0.0.1:{int(server.stdout.readline())}"))
        with (
            opened(web, "/demo/open/echo") as client,
            opened(web, "/demo/open/echo", compression=None) as other,
        ):
            for each in (client, other):
                each.send("hello")
                assert each.recv() == "hello"
            server.kill()
            assert closed(client) == closed(other) == 1014
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_a_caller_who_disappears_frees_the_component(web: Web, component: SocketComponent) -> None:
    with opened(web, "/demo/open/echo") as client:
        client.send("last words")
        assert client.recv() == "last words"
        client.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: component.ends == [1006])
    wait_for(lambda: not is_busy(web, component.endpoint))


# --- containers that are not there yet --------------------------------------------------------------------------


def test_a_socket_wakes_a_component_and_keeps_it_awake(web: Web, component: SocketComponent) -> None:
    demo, classify = AppName("demo"), route(component).component
    version = web.store.routes.switch(route(component, upstreams=(), asleep=True, wake_within=30.0))
    wait_for(lambda: web.store.gateways.drained("none", version, time.time()))
    with ThreadPoolExecutor(1) as threads, ExitStack() as stack:
        opening = threads.submit(stack.enter_context, opened(web, "/demo/open/echo"))
        queued = wait_for(lambda: web.store.requests.queued(demo))
        assert queued is not None
        assert queued.reasons == ("wake",)
        assert not opening.done()
        web.put(route(component, wake_within=30.0))
        opening.result()
        first = web.store.activity.of(demo)[classify]
        wait_for(lambda: web.store.activity.of(demo)[classify] > first)


def test_a_socket_waits_while_a_component_heals(web: Web, component: SocketComponent) -> None:
    web.put(route(component, upstreams=(), patience=30.0))
    with ThreadPoolExecutor(1) as threads, ExitStack() as stack:
        opening = threads.submit(stack.enter_context, opened(web, "/demo/open/echo"))
        wait_for(lambda: gauge(web, "prichal_gateway_requests_in_flight", "demo/open") == 1)
        assert not opening.done()
        web.put(route(component, patience=30.0))
        client = opening.result()
        client.send("hello")
        assert client.recv() == "hello"


# --- what is counted --------------------------------------------------------------------------------------------


def gauge(web: Web, name: str, api: str, **labels: str) -> float:
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    line = f'{name}{{api="{api}"{more}}} '
    page = web.ask("GET", "/-/metrics").body.decode()
    return sum(float(each.removeprefix(line)) for each in page.splitlines() if each.startswith(line))


def test_sockets_are_counted_and_logged(web: Web, component: SocketComponent) -> None:
    def count(what: str, **labels: str) -> float:
        return gauge(web, f"prichal_gateway_websocket{what}_total", "demo/listed", **labels)

    before = (
        count("_bytes", direction="received"),
        count("_bytes", direction="sent"),
        count("s_ended", end="closed"),
    )
    with opened(web, "/demo/listed/echo", compression=None) as client:
        client.send(b"x" * 1000)
        assert len(client.recv()) == 1000
        wait_for(lambda: count("_bytes", direction="sent") >= before[1] + 1000)
        assert count("_bytes", direction="received") >= before[0] + 1000
        assert gauge(web, "prichal_gateway_websockets", "demo/listed") == 1
        assert gauge(web, "prichal_gateway_requests_in_flight", "demo/listed") == 0, (
            "a handshake is a request"
        )
    wait_for(lambda: count("s_ended", end="closed") == before[2] + 1)
    assert count("_seconds") > 0
    request = told(client)["X-Request-ID"]
    assert f"a WebSocket ended request={request} api=demo/listed end=closed" in web.log.read_text()


# --- the web process, at the end of this file because others need its workers ---------------------------------------


def test_a_reload_closes_sockets_and_takes_new_ones(web: Web, component: SocketComponent) -> None:
    with opened(web, "/demo/open/echo") as client, opened(web, "/demo/open/echo") as other:
        workers = web.workers()
        web.signal(signal.SIGHUP)
        assert closed(client) == closed(other) == 1012
        wait_for(lambda: not web.workers() & workers)
    with opened(web, "/demo/open/echo") as client:
        client.send("hello")
        assert client.recv() == "hello"
    expect_ends(component, 1012, 1012, 1000)
