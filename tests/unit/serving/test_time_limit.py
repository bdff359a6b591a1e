from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from controller.serving.config import ServingSettings
from controller.serving.connection import CallerLeft
from controller.serving.datatypes import Datatype
from controller.serving.http1 import HttpRequest, HttpResponse
from controller.serving.limiter import ConcurrencyLimiter, LimitedCall
from controller.serving.loading import InferenceFunction
from controller.serving.metrics import SharedMetrics
from controller.serving.predict import Predictor
from controller.serving.problems import ServingProblem
from controller.serving.scratch import ScratchSpace
from controller.serving.signature import Signature, Variable
from controller.serving.time_limit import FIELD, time_limit
from tests.support.waiting import wait_for

from .server import WAIT_LIMIT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, 60.0),
        (b"600.000", 600.0),
        (b"0.5", 0.5),
        (b"0", 60.0),
        (b"-1", 60.0),
        (b"1e9", 60.0),
        (b"nan", 60.0),
        (b"inf", 60.0),
        (b"99999999", 60.0),
        (b"1" * 5000, 60.0),
        (b"", 60.0),
    ],
)
def test_the_time_that_a_call_has(value: bytes | None, expected: float) -> None:
    headers = {} if value is None else {FIELD: value}
    assert time_limit(HttpRequest("POST", "/predict", headers, False), 60.0) == expected


class Caller:
    """A connection whose client stays and takes everything."""

    def answer_overdue(self, response: HttpResponse, call_id: str) -> None: ...

    def gone(self) -> bool:
        return False

    def tell(self, state: bytes) -> None: ...

    def begin(self) -> None: ...

    def stream(self, request: HttpRequest, content_type: str, piece: bytes) -> None: ...


class AnyFiles:
    def fetch(self, index: int, key: str) -> str:
        return key

    def store(self, path: str, index: int, name: str, call_id: str) -> str:
        return path


class ObservedLimiter(ConcurrencyLimiter):
    """``renewed``: seconds that running calls were given."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.renewed: list[float] = []

    def renew(self, call: LimitedCall, deadline: float) -> bool:
        self.renewed.append(round(deadline - time.monotonic()))
        return super().renew(call, deadline)


def two_words() -> Iterator[dict[str, str]]:
    return iter([{"word": "a"}, {"word": "b"}])


def call(
    limiter: ConcurrencyLimiter,
    limit: bytes,
    waited: float = 0.0,
    accept: bytes = b"*/*",
    function: Callable[[], Any] = two_words,
) -> HttpResponse:
    """A call with a file. Raises ServingProblem, CallerLeft."""
    file = Variable("file", (Datatype.FILE,), False, "")
    word = Variable("word", (Datatype.STR,), False, "")
    inference = InferenceFunction("m:f", function, (), Signature((file,), (word,), "", ""), None)
    row = SharedMetrics(1).rows[1]
    settings = ServingSettings("m:f", timeout=60.0, read_timeout=20.0)
    predictor = Predictor(
        settings, inference, limiter, row, AnyFiles(), ScratchSpace(0, 0), lambda *_: Future()
    )
    headers = {b"content-type": b"application/json", b"accept": accept, FIELD: limit}
    request = HttpRequest("POST", "/predict", headers, False)
    request.body = json.dumps({"inputs": [{"name": "file", "datatype": "FILE", "data": "a"}]}).encode()
    request.id, request.waited = "id", waited
    return predictor.predict(request, Caller())


def test_a_call_with_files_may_wait_as_long_as_it_may_take() -> None:
    assert call(ConcurrencyLimiter(1, 1), b"600", waited=100.0).status == 200
    with pytest.raises(ServingProblem, match="after 60 s"):
        call(ConcurrencyLimiter(1, 1), b"", waited=100.0)


def test_a_call_that_gets_no_slot_is_told_its_own_time() -> None:
    limiter = ConcurrencyLimiter(1, 1)
    limiter.acquire(LimitedCall("other", math.inf, lambda: None, lambda: False))
    with pytest.raises(ServingProblem, match=r"after 0\.05 s"):
        call(limiter, b"0.05")


def test_each_item_of_a_stream_has_the_time_of_the_call() -> None:
    limiter = ObservedLimiter()
    assert call(limiter, b"600", accept=b"text/event-stream").streamed
    assert limiter.renewed == [20, 600, 20, 600]


def test_a_call_that_returns_while_its_timeout_is_told_waits_for_that() -> None:
    """Its connection would end without an answer otherwise."""
    limiter, began, returns = ConcurrencyLimiter(1, 1), threading.Event(), threading.Event()

    def function() -> dict[str, str]:
        began.set()
        returns.wait(WAIT_LIMIT)
        return {"word": "late"}

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(call, limiter, b"600", function=function)
        began.wait(WAIT_LIMIT)
        (overdue,) = limiter.expire(time.monotonic() + 601)
        returns.set()
        wait_for(lambda: limiter.counts() == (0, 0, 0))
        assert not late.done()
        assert overdue.answered is not None
        overdue.answered.set()
        with pytest.raises(CallerLeft):
            late.result(WAIT_LIMIT)
