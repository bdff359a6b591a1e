"""Long polls for the progress of webhooks and requests and for events, and streams of events (SSE). They run on the
event loop, because they would block the WSGI bridge's few threads; each reads the store when it has changed, at most
ten times a second."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TypeVar

from controller.client.platform.api import LogQuery, PlanState
from controller.config import Settings
from controller.domain.errors import Stalled
from controller.domain.people.roles import Act, Verdict, decide
from controller.domain.units import parse_rfc3339
from controller.kept_logs import KeptLogs, LogCursor
from controller.ports import Store
from controller.web.api.platform.admission import judge
from controller.web.api.platform.build_news import build_news
from controller.web.api.platform.deliveries import progress
from controller.web.api.platform.refusals import refusal
from controller.web.api.platform.signatures import is_signed
from controller.web.api.platform.stored import StoredPlatform, is_news
from controller.web.api.runs.logs import PIECE, log_event, whole_lines
from controller.web.auth.admin import ClientInfo, log_refused
from controller.web.auth.people import Callers
from controller.web.gateway.body import Message, Send
from controller.web.gateway.headers import combined_text
from controller.web.gateway.watch import RouteWatch
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused, method_problem
from controller.web.query import QueryParameters, whole
from controller.web.sse import EventStream, event_of

Answer = TypeVar("Answer")

MAX_WAIT = 60.0  # seconds of one long poll
LOG_PAUSE = 0.25  # seconds between two looks at a log
PAUSE = 0.1  # seconds between two looks at the store
KEEP_ALIVE = 15.0  # seconds between two comments in a silent event stream
LIMIT = 200  # of these answers at once in one worker

#: In Flask's notation, as in the table of rules (web/auth/rules.py). Deliveries, logs and plans are answered here
#: always, the others if the caller waits or follows.
ROUTES = (
    "/-/hooks/<repository>/<delivery>",
    "/-/apps/<name>/events",
    "/-/events",
    "/-/apps/<name>/requests/<int:request>",
    "/-/apps/<name>/logs",
    "/-/apps/<name>/components/<component>/logs",
    "/-/apps/<name>/plan",
)
_METHODS = ("GET", "HEAD")
_DELIVERY, _EVENTS, _ALL_EVENTS, _REQUEST, _LOGS, _COMPONENT_LOGS, _PLAN = (
    re.compile(re.sub("<int:[a-z]+>", "([0-9]{1,16})", re.sub("<[a-z]+>", "([^/]+)", route)))
    for route in ROUTES
)


class LiveEndpoints:
    def __init__(self, store: Store, settings: Settings, watch: RouteWatch, callers: Callers) -> None:
        self._store = store
        self._settings = settings
        self._callers = callers
        self._watch = watch
        self._open = 0

    def takes(self, scope: Message) -> bool:
        path: str = scope["path"]
        if any(each.fullmatch(path) for each in (_DELIVERY, _LOGS, _COMPONENT_LOGS, _PLAN)):
            return True
        if scope["method"] not in _METHODS:
            return False
        query = QueryParameters.of(scope["query_string"])
        if _EVENTS.fullmatch(path) or _ALL_EVENTS.fullmatch(path):
            return query.flag("follow") or "wait" in query
        return _REQUEST.fullmatch(path) is not None and "wait" in query

    async def answer(self, scope: Message, send: Send) -> None:
        """Answer a long poll or an event stream. Raises RequestRefused."""
        if scope["method"] not in _METHODS:
            raise RequestRefused(method_problem("This path takes GET and HEAD.", ", ".join(_METHODS)))
        if self._open >= LIMIT:
            raise RequestRefused(
                HttpProblem(ProblemKind.OVERLOADED, "Too many callers wait for news.", retry_after=5)
            )
        self._open += 1
        try:
            await self._answer(scope, send)
        except Stalled as error:
            found = re.fullmatch("/-/apps/([^/]+)/.*", scope["path"])
            problem = refusal(error, found[1] if found else "")
            if problem is None:
                raise
            raise RequestRefused(problem) from error
        finally:
            self._open -= 1

    async def _answer(self, scope: Message, send: Send) -> None:
        path: str = scope["path"]
        if found := _DELIVERY.fullmatch(path):
            await self._delivery(scope, found[1], found[2], send)
        elif found := _REQUEST.fullmatch(path):
            await self._request(scope, found[1], int(found[2]), send)
        elif found := _LOGS.fullmatch(path):
            await self._log(scope, found[1], send)
        elif found := _COMPONENT_LOGS.fullmatch(path):
            await self._log(scope, found[1], send, found[2])
        elif found := _PLAN.fullmatch(path):
            await self._plan(scope, found[1], send)
        else:
            found = _EVENTS.fullmatch(path)
            await self._events(scope, found[1] if found else None, send)

    # --- long poll ---------------------------------------------------------------------------------------------

    async def _delivery(self, scope: Message, repository: str, identity: str, send: Send) -> None:
        """Answer as soon as there is an event with id > `after`, a line of a build after the place `build`, if the
        caller wants these, or all passes have ended; at the latest after `wait` seconds."""
        await self._admit_delivery(scope, repository)
        query = QueryParameters.of(scope["query_string"])
        after, wait = query.number("after", 0), query.number("wait", 0, most=int(MAX_WAIT))
        place, ref = query.text("build"), query.text("ref") or ""
        delivery = self._store.repositories.delivery(repository, identity)
        if delivery is None:
            raise RequestRefused(
                HttpProblem(ProblemKind.NOT_FOUND, "No such delivery; they are forgotten after some time.")
            )
        deadline = time.monotonic() + wait
        while True:
            now = progress(self._store, delivery, after, ref)
            if place is not None:
                kept = KeptLogs(self._settings.kept_logs)
                build = await asyncio.to_thread(build_news, kept, now.apps, delivery.at, place)
                now = replace(now, build=build)
            left = deadline - time.monotonic()
            if now.is_news or left <= 0 or self._watch.stopping:
                break
            await self._news(left if place is None else min(left, LOG_PAUSE))
        platform = StoredPlatform(self._store, self._settings)
        await _send_json(send, now.document(platform.links))

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

    async def _request(self, scope: Message, name: str, request: int, send: Send) -> None:
        """Answer as soon as there is an event with id > `after` or the request is done, at the latest after `wait`
        seconds."""
        platform = await self._admit(client_info_of(scope), name)
        app = platform.known_or_gone(name, request)
        after = QueryParameters.of(scope["query_string"]).number("after", 0)

        def ask() -> tuple[dict[str, object], bool]:
            document = platform.progress_now(app, request, after)
            return document, is_news(document)

        await _send_json(send, await self._in_time(scope, ask))

    async def _in_time(self, scope: Message, ask: Callable[[], tuple[Answer, bool]]) -> Answer:
        """Ask until there is news, at the latest after `wait` seconds."""
        wait = QueryParameters.of(scope["query_string"]).number("wait", 0, most=int(MAX_WAIT))
        deadline = time.monotonic() + wait
        while True:
            document, is_new = ask()
            left = deadline - time.monotonic()
            if is_new or left <= 0 or self._watch.stopping:
                return document
            await self._news(left)

    # --- plans -------------------------------------------------------------------------------------------------

    async def _plan(self, scope: Message, name: str, send: Send) -> None:
        """Ask the daemon for a plan, or look for the one with `id`; answer as soon as it is there or the daemon does
        not run, at the latest after `wait` seconds. The disk is read in a thread."""
        platform = await self._admit(client_info_of(scope), name)
        query = QueryParameters.of(scope["query_string"])
        wait = query.number("wait", 0, most=int(MAX_WAIT))
        known = query.text("id")
        id = known if known is not None else await asyncio.to_thread(platform.ask_plan, name)
        deadline = time.monotonic() + wait
        while True:
            found = await asyncio.to_thread(platform.plan_now, name, id)
            left = deadline - time.monotonic()
            is_hoped_for = found["state"] == PlanState.PENDING and found["daemon"]
            if not is_hoped_for or left <= 0 or self._watch.stopping:
                break
            await asyncio.sleep(min(PAUSE, left))
        await _send_json(send, found)

    # --- events ------------------------------------------------------------------------------------------------

    async def _events(self, scope: Message, name: str | None, send: Send) -> None:
        """Answer as soon as there are events with id > `after`, at the latest after `wait` seconds. With `follow`,
        send events with id > `after` (or `Last-Event-ID`), then each new one, until the caller disconnects."""
        client, query = client_info_of(scope), QueryParameters.of(scope["query_string"])
        platform = await self._admit(client, name)
        if name is not None:
            platform.app_of_events(name)
        if not query.flag("follow"):
            await self._some_events(scope, platform, name, send)
            return
        seen = client.headers.get("last-event-id")
        after = query.number("after", 0) if seen is None else whole("Last-Event-ID", seen)
        stream = EventStream(send)
        await stream.start()
        await self._follow(stream, client, name, after)
        await stream.end()

    async def _some_events(
        self, scope: Message, platform: StoredPlatform, name: str | None, send: Send
    ) -> None:
        query = QueryParameters.of(scope["query_string"])
        after, limit = query.number("after", 0), query.number("limit", 100)

        def ask() -> tuple[list[dict[str, object]], bool]:
            found = platform.events(name, after, limit)
            return found, bool(found)

        await _send_json(send, {"events": await self._in_time(scope, ask)})

    async def _follow(self, stream: EventStream, client: ClientInfo, name: str | None, after: int) -> None:
        async for platform in self._while_admitted(client, name):
            events = platform.events(name, after)
            for event in events:
                after = event["id"]
                await stream.send(event_of(json.dumps(event).encode(), str(after)))
            if not events:
                await self._news(KEEP_ALIVE)
                await stream.keep_open()

    async def _while_admitted(self, client: ClientInfo, app: str | None) -> AsyncIterator[StoredPlatform]:
        """Yield for each round of a stream, until the worker stops or the caller may not see the app any more: the
        answer has begun then, so it can only end."""
        admitted, platform = 0.0, None
        while not self._watch.stopping:
            if platform is None or time.monotonic() - admitted > KEEP_ALIVE:
                try:
                    platform = await self._admit(client, app)
                except RequestRefused:
                    return
                admitted = time.monotonic()
            yield platform

    async def _admit(self, client: ClientInfo, app: str | None) -> StoredPlatform:
        """Return the platform as this caller sees it. Raises RequestRefused. Asked for again while a stream lasts,
        since sessions, tokens and roles end."""
        who = await asyncio.to_thread(self._callers.identify, client)
        if who is None:
            log_refused(client, self._settings.web)
        judge(who, Act.LIST if app is None else Act.SEE, app or "")
        return StoredPlatform(self._store, self._settings, who)

    # --- logs --------------------------------------------------------------------------------------------------

    async def _log(self, scope: Message, name: str, send: Send, component: str | None = None) -> None:
        """Send a component's log as text, or as events with its lines. The disk is read in a thread."""
        client, query = client_info_of(scope), _log_query(QueryParameters.of(scope["query_string"]))
        query = replace(query, component=component or query.component)
        platform = await self._admit(client, name)
        cursor = await asyncio.to_thread(platform.log, name, query)
        if not query.follow:
            await _start(send, 200, b"text/plain; charset=utf-8", (b"cache-control", b"no-store"))
            while piece := await asyncio.to_thread(cursor.take):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        if (last := client.headers.get("last-event-id")) is not None:
            try:
                cursor.resume(last)
            except ValueError as error:
                raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, f"{error}.")) from error
        stream = EventStream(send)
        await stream.start()
        await self._follow_log(stream, client, name, cursor)
        await stream.end()

    async def _follow_log(
        self, stream: EventStream, client: ClientInfo, name: str, cursor: LogCursor
    ) -> None:
        """Send complete lines."""
        told = time.monotonic()
        async for _ in self._while_admitted(client, name):
            piece = await asyncio.to_thread(cursor.take)
            length = whole_lines(piece, len(piece) == PIECE)
            if piece and not length and await asyncio.to_thread(cursor.has_later):
                length = len(piece)  # the end of a container's log need not be that of a line
            cursor.offset -= len(piece) - length
            if length:
                await stream.send(log_event(piece[:length], cursor.id))
                told = time.monotonic()
            elif not piece and await asyncio.to_thread(cursor.go_on):
                continue
            else:
                await asyncio.sleep(LOG_PAUSE)
                if time.monotonic() - told > KEEP_ALIVE:
                    await stream.keep_open()
                    told = time.monotonic()

    async def _news(self, timeout: float) -> None:
        await self._watch.wait(timeout)
        await asyncio.sleep(min(PAUSE, timeout))


def _log_query(query: QueryParameters) -> LogQuery:
    """Raises RequestRefused."""
    since = query.text("since")
    try:
        at = parse_rfc3339(since) if since is not None else None
    except ValueError:
        detail = "since must be a time as in 2026-01-31T12:00:00Z."
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail)) from None
    tail = query.number("tail", None)
    return LogQuery(
        query.text("component"), query.flag("previous"), at, tail, query.flag("follow"), query.flag("build")
    )


def client_info_of(scope: Message) -> ClientInfo:
    client = scope.get("client")
    headers = combined_text(scope["headers"])
    scheme, path = scope.get("scheme", "http"), scope["path"]
    return ClientInfo(scope["method"], client[0] if client else "", headers, scheme, path)


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
