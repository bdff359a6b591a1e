"""Pages of other origins, as a browser sees the answers of a real gunicorn: every API, whatever part answers it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

import pytest

from controller.domain.apps.spec import CorsSpec
from controller.domain.names import ComponentName
from controller.domain.routing.passwords import hash_token
from tests.support.gateway import APP, make_api, make_route, make_service
from tests.support.runs import all_pipelines, make_pipeline, one_pipeline
from tests.support.specs import make

from .conftest import Web

T = TypeVar("T")

LAB, EVIL = "https://lab.example.org", "https://evil.example"
RULE = make(CorsSpec, (LAB,), expose_headers=("X-Total-Count",))
TOKENS = (("ci", hash_token("t0ken")),)
#: Every kind of API, open and protected.
APIS = [
    f"{name}{closed}" for name in ("predict", "own", "train", "pipelines") for closed in ("", "-closed")
] + ["files"]
PROTECTED = [api for api in APIS if api.endswith("-closed") or api == "files"]


class Sharing(BaseHTTPRequestHandler):
    """A server that answers for itself what pages of other origins may do."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("access-control-allow-methods", "BREW")
        self.send_header("Vary", "Accept")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_OPTIONS = answer  # noqa: N815 - names of the standard library

    def log_message(self, *_: object) -> None:
        pass


def pair(make: Callable[..., T], path: str) -> list[T]:
    return [make(path, cors=RULE), make(f"{path}-closed", cors=RULE, tokens=TOKENS)]


@pytest.fixture(scope="module")
def apis(web: Web) -> Iterator[Web]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Sharing) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        endpoint = f"127.0.0.1:{server.server_port}"
        web.store.runs.publish(APP, (make_pipeline(),))
        own = [*pair(make_api, "own"), make_api("alone"), make_api("all", cors=make(CorsSpec, ("*",)))]
        web.store.routes.publish(
            APP,
            (
                make_service(cors=RULE, tokens=TOKENS),
                *pair(one_pipeline, "train"),
                *pair(all_pipelines, "pipelines"),
            ),
        )
        web.put(make_route(*own, any_path=True, upstreams=(endpoint,)))
        gone = ComponentName("gone")
        predict = pair(make_api, "predict")
        web.put(make_route(*predict, component=gone, upstreams=()))
        yield web
        server.shutdown()
        thread.join()


def ask(web: Web, method: str, path: str, **headers: str) -> tuple[int, HTTPMessage]:
    """With all fields, repeated ones too."""
    connection = HTTPConnection(*web.address, timeout=30)
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"/demo/{path}", headers=fields)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers
    finally:
        connection.close()


def shared_with(headers: HTTPMessage) -> list[str]:
    return headers.get_all("access-control-allow-origin") or []


@pytest.mark.parametrize("api", APIS)
def test_a_preflight_is_answered_before_the_sign_in(apis: Web, api: str) -> None:
    asks = {
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "authorization,x-request-id",
    }
    for path in (api, f"{api}/runs", f"{api}/predict", f"{api}/no/such/thing"):
        status, headers = ask(apis, "OPTIONS", path, Origin=LAB, **asks)
        assert (status, shared_with(headers)) == (204, [LAB])
        assert headers["access-control-allow-headers"] == "authorization,x-request-id"
        assert "POST" in headers["access-control-allow-methods"].split(", ")
        assert headers["access-control-max-age"] == "600"
        assert "Origin" in headers.get_all("vary", [])
        assert headers["x-request-id"]
        status, headers = ask(apis, "OPTIONS", path, Origin=EVIL, **asks)
        assert (status, shared_with(headers)) == (204, [])
        assert not any(name.lower().startswith("access-control-") for name in headers)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_every_answer_says_it_once_whatever_it_is(apis: Web, api: str, method: str) -> None:
    seen = set()
    for path in ("", "/", "/runs", "/runs/none", "/predict", "/no//such", "/..", "/box/g/f?size=x"):
        for authorization in ("", "Bearer nope", "Bearer t0ken"):
            who = {"Authorization": authorization} if authorization else {}
            status, headers = ask(apis, method, api + path, Origin=LAB, **who)
            seen.add(status)
            assert shared_with(headers) == [LAB], (path, status)
            exposed = headers["access-control-expose-headers"].split(", ")
            assert {"WWW-Authenticate", "Retry-After", "Location", "X-Request-ID", "X-Total-Count"} <= set(
                exposed
            )
            assert "Origin" in headers.get_all("vary", [])
            _, headers = ask(apis, method, api + path, Origin=EVIL, **who)
            assert shared_with(headers) == []
            _, headers = ask(apis, method, api + path, **who)
            assert shared_with(headers) == []
            assert "Origin" in headers.get_all("vary", []), "a cache may give this answer to a page"
    assert (401 in seen) == (api in PROTECTED and (method == "POST" or api != "predict-closed"))
    assert (422 in seen) == (api.startswith("train") and method == "POST")


def test_a_component_that_is_not_there(apis: Web) -> None:
    status, headers = ask(apis, "POST", "predict/predict", Origin=LAB)
    assert (status, shared_with(headers)) == (503, [LAB])
    assert headers["retry-after"]


def test_a_server_that_answers_for_itself(apis: Web) -> None:
    """Where the manifest says nothing its word counts; where it does, the manifest's."""
    for method in ("GET", "OPTIONS"):
        status, headers = ask(apis, method, "alone/x", Origin=EVIL, Access_Control_Request_Method="GET")
        assert (status, shared_with(headers)) == (200, ["*"])
        assert headers["access-control-allow-methods"] == "BREW"
    status, headers = ask(apis, "GET", "own/x", Origin=LAB)
    assert (status, shared_with(headers)) == (200, [LAB])
    assert headers["access-control-allow-methods"] is None
    assert sorted(headers.get_all("vary", [])) == ["Accept", "Origin"]
    for origin in (LAB, EVIL, "null"):
        assert shared_with(ask(apis, "GET", "all/x", Origin=origin)[1]) == ["*"]


def test_apis_without_a_rule_and_the_platform_itself(apis: Web) -> None:
    for path in ("none/x", "../-/healthz"):
        _, headers = ask(apis, "GET", path, Origin=LAB)
        assert shared_with(headers) == []
