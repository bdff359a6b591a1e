"""Slots, queue and deadlines, with real threads. Threads wait for conditions; deadlines are given as past or far."""

from __future__ import annotations

import threading
import time

import pytest

from controller.serving.gate import Call, Closed, Expired, Gate, QueueFull

FAR = 1e9


def call(deadline: float = FAR) -> Call:
    return Call("id", deadline, lambda: None)


class Waiting:
    """A call that enters on a thread of its own, and what became of it."""

    def __init__(self, gate: Gate, deadline: float = FAR) -> None:
        self.call = call(deadline)
        self.outcome: object = None
        before = gate.counts()[1]
        self._thread = threading.Thread(target=self._enter, args=(gate,))
        self._thread.start()
        while gate.counts()[1] == before and self._thread.is_alive():
            time.sleep(0)

    def _enter(self, gate: Gate) -> None:
        try:
            gate.enter(self.call)
            self.outcome = "entered"
        except (QueueFull, Expired, Closed) as error:
            self.outcome = error

    def result(self) -> object:
        self._thread.join(60)
        return self.outcome


def test_a_slot_goes_to_who_waits_longest() -> None:
    gate = Gate(1, 3)
    first = call()
    gate.enter(first)
    waiting = [Waiting(gate) for _ in range(3)]
    assert gate.counts() == (1, 3, 0)
    with pytest.raises(QueueFull):
        gate.enter(call())
    current = first
    for successor in waiting:
        assert successor.outcome is None
        assert gate.leave(current)
        assert successor.result() == "entered"
        current = successor.call
    assert gate.leave(current)
    assert gate.counts() == (0, 0, 0)


def test_waiting_ends_at_the_deadline() -> None:
    gate = Gate(1, 1)
    holder = call()
    gate.enter(holder)
    with pytest.raises(Expired):
        gate.enter(call(deadline=time.monotonic()))
    assert gate.counts() == (1, 0, 0)
    gate.leave(holder)
    gate.enter(call())


def test_expiry_takes_the_answer_over_once() -> None:
    gate = Gate(2, 0)
    early, late = call(deadline=10.0), call(deadline=20.0)
    gate.enter(early)
    gate.enter(late)
    assert gate.next_deadline() == 10.0
    assert gate.expire(now=9.9) == []
    assert gate.expire(now=10.0) == [early]
    assert gate.expire(now=11.0) == []
    assert gate.next_deadline() == 20.0
    assert gate.counts() == (2, 0, 1)
    assert gate.exhausted_since() is None
    assert gate.leave(early) is False
    assert gate.leave(late) is True


def test_exhaustion_begins_when_the_last_slot_is_lost_and_ends_with_the_first_return() -> None:
    gate = Gate(2, 0)
    calls = [call(deadline=10.0), call(deadline=20.0)]
    for one in calls:
        gate.enter(one)
    gate.expire(now=10.0)
    gate.expire(now=20.0)
    gate.expire(now=25.0)
    assert gate.exhausted_since() == 20.0
    assert gate.next_deadline() is None
    gate.leave(calls[0])
    assert gate.exhausted_since() is None
    again = call(deadline=30.0)
    gate.enter(again)
    gate.expire(now=30.0)
    assert gate.exhausted_since() == 30.0


def test_closing_turns_everybody_away() -> None:
    gate = Gate(1, 2)
    holder = call()
    gate.enter(holder)
    waiting = Waiting(gate)
    gate.close()
    assert isinstance(waiting.result(), Closed)
    with pytest.raises(Closed):
        gate.enter(call())
    assert gate.leave(holder)


def test_under_load_no_more_than_the_capacity_run_and_every_call_ends() -> None:
    gate = Gate(3, 1000)
    running, most, done = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most, done
        for _ in range(200):
            one = call()
            gate.enter(one)
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0)
            with lock:
                running -= 1
                done += 1
            assert gate.leave(one)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == 12 * 200
    assert most <= 3
    assert gate.counts() == (0, 0, 0)
