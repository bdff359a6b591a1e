"""The run API through a real gunicorn with two workers; the test plays the runner, no daemon is there."""

from __future__ import annotations

import base64
import json
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from controller.domain.names import ComponentName
from controller.domain.routing.passwords import hash_password, hash_token
from controller.domain.runs.run import RunState
from controller.domain.secret import Secret
from controller.domain.storage.box import BoxRecord, StorageAccess
from controller.web.api.runs.live import LIMIT
from tests.support.events import Event, parse_events
from tests.support.gateway import APP, make_service
from tests.support.runs import RunDriver, all_pipelines, make_pipeline, one_pipeline, runs_of
from tests.support.serve_web import settings_of
from tests.support.stores import open_store
from tests.support.waiting import wait_for

from .conftest import Reply, Web, echo, serving

ANN = "Basic " + base64.b64encode(b"ann:s3cret").decode()
BOB = "Bearer bobs-token"
BODY = {"inputs": {"data": "g/in.csv"}}
MEBIBYTE = 2**20


@dataclass
class Runs:
    """The API as callers use it, and the runner's part."""

    web: Web
    player: RunDriver

    def ask(self, method: str, path: str, body: Any = None, who: str = ANN, **headers: str) -> Reply:
        """`path` is what comes after `/demo/`."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"Content_Type": "application/json"} if content is not None else {}
        given |= {"Authorization": who} if who else {}
        return self.web.ask(method, f"/demo/{path}", content, **{**given, **headers})

    def submit(self, body: Any = None, **headers: str) -> str:
        reply = self.ask("POST", "train/runs", body or BODY, **headers)
        assert reply.status == 202, reply.body
        return str(reply.json["id"])

    @contextmanager
    def follow(self, path: str, who: str = ANN, **headers: str) -> Iterator[Stream]:
        connection = HTTPConnection(*self.web.address, timeout=30)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", f"/demo/{path}", headers={"Authorization": who, **fields})
            yield Stream(connection, connection.getresponse())
        finally:
            connection.close()


@dataclass
class Stream:
    """An event stream as it comes in."""

    connection: HTTPConnection
    response: HTTPResponse

    def events(self) -> Iterator[Event]:
        """One after another, until the server ends the stream."""
        text = b""
        for line in self.response:
            text += line
            if line == b"\n":
                yield from parse_events(text)
                text = b""

    def next(self) -> Event:
        return next(self.events())


def kind(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/problem+json"
    return str(reply.json["type"]).removeprefix("urn:prichal:problem:")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    state = tmp_path_factory.mktemp("state")
    rules: dict[str, Any] = {
        "users": (("ann", hash_password("s3cret", "salt")),),
        "tokens": (("bob", hash_token("bobs-token")),),
    }
    with closing(open_store(settings_of(state).database)) as store, echo("none") as component:
        store.runs.publish(APP, (make_pipeline(),))
        services = (
            one_pipeline(**rules),
            all_pipelines(**rules),
            one_pipeline("open"),
            one_pipeline("hidden", published=False),
            make_service(),
        )
        store.routes.publish(APP, services)
        with serving(state, store, component) as running:
            yield running


@pytest.fixture
def runs(web: Web) -> Runs:
    return Runs(web, RunDriver(web.store, settings_of(web.state).run_files))


# --- calls --------------------------------------------------------------------------------------------------------


def test_a_run_from_its_submission_to_its_end(runs: Runs) -> None:
    reply = runs.ask("POST", "train/runs", BODY)
    assert reply.status == 202
    assert reply.headers["location"] == f"/demo/train/runs/{reply.json['id']}"
    assert reply.headers["x-request-id"]
    path = reply.headers["location"].removeprefix("/demo/")
    known = runs.ask("GET", path).headers["etag"]
    assert runs.ask("GET", path, If_None_Match=known).status == 304
    runs.player.begin(reply.json["id"])
    assert runs.ask("GET", path, If_None_Match=known).json["state"] == "RUNNING"
    runs.player.finish(reply.json["id"])
    assert runs.ask("GET", path).json["state"] == "SUCCEEDED"
    assert runs.ask("HEAD", path).body == b""
    assert runs.ask("GET", "pipelines/train/runs?limit=1").json["runs"][0]["id"] == reply.json["id"]


def test_who_may_call_and_whose_runs_he_sees(runs: Runs) -> None:
    id = runs.submit()
    for path in (
        "runs",
        f"runs/{id}",
        f"runs/{id}/logs?stage=fit",
        f"runs/{id}/events",
        "docs",
        "openapi.json",
    ):
        assert runs.ask("GET", f"train/{path}", who="").status == 401
        assert runs.ask("GET", f"hidden/{path}").status == 404
    for path in (
        f"runs/{id}",
        f"runs/{id}?wait=9",
        f"runs/{id}/logs?stage=fit&follow=1",
        f"runs/{id}/events",
    ):
        assert runs.ask("GET", f"train/{path}", who=BOB).status == 404
        assert runs.ask("GET", f"open/{path}").status == 404, "there ann has no name"
    for action in ("cancel", "retry"):
        assert runs.ask("POST", f"train/runs/{id}/{action}", who=BOB).status == 404
        assert runs.ask("POST", f"hidden/runs/{id}/{action}").status == 404
    assert runs.ask("POST", "hidden/runs", BODY).status == 404
    assert runs.ask("POST", "train/runs", BODY, who="").status == 401
    assert [run["id"] for run in runs.ask("GET", "train/runs", who=BOB).json["runs"]] == []


def test_an_api_that_is_withdrawn(runs: Runs) -> None:
    services = runs.web.store.routes.services(APP)
    id = runs.ask("POST", "open/runs", BODY, who="").json["id"]
    try:
        runs.web.store.routes.publish(APP, tuple(s for s in services if s.api.path != "open"))
        wait_for(lambda: runs.ask("GET", f"open/runs/{id}", who="").status == 404)
    finally:
        runs.web.store.routes.publish(APP, services)
    wait_for(lambda: runs.ask("GET", f"open/runs/{id}", who="").status == 200)


def test_a_caller_who_waits_gets_the_end(runs: Runs) -> None:
    before = runs.submit()
    with ThreadPoolExecutor(2) as threads:
        prefer = {"Prefer": "respond-async, wait=30", "Idempotency_Key": "waits"}
        calls = [threads.submit(runs.ask, "POST", "train/runs", BODY, **prefer) for _ in range(2)]
        (run,) = wait_for(
            lambda: runs_of(runs.web.store).list(APP, limit=1), lambda newest: newest[0].id > before
        )
        runs.player.finish(run.id)
        for call in calls:
            reply = call.result()
            assert (reply.status, reply.json["id"], reply.json["state"]) == (200, run.id, "SUCCEEDED")


def test_who_waits_in_vain_is_told_where_to_ask(runs: Runs) -> None:
    begun = time.monotonic()
    reply = runs.ask("POST", "train/runs", BODY, Prefer="wait=1")
    assert (reply.status, reply.json["state"], reply.headers["retry-after"]) == (202, "QUEUED", "1")
    assert time.monotonic() - begun >= 1
    assert runs.ask("GET", reply.headers["location"].removeprefix("/demo/")).json == reply.json


def test_the_same_key_over_both_workers(runs: Runs) -> None:
    """Many callers with one key and two bodies: one run, and no caller gets another one."""
    together = threading.Barrier(12)

    def submit(number: int) -> tuple[int, Reply]:
        together.wait()
        body = {"inputs": {"data": f"g/{number % 2}"}}
        return number % 2, runs.ask("POST", "train/runs", body, Idempotency_Key='"contested"')

    with ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(submit, range(12)))
    (id,) = {reply.json["id"] for _, reply in replies if reply.status == 202}
    run = runs_of(runs.web.store).get(APP, id)
    assert run is not None
    winner = int(run.inputs[0].data[-1])
    for body, reply in replies:
        if body == winner:
            assert reply.status == 202
        else:
            assert (reply.status, kind(reply)) == (422, "idempotency-key-reused")


def test_cancel_races_with_the_end(runs: Runs) -> None:
    """The first transition wins: the caller is told what the run has become, and it stays so."""
    with ThreadPoolExecutor(2) as threads:
        for _ in range(30):
            id = runs.submit()
            runs.player.begin(id)
            ended = threads.submit(_finish_unless_canceled, runs.player, id)
            reply = runs.ask("POST", f"train/runs/{id}/cancel")
            ended.result()
            final = runs.ask("GET", f"train/runs/{id}").json
            states = [step["state"] for step in final["history"]]
            assert final["state"] == states[-1] == ("SUCCEEDED" if reply.status == 200 else "CANCELED")
            assert ("CANCELING" in states) is (reply.status == 202)
            assert runs.ask("POST", f"train/runs/{id}/cancel").json == final


def _finish_unless_canceled(player: RunDriver, id: str) -> None:
    """As the runner does: it looks again whenever somebody else was quicker."""

    def end(run: Any) -> Any:
        state = RunState.CANCELED if run.state is RunState.CANCELING else RunState.SUCCEEDED
        return run.to(state, time.time())

    player.change(id, end)


def test_long_polls_of_many(runs: Runs) -> None:
    id = runs.submit()
    with ThreadPoolExecutor(64) as threads:
        waiting = [threads.submit(runs.ask, "GET", f"train/runs/{id}?wait=30") for _ in range(64)]
        assert runs.ask("GET", f"train/runs/{id}").json["state"] == "QUEUED", "waiting holds nothing up"
        runs.player.finish(id)
        assert {call.result().json["state"] for call in waiting} == {"SUCCEEDED"}


# --- logs and events ----------------------------------------------------------------------------------------------


def test_a_log_is_followed_and_resumed(runs: Runs) -> None:
    id = runs.submit()
    runs.player.begin(id)
    runs.player.write(id, "fit", 1, b"one\ntwo\nthr")
    path = f"train/runs/{id}/logs?stage=fit&follow=1"
    with runs.follow(path) as stream:
        assert stream.response.getheader("content-type") == "text/event-stream"
        first = stream.next()
    assert first == Event("message", "8", "one\ntwo")
    runs.player.write(id, "fit", 1, b"ee\n")
    with runs.follow(path, Last_Event_ID=first.id) as stream:
        assert stream.next() == Event("message", "14", "three")
        runs.player.write(id, "fit", 1, b"four")
        runs.player.end_attempt(id, "fit", 0, RunState.SUCCEEDED)
        last, end = stream.events()
    assert last == Event("message", "18", "four")
    assert (end.kind, json.loads(end.data)["state"]) == ("end", "SUCCEEDED")
    assert runs.ask("GET", path, Last_Event_ID="end").status == 204
    assert runs.ask("GET", f"train/runs/{id}/logs?stage=fit&offset=14").body == b"four"
    beyond = runs.ask("GET", f"train/runs/{id}/logs?stage=fit&offset=19")
    assert (beyond.status, kind(beyond), beyond.json["size"]) == (416, "range-not-satisfiable", 18)
    part = runs.ask("GET", f"train/runs/{id}/logs?stage=fit", Range="bytes=-4")
    assert (part.status, part.headers["content-range"], part.body) == (206, "bytes 14-17/18", b"four")


def test_transitions_over_a_reconnect(runs: Runs) -> None:
    id = runs.submit()
    with runs.follow(f"train/runs/{id}/events") as stream:
        seen = list(islice(stream.events(), 3))
    runs.player.begin(id)
    runs.player.finish(id, RunState.FAILED, "ExitCode")
    with runs.follow(f"train/runs/{id}/events", Last_Event_ID=seen[-1].id) as stream:
        rest = list(stream.events())
    states = [json.loads(event.data)["state"] for event in rest]
    assert states == ["STARTING", "RUNNING", "STARTING", "RUNNING", "FAILED", "FAILED", "FAILED", "FAILED"]
    assert rest[-1].kind == "end"


def test_a_run_that_is_removed_while_it_is_followed(runs: Runs) -> None:
    id = runs.submit()
    runs.player.begin(id)
    runs.player.write(id, "fit", 1, b"one\n")
    with runs.follow(f"train/runs/{id}/logs?stage=fit&follow=1") as stream:
        assert stream.next().data == "one"
        runs.player.forget(id)
        runs.player.log(id, "fit", 1).unlink()
        assert [event.kind for event in stream.events()] == ["gone"]
    for path in ("", "?wait=5", "/logs?stage=fit", "/events"):
        reply = runs.ask("GET", f"train/runs/{id}{path}")
        assert (reply.status, kind(reply)) == (410, "run-gone")
    assert runs.ask("GET", f"train/runs/{id}", who=BOB).status == 404


def test_followers_who_leave_are_let_go(runs: Runs) -> None:
    """Without a word, as a cable is pulled: more of them than there are places in both workers."""

    def left() -> float:
        page = runs.web.ask("GET", "/-/metrics").body.decode()
        name = 'prichal_gateway_requests_total{api="demo/train",code="499"} '
        return sum(float(line.removeprefix(name)) for line in page.splitlines() if line.startswith(name))

    id = runs.submit()
    runs.player.begin(id)
    runs.player.write(id, "fit", 1, b"one\n")
    before = left()
    for _ in range(2 * LIMIT // 40 + 1):
        streams = [socket.create_connection(runs.web.address) for _ in range(40)]
        for sock in streams:
            target = f"/demo/train/runs/{id}/logs?stage=fit&follow=1"
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: {ANN}\r\n\r\n".encode())
        for sock in streams:
            assert b"200" in sock.recv(15)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
    waiting = socket.create_connection(runs.web.address)
    waiting.sendall(
        f"GET /demo/train/runs/{id}?wait=60 HTTP/1.1\r\nHost: a\r\nAuthorization: {ANN}\r\n\r\n".encode()
    )
    waiting.close()
    wait_for(lambda: left() >= before + 1)
    assert runs.ask("GET", f"train/runs/{id}").status == 200


def test_a_worker_that_stops_ends_streams_and_they_go_on_elsewhere(runs: Runs) -> None:
    id = runs.submit()
    runs.player.begin(id)
    runs.player.write(id, "fit", 1, b"one\n")
    path = f"train/runs/{id}/logs?stage=fit&follow=1"
    with runs.follow(path) as stream:
        first = stream.next()
        workers = runs.web.workers()
        runs.web.signal(signal.SIGHUP)
        assert list(stream.events()) == [], "no end: the browser comes back"
    wait_for(lambda: len(runs.web.workers()) == 2 and not runs.web.workers() & workers)
    runs.player.write(id, "fit", 1, b"two\n")
    with runs.follow(path, Last_Event_ID=first.id) as stream:
        assert stream.next() == Event("message", "8", "two")


def resident(worker: int) -> int:
    """Bytes of memory that the process has touched at most, since `reset_peak`."""
    status = Path(f"/proc/{worker}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def reset_peak(worker: int) -> None:
    Path(f"/proc/{worker}/clear_refs").write_text("5")


@pytest.fixture
def large(runs: Runs) -> Iterator[str]:
    """A run whose log has 1 GB: lines of 100 bytes, most of them holes of the file system, and 64 MB that are
    none."""
    id = runs.submit()
    runs.player.begin(id)
    log = runs.player.log(id, "fit", 1)
    with log.open("wb") as file:
        file.truncate(2**30 - 64 * MEBIBYTE)
        file.seek(2**30 - 64 * MEBIBYTE)
        for _ in range(64):
            file.write((b"x" * 127 + b"\n") * (MEBIBYTE // 128))
    yield id
    log.unlink()


def test_memory_stays_flat_whoever_reads_a_gigabyte(runs: Runs, large: str) -> None:
    workers = runs.web.workers()
    for path in (
        f"train/runs/{large}/logs?stage=fit&offset=0",
        f"train/runs/{large}/logs?stage=fit&follow=1",
    ):
        with runs.follow(path) as stream:  # everybody has warmed up
            stream.response.read(MEBIBYTE)
    for worker in workers:
        reset_peak(worker)
    before = {worker: resident(worker) for worker in workers}
    with ThreadPoolExecutor(4) as threads, runs.follow(f"train/runs/{large}/logs?stage=fit&follow=1") as slow:
        slow.response.read(1)  # and never again
        sizes = list(threads.map(lambda _: _read_text(runs, large), range(2)))
        told = threads.submit(_read_events, runs, large, 2**30 - 64 * MEBIBYTE)
        runs.player.end_attempt(large, "fit", 0, RunState.SUCCEEDED)
        assert sizes == [2**30] * 2
        assert told.result() == (64 * MEBIBYTE // 128, "end")
    grown = {worker: resident(worker) - before[worker] for worker in workers}
    assert sum(grown.values()) < 48 * MEBIBYTE, grown  # one worker may have got all readers


def _read_text(runs: Runs, id: str) -> int:
    size = 0
    with runs.follow(f"train/runs/{id}/logs?stage=fit") as stream:
        while piece := stream.response.read(MEBIBYTE):
            size += len(piece)
    return size


def _read_events(runs: Runs, id: str, offset: int) -> tuple[int, str]:
    """Lines that were told, and the kind of the last event."""
    lines, last = 0, ""
    with runs.follow(f"train/runs/{id}/logs?stage=fit&follow=1&offset={offset}") as stream:
        for line in stream.response:
            lines += line.startswith(b"data: x")
            last = line[7:].decode().strip() if line.startswith(b"event: ") else last
    return lines, last


def test_many_follow_one_log(runs: Runs) -> None:
    id = runs.submit()
    runs.player.begin(id)
    lines = [f"line {n}" for n in range(500)]
    with ThreadPoolExecutor(100) as threads:

        def follow(_: int) -> list[str]:
            with runs.follow(f"train/runs/{id}/logs?stage=fit&follow=1") as stream:
                return [line for e in stream.events() if e.kind == "message" for line in e.data.split("\n")]

        following = [threads.submit(follow, n) for n in range(100)]
        for line in lines:
            runs.player.write(id, "fit", 1, f"{line}\n".encode())
        runs.player.end_attempt(id, "fit", 0, RunState.SUCCEEDED)
        assert all(call.result() == lines for call in following)


# --- trouble ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("runs?limit=%FF", 400),
        ("runs?state=\xff", 400),
        ("runs/../../../etc/passwd", 400),
        ("runs/%2e%2e/logs", 400),
        ("runs/%00/logs", 400),
        ("runs//logs", 400),
        ("runs/x/logs?stage=../../db/state", 404),
        ("runs?after=" + "0" * 8000, 400),
        ("runs/" + "0" * 8000, 404),
    ],
)
def test_malformed_targets(runs: Runs, target: str, status: int) -> None:
    head = (
        f"GET /demo/train/{target} HTTP/1.1\r\nHost: a\r\nAuthorization: {ANN}\r\nConnection: close\r\n\r\n"
    )
    received = runs.web.raw(head.encode("latin-1"))
    assert received.startswith(b"HTTP/1.1 %d " % status), received[:200]
    assert b"Traceback" not in received
    assert runs.ask("GET", "train/runs?limit=1").status == 200


def test_bodies_too_large_and_in_pieces(runs: Runs) -> None:
    reply = runs.ask("POST", "train/runs", b" " * (MEBIBYTE + 1))
    assert (reply.status, kind(reply), reply.json["limit"]) == (413, "body-too-large", MEBIBYTE)
    head = f"POST /demo/train/runs HTTP/1.1\r\nHost: a\r\nAuthorization: {ANN}\r\nConnection: close\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = json.dumps(BODY).encode()
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in pieces) + b"0\r\n\r\n"
    assert runs.web.raw(head.encode() + chunked).startswith(b"HTTP/1.1 202 ")
    endless = b"10000\r\n%b\r\n" % (b" " * 65536) * 40 + b"0\r\n\r\n"
    assert runs.web.raw(head.encode() + endless).startswith(b"HTTP/1.1 413 ")


def test_bodies_that_never_end_hold_up_nobody(runs: Runs) -> None:
    """Far more than there are threads."""
    head = (
        f"POST /demo/train/runs HTTP/1.1\r\nHost: a\r\nAuthorization: {ANN}\r\nContent-Length: 50\r\n\r\n{{"
    )
    stuck = [socket.create_connection(runs.web.address) for _ in range(200)]
    try:
        for sock in stuck:
            sock.sendall(head.encode())
        for _ in range(10):
            runs.submit()
    finally:
        for sock in stuck:
            sock.close()


def test_a_storage_that_hangs_holds_up_no_run(runs: Runs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(40) as threads:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        runs.web.store.boxes.record_access(StorageAccess(url, url, "key", Secret("secret")))
        runs.web.store.boxes.save(BoxRecord(APP, ComponentName("data"), "prichal.demo.data", 10**9))
        waiting = [threads.submit(runs.web.ask, "GET", "/demo/files/data") for _ in range(40)]
        silent.accept()[0].close()
        for _ in range(10):
            runs.submit()
        assert not all(call.done() for call in waiting)
        silent.close()
        assert {call.result().status for call in waiting} == {503}


def test_the_descriptions(runs: Runs) -> None:
    assert runs.ask("GET", "train/openapi.json").json["servers"] == [{"url": "/demo/train"}]
    assert runs.ask("GET", "pipelines/openapi.json").json["servers"] == [{"url": "/demo/pipelines"}]
    for path in ("train/docs", "pipelines/docs"):
        page = runs.ask("GET", path)
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"Learning rate" in page.body
