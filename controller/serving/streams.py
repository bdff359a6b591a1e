"""Functions that yield: each item is a result like that of any function. A caller who takes server-sent events gets
each item at once; for others the items are collected into one reply. Runs on the call's thread, within its slot.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import queue
import re
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Optional, Protocol

from .http1 import HttpRequest
from .limiter import Cancellable, LimitedCall
from .problems import is_openai
from .texts import Text

if TYPE_CHECKING:
    import concurrent.futures

#: Begins a coroutine on the worker's loop. It is cancelled with the call or batch, if one is given.
Begin = Callable[[Any, Optional[Cancellable]], "concurrent.futures.Future[Any]"]
CONTENT_TYPE = "text/event-stream"
_TYPE, _JSON = CONTENT_TYPE.encode(), b"application/json"
_QUALITY = re.compile(rb"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")
FILE_IS_YIELDED = Text("a FILE cannot be yielded: return it from a function that does not yield")


def awaited(result: Any, begin: Begin, call: Cancellable) -> Any:
    """What the function gives in the end. Decided by its result, because decorators may hide what it is."""
    if inspect.isawaitable(result):
        return begin(result, call).result()
    futures = sys.modules.get("concurrent.futures")  # none of a module that is not there
    while futures is not None and isinstance(result, futures.Future):
        result = result.result()
    return result


def is_stream(result: Any) -> bool:
    """Does the function yield its results? Decided by what it gave, as decorators hide the rest."""
    return isinstance(result, (Iterator, AsyncIterable))


def wants_events(request: HttpRequest) -> bool:
    """Does the caller ask for server-sent events, by name and not for JSON rather than them (RFC 9110 12.5.1)? Ranges
    such as ``*/*`` are satisfied by JSON."""
    weights: dict[bytes, float] = {}
    for accepted in request.headers.get(b"accept", b"").lower().split(b","):
        kind, *parameters = (part.strip() for part in accepted.split(b";"))
        weights[kind] = max(weights.get(kind, 0.0), _weight(parameters))
    return weights.get(_TYPE, 0.0) > 0 and weights[_TYPE] >= weights.get(_JSON, 0.0)


def _weight(parameters: list[bytes]) -> float:
    """A malformed one counts as none, which is 1."""
    found = [match for parameter in parameters if (match := _QUALITY.fullmatch(parameter))]
    return float(found[0][1]) if found else 1.0


def failure(problem: bytes, path: str) -> bytes:
    """The event of a problem, which ends a stream. Clients of OpenAI's API know errors by their data."""
    return event(problem, "" if is_openai(path) else "error")


def event(payload: bytes, kind: str = "") -> bytes:
    """One event of a line of JSON."""
    return b"".join([f"event: {kind}\n".encode() if kind else b"", b"data: ", payload, b"\n\n"])


class EventWriter(Protocol):
    """What the events of a call are. Raises BadOutput."""

    @property
    def takes_results(self) -> bool:
        """Is a result that was not yielded an event, too?"""

    def item(self, reply: dict[str, Any]) -> bytes:
        """The event of one item."""

    def end(self) -> bytes:
        """What follows the last item, if anything does."""


class ResultItems(Protocol):
    """The items of a function that yields, in a call."""

    def next(self) -> Optional[tuple[Any]]:
        """The next item, or None behind the last one. Raises what their code raises."""

    def close(self) -> None:
        """Have their code end, if it has not, with all that it does at its end. Raises what it raises."""


def items_of(result: Any, begin: Begin, call: LimitedCall) -> ResultItems:
    """The items of an iterator of either kind."""
    return AsyncItems(result, begin, call) if isinstance(result, AsyncIterable) else PlainItems(result)


class PlainItems:
    """Those of a plain iterator, which runs on the call's thread."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def next(self) -> Optional[tuple[Any]]:
        for item in self._iterator:
            return (item,)
        return None

    def close(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


class AsyncItems:
    """Those of an async iterable, which has one task from its first item to its end: context variables, time limits and
    cancel scopes of their code hold from one item to the next. The task is cancelled with the call.
    """

    def __init__(self, iterable: AsyncIterable[Any], begin: Begin, call: LimitedCall) -> None:
        self._iterable = iterable
        self._iterator: Optional[AsyncIterator[Any]] = None
        self._begin = begin
        self._call = call
        self._task: Optional[concurrent.futures.Future[Any]] = None
        self._taken: queue.SimpleQueue[Optional[tuple[Any]]] = queue.SimpleQueue()  # None: the task has ended
        self._go_on: Callable[[], object] = _nothing  # set by the task
        self._closing = False

    def next(self) -> Optional[tuple[Any]]:
        if self._task is None:
            self._task = self._begin(self._run(), self._call)
            self._task.add_done_callback(lambda _: self._taken.put(None))
        else:
            self._go_on()
        found = self._taken.get()
        if found is None:
            self._task.result()
        return found

    def close(self) -> None:
        if self._task is None:
            self._begin(self._end(), None).result()
        elif not self._task.done():  # else it has ended by itself
            import concurrent.futures

            self._closing = True
            self._go_on()
            with contextlib.suppress(concurrent.futures.CancelledError):
                self._task.result()

    async def _run(self) -> None:
        import asyncio

        wanted = asyncio.Event()
        self._go_on = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, wanted.set)
        try:
            self._iterator = self._iterable.__aiter__()
            async for item in self._iterator:
                self._taken.put((item,))
                await wanted.wait()
                wanted.clear()
                if self._closing:
                    return
        finally:
            await self._end()

    async def _end(self) -> None:
        close = getattr(self._iterator or self._iterable, "aclose", None)
        if close is not None:
            await close()


def _nothing() -> None:
    pass


class NoFilesInStreams:
    """The files of an item: what a stream has begun to say cannot be followed by bytes."""

    def fetch(self, index: int, key: str) -> str:
        raise NotImplementedError  # inputs are there before the function runs

    def store(self, path: str, index: int, name: str, call_id: str) -> str:
        raise ValueError(FILE_IS_YIELDED)
