"""The connection of a call as other threads see it, and what the gateway hears through it of the call's state."""

from __future__ import annotations

from typing import Protocol

from . import http1
from .http1 import HttpRequest, HttpResponse
from .limiter import LimitedCall


class PredictCaller(Protocol):
    """The connection of a call, as other threads see it."""

    def answer_overdue(self, response: HttpResponse, call_id: str) -> None: ...

    def gone(self) -> bool: ...

    def tell(self, state: bytes) -> None: ...

    def begin(self) -> None: ...

    def stream(self, request: HttpRequest, content_type: str, piece: bytes) -> None: ...


class CallStates:
    """Tells the gateway what becomes of a call, if it has asked: that it waits, in which case it is sent again if this
    container ends, and then that it runs, or else it would be sent again although it has run."""

    def __init__(self, caller: PredictCaller, request: HttpRequest) -> None:
        self._caller = caller
        self._asked = http1.TELL in request.headers
        self._told = request.told  # that it waits
        self._batched = False

    def follow(self, call: LimitedCall, batched: bool) -> None:
        self._batched = batched
        if self._asked:
            call.waits = self._waits
        if batched:
            call.begins = self._begins

    def has_slot(self) -> None:
        """Alone, it runs now. One that goes in a batch may wait yet."""
        if not self._batched:
            self._runs()

    def _begins(self) -> None:
        """It is in a batch that begins."""
        self._caller.begin()
        self._runs()

    def _waits(self) -> None:
        if not self._told:
            self._told = True
            self._caller.tell(b"waiting")

    def _runs(self) -> None:
        if self._told:
            self._told = False
            self._caller.tell(b"running")
