"""Requests that nobody means well, made from what each route knows: none may be the platform's own fault."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.config import Settings
from controller.domain.apps.spec import CorsSpec
from controller.domain.apps.status import AppStatus, RepositoryRecord
from controller.domain.names import ComponentName
from controller.domain.routing.passwords import hash_token
from controller.domain.routing.routes import ServiceKind
from controller.domain.runs.run import new_run, new_run_id
from controller.domain.storage.box import BoxRecord, ObjectPage
from controller.store import SqliteStore
from controller.web.asgi import GatewayApp
from controller.web.problems import CONTENT_TYPE
from tests.support.fake_objects import FakeObjects
from tests.support.gateway import APP, Caller, make_api, make_route, make_service
from tests.support.runs import RunDriver, all_pipelines, make_pipeline, one_pipeline
from tests.support.specs import make

from .conftest import ACCESS

RUN = new_run_id(1.0, 1)
TOKEN = "t0ken"

#: Words of the platform's own paths, the more frequent the more often they stand here.
SEGMENTS = st.sampled_from(
    f"demo demo demo demo files train pipelines image - - apps hooks events runs {RUN} logs cancel retry data g "
    "f.txt docs openapi.json predict v2 models infer healthz readyz metrics status reconcile approve repo suspend "
    "@platform".split()
)
ODD = st.sampled_from(
    [
        ".",
        "..",
        "%2e%2e",
        "%00",
        "%ff",
        "%ed%a0%80",
        "%",
        "%2",
        "%2f",
        "%5c",
        "%E2%80%AE",
        "%C2%85",
        "~",
        "%F0%9F%98%80",
        "",
        "a" * 300,
    ]
) | st.text(max_size=8).map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe=""))
ROUTES = f"""
/demo/files/ /demo/files/data/ /demo/files/data/g/ /demo/files/data/g/f.txt /demo/files/-/docs /demo/files/openapi.json
/demo/train/runs /demo/train/runs/{RUN} /demo/train/runs/{RUN}/logs /demo/train/runs/{RUN}/events
/demo/train/runs/{RUN}/cancel /demo/train/runs/{RUN}/retry /demo/pipelines/ /demo/pipelines/runs
/demo/pipelines/train/runs /demo/pipelines/train/runs/{RUN} /-/ /-/apps /-/apps/demo /-/apps/demo/events
/-/apps/demo/approve /-/apps/demo/reconcile /-/hooks/repo /-/hooks/repo/d-1
/demo/staged/predict /demo/image/predict
""".split()
PATHS = st.sampled_from(ROUTES) | st.lists(SEGMENTS | SEGMENTS | ODD, max_size=6).map(
    lambda parts: "/" + "/".join(parts)
)
VALUES = st.sampled_from(
    [
        *"0 1 60 61 -1 1.5 718.0 NaN inf 1e9 null true ../../ .. / a//b %00 %ff %ed%a0%80 %2e%2e/ developer QUEUED fit "
        f"٣ + & = \\ %0d%0aX:y succeeded [1] {{}} {RUN} {'9' * 19} {'9' * 30} {'9' * 5000} {'a' * 1100}".split(),
        "",
        " ",
        "%F0%9F%98%80" * 90,
    ]
)
NAMES = st.sampled_from(
    [
        "wait",
        "after",
        "limit",
        "offset",
        "attempt",
        "stage",
        "follow",
        "state",
        "recursive",
        "area",
        "size",
        "part",
        "upload",
        "uploads",
        "x",
    ]
)
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=3).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "range",
            "if-none-match",
            "if-match",
            "if-range",
            "last-event-id",
            "prefer",
            "idempotency-key",
            "x-request-id",
            "host",
            "cookie",
            "origin",
            "content-type",
            "accept",
            "traceparent",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-signature",
            "x-delivery",
            "x-prichal",
            "x-prichal-push",
            "expect",
            "accept-encoding",
            "access-control-request-method",
        ]
    ),
    st.sampled_from(
        [
            *f'bytes=0- bytes=-1 bytes=5-2 bytes={"9" * 18}- bytes=a-b bytes=0-1,3-4 "1" W/"1" * wait=30 wait=NaN '
            "respond-async,wait=9999999 application/json text/plain multipart/form-data a=b;__Host-x=y ;;= [ ]:80 "
            f"1-2-3 end -1 1 {'9' * 30} {',' * 50} https://lab.example.org null 100-continue gzip".split(),
            "",
            "a b",
            "\x80ÿ",
            '"' * 50,
            "application/json; charset=utf-16",
        ]
    )
    | st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=20),
    max_size=4,
)
BODIES = st.sampled_from(
    [
        *rb"""{} [] null { "\ud800" 1e999 NaN {"revision":"\ud800"} {"revision":5} {"inputs":5} {"ref":5}
    {"ref":"\udfff"}
    {"inputs":{"data":"g/in.csv"}} {"inputs":{"data":"../../x"}} {"inputs":{"data":"a/b"},"priority":1e308}
    {"inputs":[{"name":"data","datatype":"FILE","data":"\u0000"}]} {"inputs":{"data":"a/b"},"webhook":"http://["}
    {"inputs":{"\ud800":"x"}} {"inputs":{"data":{"a":"\ud83d"}}} {"outputs":{"report":["..",{}]}}""".split(),
        b"",
        b"\xff",
        b"[" * 5000,
    ]
)
AUTHORIZATIONS = st.sampled_from(
    [*[f"Bearer {TOKEN}"] * 4, "", "Bearer letmein-token", "Bearer", "Basic", "Basic !!!", "Digest x", "\xff"]
    + [
        "Basic " + base64.b64encode(pair).decode()
        for pair in (b"a:letmein-token", b"a", b"\xff:\xfe", b"a\0:\0")
    ]
)
METHODS = st.sampled_from(
    ["GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"]
)


class Worker:
    """A gateway on a loop of its own, whose answers that wait for news come at once."""

    def __init__(self, store: SqliteStore, settings: Settings, objects: FakeObjects) -> None:
        self._runner = asyncio.Runner()
        self._gateway = self._runner.run(self._start(store, settings, objects))

    async def _start(self, store: SqliteStore, settings: Settings, objects: FakeObjects) -> GatewayApp:
        self._door = socket.create_server(("127.0.0.1", 0))
        gateway = GatewayApp(store, settings, lambda access: objects, self._door)
        await gateway.start()
        gateway.watch.end_waits()
        return gateway

    def close(self) -> None:
        self._runner.run(self._gateway.stop())
        self._runner.close()
        self._door.close()

    def ask(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Caller:
        raw = path.encode()
        fields = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote_to_bytes(raw).decode("utf-8", "replace"),  # as gunicorn gives it
            "raw_path": raw,
            "root_path": "",
            "query_string": quote(query, safe="%&=/+?;:@,![]{}\\'\" ").replace(" ", "+").encode(),
            "headers": [*fields, (b"content-length", b"%d" % len(body))],
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 80),
        }
        caller = Caller(body)

        async def bounded() -> None:
            async with asyncio.timeout(20):
                await self._gateway.answer(scope, caller.receive, caller.send)

        self._runner.run(bounded())
        return caller


@contextmanager
def serving(store: SqliteStore, settings: Settings, objects: FakeObjects) -> Iterator[Worker]:
    """A worker with an API of every kind."""
    rules: dict[str, Any] = {
        "tokens": (("ann", hash_token(TOKEN)),),
        "cors": make(CorsSpec, ("https://lab.example.org",)),
    }
    store.boxes.record_access(ACCESS)
    store.boxes.save(BoxRecord(APP, ComponentName("data"), "bucket", 10**9))
    objects.create_bucket("bucket")
    store.runs.publish(APP, (make_pipeline(),))
    store.runs.submit(new_run(RUN, make_pipeline(), 1.0, "ann"))
    RunDriver(store, settings.run_files).begin(RUN)
    store.routes.publish(
        APP,
        (
            make_service("files", ServiceKind.FILES, ("ann",), **rules),
            one_pipeline(**rules),
            all_pipelines(**rules),
        ),
    )
    store.routes.switch(make_route(make_api("image"), upstreams=("127.0.0.1:1",)))
    store.routes.switch(
        make_route(
            make_api("staged", oidc_issuer="http://127.0.0.1:1", oidc_audience="demo", **rules),
            component=ComponentName("stager"),
            upstreams=("127.0.0.1:1",),
            boxes=(ComponentName("data"),),
        )
    )
    store.repositories.replace([RepositoryRecord("repo", (APP,), "branch:main", 60.0, "generic", "s3cret")])
    with closing(Worker(store, settings, objects)) as made:
        yield made


@pytest.fixture
def worker(store: SqliteStore, settings: Settings, objects: FakeObjects) -> Iterator[Worker]:
    with serving(store, settings, objects) as made:
        yield made


def check(caller: Caller) -> None:
    assert caller.messages, "no answer"
    assert not caller.messages[-1].get("more_body", False)
    if caller.status < 400:
        return
    if caller.body:  # but for HEAD
        assert caller.headers["content-type"] == CONTENT_TYPE
        document = json.loads(caller.body)
        assert document["status"] == caller.status
        assert document["detail"]
        assert len(document["detail"]) < 1500
    # No component is there, no issuer, and, as readyz says, no daemon.
    known = (b"component-unreachable", b"issuer-unreachable", b"daemon")
    assert caller.status < 500 or any(word in caller.body for word in known), caller.body


@pytest.mark.slow
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(METHODS, PATHS, QUERIES, FIELDS, AUTHORIZATIONS, BODIES)
def test_no_request_is_the_platforms_fault(
    worker: Worker,
    method: str,
    path: str,
    query: str,
    fields: dict[str, str],
    authorization: str,
    body: bytes,
) -> None:
    headers = {"host": "127.0.0.1", "content-type": "application/json", "x-prichal": "1", **fields}
    headers.pop("content-length", None)
    if authorization:
        headers["authorization"] = authorization
    began = time.monotonic()
    check(worker.ask(method, path, query, headers, body))
    assert time.monotonic() - began < 10


NUMBERS = ["../../", "NaN", "-1", "1e3", "1.5", "null", "", "9" * 30, "9" * 5000, "\u0663", "1&{name}=2"]
FLAGS = ["null", "2", "yes", "../../"]
BYTES = ["%00", "%ff", "%ed%a0%80", "%0a"]
ASKED = [
    ("/demo/files/data/g/", "after", ["../../", "..", "a/../b", "./", "//", " .. "]),
    ("/demo/files/data/g/", "limit", [*NUMBERS, "0", "1001"]),
    ("/demo/files/data/g/", "recursive", FLAGS),
    ("/demo/files/data/g/", "area", ["", "null", "user"]),
    ("/demo/files/data/g/f.txt", "upload", []),
    ("/demo/train/runs", "after", ["../../", "null", "0"]),
    ("/demo/train/runs", "limit", [*NUMBERS, "0", "101"]),
    ("/demo/train/runs", "state", ["null", "../../", "\u0130"]),
    (f"/demo/train/runs/{RUN}", "wait", [*NUMBERS, "61"]),
    (f"/demo/train/runs/{RUN}/logs", "offset", NUMBERS),
    (f"/demo/train/runs/{RUN}/logs", "attempt", NUMBERS),
    (f"/demo/train/runs/{RUN}/logs", "follow", FLAGS),
    ("/-/apps/demo/events", "after", NUMBERS),
    ("/-/apps/demo/events", "limit", NUMBERS),
    ("/-/apps/demo/events", "follow", FLAGS),
]


@pytest.mark.parametrize(
    ("path", "name", "values"), ASKED, ids=lambda value: None if isinstance(value, list) else value
)
def test_strange_parameters_are_refused_in_words(
    worker: Worker, store: SqliteStore, path: str, name: str, values: list[str]
) -> None:
    store.apps.save(AppStatus(APP), [])
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {TOKEN}"}
    if path.startswith("/-/"):
        headers = {"host": "127.0.0.1"}
    for value in [*values, *BYTES]:
        caller = worker.ask("GET", path, f"stage=fit&{name}={value.replace('{name}', name)}", headers, b"")
        assert caller.status == 400, (value, caller.body)
        assert name.encode() in caller.body or b"UTF-8" in caller.body


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"revision": "\\ud800"}', b'{"revision": 5}', b"[]", b"{"]
)
def test_strange_bodies_are_refused_in_words(worker: Worker, store: SqliteStore, body: bytes) -> None:
    store.apps.save(AppStatus(APP), [])
    headers = {"host": "127.0.0.1", "x-prichal": "1", "content-type": "application/json"}
    caller = worker.ask("POST", "/-/apps/demo/approve", "", headers, body)
    assert caller.status == 400
    assert json.loads(caller.body)["detail"]


class Broken(FakeObjects):
    """A client of the storage with a fault that nobody has thought of."""

    def sign(self, *_: Any, **__: Any) -> str:
        raise ZeroDivisionError("the password is hunter2")

    def page(self, *_: Any, **__: Any) -> ObjectPage:
        raise ZeroDivisionError("the password is hunter2")


def test_a_bug_ends_one_request_with_a_problem(
    store: SqliteStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """On the event loop as in the Flask application, and pages of other origins can read it."""
    body = b'{"inputs": [{"name": "x", "datatype": "FILE", "data": "g/f.txt"}]}'
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {TOKEN}", "origin": "https://lab.example.org"}
    with serving(store, settings, Broken()) as worker:
        for method, path in [("POST", "/demo/staged/predict"), ("PUT", "/demo/files/data/g/f.txt")] * 2:
            caller = worker.ask(method, path, "", headers, body if method == "POST" else b"")
            assert caller.status == 500
            assert json.loads(caller.body)["type"] == "urn:prichal:problem:internal"
            assert b"hunter2" not in caller.body
            assert caller.headers["access-control-allow-origin"] == "https://lab.example.org"
    assert len([record for record in caplog.records if record.exc_info]) == 4
