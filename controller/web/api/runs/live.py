"""Answers requests that read or follow one run, on the event loop, where waiting callers cost little: the run
itself, at once or as soon as it changes; its log and its transitions (`streams`). A caller who submits a run
and waits for its end waits here, too, after the Flask application (`views`) has stored the run.

Bodies are read here before they go to the Flask application, so that a slow caller holds none of its threads.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from werkzeug.datastructures import ETags
from werkzeug.http import parse_etags

from controller.domain.names import AppName
from controller.domain.runs.run import Run, is_brief
from controller.ports import Store
from controller.web.api.runs.access import MAX_WAIT, RunRequest, base_of, check_run, etag, pipeline_of
from controller.web.api.runs.documents import run_document
from controller.web.api.runs.streams import StageLogReader, answer_log, answer_transitions
from controller.web.api.runs.watcher import RunWatcher
from controller.web.context import CALL, ServiceCall
from controller.web.gateway.body import Message, Receive, RequestBody, Send, once
from controller.web.gateway.headers import combined_text
from controller.web.gateway.watch import RouteWatch
from controller.web.preferences import Preferences
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused, method_problem
from controller.web.query import QueryParameters

MAX_BODY = 2**20  # bytes; a run is a row of the database, files go through boxes
FULL = 1.0  # seconds
LIMIT = 500  # followers, waiting callers and downloads of logs at once in one worker

_RUN = re.compile(r"(?:(?P<pipeline>[^/]+)/)?runs/(?P<id>[^/]+)(?:/(?P<part>logs|events))?")
_SUBMIT = re.compile(r"(?:[^/]+/)?runs")

#: The Flask application: answers a scope, reading from and sending to these.
Ask = Callable[[Message, Receive, Send], Awaitable[None]]


class LiveRunApi:
    """`folder` holds the runs' folders, with their logs."""

    def __init__(self, store: Store, folder: Path, watch: RouteWatch, ask: Ask) -> None:
        self._store = store
        self._news = RunWatcher(store, watch)
        self._logs = StageLogReader(folder)
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._open = 0
        #: Until when submissions of an app's user are refused unread: a queue that was full is full a moment later.
        self._full: dict[tuple[AppName, str], float] = {}

    def close(self) -> None:
        self._logs.close()

    async def answer(self, path: str, scope: Message, body: RequestBody, send: Send) -> bool:
        """Return True if the request was answered; else the Flask application has to. `path` is the rest
        after the API's own. Raises RequestRefused."""
        call: ServiceCall = scope[CALL]
        found = _RUN.fullmatch(path)
        if found is None or (found["pipeline"] is None) == (call.service.pipeline is None):
            if scope["method"] != "POST":
                return False
            await self._change(path, call, scope, body, send)
            return True
        if scope["method"] not in ("GET", "HEAD"):
            raise RequestRefused(method_problem("This path takes GET and HEAD.", "GET, HEAD"))
        request = _request(call, found, scope)
        with self._place():
            await self._read(request, found["part"], send)
        return True

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._open >= LIMIT:
            raise RequestRefused(
                HttpProblem(ProblemKind.OVERLOADED, "Too many callers follow runs.", retry_after=5)
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    # --- submit, cancel, retry ---------------------------------------------------------------------------------

    async def _change(
        self, path: str, call: ServiceCall, scope: Message, body: RequestBody, send: Send
    ) -> None:
        """Send the Flask application's answer, or the finished run if the caller prefers to wait and it ends
        in time."""
        whose, submits = (call.service.app, call.user), _is_new(path, scope)
        if submits and self._full.get(whose, 0.0) > self._loop.time():
            raise RequestRefused(
                HttpProblem(ProblemKind.QUEUE_FULL, "It was full a moment ago.", retry_after=10)
            )
        answer = _Kept()
        await self._ask(scope, once(await body.whole()), answer.send)
        if submits and answer.status == 429:
            self._remember_full(whose)
        wait = min(Preferences.of(scope["headers"]).wait, MAX_WAIT)
        if answer.status == 202 and wait:
            with self._place():
                run = await self._end(call, answer.location.rpartition("/")[2], wait)
            if run is not None:
                await self._send_run(send, run, call, 200, head=False)
                return
        await answer.forward(send)

    def _remember_full(self, whose: tuple[AppName, str]) -> None:
        now = self._loop.time()
        self._full = {each: until for each, until in self._full.items() if until > now}
        self._full[whose] = now + FULL

    async def _end(self, call: ServiceCall, id: str, wait: float) -> Run | None:
        """Return the run once it is over; None if that takes too long."""
        deadline = self._loop.time() + wait
        while (run := self._news.run(call.service.app, id)) is not None and not run.state.terminal:
            left = deadline - self._loop.time()
            if left <= 0 or self._news.stopping:
                return None
            await self._news.wait(run, left)
        return run

    # --- one run -----------------------------------------------------------------------------------------------

    async def _read(self, request: RunRequest, part: str | None, send: Send) -> None:
        find = self._finder(request)
        match part:
            case "logs":
                await answer_log(request, find, self._news, self._logs, send)
            case "events":
                await answer_transitions(request, find, self._news, send)
            case _:
                await self._run(request, find, send)

    def _finder(self, request: RunRequest) -> Callable[[], Run]:
        """Return a function for the current state of the caller's run. Raises RequestRefused."""

        def find() -> Run:
            found = self._news.run(request.call.service.app, request.id)
            return check_run(found, request.call, request.pipeline, request.id, self._store)

        return find

    async def _run(self, request: RunRequest, find: Callable[[], Run], send: Send) -> None:
        """Answer at once, or with `wait` as soon as the run is over or differs from what the caller knows
        (`If-None-Match`)."""
        known = parse_etags(request.headers.get("if-none-match"))
        deadline = self._loop.time() + request.query.number("wait", 0, most=int(MAX_WAIT))
        run = find()
        while not (run.state.terminal or (known and not _knows(known, run))):
            left = deadline - self._loop.time()
            if left <= 0 or self._news.stopping:
                break
            await self._news.wait(run, left)
            run = find()
        status = 304 if _knows(known, run) else 200
        await self._send_run(send, run, request.call, status, request.head)

    async def _send_run(self, send: Send, run: Run, call: ServiceCall, status: int, head: bool) -> None:
        body = b""
        if status != 304 and is_brief(run):
            run, body = await asyncio.to_thread(self._whole, run, call)
        elif status != 304:
            body = _document(run, call)
        headers = [(b"etag", etag(run).encode()), (b"cache-control", b"no-cache")]
        if status != 304:
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else body, "more_body": False})

    def _whole(self, run: Run, call: ServiceCall) -> tuple[Run, bytes]:
        """Return the run with its large inputs, and the document of it. In a thread: it takes milliseconds. Raises
        RequestRefused if it was removed meanwhile."""
        found = check_run(self._store.runs.get(run.app, run.id), call, run.name, run.id, self._store)
        return found, _document(found, call)


def _knows(known: ETags, run: Run) -> bool:
    return known.contains_weak(etag(run).strip('"'))


def _request(call: ServiceCall, found: re.Match[str], scope: Message) -> RunRequest:
    return RunRequest(
        call,
        pipeline_of(call, found["pipeline"]),
        found["id"],
        scope["method"] == "HEAD",
        QueryParameters.of(scope["query_string"]),
        combined_text(scope["headers"]),
    )


def _document(run: Run, call: ServiceCall) -> bytes:
    return json.dumps(run_document(run, base_of(call, run.name))).encode() + b"\n"


# --- for the Flask application ----------------------------------------------------------------------------------


def _is_new(path: str, scope: Message) -> bool:
    """Return True if a new run is submitted for certain: with a key it may be one that was submitted before."""
    return bool(_SUBMIT.fullmatch(path)) and not any(
        name == b"idempotency-key" for name, _ in scope["headers"]
    )


class _Kept:
    """Buffers an answer."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self._messages.append(message)

    async def forward(self, send: Send) -> None:
        for message in self._messages:
            await send(message)

    @property
    def status(self) -> int:
        return int(self._messages[0]["status"])

    @property
    def location(self) -> str:
        headers: list[tuple[bytes, bytes]] = self._messages[0]["headers"]
        return next(value.decode() for name, value in headers if name.lower() == b"location")
