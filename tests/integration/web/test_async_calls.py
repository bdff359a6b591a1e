"""Calls that their callers do not wait for, over a real gunicorn with two workers and a component that does as it is
told."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from controller.domain.apps.spec import Webhook
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.passwords import hash_password, hash_token
from controller.domain.routing.routes import Route
from controller.domain.runs.webhooks import Message
from controller.serving.http1 import HttpResponse, problem_response
from controller.serving.refusals import STATUSES, refusal_of
from tests.integration.web.conftest import Reply, Web, serving
from tests.support.gateway import make_api, make_route
from tests.support.serve_web import settings_of, with_web
from tests.support.stores import open_store
from tests.support.waiting import wait_for

ANN = {"Authorization": "Basic YW5uOnMzY3JldA=="}  # ann:s3cret
BOB = {"Authorization": "Basic Ym9iOnMzY3JldA=="}  # bob:s3cret
ASYNC = {"Prefer": "respond-async", "Content-Type": "application/json"}
ADMIN = {"Authorization": "Bearer letmein-token"}
IN_USE = "QUEUED", "RUNNING", "CANCELING"


def refused(status: int) -> HttpResponse:
    """Return what the serving library answers for a function that refuses a call."""
    error = Exception()
    error.status_code, error.detail = status, "not today"  # type: ignore[attr-defined]
    refusal = refusal_of(error)
    assert refusal is not None
    return problem_response(refusal, "r1")


class ObedientHandler(BaseHTTPRequestHandler):
    """Does what the body says: `hold` until the test lets it go, `die` without an answer, answer with `status`, or
    `refuse` as a function does."""

    protocol_version = "HTTP/1.1"
    server: Obedient

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        told = json.loads(body or b"{}")
        self.server.seen.append(told.get("name", ""))
        self.server.headers.append(dict(self.headers))
        if told.get("hold"):
            self.server.held.release()
            self.server.letting_go.wait(60)
        if told.get("die"):
            self.connection.close()
            self.close_connection = True
            return
        status = self.server.refusing or told.get("status", 200)
        answer = {"outputs": told.get("outputs", self.server.outputs)}
        kind = "application/json"
        if self.server.refusing:
            answer, kind = {"type": "urn:prichal:problem:queue-full"}, "application/problem+json"
        data = b"x" * told["size"] if "size" in told else json.dumps(answer).encode()
        if "refuse" in told:
            refusal = refused(told["refuse"])
            status, kind, data = refusal.status, refusal.content_type, bytes(refusal.body)
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("X-Request-ID", self.headers["x-request-id"])):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class Obedient(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, outputs: list[Any]) -> None:
        super().__init__(("127.0.0.1", 0), ObedientHandler)
        self.outputs = outputs
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.held = threading.Semaphore(0)
        self.letting_go = threading.Event()
        self.refusing = 0

    def handle_error(self, *_: object) -> None:
        pass  # connections that the gateway has closed

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@contextmanager
def obedient(outputs: list[Any] | None = None) -> Iterator[Obedient]:
    with Obedient(outputs or []) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.letting_go.set()
            server.shutdown()
            thread.join()


def route(app: str, *endpoints: str, **fields: Any) -> Route:
    users = (("ann", hash_password("s3cret", "salt")), ("bob", hash_password("s3cret", "salt")))
    apis = (
        make_api("open"),
        make_api("closed", users=users, tokens=(("ci", hash_token("t0ken")),)),
        make_api("other", users=users),
    )
    known = {"app": AppName(app), "upstreams": endpoints, "timeout": 20.0, "concurrency": 9, **fields}
    return make_route(*apis, **known)


class Running:
    def __init__(self, web: Web, component: Obedient) -> None:
        self.web = web
        self.component = component

    def submit(self, told: Any = None, path: str = "/demo/open", /, **headers: str) -> Reply:
        fields = {**ASYNC, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.ask("POST", f"{path}/predict", json.dumps(told or {}).encode(), **fields)

    def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> Reply:
        """Retry while a worker restarts: nothing of such a request was read."""
        connection = HTTPConnection(*self.web.address, timeout=90)
        with closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def call(self, place: str, **headers: str) -> Any:
        return self.ask("GET", place, None, **headers).json

    def ended(self, place: str, **headers: str) -> Any:
        """Wait for the end; a worker that stops ends its long polls before."""
        return wait_for(
            lambda: self.ask("GET", f"{place}?wait=30", None, **headers).json,
            lambda found: found["state"] not in IN_USE,
        )

    def taken(self, id: str) -> tuple[Message, ...]:
        """Return what the daemon has to send at the end of a call."""
        self.web.store.requests.claim(0.0)
        return self.web.store.webhooks.of(id)

    @property
    def database(self) -> Path:
        return self.web.state / "web" / "calls.db"

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database, timeout=30)) as db, db:
            return db.execute(statement, values).fetchall()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    state = tmp_path_factory.mktemp("state")
    with_web(state, calls={"max_result": 2**20, "running": 12, "running_per_app": 8})
    with closing(open_store(settings_of(state).database)) as store, obedient() as component:
        store.routes.switch(route("demo", component.endpoint))
        store.routes.switch(route("neighbour", component.endpoint))
        with serving(state, store, component) as web:  # type: ignore[arg-type]
            yield Running(web, component)


@pytest.fixture(autouse=True)
def fresh(running: Running) -> Iterator[None]:
    yield
    running.component.letting_go.set()
    running.component.refusing = 0
    wait_for(lambda: not running.sql("SELECT 1 FROM calls WHERE ended IS NULL"))
    running.component.letting_go = threading.Event()
    while running.component.held.acquire(blocking=False):
        pass


def test_a_call_is_answered_later(running: Running) -> None:
    accepted = running.submit({"outputs": [{"name": "label", "data": "cat"}]})
    assert accepted.status == 202
    assert accepted.headers["preference-applied"] == "respond-async"
    assert accepted.headers["retry-after"] == "1"
    place = accepted.headers["location"]
    assert accepted.json["links"] == {"self": place, "result": f"{place}/result"}
    assert accepted.json["state"] in ("QUEUED", "RUNNING", "SUCCEEDED")
    found = running.ended(place)
    assert (found["state"], found["result"]["status"], found["reason"]) == ("SUCCEEDED", 200, "")
    assert found["created"] <= found["started"] <= found["ended"]
    result = running.ask("GET", f"{place}/result")
    assert (result.status, result.headers["content-type"]) == (200, "application/json")
    assert result.json == {"outputs": [{"name": "label", "data": "cat"}]}
    assert result.headers["cache-control"] == "no-store"
    head = running.ask("HEAD", f"{place}/result")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(result.body)))


def test_who_prefers_to_wait_gets_the_result_itself(running: Running) -> None:
    answer = running.submit({"outputs": [1]}, Prefer="respond-async, wait=30")
    assert (answer.status, answer.json) == (200, {"outputs": [1]})
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.headers["content-location"].endswith("/result")
    late = running.submit({"hold": True}, Prefer="wait=1, respond-async")
    assert (late.status, late.headers["preference-applied"]) == (202, "respond-async, wait=1")
    assert running.ask("GET", f"{late.headers['location']}/result").status == 202
    running.component.letting_go.set()
    assert running.ask("GET", f"{late.headers['location']}/result?wait=60").status == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"Prefer": "return=minimal"},
        {"Prefer": "wait=5"},
        {"Prefer": 'x="a, respond-async, b"'},
        {"Prefer": "respond-asynchronously"},
        {"Prefer": "respond-async", "Accept": "text/event-stream"},
    ],
)
def test_other_preferences_and_streams_are_answered_at_once(running: Running, fields: dict[str, str]) -> None:
    answer = running.ask("POST", "/demo/open/predict", b"{}", **fields)
    assert (answer.status, answer.json) == (200, {"outputs": []})
    assert "preference-applied" not in answer.headers


def test_a_call_that_the_function_refuses_has_failed_and_is_not_repeated(running: Running) -> None:
    places = {
        status: running.submit({"refuse": status, "name": f"refused-{status}"}).headers["location"]
        for status in sorted(STATUSES)
    }
    for status, place in places.items():
        found = running.ended(place)
        assert (found["state"], found["reason"]) == ("FAILED", "HttpStatus")
        result = running.ask("GET", f"{place}/result")
        assert (result.status, result.headers["content-type"]) == (status, "application/problem+json")
        assert (result.json["type"], result.json["detail"]) == (
            "urn:prichal:problem:function-refused",
            "not today",
        )
        assert running.component.seen.count(f"refused-{status}") == 1


def test_what_the_component_refuses_is_the_result(running: Running) -> None:
    place = running.submit({"status": 422}).headers["location"]
    found = running.ended(place)
    assert (found["state"], found["reason"]) == ("FAILED", "HttpStatus")
    assert running.ask("GET", f"{place}/result").status == 422


def test_an_answer_counts_once_however_often_it_is_fetched(running: Running) -> None:
    """The rate of errors, by which rollouts and alerts go, is that of the component."""
    running.web.put(route("counter", running.component.endpoint))

    def counted(code: int, api: str = "counter/other") -> float:
        line = f'prichal_gateway_requests_total{{api="{api}",code="{code}"}} '
        page = running.ask("GET", "/-/metrics", None, **ADMIN).body.decode()
        return sum(float(each.removeprefix(line)) for each in page.splitlines() if each.startswith(line))

    place = running.submit({"status": 500}, "/counter/other", **ANN).headers["location"]
    assert running.ended(place, **ANN)["state"] == "FAILED"
    for _ in range(3):
        assert running.ask("GET", f"{place}/result", None, **ANN).status == 500
    wait_for(lambda: counted(500, "platform") >= 3)
    wait_for(lambda: (counted(202), counted(500)) == (1, 1))


def test_a_container_that_dies_in_the_middle(running: Running) -> None:
    """The call may have run, so it is not repeated."""
    place = running.submit({"name": "dying", "die": True}).headers["location"]
    found = running.ended(place)
    assert (found["state"], found["reason"]) == ("ERROR", "ComponentDied")
    result = running.ask("GET", f"{place}/result")
    assert (result.status, result.json["type"]) == (502, "urn:prichal:problem:component-died")
    assert running.component.seen.count("dying") == 1


def test_a_component_that_has_not_taken_the_call_gets_it_later(running: Running) -> None:
    running.component.refusing = 503
    place = running.submit({"name": "refused"}).headers["location"]
    wait_for(lambda: running.call(place)["reason"] == "NotReady")
    running.component.refusing = 0
    assert running.ended(place)["state"] == "SUCCEEDED"


def test_a_call_waits_while_no_version_is_ready(running: Running) -> None:
    running.web.put(route("waiting"))
    place = running.submit(None, "/waiting/open").headers["location"]
    assert running.call(place)["state"] == "QUEUED"
    running.web.put(route("waiting", "127.0.0.1:1"))  # nobody listens there
    wait_for(lambda: running.call(place)["reason"] == "ComponentUnreachable")
    running.web.put(route("waiting", running.component.endpoint))
    assert running.ended(place)["state"] == "SUCCEEDED"


def test_the_component_is_told_how_much_time_it_has(running: Running) -> None:
    running.web.put(route("slow", running.component.endpoint, async_timeout=1234.5))
    running.ended(running.submit(None, "/slow/open", X_Prichal_Timeout="9").headers["location"])
    assert running.component.headers[-1]["x-prichal-timeout"] == "1234.500"
    running.ask("POST", "/slow/open/predict", b"{}", **{"X-Prichal-Timeout": "9"})
    assert "x-prichal-timeout" not in running.component.headers[-1]


def test_a_component_that_takes_too_long(running: Running) -> None:
    running.web.put(route("late", running.component.endpoint, async_timeout=0.1))
    found = running.ended(running.submit({"hold": True}, "/late/open").headers["location"])
    assert (found["state"], found["reason"], found["result"]["status"]) == ("FAILED", "ComponentTimeout", 504)


def test_a_result_that_is_too_large(running: Running) -> None:
    place = running.submit({"size": 2**20 + 1}).headers["location"]
    assert running.ended(place)["reason"] == "ResultTooLarge"
    assert running.ask("GET", f"{place}/result").status == 507
    place = running.submit({"size": 2**20}).headers["location"]
    assert running.ended(place)["state"] == "SUCCEEDED"
    assert running.ask("GET", f"{place}/result").body == b"x" * 2**20


def test_a_body_that_is_too_large(running: Running) -> None:
    answer = running.submit({"padding": "x" * 2**20})
    assert (answer.status, answer.json["limit"]) == (413, 2**20)


# --- who may ask ------------------------------------------------------------------------------------------------


def test_only_its_caller_sees_a_call(running: Running) -> None:
    place = running.submit({}, "/demo/closed", **ANN).headers["location"]
    assert running.ended(place, **ANN)["user"] == "ann"
    for path in (place, f"{place}/result"):
        assert running.ask("GET", path).status == 401
        for others in (BOB, {"Authorization": "Bearer t0ken"}):
            assert running.ask("GET", path, None, **others).status == 404
        for elsewhere in ("open", "other"):
            assert running.ask("GET", path.replace("closed", elsewhere), None, **ANN).status == 404
        assert running.ask("GET", path.replace("/demo/", "/neighbour/"), None, **ANN).status == 404
    assert running.ask("DELETE", place, None, **BOB).status == 404
    assert running.ask("GET", place, None, **ANN).status == 200


@pytest.mark.parametrize(
    "id", ["x", "0" * 32, "F" * 32, "0" * 64, "%00", "..", "a" * 65, "1%2F2", "'%20OR%201=1"]
)
@pytest.mark.parametrize("part", ["", "/result"])
def test_hostile_ids(running: Running, id: str, part: str) -> None:
    answer = running.ask("GET", f"/demo/open/calls/{id}{part}")
    assert answer.status in (400, 404)
    assert answer.headers["content-type"] == "application/problem+json"


def test_methods(running: Running) -> None:
    place = running.submit().headers["location"]
    assert running.ask("PUT", place, b"").headers["allow"] == "GET, HEAD, DELETE, OPTIONS"
    assert running.ask("DELETE", f"{place}/result").headers["allow"] == "GET, HEAD, OPTIONS"


def test_a_server_of_its_own_decides_itself(running: Running) -> None:
    running.web.put(route("own", running.component.endpoint, any_path=True))
    answer = running.submit({"name": "own"}, "/own/open")
    assert answer.status == 200
    assert running.component.headers[-1]["prefer"] == "respond-async"


# --- lists and events -------------------------------------------------------------------------------------------


def test_a_caller_lists_their_calls(running: Running) -> None:
    running.web.put(route("lister", running.component.endpoint))
    mine = [running.submit({"status": status}, "/lister/closed", **ANN) for status in (200, 200, 422)]
    places = [each.headers["location"] for each in mine]
    running.submit({}, "/lister/closed", **BOB)
    running.submit({}, "/lister/other", **ANN)
    for place in places:
        running.ended(place, **ANN)
    first = running.call("/lister/closed/calls?limit=2", **ANN)
    assert [call["links"]["self"] for call in first["calls"]] == [places[2], places[1]]
    last = running.call(f"/lister/closed/calls?limit=2&after={first['next']}", **ANN)
    assert ([call["links"]["self"] for call in last["calls"]], last["next"]) == ([places[0]], None)
    failed = running.call("/lister/closed/calls?state=failed", **ANN)["calls"]
    assert [call["links"]["self"] for call in failed] == [places[2]]
    assert failed[0] == running.call(places[2], **ANN)
    head = running.ask("HEAD", "/lister/closed/calls", None, **ANN)
    assert (head.status, head.body, head.headers["cache-control"]) == (200, b"", "no-store")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("state=RUNNING", 200),
        ("state=over", 400),
        ("limit=0", 400),
        ("limit=101", 400),
        ("after=x", 400),
        (f"after={'0' * 32}", 400),
        ("limit=1&limit=2", 400),
        ("state=%ff", 400),
    ],
)
def test_parameters_of_a_list(running: Running, query: str, status: int) -> None:
    assert running.ask("GET", f"/demo/closed/calls?{query}", None, **ANN).status == status


def test_who_may_list(running: Running) -> None:
    """Callers without a name would see the calls of all others who have none."""
    running.submit()
    assert running.ask("GET", "/demo/open/calls").status == 404
    assert running.ask("GET", "/demo/closed/calls").status == 401
    assert running.ask("GET", "/demo/closed/calls/", None, **ANN).status == 404
    refused = running.ask("POST", "/demo/closed/calls", b"", **ANN)
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_following_a_call(running: Running) -> None:
    running.web.put(route("followed"))
    place = running.submit({"hold": True}, "/followed/closed", **ANN).headers["location"]
    with closing(HTTPConnection(*running.web.address, timeout=90)) as connection:
        connection.request("GET", f"{place}/events", headers=ANN)
        response = connection.getresponse()
        assert response.headers["content-type"] == "text/event-stream"
        events = sse_events(response)
        assert next(events)[1]["state"] == "QUEUED"
        running.web.put(route("followed", running.component.endpoint))
        running.component.held.acquire()
        seen = next(events)
        while seen[1]["state"] == "QUEUED":  # with the reason why it could not begin before
            seen = next(events)
        assert (seen[0], seen[1]["state"]) == ("", "RUNNING")
        running.component.letting_go.set()
        assert next(events) == ("end", running.ended(place, **ANN))
        assert list(events) == []
    again = running.ask("GET", f"{place}/events", None, **ANN, **{"Last-Event-ID": "end"})
    assert again.status == 204
    assert running.ask("GET", f"{place}/events", None, **ANN).body.count(b"data:") == 1
    assert running.ask("HEAD", f"{place}/events", None, **ANN).body == b""
    assert running.ask("GET", f"{place}/events", None, **BOB).status == 404
    assert running.ask("POST", f"{place}/events", b"", **ANN).status == 405


def sse_events(response: HTTPResponse) -> Iterator[tuple[str, Any]]:
    kind = ""
    for line in response:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)
            kind = ""


# --- idempotency keys -------------------------------------------------------------------------------------------


def test_a_key_stands_for_one_call(running: Running) -> None:
    first = running.submit({"name": "once"}, Idempotency_Key='"k1"')
    again = running.submit({"name": "once"}, Idempotency_Key="k1")
    assert (again.status, again.json["id"]) == (202, first.json["id"])
    other = running.submit({"name": "twice"}, Idempotency_Key="k1")
    assert (other.status, other.json["type"]) == (422, "urn:prichal:problem:idempotency-key-reused")
    assert running.submit({"name": "twice"}, "/demo/closed", Idempotency_Key="k1", **ANN).status == 202
    assert running.submit({}, Idempotency_Key="").status == 400
    running.ended(first.headers["location"])
    assert running.component.seen.count("once") == 1


def test_the_same_key_over_both_workers(running: Running) -> None:
    """Twelve callers with two bodies at once: one body wins, and it is called once."""

    def submit(index: int) -> Reply:
        return running.submit({"name": f"body {index % 2}"}, Idempotency_Key="shared")

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(submit, range(12)))
    winners = [answer for answer in answers if answer.status == 202]
    assert len({answer.json["id"] for answer in winners}) == 1
    assert sorted(answer.status for answer in answers) == [202] * 6 + [422] * 6
    running.ended(winners[0].headers["location"])
    assert sum(running.component.seen.count(f"body {index}") for index in (0, 1)) == 1


# --- webhooks ---------------------------------------------------------------------------------------------------


def test_receivers_are_notified_of_the_end(running: Running) -> None:
    """The daemon gets what it needs for it; how it signs and sends is the same as for runs."""
    hook = Webhook("demo-webhook", "https://example.org/all")
    running.web.put(route("hooked", running.component.endpoint, webhook=hook))
    first = running.submit({}, "/hooked/open", X_Prichal_Webhook="https://example.org/mine")
    second = running.submit({"die": True}, "/hooked/open")
    for accepted, type in ((first, "call.succeeded"), (second, "call.error")):
        id = accepted.json["id"]
        assert running.ended(accepted.headers["location"])
        found = wait_for(partial(running.taken, id))
        assert json.loads(found[0].body)["type"] == type
        urls = {hook.url, "https://example.org/mine"} if accepted is first else {hook.url}
        assert {message.url for message in found} == urls
    assert "x-prichal-webhook" not in running.component.headers[-1]
    refused = running.submit({}, X_Prichal_Webhook="https://example.org/mine")
    assert (refused.status, "webhook.secret" in refused.json["detail"]) == (422, True)
    assert running.submit({}, "/hooked/open", X_Prichal_Webhook="ftp://example.org").status == 422


# --- canceling --------------------------------------------------------------------------------------------------


def test_canceling_in_each_state(running: Running) -> None:
    running.web.put(route("cancel", running.component.endpoint, concurrency=2))
    first = running.submit({"hold": True}, "/cancel/open").headers["location"]
    running.component.held.acquire()
    second = running.submit({"name": "never"}, "/cancel/open").headers["location"]
    waiting = running.ask("DELETE", second)
    assert (waiting.status, waiting.json["state"]) == (200, "CANCELED")
    held = running.ask("DELETE", first, None, Prefer="wait=60")
    assert (held.status, held.json["state"], held.json["reason"]) == (200, "CANCELED", "Canceled")
    refused = running.ask("GET", f"{first}/result")
    assert (refused.status, refused.json["type"]) == (409, "urn:prichal:problem:call-state")
    assert running.ask("DELETE", first).json["state"] == "CANCELED"
    done = running.submit({}, "/cancel/open").headers["location"]
    running.ended(done)
    assert running.ask("DELETE", done).json["state"] == "SUCCEEDED"
    assert running.ask("GET", f"{done}/result").status == 200
    assert "never" not in running.component.seen


# --- shares -----------------------------------------------------------------------------------------------------


def test_a_thousand_waiting_calls_of_one_app_delay_no_other(running: Running) -> None:
    running.web.put(route("greedy", running.component.endpoint, concurrency=100))
    with ThreadPoolExecutor(8) as pool:
        accepted = list(
            pool.map(lambda _: running.submit({"hold": True}, "/greedy/open").status, range(1000))
        )
    assert accepted.count(202) == 1000
    for _ in range(8):
        running.component.held.acquire()  # its share runs
    assert running.ask("POST", "/neighbour/open/predict", b"{}").status == 200
    assert running.ask("POST", "/greedy/open/predict", b"{}").status == 200
    assert running.ended(running.submit({}, "/neighbour/open").headers["location"])["state"] == "SUCCEEDED"
    for _ in range(8):  # in place of those that run
        assert running.submit({"hold": True}, "/greedy/open").status == 202
    full = running.submit({}, "/greedy/open")
    assert (full.status, full.headers["retry-after"]) == (429, "10")
    assert full.json["type"] == "urn:prichal:problem:queue-full"
    shares = wait_for(lambda: _shares(running), lambda found: found.get("async calls") == 1000)
    assert shares["async results"] > 1000 * 2048
    metrics = running.ask("GET", "/-/metrics", None, **ADMIN).body.decode()
    assert 'prichal_async_calls{api="greedy/open",state="QUEUED"} 1000.0' in metrics
    assert 'prichal_async_calls{api="greedy/open",state="RUNNING"} 8.0' in metrics
    running.sql("DELETE FROM calls WHERE state = 'QUEUED'")


def _shares(running: Running) -> dict[str, int]:
    """Return what the workers have told the daemon of the app."""
    taken = running.web.store.gateways.taken(time.time())
    return {str(each.resource): each.most for each in taken if each.app == "greedy"}


# --- faults -----------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_loses_what_ran_and_nothing_else(running: Running) -> None:
    running.web.put(route("killed", running.component.endpoint, concurrency=3))
    held = [
        running.submit({"hold": True, "name": "held"}, "/killed/open").headers["location"] for _ in range(2)
    ]
    for _ in held:
        running.component.held.acquire()
    waiting = [running.submit({"name": "waited"}, "/killed/open").headers["location"] for _ in range(5)]
    for worker in running.web.workers():
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: len(running.web.workers()) == 2)
    wait_for(lambda: _answers(running))
    for place in held:
        found = running.ended(place)
        assert (found["state"], found["reason"]) == ("ERROR", "WorkerLost")
        result = running.ask("GET", f"{place}/result")
        assert (result.status, result.json["type"]) == (502, "urn:prichal:problem:call-lost")
    assert {running.ended(place)["state"] for place in waiting} == {"SUCCEEDED"}
    assert (running.component.seen.count("held"), running.component.seen.count("waited")) == (2, 5)


def _answers(running: Running) -> bool:
    try:
        return running.ask("GET", "/-/healthz").status == 200
    except OSError:
        return False


def test_a_worker_that_stops_gracefully_finishes_its_calls(running: Running) -> None:
    before = running.web.workers()
    place = running.submit({"hold": True}).headers["location"]
    running.component.held.acquire()
    running.web.signal(signal.SIGHUP)
    wait_for(lambda: len(running.web.workers() - before) == 2)
    running.component.letting_go.set()
    assert running.ended(place)["state"] == "SUCCEEDED"
    wait_for(lambda: not running.web.workers() & before)


def test_a_component_that_is_removed_and_an_app_that_is_deleted(running: Running) -> None:
    """Calls that wait for the first one end. The next app of that name sees nothing of this one's calls."""
    running.web.put(route("gone", running.component.endpoint))
    done = running.submit({}, "/gone/closed", **ANN).headers["location"]
    running.ended(done, **ANN)
    running.web.put(route("gone"))
    waiting = running.submit({}, "/gone/closed", **ANN).headers["location"]
    other = make_route(make_api("files"), app=AppName("gone"), component=ComponentName("other"))
    running.web.put(other)
    running.web.store.routes.withdraw(AppName("gone"), ComponentName("classify"))
    of = "SELECT state, reason FROM calls WHERE id = ?"
    ended = wait_for(lambda: running.sql(of, waiting.rpartition("/")[2]), lambda row: row[0][0] != "QUEUED")
    assert ended == [("ERROR", "ComponentRemoved")]
    running.web.store.routes.withdraw(AppName("gone"), ComponentName("other"))
    wait_for(lambda: not running.sql("SELECT 1 FROM calls WHERE app = 'gone'"))
    running.web.put(route("gone", running.component.endpoint))
    assert running.ask("GET", done, None, **ANN).status == 404
    assert running.call("/gone/closed/calls", **ANN)["calls"] == []


def test_what_is_old_is_removed(running: Running) -> None:
    place = running.submit({}, "/demo/closed", **ANN).headers["location"]
    running.ended(place, **ANN)
    running.sql("UPDATE calls SET ended = ended - 3601 WHERE ended IS NOT NULL")
    wait_for(lambda: running.ask("GET", place, None, **ANN).status == 410)
    assert running.ask("GET", f"{place}/result", None, **ANN).json["type"] == "urn:prichal:problem:call-gone"
    assert running.ask("GET", place, None, **BOB).status == 404
    assert running.sql("SELECT count(*) FROM results") == [(0,)]


def test_what_waits_for_too_long_expires(running: Running) -> None:
    running.web.put(route("never"))
    place = running.submit({}, "/never/open").headers["location"]
    running.sql("UPDATE calls SET created = created - 3601 WHERE ended IS NULL")
    found = running.ended(place)
    assert (found["state"], found["reason"]) == ("EXPIRED", "Expired")
    assert running.ask("GET", f"{place}/result").status == 409
