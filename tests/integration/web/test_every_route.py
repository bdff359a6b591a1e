"""`HEAD`, `OPTIONS` and methods that a path does not take, at every route of the gateway, of the platform's own APIs
and of the serving library. The table is made from the routes themselves, so a new one is in it. And which content
codings their requests and responses may have."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.objects import S3Objects
from controller.config import Settings
from controller.domain.apps.status import RepositoryRecord
from controller.domain.routing.routes import ServiceKind
from controller.store import SqliteStore
from controller.web.api.platform import live
from controller.web.app import create_app
from controller.web.gateway.router import METHODS_OF, PATTERNS
from controller.web.git import requests as git
from controller.web.pages.static_files import digest
from controller.web.pages.table import LIVE
from controller.web.storage import StorageClient
from tests.support.gateway import APP, make_api, make_route, make_service
from tests.support.runs import all_pipelines, make_pipeline, one_pipeline
from tests.support.serve_web import settings_of
from tests.support.stores import open_store
from tests.support.waiting import wait_for
from tests.unit.serving.server import ECHO, Server, text

from .conftest import Reply, Web, echo, serving

NAME = "classify"
#: What stands in a route for a part of it.
VALUES = {
    "<name>": str(APP),
    "<int:request>": "1",
    "<component>": NAME,
    "<pipeline>": "train",
    "<stage>": "fit",
    "<path:target>": "data/group/file",
    "<template>": "function",
    "<id>": "19c0a7f3e2d5b1f04a6",
    "<issuer>": "nowhere",
    "<repository>": "r",
    "<delivery>": "1",
    "<language>": "ru",
    "<version>": digest(),
    "<file>": "main.js",
    "<hosted>": "r",
    "<secret>": "keys",
}
#: Where the gateway publishes what Flask has below its kind.
PUBLISHED = {
    f"/{ServiceKind.FILES}": f"/{APP}/files",
    f"/{ServiceKind.PIPELINES}": f"/{APP}/pipelines",
    f"/{ServiceKind.PIPELINE}": f"/{APP}/train",
}
#: Paths that fit the patterns of the router, with what stands behind an API's own.
SAMPLES = (
    f"/v2/models/{NAME}",
    f"/v2/models/{NAME}/ready",
    f"/v2/models/{NAME}/versions/1",
    f"/v2/models/{NAME}/versions/1/ready",
    f"/v2/models/{NAME}/infer",
    f"/v2/models/{NAME}/versions/1/infer",
    f"/v1/models/{NAME}",
)
CALLS = ("/calls/0123", "/calls/0123/result")
#: Paths of the library that are not published, beside those that are.
INTERNAL = ("/health/live", "/health/ready", "/metrics")
STREAMS = ("/-/events?follow=1", f"/-/apps/{APP}/events?follow=1", *(f"{path}?live=1" for path in LIVE))


def filled(route: str) -> str:
    for part, value in VALUES.items():
        route = route.replace(part, value)
    return route.replace("<name>", NAME)


def published(route: str) -> str:
    """Return the address of a route of Flask. Below the pipelines of an app, `<name>` is one of them."""
    for kind in sorted(PUBLISHED, key=len, reverse=True):
        if route == kind or route.startswith(f"{kind}/"):
            return PUBLISHED[kind] + filled(route.removeprefix(kind).replace("<name>", "train"))
    return filled(route)


def test_the_samples_fit_every_pattern() -> None:
    for pattern, _ in PATTERNS:
        assert any(pattern.fullmatch(sample.encode()) for sample in SAMPLES), pattern


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("library"), ECHO, component=NAME)
    yield made.ready()
    made.close()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def store(state: Path) -> Iterator[SqliteStore]:
    with closing(open_store(settings_of(state).database)) as opened:
        yield opened


@pytest.fixture(scope="module")
def web(state: Path, store: SqliteStore, library: Server) -> Iterator[Web]:
    store.routes.switch(make_route(make_api("image"), upstreams=(f"127.0.0.1:{library.port}",)))
    store.runs.publish(APP, (make_pipeline(),))
    store.repositories.replace([RepositoryRecord("r", (APP,), "branch:main", 60.0, "generic", "a" * 32)])
    store.routes.publish(APP, (one_pipeline(), all_pipelines(), make_service()))
    with echo("none") as component, serving(state, store, component) as running:
        yield running


@pytest.fixture(scope="module")
def paths(store: SqliteStore, state: Path) -> list[str]:
    """All paths that anybody can ask for at the web process."""
    settings: Settings = settings_of(state)
    with closing(StorageClient(store, S3Objects.of, serves_links=False)) as storage:
        rules = [rule.rule for rule in create_app(store, settings, storage).url_map.iter_rules()]
    own = {published(rule) for rule in (*rules, *live.ROUTES, *(route for _, route in git.ROUTES))}
    below = (*(path.decode() for path in METHODS_OF), *SAMPLES, *CALLS)
    return sorted(own | {f"/{APP}/image{path}" for path in below})


def ask(web: Web, method: str, path: str) -> Reply:
    query = "?service=git-upload-pack" if path.endswith("/info/refs") else ""
    return web.ask(method, path + query, authorization="Bearer letmein-token")


def methods(reply: Reply) -> set[str]:
    return set(reply.headers["allow"].split(", "))


def test_every_path_says_what_it_takes(web: Web, paths: list[str]) -> None:
    assert len(paths) > 100
    for path in paths:
        asked = ask(web, "OPTIONS", path)
        assert (asked.status, asked.body) == (204, b""), path
        assert not {"content-type", "content-length"} & asked.headers.keys(), path
        assert methods(asked) > {"OPTIONS"}, path
        refused = ask(web, "BREW", path)
        assert (refused.status, methods(refused)) == (405, methods(asked)), path
        assert refused.headers["content-type"] in ("application/problem+json", "text/plain; charset=utf-8")


def test_every_path_that_takes_get_takes_head(web: Web, paths: list[str]) -> None:
    taken = [path for path in paths if "GET" in methods(ask(web, "OPTIONS", path))]
    assert len(taken) > 50
    for path in taken:
        get, head = ask(web, "GET", path), ask(web, "HEAD", path)
        assert (head.status, head.body) == (get.status, b""), path
        same = ("content-type", "allow", "location", "x-content-type-options")
        assert [head.headers.get(name) for name in same] == [get.headers.get(name) for name in same], path


@pytest.mark.parametrize("path", STREAMS)
def test_the_head_of_a_stream_ends(web: Web, path: str) -> None:
    """Those of runs: tests/unit/web/api/runs/test_live.py."""
    known = "/-/events", "/-/?live=1"
    head = ask(web, "HEAD", filled(path))
    assert head.body == b""
    if path.startswith(known):
        assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")


def test_the_serving_library_by_itself(library: Server) -> None:
    for path in (*(path.decode() for path in METHODS_OF if b"v1" not in path), *SAMPLES[:-1], *INTERNAL):
        asked, refused = library.ask("OPTIONS", path), library.ask("BREW", path)
        assert (asked.status, asked.body) == (204, b""), path
        assert (refused.status, refused.headers["allow"]) == (405, asked.headers["allow"]), path
        if "GET" in asked.headers["allow"]:
            assert (library.ask("HEAD", path).status, library.ask("HEAD", path).body) == (200, b"")


def test_a_path_that_is_not_there_has_no_methods(web: Web, library: Server) -> None:
    for path in ("/nobody/image/predict", f"/{APP}/image/other", "/-/other", f"/{APP}/train/other"):
        assert ask(web, "OPTIONS", path).status == 404, path
    assert library.ask("OPTIONS", "/other").status == 404


# --- content codings ---------------------------------------------------------------------------------------------

INFER = f"/{APP}/image/v2/models/{NAME}/infer"
PREDICT = f"/{APP}/image/predict"
#: Requests with a body, and the codings that they may have.
CODED = {
    ("POST", PREDICT): "gzip",
    ("POST", INFER): "gzip",
    ("POST", f"/{APP}/train/runs"): "identity",
    ("POST", f"/{APP}/pipelines/train/runs"): "identity",
    ("PUT", f"/{APP}/files/data/group/file"): "identity",
    ("POST", f"/{APP}/files/data/group/file"): "identity",
    ("POST", "/-/hooks/r"): "identity",
    ("POST", f"/-/apps/{APP}/reconcile"): "identity",
    ("PUT", f"/-/apps/{APP}/secrets/keys"): "identity",
}
LONG = text("in other words, " * 200)
BOMB = gzip.compress(bytes(200 * 2**20))


def send(web: Web, method: str, path: str, body: bytes, coding: str, **headers: str) -> Reply:
    fields = {"content_type": "application/json", "authorization": "Bearer letmein-token", "x_prichal": "1"}
    return web.ask(method, path, body, content_encoding=coding, **fields, **headers)


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, br"])
@pytest.mark.parametrize(("method", "path"), CODED)
def test_a_coding_that_is_not_taken_names_those_that_are(
    web: Web, method: str, path: str, coding: str
) -> None:
    reply = send(web, method, path, gzip.compress(b"{}"), coding)
    assert (reply.status, reply.headers["accept-encoding"]) == (415, CODED[method, path])
    assert reply.json["type"] == "urn:prichal:problem:content-coding"


@pytest.mark.parametrize(("method", "path"), CODED)
def test_a_bomb_is_refused(web: Web, method: str, path: str) -> None:
    assert len(BOMB) < 2**20
    reply = send(web, method, path, BOMB, "gzip")
    assert reply.status == (413 if CODED[method, path] == "gzip" else 415), reply.body
    assert send(web, "POST", PREDICT, gzip.compress(json.dumps(LONG).encode()), "gzip").status == 200


def test_what_a_function_answers_is_compressed_for_those_who_want_it(web: Web) -> None:
    body = json.dumps(LONG).encode()
    plain = send(web, "POST", PREDICT, body, "identity")
    coded = send(web, "POST", PREDICT, body, "identity", accept_encoding="gzip, deflate, br")
    assert "content-encoding" not in plain.headers
    assert (coded.headers["content-encoding"], coded.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(coded.body) == plain.body


def test_so_is_what_the_platform_answers(web: Web, paths: list[str]) -> None:
    coded = []
    for path in paths:
        if "GET" not in methods(ask(web, "OPTIONS", path)):
            continue
        reply = web.ask("GET", path, accept_encoding="gzip", authorization="Bearer letmein-token")
        if "content-encoding" in reply.headers:
            assert reply.headers["content-type"].partition(";")[0] != "text/html" or "image" in path
            assert "accept-encoding" in reply.headers["vary"].lower(), path
            assert len(gzip.decompress(reply.body)) > len(reply.body)
            coded.append(path)
        head = web.ask("HEAD", path, accept_encoding="gzip", authorization="Bearer letmein-token")
        assert head.headers.get("content-encoding") == reply.headers.get("content-encoding"), path
        ridden = web.ask("GET", path, accept_encoding="gzip", cookie="a=1")
        assert "content-encoding" not in ridden.headers or path.startswith(("/-/static/", f"/{APP}/image"))
    expected = "/-/metrics", f"/{APP}/image/openapi.json", f"/{APP}/files/openapi.json", f"/{APP}/image/docs"
    assert {*expected, filled("/-/static/<version>/<file>")} <= set(coded)


def test_the_result_of_an_async_call_suits_everybody(web: Web) -> None:
    asks: dict[str, Any] = {"prefer": "respond-async", "accept_encoding": "gzip"}
    made = send(web, "POST", PREDICT, json.dumps(LONG).encode(), "identity", **asks)
    assert made.status == 202, made.body
    result = made.headers["location"] + "/result"
    wait_for(lambda: web.ask("GET", result).status == 200)
    plain, coded = web.ask("GET", result), web.ask("GET", result, accept_encoding="gzip")
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(coded.body) == plain.body
    assert plain.json["outputs"][0]["data"] == LONG["inputs"][0]["data"]
