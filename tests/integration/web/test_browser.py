"""A hostile module's page in a real browser, at the platform's own origin, while the administrator is signed in: it
reads nothing of the platform and owns no more than its own path."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from controller.domain.names import AppName
from controller.domain.people.accounts import SessionRecord
from controller.domain.people.roles import Grant, Role
from controller.store.people import PeopleStore, SessionLimits
from controller.web.auth.people import SESSION
from tests.support.browser import DrivenBrowser, browser, browsing
from tests.support.gateway import make_api, make_route
from tests.support.people import add_person
from tests.support.serve_web import settings_of, with_web
from tests.support.stores import open_store
from tests.support.waiting import wait_for

from .conftest import Web, echo, serving

PAGES = Path(__file__).parent / "pages"
TARGETS = (
    "/-/",
    "/-/status",
    "/-/apps",
    "/-/apps/evil/events?limit=1000",
    "/-/apps/evil/events?follow=1",
    "/-/?live=1",
    "/-/apps/evil?live=1",
    "/-/metrics",
    "/-/missing",
)

pytestmark = pytest.mark.skipif(browser() is None, reason="needs Chromium: scripts/test-tools")


class Hostile(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HostileHandler)
        self.reports: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()


class HostileHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hostile

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        kind = "text/html"
        if name == "sw.js":
            kind, body = "text/javascript", b"self.addEventListener('fetch', () => {});"
        elif name == "own.html":
            body = b"<!doctype html><p>of the same module</p>"
        else:
            body = (PAGES / "attack.html").read_bytes()
        self._answer(body, kind)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.reports.put(json.loads(body))
        self._answer(b"", "text/plain")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Service-Worker-Allowed", "/"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Access-Control-Allow-Origin", "*"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hostile() -> Iterator[Hostile]:
    with Hostile() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def platform(state: Path, module: Hostile, **web: Any) -> Iterator[Web]:
    with_web(state, **web)
    with closing(open_store(settings_of(state).database)) as store, echo("other") as other:
        store.routes.switch(
            make_route(
                make_api("s"),
                app=AppName("evil"),
                any_path=True,
                upstreams=(f"127.0.0.1:{module.server_port}",),
            )
        )
        with serving(state, store, other) as running:
            yield running


def attack(module: Hostile, url: str, home: Path, *options: str, **query: str) -> dict[str, str]:
    asked = "&".join(f"{name}={quote(value)}" for name, value in query.items())
    profile = home / "profile"
    with browsing(f"{url}?{asked}", profile, *options):
        return module.reports.get(timeout=100)


def read(report: dict[str, str]) -> dict[str, str]:
    """What it could read of others."""
    return {way: text for way, text in report.items() if text and not way.endswith(" own")}


def is_control_sound(report: dict[str, str]) -> bool:
    return all(text for way, text in report.items() if way.endswith(" own"))


def test_a_page_of_a_module_gets_nothing_of_the_platform(tmp_path: Path) -> None:
    with hostile() as module, platform(tmp_path / "state", module, trust_loopback=True) as web:
        host = "{}:{}".format(*web.address)
        report = attack(
            module,
            f"http://{host}/evil/s/attack.html",
            tmp_path,
            targets=",".join(TARGETS),
            signIn=f"http://{host}/-/",
        )
        assert is_control_sound(report), report
        assert read(report) == {}


def test_nor_where_an_administrator_has_signed_in(tmp_path: Path) -> None:
    with hostile() as module, platform(tmp_path / "state", module, trust_loopback=False) as web:
        host = "{}:{}".format(*web.address)
        people = PeopleStore(settings_of(web.state).people)
        add_person(people, "ann", Grant("ann", Role.ADMIN), password=False)
        now = time.time()
        session = SessionRecord("1", "ann", now, now, "", "")
        people.begin_session("cookie", session, SessionLimits(3600.0, 3600.0))
        targets = quote(",".join((*TARGETS, "/-/tokens", "/-/sessions", "/-/audit", "/-/login")))
        with closing(DrivenBrowser(tmp_path / "profile", "--disable-popup-blocking")) as window:
            cookie = {"name": SESSION, "value": "cookie", "path": "/-/", "httpOnly": True, "sameSite": "Lax"}
            window.call("Network.setCookie", url=f"http://{host}/-/", **cookie)
            window.open(f"http://{host}/-/audit")
            wait_for(lambda: "What people did" in window.text())
            place = f"http://{host}/evil/s/attack.html"
            window.open(f"{place}?targets={targets}&signIn={quote(f'http://{host}/-/')}")
            report = module.reports.get(timeout=100)
        assert is_control_sound(report), report
        assert read(report) == {}
        assert people.tokens() == ()
        assert [each.id for each in people.sessions(SessionLimits(3600.0, 3600.0), time.time())] == ["1"]


def test_with_a_domain_for_apps_it_is_not_even_at_the_same_origin(tmp_path: Path) -> None:
    with (
        hostile() as module,
        platform(tmp_path / "state", module, app_domain="apps.example.test", trust_loopback=True) as web,
    ):
        host, port = web.address
        targets = ",".join(f"http://{host}:{port}{path}" for path in TARGETS)
        report = attack(
            module,
            f"http://{host}:{port}/evil/s/attack.html",  # it is sent on to its own name
            tmp_path,
            f"--host-resolver-rules=MAP *.apps.example.test {host}",
            targets=targets + ",http://good.apps.example.test:" + str(port) + "/good/s/",
        )
        report = {way: text for way, text in report.items() if way != "worker own"}  # plain HTTP has none
        assert is_control_sound(report), report
        assert read(report) == {}
