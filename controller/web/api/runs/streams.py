"""The log of a run's stage, as text or as events, and the transitions of a run as events: the parts of the
run API that may last as long as the run. On the event loop; used by `live`. Only one piece of a log is in
memory for each reader, with backpressure for slow readers. A stream can be resumed with the id of an event
(`Last-Event-ID`)."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from controller.domain.localizable import Localizable
from controller.domain.runs.run import Run, Transition, in_order
from controller.web.api.runs.access import RunRequest
from controller.web.api.runs.documents import transition_document
from controller.web.api.runs.logs import PIECE, StoredStageLog, log_event, whole_lines
from controller.web.api.runs.watcher import RunWatcher
from controller.web.gateway.body import Send
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.sse import EventStream, event_of

log = logging.getLogger(__name__)

KEEP_ALIVE = 15.0  # seconds between two comments in a silent stream
READERS = 4  # threads that read logs
END = "end"  # id of the last event: a client that has seen it need not come back

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_CURSOR = re.compile(r"[0-9]{1,6}(-[0-9]{1,6})*")

T = TypeVar("T")
Find = Callable[[], Run]


class StageLogReader:
    """Reads logs in separate threads, because a disk may be slow. `folder` holds the runs' folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="run-logs")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def size(self, stage: StoredStageLog) -> int:
        return await self._in_thread(stage.size)

    async def read(self, stage: StoredStageLog, offset: int, limit: int = PIECE) -> bytes:
        return await self._in_thread(lambda: stage.read(offset, limit))

    async def _in_thread(self, ask: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except OSError as error:
            log.error("a log cannot be read: %s", error)
            raise RequestRefused(
                HttpProblem(ProblemKind.INTERNAL, Localizable("The log cannot be read at the moment."))
            ) from error


# --- logs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogRequest:
    """The requested log: that of one attempt of a stage, or of all."""

    stage: str
    attempt: int | None

    def log(self, run: Run, folder: Path) -> StoredStageLog:
        return StoredStageLog.of(folder, run, self.stage, self.attempt)

    def over(self, run: Run) -> bool:
        """Return True if nothing more will be written."""
        stage = run.stage(self.stage)
        if run.state.terminal or stage.state.terminal:
            return True
        if self.attempt is None:
            return False
        return self.attempt < len(stage.attempts) or bool(stage.attempts[self.attempt - 1].ended)


async def answer_log(
    request: RunRequest, find: Find, news: RunWatcher, reader: StageLogReader, send: Send
) -> None:
    if request.headers.get("last-event-id") == END:
        await _no_more(send)
        return
    run = find()
    wanted = _log_request(request, run)
    if request.query.flag("follow"):
        await _follow_log(request, wanted, find, news, reader, send)
    else:
        await _send_text(request, wanted.log(run, reader.folder), reader, send)


def _log_request(request: RunRequest, run: Run) -> LogRequest:
    names = [stage.name for stage in run.stages]
    name = request.query.text("stage") or (names[0] if len(names) == 1 else "")
    if not name:
        raise _bad(Localizable("stage is missing; it is one of {names}.", names=", ".join(names)))
    if name not in names:
        detail = Localizable(
            "The run has no stage {name!r}; its stages are {names}.", name=name[:63], names=", ".join(names)
        )
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, detail))
    attempt, begun = request.query.number("attempt", None), len(run.stage(name).attempts)
    if attempt is not None and not 1 <= attempt <= begun:
        raise RequestRefused(
            HttpProblem(
                ProblemKind.NOT_FOUND,
                Localizable(
                    "Stage {name} has had {begun} attempts; there is no attempt {attempt}.",
                    name=name,
                    begun=begun,
                    attempt=attempt,
                ),
            )
        )
    return LogRequest(name, attempt)


async def _send_text(request: RunRequest, stage: StoredStageLog, reader: StageLogReader, send: Send) -> None:
    """Send the current content from `offset` on, or the bytes that a `Range` asks for."""
    size = await reader.size(stage)
    begin, end, status = _span(request, size)
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-length", b"%d" % (end - begin)),
        (b"accept-ranges", b"bytes"),
    ]
    if status == 206:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (begin, end - 1, size)))
    await _start(send, status, headers)
    while begin < end and not request.head:
        data = await reader.read(stage, begin, min(PIECE, end - begin))
        if not data:
            log.warning("run %s was removed while its log was read", request.id)
            return  # without the end of the response: the server closes the connection, so it is seen to be short
        await _part(send, data)
        begin += len(data)
    await _end(send)


def _span(request: RunRequest, size: int) -> tuple[int, int, int]:
    """Return the first byte, the one after the last, and the status of the answer."""
    offset, ranges = request.query.number("offset", None), request.headers.get("range")
    if offset is not None and ranges is not None:
        raise _bad(Localizable("Send either offset or the header Range."))
    if offset is not None:
        return _within(offset, size), size, 200
    found = _RANGE.fullmatch(ranges or "")
    # Without validators If-Range never matches; everything except a single range of bytes is ignored (RFC
    # 9110 §14.2).
    if found is None or "if-range" in request.headers or found[0] == "bytes=-":
        return 0, size, 200
    first, last = found[1], found[2]
    if not first:
        return _before(max(0, size - int(last)), size), size, 206
    if last and int(last) < int(first):
        return 0, size, 200
    return _before(int(first), size), min(size, int(last) + 1) if last else size, 206


def _within(offset: int, size: int) -> int:
    if offset > size:
        detail = Localizable(
            "The log has {size} bytes so far, fewer than {offset}.", size=size, offset=offset
        )
        raise RequestRefused(HttpProblem(ProblemKind.RANGE, detail, extra={"size": size}))
    return offset


def _before(first: int, size: int) -> int:
    """Return the error for a range without bytes in the log."""
    return _within(first if first < size else max(first, size + 1), size)


async def _follow_log(
    request: RunRequest, wanted: LogRequest, find: Find, news: RunWatcher, reader: StageLogReader, send: Send
) -> None:
    """Send the content from the offset on, and new content as it is written, until the log is complete."""
    run = find()
    offset = _resumed(request)
    if offset is None:
        size = await reader.size(wanted.log(run, reader.folder))
        offset = _within(request.query.number("offset", 0), size)
    stream = EventStream(send)
    await stream.start()
    if not request.head:
        await _follow(run, _FollowedLog(wanted, offset, news, reader, stream).send_new, find, news, stream)
    await stream.end()


@dataclass
class _FollowedLog:
    """A log as it is sent to a follower, who has everything before `offset`."""

    wanted: LogRequest
    offset: int
    news: RunWatcher
    reader: StageLogReader
    stream: EventStream

    async def send_new(self, run: Run) -> Seen | None:
        # In this order: the log of an ended attempt is complete in the file.
        over, stage = self.wanted.over(run), self.wanted.log(run, self.reader.folder)
        size = await self.reader.size(StoredStageLog(stage.files[-1:]))
        await self._send_lines(stage, over)
        if over and not self.news.stopping:
            await self.stream.send(_event(_end_of_log(run, self.wanted), END, END))
            return None
        return Seen(stage.tail, size)

    async def _send_lines(self, stage: StoredStageLog, over: bool) -> None:
        """Send all complete lines."""
        while not self.news.stopping:
            data = await self.reader.read(stage, self.offset)
            full = len(data) == PIECE
            length = len(data) if over and not full else whole_lines(data, full)
            if length:
                self.offset += length
                await self.stream.send(log_event(data[:length], self.offset))
            if not full:
                return


def _resumed(request: RunRequest) -> int | None:
    """Return the offset at which a follower resumes. It may be beyond the end: after a crash of the daemon
    the last bytes of a log are written again."""
    text = request.headers.get("last-event-id")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,16}", text):
        raise _bad(Localizable("Last-Event-ID must be that of an event of this stream."))
    return int(text)


def _end_of_log(run: Run, wanted: LogRequest) -> dict[str, object]:
    stage = run.stage(wanted.stage)
    attempt = stage.attempts[wanted.attempt - 1] if wanted.attempt else stage.attempt
    return {
        "stage": stage.name,
        "state": stage.state,
        "attempt": attempt.number if attempt else None,
        "exitCode": attempt.exit_code if attempt else None,
        "reason": (attempt.reason if attempt else "") or stage.reason,
    }


# --- transitions ------------------------------------------------------------------------------------------------

#: How many transitions of the run and of each stage have been told.
Cursor = tuple[int, ...]


async def answer_transitions(request: RunRequest, find: Find, news: RunWatcher, send: Send) -> None:
    """Send past transitions, then each new one, until the run is over."""
    if request.headers.get("last-event-id") == END:
        await _no_more(send)
        return
    run = find()
    seen, stream = _cursor(request, run), EventStream(send)
    await stream.start()
    if not request.head:
        await _follow(run, _Transitions(seen, stream).send_new, find, news, stream)
    await stream.end()


@dataclass
class _Transitions:
    """The transitions of a run as they are sent to a follower."""

    seen: Cursor
    stream: EventStream

    async def send_new(self, run: Run) -> Seen | None:
        for cursor, stage, step in transitions(run, self.seen):
            document = {"stage": stage, **transition_document(step)}
            await self.stream.send(_event(document, "-".join(map(str, cursor))))
            self.seen = cursor
        if not run.state.terminal:
            return Seen()
        await self.stream.send(_event({"state": run.state, "reason": run.reason}, END, END))
        return None


def transitions(run: Run, seen: Cursor) -> Iterator[tuple[Cursor, str | None, Transition]]:
    """Return the transitions after the cursor, each with its own cursor, in the order of time; the stage is None
    for the run itself."""
    histories: list[tuple[str | None, tuple[Transition, ...]]] = [
        (None, run.history),
        *((stage.name, stage.history) for stage in run.stages),
    ]
    counts = list(seen)
    for place, step in in_order(histories, seen):
        counts[place] += 1
        yield tuple(counts), histories[place][0], step


def _cursor(request: RunRequest, run: Run) -> Cursor:
    text = request.headers.get("last-event-id")
    if text is None:
        return (0,) * (1 + len(run.stages))
    counts = tuple(map(int, text.split("-"))) if _CURSOR.fullmatch(text) else ()
    if len(counts) != 1 + len(run.stages):
        raise _bad(Localizable("Last-Event-ID must be that of an event of this stream."))
    return counts


# --- streams ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """The state that a follower has seen; a new version of the run, or any difference, is sent."""

    tail: Path | None = None
    size: int = 0


async def _follow(
    run: Run, tell: Callable[[Run], Awaitable[Seen | None]], find: Find, news: RunWatcher, stream: EventStream
) -> None:
    """Send each change until `tell` returns None, because there will be no more, or until the worker stops;
    clients then reconnect to another worker."""
    while not news.stopping:
        seen = await tell(run)
        if seen is None:
            break
        if not await news.wait(run, KEEP_ALIVE, seen.tail, seen.size):
            await stream.keep_open()
        try:
            run = find()
        except RequestRefused:
            await stream.send(_event({}, kind="gone"))
            break


# --- on the wire ------------------------------------------------------------------------------------------------


async def _no_more(send: Send) -> None:
    """Tell a client of event streams not to reconnect."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"cache-control", b"no-store")]})
    await _end(send)


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [*headers, (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _part(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _end(send: Send) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(document: dict[str, object], id: str = "", kind: str = "") -> bytes:
    return event_of(json.dumps(document).encode(), id, kind)


def _bad(detail: str) -> RequestRefused:
    return RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
