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

from controller.domain.runs.run import Run
from controller.ports import Store
from controller.web.api.runs.access import MAX_WAIT, RunRequest, base_of, check_run, etag, pipeline_of
from controller.web.api.runs.documents import run_document
from controller.web.api.runs.streams import StageLogReader, answer_log, answer_transitions
from controller.web.api.runs.watcher import RunWatcher
from controller.web.context import CALL, ServiceCall
from controller.web.gateway.body import Message, Receive, RequestBody, Send, once
from controller.web.gateway.watch import RouteWatch
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.query import QueryParameters

MAX_BODY = 2**20  # bytes; a run is a row of the database, files go through boxes
LIMIT = 500  # followers, waiting callers and downloads of logs at once in one worker

_RUN = re.compile(r"(?:(?P<pipeline>[^/]+)/)?runs/(?P<id>[^/]+)(?:/(?P<part>logs|events))?")
_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?([0-9]{1,6})"?\s*(?=$|[,;])', re.IGNORECASE)

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
            await self._change(call, scope, body, send)
            return True
        if scope["method"] not in ("GET", "HEAD"):
            raise RequestRefused(
                HttpProblem(ProblemKind.METHOD, "This path takes GET and HEAD.", allow="GET, HEAD")
            )
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

    async def _change(self, call: ServiceCall, scope: Message, body: RequestBody, send: Send) -> None:
        """Send the Flask application's answer, or the finished run if the caller prefers to wait and it ends
        in time."""
        answer = _Kept()
        await self._ask(scope, once(await body.whole()), answer.send)
        wait = min(_preferred_wait(scope), MAX_WAIT)
        if answer.status == 202 and wait:
            with self._place():
                run = await self._end(call, answer.location.rpartition("/")[2], wait)
            if run is not None:
                await _send_run(send, run, call, 200, head=False)
                return
        await answer.forward(send)

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
        await _send_run(send, run, request.call, status, request.head)


def _knows(known: ETags, run: Run) -> bool:
    return known.contains_weak(etag(run).strip('"'))


def _request(call: ServiceCall, found: re.Match[str], scope: Message) -> RunRequest:
    return RunRequest(
        call,
        pipeline_of(call, found["pipeline"]),
        found["id"],
        scope["method"] == "HEAD",
        QueryParameters.of(scope["query_string"]),
        {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
    )


async def _send_run(send: Send, run: Run, call: ServiceCall, status: int, head: bool) -> None:
    body = b"" if status == 304 else json.dumps(run_document(run, base_of(call, run.name))).encode() + b"\n"
    headers = [(b"etag", etag(run).encode()), (b"cache-control", b"no-cache")]
    if status != 304:
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body, "more_body": False})


# --- for the Flask application ----------------------------------------------------------------------------------


def _preferred_wait(scope: Message) -> float:
    """Return the seconds of `Prefer: wait=N` (RFC 7240); invalid preferences are ignored."""
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"prefer"]
    found = _WAIT.search(", ".join(lines))
    return float(found[1]) if found else 0.0


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
