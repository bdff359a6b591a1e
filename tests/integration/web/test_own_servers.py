"""Components with servers of their own behind a real gunicorn: where their redirects and cookies lead."""

from __future__ import annotations

import http.cookiejar
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, redirect, request
from flask.typing import ResponseReturnValue
from werkzeug.serving import make_server

from controller.domain.routing.routes import Route
from tests.support.gateway import make_api, make_route

from .conftest import Web


class Redirecting(BaseHTTPRequestHandler):
    """`/go?to=URL&as=FIELD` answers that field; all else answers its path and its cookies."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if parts.path == "/go":
            self.send_response(307)
            for name, value in zip(query["as"], query["to"], strict=True):
                self.send_header(name, value)
        else:
            self.send_response(200)
        data = f"{parts.path} {self.headers.get('Cookie', '')}".encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815 - names of the standard library

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def own(web: Web) -> Iterator[str]:
    """The endpoint of a component at the API paths of `demo_route`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        web.put(_route(server.server_port))
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _route(port: int) -> Route:
    apis = [make_api(path) for path in ("open", "opener", "other")]
    return make_route(*apis, any_path=True, upstreams=(f"127.0.0.1:{port}",))


def go(web: Web, field: str, *values: str) -> list[str]:
    query = urllib.parse.urlencode([pair for value in values for pair in (("as", field), ("to", value))])
    url = "http://{}:{}".format(*web.address) + f"/demo/open/go?{query}"
    try:
        with urllib.request.build_opener(_Staying).open(url, timeout=30) as reply:
            raise AssertionError(f"{reply.status}, not a redirect")
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.headers.get_all(field) or []


class _Staying(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def test_redirects_lead_to_the_gateway(web: Web, own: str) -> None:
    caller = "{}:{}".format(*web.address)
    for url, wanted in (
        (f"http://{own}/items/", "/demo/open/items/"),
        (f"HTTPS://user:pass@{own}/items/?x#y", "/demo/open/items/?x#y"),
        (f"//{own}", "/demo/open/"),
        (f"http://{caller}/items/", "/demo/open/items/"),
        (f"http://{caller}/demo/open/items/", "/demo/open/items/"),
        ("/items/", "/demo/open/items/"),
        ("/demo/open/items/", "/demo/open/items/"),
        ("items/", "items/"),
        ("https://example.org/items/", "https://example.org/items/"),
    ):
        for field in ("Location", "Content-Location"):
            assert go(web, field, url) == [wanted]
    assert go(web, "Link", f"<http://{own}/a>; rel=next") == ["</demo/open/a>; rel=next"]
    assert go(web, "Refresh", f"0; url=http://{own}/a") == ["0; url=/demo/open/a"]


def test_cookies_stay_with_their_api(web: Web, own: str) -> None:
    """A real client keeps and sends them by its own rules."""
    sent = [
        "a=1",
        "b=2; Path=/",
        f"c=3; Domain={web.address[0]}; Path=/deep",
        "d=4; HttpOnly; Path=/demo/open",
    ]
    jar = http.cookiejar.CookieJar()
    client = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar), _Staying)
    query = urllib.parse.urlencode([pair for value in sent for pair in (("as", "Set-Cookie"), ("to", value))])
    base = "http://{}:{}/demo".format(*web.address)
    with pytest.raises(urllib.error.HTTPError, match="307") as answer:
        client.open(f"{base}/open/go?{query}", timeout=30)
    answer.value.close()
    for path, seen in (
        ("/open", "/ a=1; b=2; d=4"),
        ("/open/deep/x", "/deep/x c=3; a=1; b=2; d=4"),
        ("/opener/x", "/x "),
        ("/other/x", "/x "),
    ):
        with client.open(base + path, timeout=30) as reply:
            assert reply.read().decode() == seen


def test_cookies_of_a_whole_host(web: Web, own: str) -> None:
    (name,) = (cookie.partition("=")[0] for cookie in go(web, "Set-Cookie", "__Host-sid=1; Secure; Path=/"))
    for api, seen in (("open", "/x __Host-sid=1; a=2"), ("other", "/x a=2")):
        reply = web.ask("GET", f"/demo/{api}/x", Cookie=f"{name}=1; a=2")
        assert reply.body.decode() == seen


def test_a_framework_that_knows_nothing_of_the_gateway(web: Web) -> None:
    """Flask behind Werkzeug: a slash at the end, an external redirect and a page of one's own."""
    app = Flask("own")

    @app.get("/folder/")
    def folder() -> str:
        return f"folder of {request.host}"

    @app.get("/away")
    def away() -> ResponseReturnValue:
        return redirect(request.host_url + "folder/")

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        web.put(_route(server.server_port))
        for path in ("folder", "away"):
            url = "http://{}:{}/demo/open/".format(*web.address) + path
            with urllib.request.urlopen(url, timeout=30) as reply:
                assert reply.url.endswith("/demo/open/folder/")
                assert reply.read().decode() == "folder of {}:{}".format(*web.address)
    finally:
        server.shutdown()
        thread.join()
