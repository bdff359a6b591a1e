"""Answers that wait: the progress of a webhook (long poll) and an app's events as they happen (SSE). On the event
loop, because they would hold the WSGI bridge's few threads; the store is read when it has changed, at most ten times
a second each.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from urllib.parse import parse_qs

from controller.config import Settings
from controller.domain.names import AppName
from controller.domain.status import RequestState
from controller.ports import Store
from controller.web.access.admin import Visitor, is_admin
from controller.web.gateway.body import Message, Send
from controller.web.gateway.watch import RouteWatch
from controller.web.platform.deliveries import event_document, progress
from controller.web.platform.signatures import is_signed
from controller.web.problems import Kind, Problem, Refused

MAX_WAIT = 60.0  # seconds of one long poll
PAUSE = 0.1  # seconds between two looks at the store
KEEP_ALIVE = 15.0  # seconds between two comments in a silent event stream
LIMIT = 200  # of these answers at once in one worker

_DELIVERY = re.compile(r"/-/hooks/([^/]+)/([^/]+)")
_EVENTS = re.compile(r"/-/apps/([^/]+)/events")


class Live:
    def __init__(self, store: Store, settings: Settings, watch: RouteWatch) -> None:
        self._store = store
        self._settings = settings
        self._watch = watch
        self._open = 0

    def takes(self, scope: Message) -> bool:
        if scope["method"] != "GET":
            return False
        path: str = scope["path"]
        if _DELIVERY.fullmatch(path):
            return True
        return _EVENTS.fullmatch(path) is not None and "follow" in parse_qs(
            scope["query_string"].decode("latin-1")
        )

    async def answer(self, scope: Message, send: Send) -> None:
        """Raises Refused."""
        if self._open >= LIMIT:
            raise Refused(Problem(Kind.OVERLOADED, "Too many callers wait for news.", retry_after=5))
        self._open += 1
        try:
            if found := _DELIVERY.fullmatch(scope["path"]):
                await self._delivery(scope, found[1], found[2], send)
            elif found := _EVENTS.fullmatch(scope["path"]):
                await self._events(scope, found[1], send)
        finally:
            self._open -= 1

    # --- long poll ---------------------------------------------------------------------------------------------

    async def _delivery(self, scope: Message, repository: str, identity: str, send: Send) -> None:
        """Answers at once if there is an event with id > `after`, or all is done; else as soon as there is, at the
        latest after `wait` seconds."""
        self._admit_delivery(scope, repository)
        query = parse_qs(scope["query_string"].decode("latin-1"))
        after, wait = int(_number(query, "after")), min(_number(query, "wait"), MAX_WAIT)
        delivery = self._store.repositories.delivery(repository, identity)
        if delivery is None:
            raise Refused(Problem(Kind.NOT_FOUND, "No such delivery; they are forgotten after some time."))
        deadline = time.monotonic() + wait
        while True:
            now = progress(self._store, delivery, after)
            left = deadline - time.monotonic()
            if now.events or now.state is RequestState.DONE or left <= 0 or self._watch.stopping:
                break
            await self._news(left)
        await _send_json(send, now.document())

    def _admit_delivery(self, scope: Message, repository: str) -> None:
        """The repository's secret over `path?query`, or the admin rule."""
        record = self._store.repositories.get(repository)
        signature = _visitor(scope).headers.get("x-signature", "")
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        if record is not None and is_signed(record.hook_secret, target, signature):
            return
        if not is_admin(_visitor(scope), self._settings.web):
            detail = (
                "Sign path and query with the repository's secret (X-Signature), or send the admin token."
            )
            raise Refused(Problem(Kind.BAD_SIGNATURE, detail))

    # --- event stream ------------------------------------------------------------------------------------------

    async def _events(self, scope: Message, name: str, send: Send) -> None:
        """Events with id > `after` (or `Last-Event-ID`), then each new one, until the caller leaves."""
        visitor = _visitor(scope)
        if not is_admin(visitor, self._settings.web):
            raise Refused(
                Problem(Kind.UNAUTHORIZED, "The admin token is needed.", challenge='Bearer realm="prichal"')
            )
        app = AppName(name)
        if not any(status.app == app for status in self._store.apps.all()):
            raise Refused(Problem(Kind.NOT_FOUND, f"No app is called {name}."))
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if "last-event-id" in visitor.headers:
            query["after"] = [visitor.headers["last-event-id"]]
        after = int(_number(query, "after"))
        await _start(send, 200, b"text/event-stream", (b"cache-control", b"no-store"))
        await _part(
            send, b": prichal\n\n"
        )  # a server may hold the header back until there is something behind it
        while not self._watch.stopping:
            events = self._store.events.list(app, after)
            for event in events:
                after = event.id
                await _part(
                    send, b"id: %d\ndata: %b\n\n" % (event.id, json.dumps(event_document(event)).encode())
                )
            if not events:
                await self._news(KEEP_ALIVE)
                await _part(send, b":\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _news(self, timeout: float) -> None:
        await self._watch.wait(timeout)
        await asyncio.sleep(min(PAUSE, timeout))


def _visitor(scope: Message) -> Visitor:
    client = scope.get("client")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return Visitor(scope["method"], client[0] if client else "", headers)


def _number(query: dict[str, list[str]], name: str) -> float:
    """A number that is not negative; 0 if it is not there."""
    text = query.get(name, ["0"])[0]
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,6})?", text):
        raise Refused(Problem(Kind.BAD_REQUEST, f"{name} must be a number, not {text[:40]!r}."))
    return float(text)


async def _send_json(send: Send, document: dict[str, object]) -> None:
    body = json.dumps(document).encode() + b"\n"
    length = (b"content-length", b"%d" % len(body))
    await _start(send, 200, b"application/json", length, (b"cache-control", b"no-store"))
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _start(send: Send, status: int, content_type: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", content_type), *headers],
        }
    )


async def _part(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
