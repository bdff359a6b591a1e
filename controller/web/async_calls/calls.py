"""Async calls in one worker of the gateway, from its start to its end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from controller.domain.apps.usage import Resource, TakenShare
from controller.domain.routing.async_calls import AsyncCall, EndedCall
from controller.domain.runs.webhooks import MAX_URL, is_url
from controller.store.calls import CallRequest, CallTable, NewCall
from controller.web.async_calls.api import AsyncCallApi, CallCaller
from controller.web.async_calls.dispatcher import CallDispatcher, Forward
from controller.web.async_calls.news import CallNews
from controller.web.async_calls.presence import WorkerPresence
from controller.web.gateway.body import HeldBodies, RequestBody, Send
from controller.web.gateway.coding import any_coding
from controller.web.gateway.forward import ForwardedCall
from controller.web.gateway.headers import combined_text
from controller.web.gateway.router import UpstreamTarget
from controller.web.gateway.watch import RouteWatch
from controller.web.preferences import Preferences, idempotency_key
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

#: Bytes of bodies that one worker has in memory before they are stored.
HELD: Final = 256 * 2**20

DISK_RETRY: Final = 60  # seconds, while the disk has too little space

#: The field with the receiver of a webhook.
WEBHOOK: Final = b"x-prichal-webhook"

Headers = Sequence[tuple[bytes, bytes]]


class AsyncCalls:
    """`forward` passes a call to its component, `called` notes that a component is in use, `tell` tells the daemon the
    end of a call, and `count` counts an answered one by its API, status and seconds."""

    def __init__(
        self,
        table: CallTable,
        presence: WorkerPresence,
        watch: RouteWatch,
        forward: Forward,
        called: Callable[[UpstreamTarget], None],
        tell: Callable[[EndedCall], None],
        count: Callable[[str, int, float], None],
    ) -> None:
        self._table = table
        self._news = CallNews(table)
        self._dispatcher = CallDispatcher(
            table, self._news, presence, watch.worker, lambda: watch.table, forward, called, tell, count
        )
        self._api = AsyncCallApi(table, self._news, self._dispatcher)
        self._held = HeldBodies(HELD, "async calls that are being received")

    async def start(self) -> None:
        self._news.start()
        await self._dispatcher.start()

    def begin_stop(self) -> None:
        """End long polls, and begin no more calls."""
        self._dispatcher.begin_stop()
        self._news.stop()

    async def stop(self, timeout: float) -> None:
        self.begin_stop()
        await self._dispatcher.stop(timeout)
        self._api.close()
        self._table.close()

    def taken(self) -> tuple[TakenShare, ...]:
        """Return what apps take of the limits, for the report to the daemon."""
        waiting, sizes = self._table.use()
        return (
            *(TakenShare(app, Resource.ASYNC_CALLS, number) for app, number in waiting.items()),
            *(TakenShare(app, Resource.ASYNC_RESULTS, size) for app, size in sizes.items()),
        )

    @staticmethod
    def wants(headers: Headers) -> bool:
        """Return True if the caller does not want to wait for the answer. Who takes events wants them as they come."""
        for name, _ in headers:
            if name == b"prefer":
                break
        else:
            return False
        takes_events = any(name == b"accept" and b"text/event-stream" in value for name, value in headers)
        return Preferences.of(headers).respond_async and not takes_events

    async def accept(
        self, call: ForwardedCall, user: str, body: RequestBody, headers: Headers, send: Send
    ) -> None:
        """Store a call whose body has begun to arrive, and answer. Raises RequestRefused, CallerGone,
        ControllerError."""
        if not self._dispatcher.has_disk():
            detail = "Async calls are not accepted now: too little of the platform's disk is free."
            raise RequestRefused(HttpProblem(ProblemKind.DISK_LOW, detail, retry_after=DISK_RETRY))
        stored = await self._stored(call, user, body, headers)
        await self._api.answer_accepted(stored, Preferences.of(headers), send)

    async def _stored(self, call: ForwardedCall, user: str, body: RequestBody, headers: Headers) -> AsyncCall:
        """Its body is in memory no longer than until it is stored: the caller may wait for a minute afterwards."""
        key = idempotency_key(_field(headers, "idempotency-key"))
        hook, webhook = call.target.route.webhook, _webhook(call, headers)
        pieces: list[bytes] = []
        try:
            content = await self._held.whole(body, pieces)
            route = call.target.route
            digest = await asyncio.to_thread(_digest, call.path, webhook, content) if key else ""
            lines = any_coding(call.lines)  # the result may be fetched by somebody who takes no gzip
            request = CallRequest(call.path, lines, call.host, call.request_id, content)
            new = NewCall(
                route.app, call.target.api.path, route.component, user, request, key, digest, webhook
            )
            new = replace(new, told=hook is not None and bool(hook.url or webhook))
            return await self._api.accept(new)
        finally:
            self._held.release(pieces)

    async def answer(self, caller: CallCaller, send: Send) -> None:
        """Answer a request for a call. Raises RequestRefused, ControllerError."""
        await self._api.answer(caller, send)


def _webhook(call: ForwardedCall, headers: Headers) -> str:
    """Return the receiver that the caller names; "" for none. Raises RequestRefused."""
    url = _field(headers, WEBHOOK.decode())
    if url is None:
        return ""
    detail = ""
    if not is_url(url):
        limit = f"at most {MAX_URL} characters"
        detail = f"X-Prichal-Webhook must be an http or https URL without user and fragment, {limit}."
    elif call.target.route.webhook is None:
        component = call.target.route.component
        detail = f"Component {component} has no webhook.secret that it could be signed with."
    if detail:
        raise RequestRefused(HttpProblem(ProblemKind.INVALID, detail))
    return url


def _digest(path: bytes, webhook: str, content: bytes) -> str:
    return hashlib.sha256(b"%b\n%b\n%b" % (path, webhook.encode(), content)).hexdigest()


def _field(headers: Headers, name: str) -> str | None:
    return combined_text(headers).get(name)
