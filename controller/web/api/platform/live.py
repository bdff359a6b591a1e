"""Long polls for the progress of a webhook, and streams of an app's events (SSE). They run on the event loop,
because they would block the WSGI bridge's few threads; each reads the store when it has changed, at most ten
times a second."""

from __future__ import annotations

import asyncio
import json
import re
import time

from controller.config import Settings
from controller.domain.apps.requests import RequestState
from controller.domain.names import AppName
from controller.domain.people.roles import Act, Verdict, decide
from controller.ports import Store
from controller.web.api.platform.admission import judge, unknown_app
from controller.web.api.platform.deliveries import event_document, progress
from controller.web.api.platform.signatures import is_signed
from controller.web.auth.admin import ClientInfo, log_refused
from controller.web.auth.people import Callers
from controller.web.gateway.body import Message, Send
from controller.web.gateway.watch import RouteWatch
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.query import QueryParameters, whole
from controller.web.sse import EventStream, event_of

MAX_WAIT = 60.0  # seconds of one long poll
PAUSE = 0.1  # seconds between two looks at the store
KEEP_ALIVE = 15.0  # seconds between two comments in a silent event stream
LIMIT = 200  # of these answers at once in one worker

#: In Flask's notation, as in the table of rules (web/auth/rules.py).
ROUTES = ("/-/hooks/<repository>/<delivery>", "/-/apps/<name>/events")
_DELIVERY, _EVENTS = (re.compile(re.sub("<[a-z]+>", "([^/]+)", route)) for route in ROUTES)


class LiveEndpoints:
    def __init__(self, store: Store, settings: Settings, watch: RouteWatch, callers: Callers) -> None:
        self._store = store
        self._settings = settings
        self._callers = callers
        self._watch = watch
        self._open = 0

    def takes(self, scope: Message) -> bool:
        if scope["method"] != "GET":
            return False
        path: str = scope["path"]
        if _DELIVERY.fullmatch(path):
            return True
        return _EVENTS.fullmatch(path) is not None and QueryParameters.of(scope["query_string"]).flag(
            "follow"
        )

    async def answer(self, scope: Message, send: Send) -> None:
        """Answer a long poll or an event stream. Raises RequestRefused."""
        if self._open >= LIMIT:
            raise RequestRefused(
                HttpProblem(ProblemKind.OVERLOADED, "Too many callers wait for news.", retry_after=5)
            )
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
        """Answer as soon as there is an event with id > `after` or all passes have ended, at the latest after
        `wait` seconds."""
        await self._admit_delivery(scope, repository)
        query = QueryParameters.of(scope["query_string"])
        after, wait = query.number("after", 0), query.number("wait", 0, most=int(MAX_WAIT))
        delivery = self._store.repositories.delivery(repository, identity)
        if delivery is None:
            raise RequestRefused(
                HttpProblem(ProblemKind.NOT_FOUND, "No such delivery; they are forgotten after some time.")
            )
        deadline = time.monotonic() + wait
        while True:
            now = progress(self._store, delivery, after)
            left = deadline - time.monotonic()
            if now.events or now.state is RequestState.DONE or left <= 0 or self._watch.stopping:
                break
            await self._news(left)
        await _send_json(send, now.document())

    async def _admit_delivery(self, scope: Message, repository: str) -> None:
        """Admit callers who sign `path?query` with the repository's secret, and those who may see all apps."""
        record = self._store.repositories.get(repository)
        signature = client_info_of(scope).headers.get("x-signature", "")
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        if record is not None and is_signed(record.hook_secret, target, signature):
            return
        who = await asyncio.to_thread(self._callers.identify, client_info_of(scope))
        if who is None or decide(who, Act.WATCH) is not Verdict.ALLOWED:
            detail = (
                "Sign path and query with the repository's secret (X-Signature), or send the admin token."
            )
            raise RequestRefused(HttpProblem(ProblemKind.BAD_SIGNATURE, detail))

    # --- event stream ------------------------------------------------------------------------------------------

    async def _events(self, scope: Message, name: str, send: Send) -> None:
        """Send events with id > `after` (or `Last-Event-ID`), then each new one, until the caller disconnects."""
        visitor = client_info_of(scope)
        await self._admit(visitor, name)
        app = AppName(name)
        if not any(status.app == app for status in self._store.apps.all()):
            raise RequestRefused(unknown_app(name))
        seen = visitor.headers.get("last-event-id")
        after = (
            QueryParameters.of(scope["query_string"]).number("after", 0)
            if seen is None
            else whole("Last-Event-ID", seen)
        )
        stream = EventStream(send)
        await stream.start()
        await self._follow(stream, visitor, app, after)
        await stream.end()

    async def _follow(self, stream: EventStream, visitor: ClientInfo, app: AppName, after: int) -> None:
        """Send events until the worker stops, or the caller may not see the app any more."""
        admitted = time.monotonic()
        while not self._watch.stopping:
            if time.monotonic() - admitted > KEEP_ALIVE:
                try:
                    await self._admit(visitor, app)
                except RequestRefused:
                    return
                admitted = time.monotonic()
            events = self._store.events.list(app, after)
            for event in events:
                after = event.id
                await stream.send(event_of(json.dumps(event_document(event)).encode(), str(event.id)))
            if not events:
                await self._news(KEEP_ALIVE)
                await stream.keep_open()

    async def _admit(self, visitor: ClientInfo, app: str) -> None:
        """Raises RequestRefused. Asked for again while a stream lasts, since sessions, tokens and roles end."""
        who = await asyncio.to_thread(self._callers.identify, visitor)
        if who is None:
            log_refused(visitor, self._settings.web)
        judge(who, Act.SEE, app)

    async def _news(self, timeout: float) -> None:
        await self._watch.wait(timeout)
        await asyncio.sleep(min(PAUSE, timeout))


def client_info_of(scope: Message) -> ClientInfo:
    client = scope.get("client")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return ClientInfo(scope["method"], client[0] if client else "", headers, scope.get("scheme", "http"))


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
