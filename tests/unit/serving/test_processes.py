"""Callers who leave, functions that fork, and whatever is awaitable: on real servers."""

from __future__ import annotations

import gzip
import json
import pathlib
import socket

import pytest

from controller.serving.supervisor import EXIT_GRACE
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import (
    Reply,
    Server,
    load,
    read_response,
    text,
    text_function,
    wait_until,
)

pytestmark = pytest.mark.slow

#: Blocks on "block" until the server is released, and counts every call.
COUNTING = """
open("calls", "a").write(inputs[0]["data"] + "\\n")
while inputs[0]["data"] == "block" and not os.path.exists("go"): time.sleep(0.005)
return {"text": "well"}
"""


def send(server: Server, value: str, more: str = "X-Request-ID: r") -> socket.socket:
    """Send a call, read nothing. `more`: another header line."""
    body = json.dumps(text(value)).encode()
    sock = server.connect()
    head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}{more}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock


def receive(sock: socket.socket) -> Reply:
    """The answer, and the end of the connection."""
    with sock, sock.makefile("rb") as stream:
        return read_response(stream)


def test_callers_who_left_leave_their_places(serve: Serve) -> None:
    server = serve(text_function(COUNTING), concurrency=1, queue=3).ready()
    blocking = send(server, "block")
    wait_until(lambda: load(server) == (1, 0), server)
    storm = [send(server, "left") for _ in range(3)]
    wait_until(lambda: load(server) == (1, 3), server)
    for sock in storm:
        sock.close()
    last = send(server, "stays")  # takes the place of one, at once or when the clock has noticed
    wait_until(lambda: load(server) == (1, 1), server)
    server.release()
    assert receive(blocking).status == 200
    assert receive(last).outputs == {"text": "well"}
    assert (server.folder / "calls").read_text().split() == ["block", "stays"]
    assert 'requests_total{route="inference",code="499"} 3' in server.get("/metrics").body.decode()


def test_the_queue_is_freed_while_nobody_calls(serve: Serve) -> None:
    server = serve(text_function(COUNTING), concurrency=1, queue=3).ready()
    blocking = send(server, "block")
    wait_until(lambda: load(server) == (1, 0), server)
    send(server, "left").close()
    wait_until(lambda: "calls_queued 0" in server.get("/metrics").body.decode(), server)
    server.release()
    assert receive(blocking).status == 200


ASYNC = """
import asyncio
try:
    await asyncio.sleep(1000 if inputs[0]["data"] == "block" else 0)
    return {"text": "well"}
except asyncio.CancelledError:
    open("cancelled", "a").write("x")
    raise
"""


def test_an_async_call_is_cancelled_when_its_caller_leaves(serve: Serve) -> None:
    source = text_function(ASYNC).replace("def predict", "async def predict")
    server = serve(source, concurrency=1, queue=0).ready()
    call = send(server, "block")
    wait_until(lambda: load(server) == (1, 0), server)
    call.close()
    wait_until(lambda: load(server) == (0, 0), server)
    assert (server.folder / "cancelled").read_text() == "x"
    assert server.post(text()).outputs == {"text": "well"}
    assert not server.lines("raised")


def test_twelve_callers_leave_a_queue_of_ten_and_ten_others_come(serve: Serve) -> None:
    server = serve(text_function(COUNTING), concurrency=1, queue=10).ready()
    blocking = send(server, "block")
    wait_until(lambda: load(server) == (1, 0), server)
    storm = [send(server, "left") for _ in range(10)]
    wait_until(lambda: load(server) == (1, 10), server)
    assert [receive(send(server, "refused")).status for _ in range(2)] == [503, 503]
    for sock in storm:
        sock.close()
    wait_until(lambda: load(server) == (1, 0), server)  # a full queue is not searched for each call
    others = [send(server, "stays") for _ in range(10)]
    wait_until(lambda: load(server) == (1, 10), server)
    server.release()
    assert {receive(call).status for call in (blocking, *others)} == {200}


def test_a_thread_that_cannot_be_stopped_is_told(serve: Serve) -> None:
    server = serve(text_function(COUNTING), concurrency=1, queue=1).ready()
    call = send(server, "block")
    wait_until(lambda: load(server) == (1, 0), server)
    assert "calls_abandoned 0" in server.get("/metrics").body.decode()
    call.close()
    wait_until(lambda: "calls_abandoned 1" in server.get("/metrics").body.decode(), server)
    server.release()
    wait_until(lambda: "calls_abandoned 0" in server.get("/metrics").body.decode(), server)


def test_the_gateway_is_told_what_becomes_of_a_call_that_waits(serve: Serve) -> None:
    server = serve(text_function(COUNTING), concurrency=1, queue=2).ready()
    blocking, silent = send(server, "block"), []
    wait_until(lambda: load(server) == (1, 0), server)
    asking = send(server, "stays", "X-Prichal-Call: tell")
    wait_until(lambda: load(server) == (1, 1), server)
    silent.append(send(server, "stays"))
    wait_until(lambda: load(server) == (1, 2), server)
    assert asking.recv(1000) == b"HTTP/1.1 102 Processing\r\nX-Prichal-Call: waiting\r\n\r\n"
    server.release()
    told = b""
    with asking:
        while b"outputs" not in told:
            told += asking.recv(1000)
    assert told.startswith(b"HTTP/1.1 102 Processing\r\nX-Prichal-Call: running\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert [receive(call).status for call in (blocking, *silent)] == [200, 200]
    at_once = send(server, "stays", "X-Prichal-Call: tell")
    assert receive(at_once).status == 200, "a call that need not wait costs no packet"


@pytest.mark.parametrize("waits", [False, True])
def test_only_a_process_that_is_stuck_is_killed_at_its_end(serve: Serve, waits: bool) -> None:
    """On a busy machine the end of an interpreter may take longer than it should: it gets no processor. One that waits
    for something then waits for ever."""
    end = "threading.Event().wait()" if waits else f"while time.monotonic() < before + {EXIT_GRACE + 1}: pass"
    before = f"""
import atexit
def slowly():
    before = time.monotonic()
    {end}
    open("ended", "w").close()
atexit.register(slowly)
"""
    server = serve(text_function("return {'text': 'well'}", before=before)).ready()
    assert server.post(text()).status == 200
    assert server.stop() == 0
    assert (server.folder / "ended").exists() is not waits
    assert bool(server.lines("was killed by SIGKILL while shutting down")) is waits


def test_an_async_call_that_will_not_be_cancelled_keeps_its_slot(serve: Serve) -> None:
    stubborn = """
import asyncio
while inputs[0]["data"] == "block" and not os.path.exists("go"):
    try: await asyncio.sleep(0.005)
    except asyncio.CancelledError: open("cancelled", "a").write("x")
return {"text": "well"}
"""
    source = text_function(stubborn).replace("def predict", "async def predict")
    server = serve(source, concurrency=2, queue=0, timeout=0.3).ready()
    assert server.post(text("block")).status == 504
    assert server.get("/health/ready").json["overdue"] == 1
    server.release()
    wait_until(lambda: load(server) == (0, 0), server)


FORKS = {
    "returns": "if os.fork() == 0: time.sleep(0.05); return {'text': 'SECRET'}\nreturn {'text': 'parent'}",
    "raises": "if os.fork() == 0: time.sleep(0.05); raise ValueError('SECRET')\nreturn {'text': 'parent'}",
    "exits": "if os.fork() == 0: time.sleep(0.05); sys.exit(0)\nreturn {'text': 'parent'}",
    "forks twice": "if os.fork() == 0: os.fork(); return {'text': 'SECRET'}\nreturn {'text': 'parent'}",
    "exits at once": "if os.fork() == 0: os._exit(0)\nreturn {'text': 'parent'}",
    "is killed": "if os.fork() == 0: os.kill(os.getpid(), 9)\nreturn {'text': 'parent'}",
    "exec fails": (
        "if os.fork() == 0:\n    try: os.execv('/no/such/program', ['x'])\n    except OSError: pass\n"
        "return {'text': 'parent'}"
    ),
}


@pytest.mark.parametrize("case", FORKS)
@pytest.mark.parametrize(
    ("asynchronous", "several"), [(False, 1), (True, 1), (False, 2)], ids=["plain", "async", "several"]
)
def test_a_function_that_forks_mixes_no_answers(
    serve: Serve, case: str, asynchronous: bool, several: int
) -> None:
    source = text_function(
        f"if inputs[0]['data'] != 'fork': return {{'text': inputs[0]['data']}}\n{FORKS[case]}"
    )
    server = serve(
        source.replace("def predict", "async def predict") if asynchronous else source, processes=several
    )
    server.ready(several)
    with server.connect() as sock, sock.makefile("rb") as stream:
        for number, value in enumerate(("fork", "a", "b", "fork", "c")):
            body = json.dumps({"id": str(number), **text(value)}).encode()
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nX-Request-ID: r{number}\r\nContent-Type: application/json\r\n"
            sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            reply = read_response(stream)
            assert reply.headers["x-request-id"] == f"r{number}"
            assert reply.json["id"] == str(number)
            assert reply.outputs == {"text": "parent" if value == "fork" else value}
            if value == "fork" and case not in ("exits at once", "is killed"):
                server.wait_for("forked", times=1 if number == 0 else 2)
    assert "worker_restarts_total 0" in server.get("/metrics").body.decode()
    assert 'requests_total{route="inference",code="200"} 5' in server.get("/metrics").body.decode()


MULTIPROCESSING = """
import multiprocessing
def twice(number): return 2 * number
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("several", [1, 2])
def test_a_function_may_use_multiprocessing(serve: Serve, method: str, several: int) -> None:
    body = (
        f"with multiprocessing.get_context({method!r}).Pool(2) as pool:\n"
        "    return {'text': str(pool.map(twice, [1, 2, 3]))}"
    )
    server = serve(text_function(body, before=MULTIPROCESSING), processes=several).ready(several)
    with server.connect() as sock, sock.makefile("rb") as stream:
        for number in range(2):
            sent = json.dumps({"id": str(number), **text()}).encode()
            head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            sock.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
            reply = read_response(stream)
            assert (reply.json["id"], reply.outputs) == (str(number), {"text": "[2, 4, 6]"})
    assert "worker_restarts_total 0" in server.get("/metrics").body.decode()


@pytest.mark.parametrize("several", [1, 2])
@pytest.mark.parametrize(
    "closed", ["os.close(1)", "os.close(2)", "os.closerange(0, 3)", "sys.stdout.close()"]
)
def test_what_is_printed_reaches_no_caller(serve: Serve, closed: str, several: int) -> None:
    """Each connection gets the lowest free number, such as that of a standard output that was closed."""
    body = (
        f"if inputs[0]['data'] == 'close': {closed}\n"
        "try: os.write(1, b'SECRET'); os.write(2, b'SECRET'); print('SECRET')\n"
        "except (OSError, ValueError): pass\n"
        "return {'text': 'well'}"
    )
    server = serve(text_function(body), processes=several).ready(several)
    for value in ("close", "a", "b", "close", "c"):
        with send(server, value) as one, send(server, "beside") as other:
            answers = [read_response(sock.makefile("rb")) for sock in (one, other)]
            assert [answer.outputs for answer in answers] == [{"text": "well"}] * 2
            for sock in (one, other):
                sock.shutdown(socket.SHUT_WR)
                assert sock.recv(1000) == b""
    if "stdout" not in closed:
        server.wait_for("closed file descriptor")


def test_a_set_up_that_forks_makes_one_worker(serve: Serve) -> None:
    server = serve(text_function("return {'text': str(os.getpid())}", before="os.fork()")).ready()
    server.wait_for("forked")
    assert len({server.post(text()).outputs["text"] for _ in range(20)}) == 1
    assert len(server.lines("is ready")) == 1


def test_what_a_function_forked_keeps_no_connection_open(serve: Serve) -> None:
    """Such as the processes of a multiprocessing.Pool: they outlive the call and have copies of everything."""
    child = "if os.fork() == 0:\n    while not os.path.exists('go'): time.sleep(0.005)\n    os._exit(0)\n"
    body = f"{child}return {{'text': 'well'}}"
    server = serve(text_function(body), idle_timeout=0.1).ready()
    with send(server, "fork") as sock, sock.makefile("rb") as stream:
        assert read_response(stream).outputs == {"text": "well"}
        assert stream.read(1) == b"", "the server closes an idle connection, and the client sees it"
    server.release()


DECORATED = """
import asyncio, functools
def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
def retried(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
"""


@pytest.mark.parametrize("decorators", ["@timed", "@timed\n@timed", "@retried", "@timed\n@retried"])
def test_whatever_is_awaitable_is_awaited(serve: Serve, decorators: str) -> None:
    source = text_function("await asyncio.sleep(0)\nreturn {'text': 'well'}", before=DECORATED)
    server = serve(source.replace("def predict", f"{decorators}\nasync def predict")).ready()
    assert server.post(text()).outputs == {"text": "well"}


def test_a_compressed_body_is_read(serve: Serve) -> None:
    server = serve(max_body=10_000).ready()
    for body, status in ((text("hello"), 200), (text("x" * 20_000), 413)):
        coded = gzip.compress(json.dumps(body).encode())
        reply = server.post(coded, Content_Encoding="gzip")
        assert reply.status == status, reply.body
    reply = server.post(b"xx", Content_Encoding="br")
    assert (reply.status, reply.headers["accept-encoding"]) == (415, "gzip")
    assert "Content-Encoding must be gzip or be left out, not 'br'" in reply.json["detail"]
    plain = server.post(text(), Content_Encoding="gzip")
    assert (plain.status, plain.json["type"]) == (400, "urn:prichal:problem:malformed-coding")


def test_a_worker_that_dies_of_sigbus_hints_at_shared_memory(serve: Serve, tmp_path: pathlib.Path) -> None:
    truncated = (
        "import mmap\n"
        "with open('mapped', 'w+b') as file:\n"
        "    file.truncate(8192)\n"
        "    memory = mmap.mmap(file.fileno(), 8192)\n"
        "    file.truncate(0)\n"
        "    memory[5000]"
    )
    server = serve(text_function(truncated)).ready()
    assert isinstance(server.in_background(text()).result(), Exception)
    line = server.wait_for("was killed by SIGBUS")
    assert "/dev/shm (" in line
    assert "resources.memory" in line
