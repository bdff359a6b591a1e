"""Answers callers of async calls, on the event loop: accepts a call and stores it, tells its state, gives its result,
cancels it, lists the caller's calls. Called by the gateway after authentication; a caller sees only the calls that they
have made by this API.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.routing.async_calls import AsyncCall, CallState, call_links, call_summary, is_call_id
from controller.store.calls import CallFilter, CallMark, CallResult, CallTable, NewCall
from controller.web.async_calls.dispatcher import CallDispatcher
from controller.web.async_calls.news import CallNews
from controller.web.auth.browsers import PRIVATE
from controller.web.gateway.body import Send
from controller.web.gateway.router import CallLookup, CallPart
from controller.web.preferences import Preferences
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.query import QueryParameters
from controller.web.sse import EventStream, event_of

MAX_WAIT: Final = 60.0  # seconds that one request may wait for the end of a call
RETRY_AFTER: Final = 1  # seconds, while a call is not over
QUEUE_RETRY: Final = 10  # seconds, while the queue is full
PIECE: Final = 2**20  # bytes of a result that are in memory at once
PAGE: Final = 100  # calls of one list at most
DEFAULT_PAGE: Final = 20
KEEP_ALIVE: Final = 15.0  # seconds after which a silent event stream sends a comment
END: Final = "end"  # the id and the kind of the last event

Header = tuple[bytes, bytes]


@dataclass(frozen=True)
class CallCaller:
    """Who asks for a call. `seen` is the id of the last event that the caller has of it, None without one."""

    lookup: CallLookup
    user: str
    method: str
    query: bytes
    preferences: Preferences
    seen: str | None = None


class AsyncCallApi:
    def __init__(self, table: CallTable, news: CallNews, dispatcher: CallDispatcher) -> None:
        self._table = table
        self._news = news
        self._dispatcher = dispatcher
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="async-results")

    def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def accept(self, new: NewCall) -> AsyncCall:
        """Store the call, which is made from now on. Raises RequestRefused."""
        with _refusals():
            call, _ = await self._dispatcher.in_thread(self._table.submit, new)
        self._dispatcher.wake()
        return call

    async def answer_accepted(self, call: AsyncCall, preferences: Preferences, send: Send) -> None:
        """Answer with the address of a call; with its result if that comes within the preferred time. Raises
        RequestRefused."""
        wait = min(preferences.wait, MAX_WAIT)
        call = await self._until_over(call, wait)
        if wait and call.has_result:
            await self._send_result(call, send, (b"preference-applied", b"wait=%g" % wait))
            return
        applied = b"respond-async" + (b", wait=%g" % wait if wait else b"")
        fields: tuple[Header, ...] = (
            (b"location", str(call_links(call)["self"]).encode()),
            (b"preference-applied", applied),
        )
        await _send_document(call, 202, send, *fields)

    async def answer(self, caller: CallCaller, send: Send) -> None:
        """Answer a request for a call, or for the list of them. Raises RequestRefused."""
        head, part = caller.method == "HEAD", caller.lookup.part
        if part is CallPart.LIST:
            await _send_json(self._page(caller), 200, send, PRIVATE, head)
            return
        call = self._find(caller)
        if part is CallPart.EVENTS:
            await self._follow(call, caller, send)
            return
        wait = QueryParameters.of(caller.query).number("wait", 0, most=int(MAX_WAIT))
        if caller.method == "DELETE":
            found = await self._dispatcher.in_thread(self._table.cancel, call.id)
            self._news.tell()
            call = await self._until_over(found or call, min(caller.preferences.wait, MAX_WAIT))
            await _send_document(call, 200 if call.state.terminal else 202, send)
            return
        call = await self._until_over(call, wait)
        if part is CallPart.CALL:
            await _send_document(call, 200, send, head=head)
        elif call.state.terminal:
            await self._send_result(call, send, head=head)
        else:
            fields = ((b"location", str(call_links(call)["self"]).encode()),)
            await _send_document(call, 202, send, *fields, head=head)

    def _page(self, caller: CallCaller) -> dict[str, object]:
        """Return a page of the caller's calls, newest first. Raises RequestRefused."""
        target, query = caller.lookup.target, QueryParameters.of(caller.query)
        if not caller.user:
            detail = (
                "Callers without a name have no list of calls, because others without one would see them."
            )
            raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, detail))
        limit = query.number("limit", DEFAULT_PAGE, least=1, most=PAGE)
        state = query.choice("state", _STATES)
        after = query.text("after") or ""
        wanted = CallFilter(target.route.app, target.api.path, caller.user, state, after)
        found = self._table.page(wanted, limit + 1) if is_call_id(after) or not after else None
        if found is None:
            detail = "after must be the id of a call, as next of the page before."
            raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
        more, found = len(found) > limit, found[:limit]
        return {"calls": [call_document(call) for call in found], "next": found[-1].id if more else None}

    async def _follow(self, call: AsyncCall, caller: CallCaller, send: Send) -> None:
        """Send the call, and again whenever its state or the reason for it changes, until it is over."""
        if caller.seen == END:
            await send({"type": "http.response.start", "status": 204, "headers": list(PRIVATE)})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        stream = EventStream(send)
        await stream.start()
        if caller.method != "HEAD":
            await self._send_changes(call, stream)
        await stream.end()

    async def _send_changes(self, call: AsyncCall, stream: EventStream) -> None:
        """Return when the call is over or gone, or the worker stops: clients then come back to another worker."""
        told: CallMark | None = None
        while (found := self._table.get(call.id)) is not None and not self._news.stopping:
            mark = (found.state, found.reason, found.message)
            if mark == told:
                if not await self._news.wait_for_change(call.id, mark, KEEP_ALIVE):
                    await stream.keep_open()
                continue
            over = END if found.state.terminal else ""
            await stream.send(event_of(json.dumps(call_document(found)).encode(), over, over))
            if over:
                return
            told = mark  # it may have changed again while this was being sent

    def _find(self, caller: CallCaller) -> AsyncCall:
        """Return the caller's call. Others' calls look like missing ones. Raises RequestRefused."""
        target, id = caller.lookup.target, caller.lookup.id
        whose = (target.route.app, target.api.path, caller.user)
        if is_call_id(id):
            found = self._table.get(id)
            if found is not None and found.is_visible_to(*whose):
                return found
            if found is None and self._table.is_gone(id, *whose):
                detail = (
                    f"Call {id} was removed with its result, which is kept for {self._table.limits.keep:g} s."
                )
                raise RequestRefused(HttpProblem(ProblemKind.CALL_GONE, detail))
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, f"You have no call {id[:40]!r} here."))

    async def _until_over(self, call: AsyncCall, wait: float) -> AsyncCall:
        """Return the call once it is over, or as it is after `wait` seconds."""
        if wait:
            call = self._table.get(call.id) or call  # it may have ended while it was being stored or canceled
        if call.state.terminal or not wait:
            return call
        await self._news.wait_for_end(call.id, wait)
        return self._table.get(call.id) or call

    async def _send_result(self, call: AsyncCall, send: Send, *fields: Header, head: bool = False) -> None:
        """Send what the component answered, in pieces. Raises RequestRefused if it answered nothing."""
        if not call.has_result:
            raise RequestRefused(_without_result(call))
        found = await self._piece(call, 0)
        if found is None:
            raise RequestRefused(HttpProblem(ProblemKind.CALL_GONE, f"Call {call.id} was removed."))
        kept = [header for header in found.headers if header[0].lower() not in _REPLACED]
        place = (b"content-location", str(call_links(call)["result"]).encode())
        headers = [*kept, *PRIVATE, *fields, place, (b"content-length", b"%d" % call.length)]
        await send({"type": "http.response.start", "status": call.status, "headers": headers})
        sent, piece = 0, found.body
        while not head and sent + len(piece) < call.length:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            sent += len(piece)
            more = await self._piece(call, sent)
            if more is None or not more.body:
                return  # removed meanwhile: the server closes the connection before the announced length
            piece = more.body
        await send({"type": "http.response.body", "body": b"" if head else piece, "more_body": False})

    async def _piece(self, call: AsyncCall, offset: int) -> CallResult | None:
        return await self._news.loop.run_in_executor(self._reader, self._table.result, call.id, offset, PIECE)


_STATES: Final = {text: state for state in CallState for text in (state.value, state.value.lower())}
_REPLACED: Final = frozenset((*(name for name, _ in PRIVATE), b"content-location"))


def _without_result(call: AsyncCall) -> HttpProblem:
    extra: dict[str, Any] = {"state": str(call.state), "reason": call.reason}
    kind = ProblemKind.CALL_LOST if call.state is CallState.ERROR else ProblemKind.CALL_STATE
    return HttpProblem(kind, call.message, extra=extra)


def call_document(call: AsyncCall) -> dict[str, object]:
    return {**call_summary(call), "links": call_links(call)}


async def _send_document(
    call: AsyncCall, status: int, send: Send, *fields: Header, head: bool = False
) -> None:
    again = () if call.state.terminal else ((b"retry-after", b"%d" % RETRY_AFTER),)
    await _send_json(call_document(call), status, send, (*PRIVATE, *again, *fields), head)


async def _send_json(
    document: dict[str, object], status: int, send: Send, fields: Iterable[Header], head: bool
) -> None:
    body = json.dumps(document).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *fields]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body, "more_body": False})


@contextmanager
def _refusals() -> Iterator[None]:
    """Translate errors of the table that are the caller's to know."""
    try:
        yield
    except Transient as error:
        if error.reason != Reason.QUEUE_FULL:
            raise
        detail = f"{str(error)[:1].upper()}{str(error)[1:]}: ask for it again later."
        raise RequestRefused(HttpProblem(ProblemKind.QUEUE_FULL, detail, retry_after=QUEUE_RETRY)) from error
    except Stalled as error:
        if error.reason != Reason.IDEMPOTENCY_CONFLICT:
            raise
        detail = f"Choose another key: {error.message}."
        raise RequestRefused(HttpProblem(ProblemKind.KEY_REUSED, detail)) from error
