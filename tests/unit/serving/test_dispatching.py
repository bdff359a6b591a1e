"""Several processes behind one port: who gets a call, who waits, and what becomes of the others if one fails."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import math
import os
import pathlib
import resource
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serving import forkserver
from controller.serving.config import ServingSettings
from controller.serving.connection import request_id
from controller.serving.dispatcher import BatchLoad, Dispatcher, WorkerLoad, least_busy, may_wait
from controller.serving.metrics import SharedMetrics
from controller.serving.supervisor import Supervisor, WorkerProcess
from controller.serving.unready import UnreadyResponder
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import (
    WAIT_LIMIT,
    Reply,
    Server,
    load,
    read_all,
    read_response,
    text,
    text_function,
    wait_until,
)
from tests.unit.serving.test_processes import receive, send

slow = pytest.mark.slow

#: Says who answers; "block" waits for the file "go", and counts; "hold" keeps the interpreter; "die" and "exit" end it.
ACTS = """
what = inputs[0]["data"]
if what == "block":
    open("blocked", "a").write(f"{os.getpid()}\\n")
    while not os.path.exists("go"): time.sleep(0.005)
if what == "hold":
    import ctypes
    open("held", "w").write(str(os.getpid()))
    ctypes.PyDLL(None).sleep(1000)
if what == "die": os.kill(os.getpid(), 9)
if what == "exit": os._exit(7)
if what == "close": close_channel()
return {"text": str(os.getpid())}
"""


#: The code of a module that closes what is not its own.
CLOSES = """
import socket
def close_channel():
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            with socket.socket(fileno=os.dup(number)) as copy: kind = copy.type
        except OSError: continue
        if kind == socket.SOCK_SEQPACKET: os.close(number)
"""


@pytest.fixture
def several(serve: Serve) -> Callable[..., Server]:
    def start(processes: int = 2, before: str = "", **settings: object) -> Server:
        settings = {"concurrency": processes, **settings}
        return serve(text_function(ACTS, before=before), processes=processes, **settings).ready(processes)

    return start


class KeptConnection:
    """A client that keeps its connection."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_LIMIT)
        self._connection.connect()
        self.socket = self._connection.sock

    def call(self, value: str = "hi") -> str:
        """Return who answered."""
        self._connection.request(
            "POST", "/predict", json.dumps(text(value)).encode(), {"Content-Type": "application/json"}
        )
        response = self._connection.getresponse()
        body = json.loads(response.read())
        assert response.status == 200, body
        assert self._connection.sock is self.socket, "the connection was closed"
        return str(body["outputs"][0]["data"])

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def kept(server: Server, number: int) -> Iterator[list[KeptConnection]]:
    connections = [KeptConnection(server) for _ in range(number)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def rests(pid: str) -> bool:
    """Do all threads of a process wait for something?"""
    tasks = pathlib.Path(f"/proc/{pid}/task")
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "S" for task in tasks.iterdir())


def together(acts: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_LIMIT)


# --- who gets a call


def loads(*calls: int, slots: int = 4) -> list[WorkerLoad]:
    return [WorkerLoad(index + 1, slots, number, number, 0.0, True) for index, number in enumerate(calls)]


def test_a_call_goes_to_the_least_busy_process() -> None:
    assert least_busy(loads(2, 1, 3), call=True) == 2
    assert least_busy(loads(4, 4), call=True) is None
    assert least_busy(loads(4, 4), call=False) == 1, "what is no call needs no slot"
    assert least_busy([], call=False) is None


def test_equally_busy_ones_take_turns() -> None:
    turns = [WorkerLoad(1, 2, 0, 0, 5.0, True), WorkerLoad(2, 2, 0, 0, 4.0, True)]
    assert least_busy(turns, call=True) == 2


def test_one_that_does_not_answer_gets_nothing() -> None:
    standing = WorkerLoad(1, 4, 0, 0, 0.0, False)
    assert least_busy([standing, *loads(3)[:0]], call=False) is None
    assert least_busy([standing, WorkerLoad(2, 4, 3, 3, 0.0, True)], call=True) == 2


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=6), st.booleans())
def test_nobody_gets_more_than_their_slots_while_another_has_one(
    states: list[tuple[int, bool]], call: bool
) -> None:
    given = [WorkerLoad(i, 4, calls, calls, 0.0, answers) for i, (calls, answers) in enumerate(states)]
    chosen = least_busy(given, call)
    able = [load for load in given if load.answers and (load.calls < 4 or not call)]
    assert (chosen is None) == (not able)
    assert chosen is None or given[chosen].calls == min(load.calls for load in able)


@pytest.mark.parametrize(
    ("here", "loads", "expected"),
    [
        (0, [BatchLoad(0, 0)], True),
        (0, [BatchLoad(0, 1)], True),
        (3, [BatchLoad(0, 1)], False),
        (1, [BatchLoad(1, 1), BatchLoad(0, 1)], True),
        (1, [BatchLoad(1, 1), BatchLoad(1, 1)], False),
        (0, [BatchLoad(3, 1), BatchLoad(3, 0)], True),  # four go together in the batch that may begin
        (0, [BatchLoad(3, 1), BatchLoad(4, 0)], False),
        (0, [BatchLoad(3, 1), BatchLoad(0, None)], False),  # no batch begins in that one
        (3, [], False),
    ],
)
def test_how_many_calls_may_wait_for_a_batch(here: int, loads: list[BatchLoad], expected: bool) -> None:
    settings = ServingSettings("m:f", processes=2, batch_size=4, batch_queue=3)
    assert may_wait(settings, here, loads) is expected


@pytest.mark.parametrize("preload", [False, True])
def test_a_worker_that_cannot_be_forked_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], preload: bool
) -> None:
    """No process may be available, and the fork server may just have ended."""

    def fork() -> int:
        raise OSError("no process is available")

    monkeypatch.setattr(os, "fork", fork)
    supervisor = Supervisor(ServingSettings("m:f", port=0, processes=2, preload=preload))
    ours, theirs = forkserver.channel()
    theirs.close()
    if supervisor._fork_server:
        supervisor._fork_server.child = WorkerProcess(0, ours, 0.0, ready_at=1.0)
    now = time.monotonic()
    supervisor._start_workers(now)
    ours.close()
    assert [slot.child for slot in supervisor._slots] == [None, None]
    assert all(slot.start_at > now for slot in supervisor._slots)
    assert capfd.readouterr().err.count("could not be started") == 2
    supervisor._listener.close()


@pytest.mark.parametrize("first", ["fork server", "worker"])
def test_the_fork_server_tells_the_end_of_a_worker_whose_socket_ends_in_the_same_moment(first: str) -> None:
    """The supervisor, process 1 of the container, would end with it."""
    supervisor = Supervisor(ServingSettings("m:f", port=0, processes=2, preload=True))
    assert supervisor._fork_server
    assert supervisor._dispatcher
    server, theirs = forkserver.channel()
    ours, workers = socket.socketpair()
    gone = 2**22 + 1  # an id that no process has
    supervisor._watch(supervisor._fork_server, 0, server)
    slot = supervisor._slots[0]
    supervisor._dispatcher.link(slot.index)
    supervisor._watch(slot, gone, ours)
    supervisor._stop(0, "stopped")
    ends = {"fork server": lambda: theirs.send(b"ended %d 0\n" % gone), "worker": workers.close}
    for name in sorted(ends, key=lambda name: name != first):
        ends[name]()
    supervisor._react(0)
    supervisor._react(0)
    assert slot.child is None
    for end in (theirs, server):
        end.close()


def test_all_calls_that_wait_are_told_when_no_process_is_left() -> None:
    number, reason = 300, None
    settings = ServingSettings("m:f", processes=2, queue=number)
    board = SharedMetrics(2)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=number))
        selector = stack.enter_context(selectors.DefaultSelector())
        listener.setblocking(False)
        why = (lambda: reason, request_id, settings.most_waiting)
        responder = UnreadyResponder(selector, listener, board, *why)
        dispatcher = Dispatcher(selector, listener, settings, board, responder, lambda: reason)

        def serve_until(done: Callable[[], bool]) -> None:
            while not done():
                events = selector.select(WAIT_LIMIT)
                assert events
                for key, _ in events:
                    key.data()

        clients = []
        for _ in range(number):
            clients.append(stack.enter_context(socket.create_connection(listener.getsockname(), WAIT_LIMIT)))
            clients[-1].sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\n\r\n")
        serve_until(lambda: board.counts()[1] == number)
        reason = "it has ended"
        dispatcher.keep_time(time.monotonic())
        serve_until(lambda: f'code="503"}} {number}\n' in board.text())
        assert all(client.recv(12) == b"HTTP/1.1 503" for client in clients)
        responder.close_expired(math.inf)


@slow
def test_kept_connections_are_balanced_by_request(several: Callable[..., Server]) -> None:
    """All 16 connections have been served by some process; calls on any four of them use all four processes."""
    server = several(4)
    with kept(server, 16) as connections:
        for _ in range(2):
            for connection in connections:
                connection.call()
        for four in (connections[:4], connections[7:11], connections[12:]):
            (server.folder / "blocked").unlink(missing_ok=True)
            (server.folder / "go").unlink(missing_ok=True)
            release = threading.Thread(target=lambda: release_when(server, 4))
            release.start()
            together([lambda connection=connection: connection.call("block") for connection in four])  # type: ignore[misc]
            release.join()
            assert len(set((server.folder / "blocked").read_text().split())) == 4
    metrics = server.get("/metrics").body.decode()
    assert f'requests_total{{route="inference",code="200"}} {2 * 16 + 3 * 4}' in metrics
    assert "workers_ready 4" in metrics


def release_when(server: Server, blocked: int) -> None:
    file = server.folder / "blocked"
    wait_until(lambda: file.exists() and len(file.read_text().split()) >= blocked, server)
    server.release()


@slow
def test_a_waiting_call_goes_to_the_first_process_that_is_free(several: Callable[..., Server]) -> None:
    server = several()
    with kept(server, 8) as connections:
        blocked = threading.Thread(target=lambda: connections[0].call("block"))
        blocked.start()
        wait_until(lambda: load(server) == (1, 0), server)
        answers: list[str] = []
        together([lambda c=c: answers.append(c.call()) for c in connections[1:]])  # type: ignore[misc]
        assert len(answers) == 7
        assert len(set(answers)) == 1, "the other process is still blocked"
        server.release()
        blocked.join()


# --- limits, which are those of the whole container


@slow
def test_the_queue_is_that_of_the_container(several: Callable[..., Server]) -> None:
    server = several(queue=1)
    held = [send(server, "block") for _ in range(2)]
    wait_until(lambda: load(server) == (2, 0), server)
    held.append(send(server, "block"))
    wait_until(lambda: load(server) == (2, 1), server)
    refused = server.post(text())
    assert (refused.status, refused.json["type"]) == (503, "urn:prichal:problem:queue-full")
    assert refused.json["detail"] == "component echo: 2 calls run and 1 wait"
    assert refused.headers["retry-after"] == "1"
    metrics = server.get("/metrics").body.decode()
    assert "calls_in_flight 2" in metrics
    assert "calls_queued 1" in metrics
    server.release()
    assert [receive(sock).status for sock in held] == [200] * 3


@slow
def test_a_call_that_waits_too_long_is_told_in_time(several: Callable[..., Server]) -> None:
    server = several(timeout=0.5, replace_after=1e6)
    blocked = [send(server, "block") for _ in range(2)]
    wait_until(lambda: load(server)[0] == 2, server)
    late = server.post(text(), X_Request_ID="late-1")
    assert (late.status, late.json["type"]) == (504, "urn:prichal:problem:function-timeout")
    assert "was still busy with earlier calls after 0.5 s" in late.json["detail"]
    assert late.json["instance"] == "urn:prichal:request:late-1"
    assert [receive(sock).status for sock in blocked] == [504] * 2
    wait_until(lambda: server.get("/health/ready").status == 503, server)
    assert "hold every slot" in server.get("/health/ready").json["detail"]
    patient = server.in_background(
        text(), X_Prichal_Timeout="60"
    )  # the gateway's, of a call that is answered later
    wait_until(lambda: "calls_queued 1" in server.get("/metrics").body.decode(), server)
    assert server.post(text()).status == 504
    server.release()
    assert patient.reply().status == 200


@slow
def test_the_gateway_hears_that_a_call_waits_and_that_it_runs(several: Callable[..., Server]) -> None:
    """Else it could not tell whether the call may be sent again if the container dies."""
    server = several()
    blocked = [send(server, "block") for _ in range(2)]
    wait_until(lambda: load(server) == (2, 0), server)
    body = json.dumps(text()).encode()
    head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-Prichal-Call: tell\r\n"
    with server.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        told = [stream.readline() for _ in range(3)]
        assert told == [b"HTTP/1.1 102 Processing\r\n", b"X-Prichal-Call: waiting\r\n", b"\r\n"]
        server.release()
        told = [stream.readline() for _ in range(3)]
        assert told == [b"HTTP/1.1 102 Processing\r\n", b"X-Prichal-Call: running\r\n", b"\r\n"]
        assert read_response(stream).status == 200
    assert [receive(sock).status for sock in blocked] == [200] * 2


@slow
def test_a_caller_who_leaves_while_waiting_leaves_the_place(several: Callable[..., Server]) -> None:
    server = several(queue=1)
    blocked = [send(server, "block") for _ in range(2)]
    wait_until(lambda: load(server) == (2, 0), server)
    leaving = send(server, "left")
    wait_until(lambda: load(server) == (2, 1), server)
    leaving.close()
    wait_until(lambda: load(server) == (2, 0), server)
    stays = send(server, "stays")
    wait_until(lambda: load(server) == (2, 1), server)
    server.release()
    assert [receive(sock).status for sock in (*blocked, stays)] == [200] * 3
    assert 'requests_total{route="inference",code="499"} 1' in server.get("/metrics").body.decode()


@slow
def test_a_request_that_comes_slowly_holds_no_slot(several: Callable[..., Server]) -> None:
    server = several()
    body = json.dumps(text("slow")).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    coming = [server.connect() for _ in range(2)]
    for sock in coming:
        sock.sendall(head.encode() + body[:5])
    assert server.post(text()).status == 200
    for sock in coming:
        sock.sendall(body[5:])
        assert receive(sock).status == 200


# --- one of them fails


@slow
@pytest.mark.parametrize(
    ("act", "words"), [("die", "was killed by SIGKILL"), ("exit", "ended with exit code 7")]
)
def test_one_that_dies_is_started_again_and_the_others_serve(
    several: Callable[..., Server], act: str, words: str
) -> None:
    server = several()
    with kept(server, 4) as connections:
        before = {connection.call() for connection in connections}
        assert isinstance(server.in_background(text(act)).result(), Exception)
        for _ in range(5):
            for connection in connections:
                connection.call()
        assert words in server.wait_for("1 call was lost")
        assert server.get("/health/ready").status == 200
        server.ready(3)
        wait_until(lambda: "workers_ready 2" in server.get("/metrics").body.decode(), server)
        after = {connection.call() for connection in connections}
        assert len(before) == len(after) == 2
        assert len(before & after) == 1
    assert "worker_restarts_total 1" in server.get("/metrics").body.decode()


@slow
def test_one_whose_code_has_closed_the_channel_is_replaced(several: Callable[..., Server]) -> None:
    server = several(1, before=CLOSES, preload=True)
    pid = server.post(text("hi")).outputs["text"]
    assert server.post(text("close")).outputs["text"] == pid
    server.wait_for("a connection could not be taken over")
    server.ready(2)
    assert server.post(text("hi")).outputs["text"] != pid


@slow
def test_one_that_is_killed_from_outside_costs_no_other_call(several: Callable[..., Server]) -> None:
    server = several(3)
    with kept(server, 6) as connections:
        victims = {connection.call() for connection in connections}
        assert len(victims) == 3
        for victim in sorted(victims)[:2]:
            wait_until(functools.partial(rests, victim), server)  # it has given back all connections
            os.kill(int(victim), signal.SIGKILL)
            for connection in connections:
                connection.call()
        server.ready(5)


@slow
def test_one_that_hangs_is_replaced_and_the_others_serve(several: Callable[..., Server]) -> None:
    server = several(timeout=1, replace_after=0.5)
    hanging = server.in_background(text("hold"))
    wait_until((server.folder / "held").exists, server)
    stuck = pathlib.Path("/proc") / (server.folder / "held").read_text()
    with kept(server, 4) as connections:
        while stuck.exists():
            for connection in connections:
                assert connection.call() != stuck.name
            assert server.get("/health/live").status == 200
            assert server.get("/health/ready").status == 200
    assert isinstance(hanging.result(), Exception)
    server.wait_for("keeps the interpreter to itself")
    server.ready(3)


@slow
def test_when_all_hang_the_state_is_told_from_outside(several: Callable[..., Server]) -> None:
    server = several(timeout=30)
    calls = [send(server, "hold") for _ in range(2)]
    wait_until(lambda: server.get("/health/ready").status == 503, server)
    assert "none of its processes answers" in server.get("/health/ready").json["detail"]
    assert server.get("/health/live").status == 200
    assert "workers_ready 2" in server.get("/metrics").body.decode()
    for sock in calls:
        sock.close()


@slow
def test_a_version_that_cannot_load_in_one_process_does_not_start(serve: Serve) -> None:
    """Such as one that has too little memory for so many: blue-green keeps the previous one."""
    check = 'os.close(os.open("first", os.O_CREAT | os.O_EXCL))'
    server = serve(text_function(ACTS, before=check), processes=2)
    assert server.wait_ended() == 3
    assert "set-up failed: inference app:predict: importing app failed: FileExistsError" in server.lines()[-1]


@slow
def test_one_that_cannot_load_again_is_tried_again_and_the_others_serve(
    several: Callable[..., Server],
) -> None:
    check = 'if os.path.exists("broken"): raise RuntimeError("weights are gone")'
    server = several(before=check)
    (server.folder / "broken").touch()
    assert isinstance(server.in_background(text("exit")).result(), Exception)
    server.wait_for("could not be set up: inference app:predict: importing app failed: RuntimeError", times=2)
    assert server.post(text()).status == 200
    assert server.get("/health/ready").status == 200
    assert "workers_ready 1" in server.get("/metrics").body.decode()
    (server.folder / "broken").unlink()
    server.ready(3)


# --- the end


@slow
def test_sigterm_answers_what_runs_and_what_waits(several: Callable[..., Server]) -> None:
    server = several()
    with kept(server, 3) as idle:
        for connection in idle:
            connection.call()
        running = [send(server, "block") for _ in range(2)]
        wait_until(lambda: load(server) == (2, 0), server)
        waiting = [send(server, "waits") for _ in range(3)]
        wait_until(lambda: load(server) == (2, 3), server)
        server.process.terminate()
        for connection in idle:
            assert connection.socket.recv(1) == b""
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            while True:
                server.connect().close()
        server.release()
        for sock in (*running, *waiting):
            reply = receive(sock)
            assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert server.wait_ended() == 0
    assert server.lines()[-1] == "prichal: stopped"


@slow
def test_processes_whose_supervisor_was_killed_end(several: Callable[..., Server]) -> None:
    server = several()
    with kept(server, 4) as connections:
        workers = {connection.call() for connection in connections}
        assert len(workers) == 2
        server.process.kill()
        assert server.wait_ended() == -signal.SIGKILL
        for worker in workers:
            server.wait_until_gone(pathlib.Path("/proc") / worker)


@slow
def test_an_idle_connection_is_closed_in_time(several: Callable[..., Server]) -> None:
    server = several(idle_timeout=0.2)
    with server.connect() as new, kept(server, 1) as connections:
        connections[0].call()
        assert connections[0].socket.recv(1) == b""
        assert new.recv(1) == b""


@slow
def test_requests_that_come_together_are_answered_in_order(several: Callable[..., Server]) -> None:
    server = several()
    body = json.dumps(text()).encode()
    head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    requests = [
        f"{head}X-Request-ID: r{number}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        for number in range(5)
    ]
    with server.connect() as sock:
        sock.sendall(b"".join(requests)[:-3])
        sock.sendall(b"".join(requests)[-3:])
        sock.shutdown(socket.SHUT_WR)
        received = read_all(sock)
    ids = [line for line in received.split(b"\r\n") if line.startswith(b"X-Request-ID")]
    assert ids == [f"X-Request-ID: r{number}".encode() for number in range(5)]


@slow
def test_bad_requests_are_refused_as_always(several: Callable[..., Server]) -> None:
    server = several()
    assert server.raw(b"BAD\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert server.raw(b"P") == b""
    assert server.raw(b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000).startswith(b"HTTP/1.1 431 ")
    reply: Reply = server.post(b"{")
    assert reply.status == 400
    assert server.post(text()).status == 200


@slow
def test_more_clients_than_file_descriptors_wait_for_one(several: Callable[..., Server]) -> None:
    server = several(queue=1000)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(server.connect())
    assert server.post(text()).status == 200
    assert server.get("/health/ready").status == 200
    assert server.process.poll() is None
