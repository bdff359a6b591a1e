"""A thread that has stored large values does not hold as much memory from then on."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from controller.domain.names import AppName, ComponentName
from controller.domain.routing.async_calls import CallEnd, CallLimits, CallState
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import RunInput, new_run, new_run_id
from controller.ports import RunLimits
from controller.store import SqliteStore, open_guest_store
from controller.store.calls import CallRequest, CallResult, CallTable, NewCall
from controller.store.large_values import LARGE, Connection
from controller.store.sqlite import CACHE
from tests.support.specs import make
from tests.support.stores import open_store

DEMO, TRAIN = AppName("demo"), ComponentName("train")
NOW = 1_700_000_000.0
THREADS = 6
TEXT = "x" * 900_000  # as much as an input may have
PIPELINE = make(
    Pipeline, DEMO, TRAIN, "c0ffee", (make(Stage, "fit", "sha256:1", inputs=("data",)),), concurrency=1000
)
LIMITS = CallLimits(
    running=10, running_per_app=10, queued=99, size=2**30, size_per_app=2**30, result=2**20, keep=3600.0
)


@pytest.fixture
def used() -> Callable[[], int]:
    """The bytes that SQLite has taken in this process."""
    library = ctypes.CDLL(ctypes.util.find_library("sqlite3"))
    library.sqlite3_memory_used.restype = ctypes.c_int64
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE t (a)")
        assert library.sqlite3_memory_used() > 0, "Python uses another library"
    return lambda: int(library.sqlite3_memory_used())


@pytest.fixture
def in_threads() -> Iterator[Callable[[Callable[[int], object]], None]]:
    """Does something in each of some threads, which stay."""
    met = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:

        def each(act: Callable[[int], object]) -> None:
            def meet_and_act(number: int) -> None:
                met.wait(60)
                act(number)

            list(pool.map(meet_and_act, range(THREADS)))

        yield each


def grown(
    used: Callable[[], int], in_threads: Callable[..., None], store: Callable[[int, str], object]
) -> int:
    """How much more SQLite holds once each thread has stored a large value, beside its pages."""
    in_threads(lambda number: store(number, "x"))
    before = used()
    in_threads(lambda number: store(THREADS + number, TEXT))
    return used() - before - THREADS * CACHE * 1024


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[SqliteStore, SqliteStore]]:
    path = tmp_path / "db" / "state.db"
    with closing(open_store(path)) as owner:
        owner.runs.publish(DEMO, (PIPELINE,))
        with closing(open_guest_store(path)) as guest:
            yield owner, guest


def test_of_a_run_that_is_submitted_no_copy_stays(
    stores: tuple[SqliteStore, SqliteStore], used: Callable[[], int], in_threads: Callable[..., None]
) -> None:
    owner, guest = stores

    def submit(number: int, text: str) -> None:
        run_id = new_run_id(NOW, number)
        inputs = (RunInput("data", "str", json.dumps(text)),)
        guest.runs.submit(new_run(run_id, PIPELINE, NOW, "ann", inputs=inputs))
        owner.requests.claim(NOW)
        owner.runs.claim(RunLimits(host=100, app=100), NOW)
        found = owner.runs.get(DEMO, run_id)
        assert found is not None
        assert found.inputs == inputs

    assert grown(used, in_threads, submit) < len(TEXT)


def test_of_a_call_that_waits_no_copy_stays(
    tmp_path: Path, used: Callable[[], int], in_threads: Callable[..., None]
) -> None:
    with closing(CallTable(tmp_path / "calls.db", LIMITS, lambda: NOW)) as table:

        def call(number: int, text: str) -> None:
            request = CallRequest(b"/predict", b"", b"", b"r1", text.encode())
            table.submit(NewCall(DEMO, "api", TRAIN, "ann", request))
            claimed = table.claim("w1", {(DEMO, TRAIN): 100})
            assert claimed is not None
            result = CallResult(200, (), text.encode())
            assert table.end(claimed.call.id, "w1", CallEnd(CallState.SUCCEEDED), result)

        assert grown(used, in_threads, call) < len(TEXT)


@pytest.mark.parametrize(
    ("value", "is_large"),
    [
        (b"x" * (LARGE + 1), True),
        ("x" * (LARGE + 1), True),
        (bytearray(LARGE + 1), True),
        (memoryview(bytes(LARGE + 1)), True),
        ("x" * LARGE, False),
        (None, False),
        (2**62, False),
    ],
)
@pytest.mark.parametrize("form", ["places", "names", "many"])
def test_a_connection_knows_that_it_keeps_a_large_value(value: object, is_large: bool, form: str) -> None:
    with closing(sqlite3.connect(":memory:", factory=Connection)) as db:
        db.execute("CREATE TABLE t (a)")
        assert not db.keeps_large
        if form == "names":
            db.execute("INSERT INTO t VALUES (:value)", {"value": value})
        elif form == "many":
            db.executemany("INSERT INTO t VALUES (?)", iter([(1,), (value,)]))
            assert db.execute("SELECT count(*) FROM t").fetchone()[0] == 2
        else:
            db.execute("INSERT INTO t VALUES (?)", (value,))
        assert db.keeps_large == is_large
