"""A platform's own interface for tests of its client: a real HTTP server in this process, with faults to order. The
Flask application itself answers, and the live endpoints what waits or follows, over a real store."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, MutableMapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from controller.config import Settings
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Role
from controller.store import SqliteStore
from controller.web.api.platform.live import LiveEndpoints
from controller.web.app import create_app
from controller.web.auth.browsers import OWN
from controller.web.context import people_context
from controller.web.problems import RequestRefused
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.faulty_server import FaultyHandler, FaultyServer, Orders
from tests.support.people import add_person, make_token
from tests.support.stores import open_store

_KEPT = ("Authorization", "Content-Type", "X-Prichal", "Accept")


class PlatformServer(Orders):
    """The one server is called "api". The account `anna` is an administrator."""

    def __init__(self, folder: Path, store: SqliteStore) -> None:
        super().__init__()
        self.store = store
        self.settings = Settings(state=folder)
        (folder / "web").mkdir(exist_ok=True)
        self.app = create_app(store, self.settings, StorageClient(store, lambda access: FakeObjects()))
        self.people = people_context(self.app).store
        self.version = dict(OWN)[b"prichal-version"].decode()
        callers = people_context(self.app).callers
        self.live = LiveEndpoints(store, self.settings, Watch(), callers)  # type: ignore[arg-type]
        self.codes: list[str] = []  # of programs that have begun to sign in
        self.api = FaultyServer(self, "api", Handler)
        self.add("anna", Grant("anna", Role.ADMIN))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api.server_port}"

    def add(self, name: str, *grants: Grant) -> None:
        add_person(self.people, name, *grants, password=False)

    def token(self, name: str = "anna", scope: Scope = Scope.ADMIN, days: int = 1) -> str:
        return make_token(self.people, name, scope, days)[0]


class Watch:
    """In the place of the gateway's: looks again and again."""

    stopping = False

    async def wait(self, timeout: float) -> None:
        await asyncio.sleep(min(timeout, 0.02))


class Handler(FaultyHandler):
    def right_answer(self) -> None:
        server = self.server.orders
        assert isinstance(server, PlatformServer)
        scope = self._scope()
        if server.live.takes(scope):
            asyncio.run(self._live(server, scope))
            return
        headers = {name: self.headers[name] for name in _KEPT if name in self.headers}
        with server.lock:
            reply = server.app.test_client().open(
                self.path,
                method=self.command,
                headers=headers,
                data=self.body(),
                environ_overrides={"REMOTE_ADDR": "192.0.2.7"},
            )
        if self.path == "/-/device":
            server.codes.append(json.loads(reply.data)["code"])
        told = {"Content-Type": reply.headers["Content-Type"]}
        if server.version:
            told["Prichal-Version"] = server.version
        self.reply(reply.status_code, reply.data, told)

    def _scope(self) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        where = {"path": unquote(path), "raw_path": path.encode(), "query_string": query.encode()}
        return {
            "method": self.command,
            **where,
            "headers": headers,
            "client": ("192.0.2.7", 1),
            "scheme": "http",
        }

    async def _live(self, server: PlatformServer, scope: dict[str, Any]) -> None:
        try:
            await server.live.answer(scope, self._send)
        except RequestRefused as refused:
            self.reply(refused.problem.code, refused.problem.body("r"), {"Prichal-Version": server.version})

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.send_response(message["status"])
            for name, value in message["headers"]:
                if name != b"content-length":
                    self.send_header(name.decode(), value.decode())
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.sent = 0
            return
        body = message["body"]
        if self.cut_after is not None and self.sent + len(body) > self.cut_after:
            self.reset()
            raise ConnectionError("cut as ordered")
        self.sent += len(body)
        if body or not message.get("more_body"):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))
        if body and not message.get("more_body"):
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def platform_server(folder: Path) -> Iterator[PlatformServer]:
    with closing(open_store(folder / "db" / "state.db")) as store:
        store.heartbeat(time.time() + 3600)
        server = PlatformServer(folder, store)
        with server.api.serving():
            yield server
