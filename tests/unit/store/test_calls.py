from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.async_calls import LOST, CallEnd, CallLimits, CallState, Key
from controller.store.calls import AT_ONCE, CallRequest, CallResult, CallTable, NewCall
from tests.support.waiting import wait_for

LIMITS = CallLimits(
    running=10, running_per_app=5, queued=3, size=2**20, size_per_app=2**19, result=1000, keep=3600.0
)
APP, COMPONENT = AppName("demo"), ComponentName("classify")
SLOTS: dict[Key, int] = {(APP, COMPONENT): 5}
DONE = CallEnd(CallState.SUCCEEDED)
RESULT = CallResult(200, ((b"content-type", b"text/plain"), (b"x-odd", b"\xe9")), b"yes")


class Hand:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def table(tmp_path: Path, clock: Hand) -> Iterator[CallTable]:
    with closing(CallTable(tmp_path / "web" / "calls.db", LIMITS, clock)) as made:
        yield made


def new(body: bytes = b"{}", **fields: Any) -> NewCall:
    request = CallRequest(b"/predict", b"accept: */*\r\n", b"models.example.org", b"r1", body)
    return replace(NewCall(APP, "image", COMPONENT, "ann", request), **fields)


def begin(table: CallTable, **fields: Any) -> str:
    """Submit a call and claim it."""
    id = table.submit(new(**fields))[0].id
    claimed = table.claim("w1", SLOTS)
    assert claimed is not None
    assert claimed.call.id == id
    return id


def test_a_call_from_its_beginning_to_its_end(table: CallTable, clock: Hand) -> None:
    call, is_new = table.submit(new(b"body"))
    assert (call.state, call.created, is_new) == (CallState.QUEUED, 1e9, True)
    clock.now += 1
    claimed = table.claim("w1", SLOTS)
    assert claimed is not None
    assert (claimed.request.body, claimed.call.state, claimed.call.started) == (
        b"body",
        CallState.RUNNING,
        1e9 + 1,
    )
    assert table.claim("w2", SLOTS) is None
    assert table.end(call.id, "w1", DONE, RESULT)
    assert not table.end(call.id, "w1", LOST, None)
    found = table.get(call.id)
    assert found is not None
    assert (found.state, found.status, found.content_type, found.length) == (DONE.state, 200, "text/plain", 3)
    assert table.result(call.id, 0, 100) == RESULT
    assert table.result(call.id, 1, 1) == replace(RESULT, body=b"e")


def test_only_the_worker_that_has_a_call_ends_it(table: CallTable) -> None:
    id = begin(table)
    assert not table.end(id, "w2", DONE, RESULT)
    assert not table.requeue(id, "w2", LOST, 0.0)
    assert table.end(id, "w1", DONE, RESULT)


def test_a_call_that_goes_back_waits_for_a_while(table: CallTable, clock: Hand) -> None:
    id = begin(table)
    assert table.requeue(id, "w1", CallEnd(CallState.ERROR, "NotReady", "no version"), 5.0)
    found = table.get(id)
    assert found is not None
    assert (found.state, found.reason, found.message) == (CallState.QUEUED, "NotReady", "no version")
    assert table.claim("w1", SLOTS) is None
    clock.now += 5
    again = table.claim("w1", SLOTS)
    assert again is not None
    assert again.attempts == 2


def test_keys(table: CallTable) -> None:
    first, _ = table.submit(new(key="k", digest="d"))
    assert table.submit(new(key="k", digest="d")) == (first, False)
    with pytest.raises(Stalled) as conflict:
        table.submit(new(key="k", digest="other"))
    assert conflict.value.reason == Reason.IDEMPOTENCY_CONFLICT
    for other in ({"user": "bob"}, {"api": "other"}, {"app": AppName("second")}):
        assert table.submit(new(key="k", digest="other", **other))[1]


# --- bounds -----------------------------------------------------------------------------------------------------


def test_the_queue_of_a_component_is_bounded(table: CallTable) -> None:
    ids = [table.submit(new())[0].id for _ in range(LIMITS.queued)]
    with pytest.raises(Transient) as full:
        table.submit(new())
    assert full.value.reason == Reason.QUEUE_FULL
    table.submit(new(component=ComponentName("second")))
    table.cancel(ids[0])
    table.submit(new())


@pytest.mark.parametrize("size", [LIMITS.size_per_app - 2000, LIMITS.size_per_app + 10])
def test_the_space_of_an_app_is_bounded(table: CallTable, size: int) -> None:
    with pytest.raises(Transient) as full:
        table.submit(new(b"x" * size))
    assert full.value.reason == Reason.QUEUE_FULL
    table.submit(new())


def test_the_space_of_all_is_bounded(table: CallTable) -> None:
    large = b"x" * (LIMITS.size_per_app - 6000)
    for app in ("a", "b"):
        table.submit(new(large, app=AppName(app)))
    with pytest.raises(Transient):
        table.submit(new(large, app=AppName("c")))


def test_space_is_free_again_and_given_back_to_the_disk(table: CallTable, clock: Hand) -> None:
    for _ in range(3):
        assert table.end(begin(table, body=b"x" * 100_000), "w1", DONE, replace(RESULT, body=b"y" * 100_000))
    assert table.use()[1][APP] > 300_000
    with closing(sqlite3.connect(table.path)) as db:
        before = db.execute("PRAGMA page_count").fetchone()[0]
    clock.now += LIMITS.keep + 1
    assert table.sweep()
    assert table.use() == ({}, {})
    with closing(sqlite3.connect(table.path)) as db:
        assert db.execute("PRAGMA page_count").fetchone()[0] < before / 2


# --- canceling, losing, removing ----------------------------------------------------------------------------------


def test_canceling(table: CallTable) -> None:
    waiting = table.submit(new())[0].id
    assert (found := table.cancel(waiting)) is not None
    assert found.state is CallState.CANCELED
    running = begin(table)
    assert (found := table.cancel(running)) is not None
    assert found.state is CallState.CANCELING
    assert table.canceling("w1") == {running}
    assert table.canceling("w2") == frozenset()
    assert not table.requeue(running, "w1", LOST, 0.0)
    assert table.end(running, "w1", DONE, RESULT)  # it was faster
    assert (found := table.cancel(running)) is not None
    assert found.state is CallState.SUCCEEDED
    assert table.cancel("0" * 32) is None


def test_calls_of_a_worker_that_has_gone(table: CallTable) -> None:
    lost, kept, canceled = begin(table), begin(table), begin(table)
    table.cancel(canceled)
    assert table.workers() == {"w1"}
    assert table.lose("w1", frozenset({kept})) == 2
    states = {id: found.state for id in (lost, kept, canceled) if (found := table.get(id))}
    assert states == {lost: CallState.ERROR, kept: CallState.RUNNING, canceled: CallState.CANCELED}
    assert not table.end(lost, "w1", DONE, RESULT)


def test_old_calls_are_removed_and_remembered(table: CallTable, clock: Hand) -> None:
    ids = []
    for _ in range(AT_ONCE + 1):
        ids.append(begin(table))
        table.end(ids[-1], "w1", DONE, RESULT)
    late = table.submit(new())[0].id
    clock.now += LIMITS.keep + 1
    assert not table.sweep()
    assert table.sweep()
    assert table.get(ids[0]) is None
    assert table.result(ids[0], 0, 10) is None
    assert table.is_gone(ids[0], APP, "image", "ann")
    assert not table.is_gone(ids[0], APP, "image", "bob")
    assert not table.is_gone("0" * 32, APP, "image", "ann")
    assert (found := table.get(late)) is not None
    assert found.state is CallState.EXPIRED


def test_a_key_is_free_again_with_its_call(table: CallTable, clock: Hand) -> None:
    first = table.submit(new(key="k", digest="d"))[0]
    table.cancel(first.id)
    clock.now += LIMITS.keep + 1
    table.sweep()
    assert table.submit(new(key="k", digest="other"))[0].id != first.id


def test_a_clock_that_was_wrong_for_a_moment(table: CallTable, clock: Hand) -> None:
    """What was written while it was a year ahead is not kept for a year."""
    clock.now += 366 * 86400
    ended = begin(table)
    table.end(ended, "w1", DONE, RESULT)
    waiting = begin(table)
    table.requeue(waiting, "w1", LOST, 5.0)
    clock.now -= 366 * 86400
    table.sweep()
    assert (claimed := table.claim("w1", SLOTS)) is not None  # and nothing waits for a year
    assert claimed.call.id == waiting
    clock.now += LIMITS.keep + 1
    table.sweep()
    assert table.get(ended) is None


def test_what_workers_do_all_the_time_reads_no_call_that_is_over(table: CallTable) -> None:
    """Hundreds of thousands of them may be kept."""
    begin(table, told=True)
    asked: list[str] = []
    with table._read() as db:
        db.set_trace_callback(asked.append)
        table.sweep()
        table.untold("w1")
        table.canceling("w1")
        table.lose("w1")
        table.claim("w1", SLOTS)
        table.use()
        db.set_trace_callback(None)
        queries = [text for text in asked if text.split()[0] in ("SELECT", "UPDATE", "DELETE")]
        steps = {text: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}")] for text in queries}
    assert len(steps) > 10
    assert not [text for text, each in steps.items() if "SCAN calls" in each], steps
    (untold,) = [each for text, each in steps.items() if "untold <>" in text]
    assert "calls_untold" in untold[0], untold


def test_opening_the_file_waits_for_no_writer(table: CallTable) -> None:
    table.submit(new())
    with table._write(), closing(CallTable(table.path, LIMITS, lambda: 1e9)) as other:
        assert other.counts() == (("demo/image", "QUEUED", 1),)


# --- faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["garbage", "gone", "first page", "emptied"])
def test_a_damaged_file_is_set_aside(table: CallTable, damage: str) -> None:
    with closing(CallTable(table.path, LIMITS, lambda: 1e9)) as other:
        other.submit(new())
        table.submit(new())
        match damage:
            case "garbage":
                fresh = table.path.with_name("fresh")
                fresh.write_bytes(os.urandom(8192))
                fresh.replace(table.path)
            case "gone":
                table.path.unlink()
            case "first page":
                table.close()
                other.close()
                with table.path.open("r+b") as file:
                    file.write(os.urandom(4096))
            case _:
                table.close()
                other.close()
                table.path.write_bytes(b"")

        def works() -> bool:
            try:
                return all(each.submit(new(app=AppName("fresh")))[1] for each in (table, other))
            except ControllerError:
                return False

        wait_for(works)
        assert table.use() == other.use()


def test_a_full_disk_refuses_a_call_and_keeps_the_others(table: CallTable) -> None:
    id = begin(table)
    with table._write() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
    for refused in (
        lambda: table.submit(new(b"x" * 50_000)),
        lambda: table.end(id, "w1", DONE, replace(RESULT, body=b"y" * 50_000)),
    ):
        with pytest.raises(Transient) as full:
            refused()
        assert full.value.reason == Reason.STATE_DISK_FULL
    with table._write() as db:
        db.execute("PRAGMA max_page_count = 1000000")
    assert table.end(id, "w1", DONE, RESULT)


def test_claims_of_many_workers(table: CallTable, tmp_path: Path) -> None:
    """Each call goes to one worker, and the bounds hold over all of them."""
    limits = replace(LIMITS, queued=1000, running=7, running_per_app=7)
    tables = [CallTable(tmp_path / "many.db", limits, lambda: 1e9) for _ in range(4)]
    wanted = {tables[0].submit(new())[0].id for _ in range(40)}
    made: list[str] = []
    most = 0
    lock = threading.Lock()
    running = 0

    def work(index: int) -> None:
        nonlocal most, running
        own, worker = tables[index], f"w{index}"
        while len(made) < len(wanted):
            claimed = own.claim(worker, {(APP, COMPONENT): 6})
            if claimed is None:
                continue
            with lock:
                running += 1
                most = max(most, running)
                made.append(claimed.call.id)
            with lock:
                running -= 1
            assert own.end(claimed.call.id, worker, DONE, RESULT)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in tables:
        each.close()
    assert sorted(made) == sorted(wanted)
    assert most <= 6
