"""Who goes together and when, with real threads. A delay is either over at once or so long that waiting for it would
fail the test."""

from __future__ import annotations

import threading
import time
from collections import UserList
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from controller.serving.batch_calls import BatchedFunction, CallFailed, divided, stack_key, stacked
from controller.serving.batches import MOST_KEYS, Batch, BatchLimiter, BatchMember
from controller.serving.limiter import CallExpired, ClientGone, LimitedCall, LimiterClosed, QueueFull
from controller.serving.loading import InferenceFunction
from controller.serving.metrics import SharedMetrics
from controller.serving.outputs import BadOutput
from controller.serving.signature import Signature

FAR = 1e9
WAIT_LIMIT = 20.0


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class Joining:
    """A call that joins on a thread of its own, and what became of it: the batch that it is to run, or its outcome."""

    def __init__(self, limiter: BatchLimiter, key: Hashable = None) -> None:
        self.left = False
        self.call = LimitedCall("id", FAR, lambda: None, lambda: self.left)
        self.member = BatchMember(self.call, {}, key)
        self.batch: Batch | None = None
        self.outcome: object = None
        self.thread = threading.Thread(target=self._join, args=(limiter,), daemon=True)
        self.thread.start()
        wait_until(lambda: self.call.queued or self.member.batch or not self.thread.is_alive())

    def leave(self) -> None:
        """The caller goes, and the clock has noticed."""
        self.left = self.call.left = True
        self.cancel()

    def expire(self) -> None:
        self.call.expired = True
        self.cancel()

    def cancel(self) -> None:
        assert self.call.cancel is not None
        self.call.cancel()

    def _join(self, limiter: BatchLimiter) -> None:
        try:
            self.batch = limiter.join(self.member)
            if self.batch is None:
                self.outcome = self.member.outcome()
        except (QueueFull, CallExpired, LimiterClosed, ClientGone) as error:
            self.outcome = error

    def ended(self) -> Joining:
        self.thread.join(WAIT_LIMIT)
        assert not self.thread.is_alive()
        return self

    def size(self) -> int:
        batch = self.ended().batch
        assert batch is not None
        return len(batch.members)


def run(limiter: BatchLimiter, first: Joining) -> None:
    """The first call's batch runs: each of its calls gets its place as the result."""
    batch = first.ended().batch
    assert batch is not None
    for number, member in enumerate(batch.members):
        limiter.deliver(member, number)
    limiter.finish(batch)


def test_a_caller_who_is_alone_waits_no_second_time() -> None:
    limiter = BatchLimiter(4, delay=0.01, queue=10, concurrency=1)
    run(limiter, Joining(limiter))
    limiter._delay = FAR
    for _ in range(3):
        call = Joining(limiter)
        assert call.size() == 1
        run(limiter, call)


def test_as_many_are_expected_as_were_under_way_together() -> None:
    limiter = BatchLimiter(8, delay=0, queue=10, concurrency=1)
    first = Joining(limiter)
    assert first.size() == 1
    second, third = Joining(limiter), Joining(limiter)
    limiter._delay = FAR
    run(limiter, first)  # while two waited: three are expected
    assert second.thread.is_alive()
    Joining(limiter)
    assert second.size() == 3
    run(limiter, second)
    assert third.ended().outcome == 1
    again = [Joining(limiter) for _ in range(3)]
    assert again[0].size() == 3


def test_fewer_who_come_are_expected_the_next_time() -> None:
    limiter = BatchLimiter(8, delay=0, queue=10, concurrency=1)
    limiter._expected[None] = 8
    call = Joining(limiter)
    assert call.size() == 1  # when the delay is over
    run(limiter, call)
    limiter._delay = FAR
    assert Joining(limiter).size() == 1


def test_the_delay_counts_from_the_arrival_of_the_first() -> None:
    """What has waited for a batch that ran has waited enough."""
    limiter = BatchLimiter(8, delay=FAR, queue=10, concurrency=1)
    limiter._expected[None] = 1
    running = Joining(limiter)
    waiting = Joining(limiter)
    limiter._expected[None] = 8
    waiting.member.arrived -= FAR
    run(limiter, running)
    assert waiting.size() == 1


def test_kinds_that_do_not_go_together_are_expected_apart() -> None:
    limiter = BatchLimiter(8, delay=FAR, queue=10, concurrency=1)
    limiter._expected.update({"a": 2, "b": 3})
    one, other = Joining(limiter, "a"), Joining(limiter, "b")
    Joining(limiter, "a")
    assert one.size() == 2
    run(limiter, one)
    assert other.thread.is_alive()
    unknown = Joining(limiter, "c")
    assert unknown.size() == 1
    run(limiter, unknown)
    for number in range(2 * MOST_KEYS):
        limiter.finish(Batch([BatchMember(one.call, {}, number)]))
    assert len(limiter._expected) == MOST_KEYS


def test_a_kind_that_is_complete_goes_before_one_that_waits_for_company() -> None:
    limiter = BatchLimiter(8, delay=FAR, queue=10, concurrency=1)
    limiter._expected.update({"a": 3, "b": 2})
    waits, other = Joining(limiter, "a"), Joining(limiter, "b")
    last = Joining(limiter, "b")
    assert other.size() == 2
    Joining(limiter, "a")
    Joining(limiter, "a")
    assert waits.thread.is_alive()  # complete now, but no other batch may run
    run(limiter, other)
    assert last.ended().outcome == 1
    assert waits.size() == 3


def test_a_kind_that_is_always_complete_does_not_keep_others_back() -> None:
    limiter = BatchLimiter(2, delay=FAR, queue=10, concurrency=1)
    limiter._expected.update({"a": 1, "b": 2})
    running, lone = Joining(limiter, "a"), Joining(limiter, "b")
    others = [Joining(limiter, "a") for _ in range(2)]
    lone.member.arrived -= FAR  # it has waited for company as long as anybody does
    run(limiter, running)
    assert lone.size() == 1
    assert others[0].thread.is_alive()
    run(limiter, lone)
    assert others[0].size() == 2
    run(limiter, others[0])


def test_several_batches_share_those_who_are_expected() -> None:
    limiter = BatchLimiter(8, delay=FAR, queue=10, concurrency=2)
    limiter._expected[None] = 4
    calls = [Joining(limiter) for _ in range(2)]
    assert calls[0].size() == 2
    calls += [Joining(limiter) for _ in range(2)]
    assert calls[2].size() == 2
    assert limiter.exhausted_since() is None
    waiting = Joining(limiter)
    for call in calls:
        call.call.expired = True
    assert limiter.exhausted_since() is not None
    batch = calls[2].ended().batch
    assert batch is not None
    for member in batch.members:
        limiter.deliver(member, None)
    assert limiter.exhausted_since() is None  # it is about to finish
    run(limiter, calls[0])
    assert limiter.exhausted_since() is None
    limiter.close()
    assert isinstance(waiting.ended().outcome, LimiterClosed)
    assert isinstance(Joining(limiter).ended().outcome, LimiterClosed)


def test_the_leader_goes_while_it_waits_for_company() -> None:
    limiter = BatchLimiter(8, delay=FAR, queue=10, concurrency=1)
    calls = [Joining(limiter) for _ in range(3)]
    calls[0].expire()
    assert isinstance(calls[0].ended().outcome, CallExpired)
    calls[1].leave()
    assert isinstance(calls[1].ended().outcome, ClientGone)
    assert calls[2].thread.is_alive()
    limiter._expected[None] = 2
    Joining(limiter)
    assert calls[2].size() == 2


def test_callers_who_have_gone_are_not_taken() -> None:
    limiter = BatchLimiter(8, delay=FAR, queue=10, concurrency=1)
    limiter._expected[None] = 5
    calls = [Joining(limiter) for _ in range(4)]
    for gone in (calls[0], calls[2]):
        gone.left = True
    limiter._expected[None] = 4
    calls.append(Joining(limiter))  # wakes the first, which has gone: the second leads
    batch = calls[1].ended().batch
    assert batch is not None
    assert [member.call for member in batch.members] == [calls[at].call for at in (1, 3, 4)]
    assert [isinstance(calls[at].ended().outcome, ClientGone) for at in (0, 2)] == [True, True]


def test_a_call_that_was_over_before_it_joined_takes_no_place() -> None:
    limiter = BatchLimiter(2, delay=FAR, queue=10, concurrency=1)
    member = BatchMember(LimitedCall("id", 0, lambda: None, lambda: False), {})
    member.call.expired = True
    assert limiter.join(member) is None
    with pytest.raises(CallExpired):
        member.outcome()
    assert limiter.counts() == (0, 0, 0)


def test_a_batch_is_cancelled_when_nobody_waits_for_it() -> None:
    limiter = BatchLimiter(2, delay=FAR, queue=0, concurrency=1)
    one, other = Joining(limiter), Joining(limiter)
    batch = one.ended().batch
    assert batch is not None
    cancelled: list[int] = []
    batch.cancel = lambda: cancelled.append(1)
    one.leave()
    assert not cancelled
    other.expire()
    assert cancelled
    run(limiter, one)
    other.ended()


def test_it_is_full_only_of_callers_who_are_there() -> None:
    limiter = BatchLimiter(1, delay=0, queue=1, concurrency=1)
    running = Joining(limiter)
    assert running.size() == 1
    waiting = Joining(limiter)
    assert limiter.is_full()
    assert isinstance(Joining(limiter).outcome, QueueFull)
    with pytest.raises(QueueFull):
        limiter.acquire(LimitedCall("id", FAR, lambda: None, lambda: False))
    waiting.left = True
    wait_until(lambda: not limiter.is_full())
    assert isinstance(waiting.ended().outcome, ClientGone)


def test_a_storm() -> None:
    """Every call gets its own result, whatever leaves meanwhile, and nothing is left behind."""
    limiter = BatchLimiter(4, delay=0.001, queue=1000, concurrency=2)
    answers: dict[int, object] = {}

    def call(number: int) -> None:
        left = number % 7 == 0
        limited = LimitedCall(str(number), FAR, lambda: None, lambda: left)
        limiter.acquire(limited)
        member = BatchMember(limited, {"number": number}, number % 3)
        batch = limiter.join(member)
        if batch is not None:
            assert len({other.key for other in batch.members}) == 1
            for other in batch.members:
                limiter.deliver(other, other.arguments["number"])
            limiter.finish(batch)
        limiter.release(limited)
        try:
            answers[number] = member.outcome()
        except ClientGone:
            answers[number] = number if left else None

    threads = [threading.Thread(target=call, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_LIMIT)
    assert answers == {number: number for number in range(200)}
    assert limiter.counts() == (0, 0, 0)
    assert (limiter._groups, limiter._in_batches, limiter._gatherer) == ({}, set(), None)


class Column(UserList[Any]):
    """Values with an index of their own, as a column of pandas has after it was sorted."""

    def __init__(self, *values: Any) -> None:
        super().__init__(values)

    def __getitem__(self, label: Any) -> Any:
        return {7: self.data[0], 3: self.data[1]}[label]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)


@pytest.mark.parametrize(
    ("result", "by_name", "expected"),
    [
        ([1, 2], False, [1, 2]),
        ((1, 2), True, [1, 2]),
        ({"a": [1, 2], "b": ("x", "y")}, True, [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ({"a": Column(1, 2), "b": {0: 5, 1: 6}.values()}, True, [{"a": 1, "b": 5}, {"a": 2, "b": 6}]),
    ],
)
def test_results_are_divided(result: Any, by_name: bool, expected: list[Any]) -> None:
    assert divided(result, 2, by_name) == expected


def test_one_result_too_many_is_told_in_the_right_number() -> None:
    with pytest.raises(BadOutput, match=r"^the function returned 2 results for 1 call$"):
        divided([1, 2], 1, by_name=False)


def batched_function(function: Any, size: int) -> tuple[BatchLimiter, BatchedFunction, Any]:
    inference = InferenceFunction("m:f", function, ("inputs",), Signature((), (), "", ""), None)
    limiter = BatchLimiter(size, delay=FAR, queue=10, concurrency=1)
    row: Any = SharedMetrics(1).rows[1]
    return limiter, BatchedFunction(inference, limiter, row, lambda *_: Future()), row


def test_an_error_that_is_returned_again_and_again_keeps_nothing() -> None:
    error = ValueError("too long")

    def function(inputs: list[Any]) -> list[Any]:
        return [error] * len(inputs)

    inference = InferenceFunction("m:f", function, ("inputs",), Signature((), (), "", ""), None)
    limiter = BatchLimiter(2, delay=0, queue=10, concurrency=1)
    batched = BatchedFunction(inference, limiter, SharedMetrics(1).rows[1], lambda *_: Future())
    for _ in range(3):
        with pytest.raises(CallFailed) as caught:
            batched.result({"inputs": []}, LimitedCall("id", FAR, lambda: None, lambda: False))
        assert caught.value.__cause__ is error
        assert error.__traceback__ is None


def test_a_call_whose_beginning_cannot_be_told_fails_alone_and_the_next_batch_runs() -> None:
    def function(inputs: list[Any]) -> list[Any]:
        return inputs

    def broken() -> None:
        raise BrokenPipeError("told nobody")

    limiter, batched, _ = batched_function(function, size=2)
    with ThreadPoolExecutor(2) as threads:
        for fails in (True, False):
            calls = [LimitedCall(str(number), FAR, lambda: None, lambda: False) for number in range(2)]
            calls[0].begins = broken if fails else calls[0].begins
            first = threads.submit(batched.result, {"inputs": "a"}, calls[0])
            wait_until(partial(getattr, calls[0], "queued"))
            second = threads.submit(batched.result, {"inputs": "b"}, calls[1])
            assert second.result(WAIT_LIMIT) == "b"
            assert isinstance(first.exception(WAIT_LIMIT), BrokenPipeError if fails else type(None))
            wait_until(lambda: not limiter._in_batches)


@pytest.mark.parametrize("change", [1, -1])
def test_a_fault_around_a_batch_fails_its_calls_and_keeps_no_slot(change: int) -> None:
    limiter, batched, row = batched_function(lambda inputs: inputs, size=1)
    count = row.batching

    def broken(by: int) -> None:
        count(by)
        if by == change:
            raise OSError("the counts are gone")

    row.batching = broken
    call = LimitedCall("id", FAR, lambda: None, lambda: False)
    if change == 1:
        with pytest.raises(OSError, match="the counts are gone"):
            batched.result({"inputs": "a"}, call)
    else:  # it has its result already
        assert batched.result({"inputs": "a"}, call) == "a"
    assert not limiter._in_batches
    row.batching = count
    call = LimitedCall("next", FAR, lambda: None, lambda: False)
    assert batched.result({"inputs": "b"}, call) == "b"


def test_inputs_are_stacked_whatever_their_order() -> None:
    import numpy as np

    def inputs(start: int) -> list[dict[str, Any]]:
        array = np.arange(start, start + 2)
        return [
            {"name": "a", "datatype": "INT32", "data": array},
            {"name": "b", "datatype": "str", "data": "x"},
        ]

    one, other = inputs(0), inputs(2)[::-1]
    assert stack_key(one) == stack_key(other) != stack_key(one[:1])
    first, second = stacked(np, [other, one], ["a", "c", "b"])
    assert (first["shape"], first["data"].tolist()) == ([2, 2], [[2, 3], [0, 1]])
    assert second == {"name": "b", "datatype": "str", "data": ["x", "x"]}
