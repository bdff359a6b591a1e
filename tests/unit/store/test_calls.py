from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.async_calls import LOST, REMOVED, CallEnd, CallLimits, CallState, Key
from controller.store import calls_file
from controller.store.calls import AT_ONCE, CallFilter, CallRequest, CallResult, CallTable, NewCall
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


def test_a_call_of_an_earlier_version_leaves_its_slot_to_the_next(table: CallTable) -> None:
    one = {(APP, COMPONENT): 1}

    def claim(version: str) -> str | None:
        claimed = table.claim("w1", one, {(APP, COMPONENT): version})
        return claimed.call.id if claimed else None

    ids = [table.submit(new())[0].id for _ in range(3)]
    assert claim("v1") == ids[0]
    assert claim("v1") is None
    assert claim("v2") == ids[1], "the first one is with the version that drains"
    assert claim("v2") is None
    assert table.end(ids[0], "w1", DONE, RESULT)
    assert claim("v2") is None
    assert table.claim("w1", one) is None, "of a component without a route all count"
    assert table.end(ids[1], "w1", DONE, RESULT)
    assert claim("v2") == ids[2]


def test_keys(table: CallTable) -> None:
    first, _ = table.submit(new(key="k", digest="d"))
    assert table.submit(new(key="k", digest="d")) == (first, False)
    with pytest.raises(Stalled) as conflict:
        table.submit(new(key="k", digest="other"))
    assert conflict.value.reason == Reason.IDEMPOTENCY_CONFLICT
    for other in ({"user": "bob"}, {"api": "other"}, {"app": AppName("second")}):
        assert table.submit(new(key="k", digest="other", **other))[1]


@pytest.mark.parametrize("contents", [1, 6], ids=["alike", "different"])
def test_workers_that_get_one_key_at_once_make_one_call(tmp_path: Path, contents: int) -> None:
    """Each worker has a connection of its own. Those with another request get the name of the call that there is."""
    tables = [CallTable(tmp_path / "keys.db", LIMITS, lambda: 1e9) for _ in range(6)]
    together = threading.Barrier(len(tables))

    def submit(index: int) -> tuple[str, bool]:
        together.wait()
        try:
            call, is_new = tables[index].submit(new(key="k", digest=f"d{index % contents}"))
        except Stalled as conflict:
            assert conflict.reason == Reason.IDEMPOTENCY_CONFLICT
            return conflict.message.rpartition(" ")[2], False
        return call.id, is_new

    with ThreadPoolExecutor(len(tables)) as pool:
        found = list(pool.map(submit, range(len(tables))))
    for each in tables:
        each.close()
    assert len({id for id, _ in found}) == 1
    assert sum(is_new for _, is_new in found) == 1


# --- lists and counts -------------------------------------------------------------------------------------------


def listed(table: CallTable, most: int = 100, **fields: Any) -> list[str] | None:
    found = table.page(replace(CallFilter(APP, "image", "ann"), **fields), most)
    return None if found is None else [call.id for call in found]


def test_a_caller_lists_their_calls_page_by_page(table: CallTable, clock: Hand) -> None:
    ids: list[str] = []
    for index in range(7):
        ids.insert(0, begin(table))
        table.end(ids[0], "w1", DONE if index % 2 else LOST, RESULT)
    other = ""
    for others in ({"user": "bob"}, {"api": "other"}, {"app": AppName("second")}):
        other = table.submit(new(**others))[0].id
        assert listed(table, **others) == [other]
    assert listed(table) == ids
    assert listed(table, 3) == ids[:3]
    assert listed(table, 3, after=ids[2]) == ids[3:6]
    assert listed(table, 3, after=ids[-1]) == []
    assert listed(table, state=CallState.SUCCEEDED) == ids[1::2]
    assert listed(table, 2, state=CallState.ERROR, after=ids[2]) == ids[4::2]
    assert listed(table, after=other) is None
    assert listed(table, after="0" * 32) is None
    clock.now += LIMITS.keep + 1
    table.sweep()
    assert listed(table, after=ids[2]) == []  # a page may be asked for after the calls before it were removed


def test_counts_follow_every_change(table: CallTable, clock: Hand) -> None:
    """They are kept with each change, since counting all calls takes as long as there are calls."""
    for turn in range(30):
        match turn % 5:
            case 0:
                table.cancel(table.submit(new(api=f"a{turn % 3}"))[0].id)
            case 1:
                table.end(begin(table), "w1", DONE, RESULT)
            case 2:
                table.cancel(begin(table, api="other"))
            case 3:
                table.requeue(begin(table), "w1", LOST, 0.0)
                claimed = table.claim("w2", SLOTS)
                assert claimed is not None
                table.end(claimed.call.id, "w2", DONE, RESULT)
            case _:
                table.lose("w1")
                clock.now += LIMITS.keep / 4
                table.sweep()
        with table._read() as db:
            counted = db.execute("SELECT app, api, state, count(*) FROM calls GROUP BY app, api, state")
            assert sorted(table.counts()) == sorted((f"{app}/{api}", s, n) for app, api, s, n in counted)


def test_an_older_file_is_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statements in calls_file._STEPS[:2]:
            for statement in statements:
                db.execute(statement)
        db.execute("PRAGMA user_version = 2")
        insert = (
            "INSERT INTO calls (id, app, api, component, user, digest, state, created, size)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        for index, state in enumerate(["QUEUED", "QUEUED", "FAILED"]):
            row = (str(index), "demo", "image", "classify", "ann", "", state, 1.0, 2048)
            db.execute(insert, row)
    with closing(CallTable(path, LIMITS, lambda: 1e9)) as table:
        assert sorted(table.counts()) == [("demo/image", "FAILED", 1), ("demo/image", "QUEUED", 2)]
        assert listed(table) == ["2", "1", "0"]


# --- removed components and apps ----------------------------------------------------------------------------------


def test_calls_that_wait_for_a_removed_component_end(table: CallTable) -> None:
    running, waiting = begin(table), table.submit(new())[0].id
    other = table.submit(new(component=ComponentName("second")))[0].id
    assert table.waiting() == {(APP, COMPONENT), (APP, ComponentName("second"))}
    assert table.abandon(APP, COMPONENT) == 1
    assert table.abandon(APP, COMPONENT) == 0
    states = {id: (found.state, found.reason) for id in (running, waiting, other) if (found := table.get(id))}
    assert states[waiting] == (CallState.ERROR, REMOVED.reason)
    assert [states[running][0], states[other][0]] == [CallState.RUNNING, CallState.QUEUED]


def test_calls_of_a_deleted_app_are_removed(table: CallTable, clock: Hand) -> None:
    over, untold, running = begin(table), begin(table, told=True), begin(table)
    table.end(over, "w1", DONE, RESULT)
    table.end(untold, "w1", DONE, RESULT)
    kept = table.submit(new(app=AppName("second")))[0].id
    assert table.apps() == {APP, AppName("second")}
    assert table.remove(APP) == 1
    assert table.get(over) is None
    assert listed(table) == [running, untold]
    table.told(untold)
    table.end(running, "w1", DONE, RESULT)
    assert table.remove(APP) == 2
    assert table.apps() == {AppName("second")}
    assert table.get(kept) is not None
    assert not table.is_gone(over, APP, "image", "ann")


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
        table.counts()
        table.waiting()
        table.apps()
        table.abandon(APP, COMPONENT)
        listed(table)
        listed(table, state=CallState.FAILED)
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


def spoil(table: CallTable) -> None:
    """Damage the file while nobody has it open."""
    table.close()
    with table.path.open("r+b") as file:
        file.write(os.urandom(4096))


def test_a_worker_keeps_what_others_have_stored_since_the_file_was_set_aside(table: CallTable) -> None:
    """It notices the damage later, on its connection to the file of before."""
    table.submit(new())
    with closing(CallTable(table.path, LIMITS, lambda: 1e9)) as other:
        with pytest.raises(ControllerError), other._read() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            spoil(table)
            with pytest.raises(ControllerError):
                table.submit(new())
            id = table.submit(new())[0].id
            with closing(sqlite3.connect(f"{table.path}.aside")) as spoilt:
                spoilt.execute("SELECT * FROM calls")
        assert other.get(id) is not None
    assert table.get(id) is not None


def test_many_workers_that_notice_the_damage_at_once_lose_nothing_of_the_new_file(tmp_path: Path) -> None:
    for turn in range(5):
        tables = [CallTable(tmp_path / f"{turn}.db", LIMITS, lambda: 1e9) for _ in range(4)]
        tables[0].submit(new())
        spoil(tables[0])
        together = threading.Barrier(len(tables))
        stored: list[str] = []

        def work(each: CallTable, name: str, together: threading.Barrier, stored: list[str]) -> None:
            together.wait()
            while True:
                with suppress(ControllerError):
                    stored.append(each.submit(new(app=AppName(name)))[0].id)
                    return

        threads = [
            threading.Thread(target=work, args=(each, f"a{index}", together, stored))
            for index, each in enumerate(tables)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(stored) == len(tables)
        assert all(each.get(id) is not None for each in tables for id in stored)
        for each in tables:
            each.close()


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
