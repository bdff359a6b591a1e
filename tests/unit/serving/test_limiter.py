"""Slots, queue and deadlines, with real threads. Threads wait for conditions; deadlines are given as past or far."""

from __future__ import annotations

import threading
import time

import pytest

from controller.serving.limiter import (
    SWEEP,
    CallExpired,
    ClientGone,
    ConcurrencyLimiter,
    LimitedCall,
    LimiterClosed,
    QueueFull,
)

FAR = 1e9


def call(deadline: float = FAR) -> LimitedCall:
    return LimitedCall("id", deadline, lambda: None, lambda: False)


class Waiting:
    """A call that enters on a thread of its own, and what became of it."""

    def __init__(self, gate: ConcurrencyLimiter, deadline: float = FAR) -> None:
        self.left = False
        self.call = LimitedCall("id", deadline, lambda: None, lambda: self.left)
        self.outcome: object = None
        before = gate.counts()[1]
        self._thread = threading.Thread(target=self._enter, args=(gate,))
        self._thread.start()
        while gate.counts()[1] == before and self._thread.is_alive():
            time.sleep(0)

    def _enter(self, gate: ConcurrencyLimiter) -> None:
        try:
            gate.acquire(self.call)
            self.outcome = "entered"
        except (QueueFull, CallExpired, LimiterClosed, ClientGone) as error:
            self.outcome = error

    def result(self) -> object:
        self._thread.join(60)
        return self.outcome


def test_a_slot_goes_to_who_waits_longest() -> None:
    gate = ConcurrencyLimiter(1, 3)
    first = call()
    gate.acquire(first)
    waiting = [Waiting(gate) for _ in range(3)]
    assert gate.counts() == (1, 3, 0)
    with pytest.raises(QueueFull):
        gate.acquire(call())
    current = first
    for successor in waiting:
        assert successor.outcome is None
        assert gate.release(current)
        assert successor.result() == "entered"
        current = successor.call
    assert gate.release(current)
    assert gate.counts() == (0, 0, 0)


def test_waiting_ends_at_the_deadline() -> None:
    gate = ConcurrencyLimiter(1, 1)
    holder = call()
    gate.acquire(holder)
    with pytest.raises(CallExpired):
        gate.acquire(call(deadline=time.monotonic()))
    assert gate.counts() == (1, 0, 0)
    gate.release(holder)
    gate.acquire(call())


def test_expiry_takes_the_answer_over_once() -> None:
    gate = ConcurrencyLimiter(2, 0)
    early, late = call(deadline=10.0), call(deadline=20.0)
    gate.acquire(early)
    gate.acquire(late)
    assert gate.next_deadline() == 10.0
    assert gate.expire(now=9.9) == []
    assert gate.expire(now=10.0) == [early]
    assert gate.expire(now=11.0) == []
    assert gate.next_deadline() == 20.0
    assert gate.counts() == (2, 0, 1)
    assert gate.exhausted_since() is None
    assert gate.release(early) is False
    assert gate.release(late) is True


def test_exhaustion_begins_when_the_last_slot_is_lost_and_ends_with_the_first_return() -> None:
    gate = ConcurrencyLimiter(2, 0)
    calls = [call(deadline=10.0), call(deadline=20.0)]
    for one in calls:
        gate.acquire(one)
    gate.expire(now=10.0)
    gate.expire(now=20.0)
    gate.expire(now=25.0)
    assert gate.exhausted_since() == 20.0
    assert gate.next_deadline() is None
    gate.release(calls[0])
    assert gate.exhausted_since() is None
    again = call(deadline=30.0)
    gate.acquire(again)
    gate.expire(now=30.0)
    assert gate.exhausted_since() == 30.0


def test_closing_turns_everybody_away() -> None:
    gate = ConcurrencyLimiter(1, 2)
    holder = call()
    gate.acquire(holder)
    waiting = Waiting(gate)
    gate.close()
    assert isinstance(waiting.result(), LimiterClosed)
    with pytest.raises(LimiterClosed):
        gate.acquire(call())
    assert gate.release(holder)


def test_under_load_no_more_than_the_capacity_run_and_every_call_ends() -> None:
    gate = ConcurrencyLimiter(3, 1000)
    running, most, done = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most, done
        for _ in range(200):
            one = call()
            gate.acquire(one)
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0)
            with lock:
                running -= 1
                done += 1
            assert gate.release(one)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == 12 * 200
    assert most <= 3
    assert gate.counts() == (0, 0, 0)


def test_a_call_whose_caller_has_gone_gets_no_slot() -> None:
    gate = ConcurrencyLimiter(1, 3)
    holder = call()
    gate.acquire(holder)
    first, second, third = (Waiting(gate) for _ in range(3))
    first.left = second.left = True
    assert gate.release(holder)
    assert isinstance(first.result(), ClientGone)
    assert isinstance(second.result(), ClientGone)
    assert third.result() == "entered"
    assert gate.counts() == (1, 0, 0)


def test_a_full_queue_has_room_once_callers_have_gone() -> None:
    gate = ConcurrencyLimiter(1, 2)
    gate.acquire(call())
    waiting = [Waiting(gate), Waiting(gate)]
    waiting[0].left = True
    swept = time.monotonic()
    while gate.is_full():  # a full queue is searched every now and then
        assert time.monotonic() - swept < 60 * SWEEP
    assert isinstance(waiting[0].result(), ClientGone)
    assert gate.counts() == (1, 1, 0)
    gate.close()
    assert isinstance(waiting[1].result(), LimiterClosed)


def test_the_clock_drops_waiting_calls_and_is_given_the_running_ones_that_can_be_cancelled() -> None:
    gate = ConcurrencyLimiter(2, 1)
    gone = [LimitedCall("id", FAR, lambda: None, lambda: True) for _ in range(2)]
    for one in gone:
        gate.acquire(one)
    gone[1].cancel = lambda: None
    waiting = Waiting(gate)
    assert gate.drop_gone() == [gone[1]]
    waiting.left = True
    assert gate.drop_gone() == []
    assert isinstance(waiting.result(), ClientGone)
    assert gate.counts() == (2, 0, 0)
    assert gate.abandoned() == 1, "nothing stops a thread"
    gate.release(gone[0])
    gate.drop_gone()
    assert gate.abandoned() == 0


def test_who_has_to_wait_is_told_before_and_after() -> None:
    queued: list[str] = []
    gate = ConcurrencyLimiter(1, 1, lambda: queued.append("queued"))
    holder, second = call(), call()
    second.waits = lambda: queued.append("waits")
    assert gate.acquire(holder) is False
    waited: list[bool] = []
    thread = threading.Thread(target=lambda: waited.append(gate.acquire(second)))
    thread.start()
    while gate.counts()[1] == 0 or len(queued) < 2:
        time.sleep(0.001)
    gate.release(holder)
    thread.join(60)
    assert (queued, waited) == (["queued", "waits"], [True])
