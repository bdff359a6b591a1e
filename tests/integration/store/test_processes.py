"""Several processes on one state: no two work on one app, nobody meets a lock, no wish is lost, and a kill -9 at any
moment leaves a state from which the next process goes on."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.domain.apps.requests import Outcome, RequestState, Trigger
from controller.domain.apps.status import AppStatus, Event, EventType
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.storage.box import BoxRecord, PendingUpload
from controller.store import SqliteStore, open_store

APPS = tuple(AppName(f"app-{n}") for n in range(20))
PRODUCERS = WORKERS = 8
WISHES = 125  # of each producer
spawn = multiprocessing.get_context("spawn")


def produce(path: Path, seed: int) -> list[int]:
    """Every id that was handed out."""
    store, rng = open_store(path), random.Random(seed)
    return [
        store.requests.enqueue(rng.choice(APPS), Trigger(rng.choice(("poll", "webhook"))))
        for _ in range(WISHES)
    ]


def work(path: Path, marks: Path) -> int:
    """Claim and finish until `marks/end` is there and nothing is left. How many were done."""
    store, done = open_store(path), 0
    while True:
        last = (marks / "end").exists()  # looked at before the claim: what was queued before it is then found
        request = store.requests.claim(now=1e12)
        if request is None and last:
            return done
        if request is None:
            continue
        mark = os.open(marks / request.app, os.O_CREAT | os.O_EXCL)  # fails where another worker has this app
        os.close(mark)
        with store.transaction():
            store.apps.save(AppStatus(request.app, failures=request.id))
        (marks / request.app).unlink()
        store.requests.finish(request.id, Outcome.READY, "", "")
        done += 1


def test_no_overlap_no_lock_error_and_no_lost_wish(path: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    with spawn.Pool(PRODUCERS + WORKERS) as pool:  # the state is made by whoever comes first
        workers = [pool.apply_async(work, (path, marks)) for _ in range(WORKERS)]
        producers = [pool.apply_async(produce, (path, seed)) for seed in range(PRODUCERS)]
        handed_out = {request for producer in producers for request in producer.get()}
        (marks / "end").touch()
        done = sum(worker.get() for worker in workers)
        pool.close()
        pool.join()
    assert done == len(handed_out)
    assert len(APPS) <= done <= PRODUCERS * WISHES
    store = open_store(path)
    asked = [store.requests.get(request) for request in handed_out]
    assert {request and request.state for request in asked} == {RequestState.DONE}
    store.close()


UPLOADERS, UPLOADS, CAPACITY = 6, 60, 10_000


def upload(path: Path, seed: int) -> int:
    """Ask for room from two threads at once. How many bytes were promised to this process."""
    store = open_store(path)
    with ThreadPoolExecutor(2) as threads:
        promised = sum(threads.map(lambda thread: ask_for_room(store, f"{seed}-{thread}"), range(2)))
    store.close()
    return promised


def ask_for_room(store: SqliteStore, name: str) -> int:
    rng, promised = random.Random(name), 0
    for number in range(UPLOADS):
        size = rng.randint(1, 100)
        wish = PendingUpload(0, "bucket", f"{name}/{number}", size, created=0.0, expires=900.0)
        if isinstance(store.boxes.reserve(wish, now=0.0), int):
            promised += size
    return promised


def test_no_byte_is_promised_twice(path: Path) -> None:
    store = open_store(path)
    store.boxes.save(BoxRecord(APPS[0], ComponentName("box"), "bucket", CAPACITY))
    with spawn.Pool(UPLOADERS) as pool:
        promised = sum(pool.starmap(upload, [(path, seed) for seed in range(UPLOADERS)]))
        pool.close()
        pool.join()
    room = store.boxes.usage("bucket", now=0.0)
    assert room.pending == promised <= CAPACITY
    assert room.free < 100, "only what did not fit was refused"
    store.close()


def toil(path: Path) -> None:
    """Work for ever; what was promised is written out only after it was committed: `id app`."""
    store, round_ = open_store(path), 0
    while True:
        round_ += 1
        app = APPS[round_ % 3]
        with store.transaction():
            request = store.requests.enqueue(app, Trigger(f"round-{round_ % 5}"))
            count = store.apps.status(app).failures + 1
            store.apps.save(
                AppStatus(app, failures=count), [Event(app, EventType.NORMAL, Reason(f"N{count}"), "")]
            )
        os.write(1, f"{request} {app}\n".encode())
        claimed = store.requests.claim(now=1e12)
        if claimed is not None and round_ % 2:
            store.requests.finish(claimed.id, Outcome.READY, "", "")


TOIL = """
import sys; from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_processes
test_processes.toil(Path(sys.argv[1]))
"""


def kill_within(path: Path, lines: int) -> list[tuple[int, str]]:
    """Let a process toil until it has printed `lines` promises and kill it, wherever it is by then."""
    command = [sys.executable, "-c", TOIL, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        promises = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        promises += [line for line in process.stdout if line.endswith("\n")]
    return [(int(line.split()[0]), line.split()[1]) for line in promises]


def check(store: SqliteStore, path: Path, promises: list[tuple[int, str]]) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM requests WHERE state = 'running'").fetchone() == (0,)
    connection.close()
    for request, app in promises:
        found = store.requests.get(request)
        assert found is not None, f"request {request} was promised and is gone"
        assert found.app == app
    for status in store.apps.all():
        newest = store.events.list(status.app)[-1]
        assert newest.reason == f"N{status.failures}", "status and events are committed together"


@pytest.mark.parametrize("seed", range(3))
def test_kill_at_any_moment_then_recover(path: Path, seed: int) -> None:
    rng, promises = random.Random(seed), list[tuple[int, str]]()
    for _ in range(4):
        promises += kill_within(path, rng.randint(1, 60))
        store = open_store(path)
        store.requests.recover()
        check(store, path, promises)
        store.close()


def open_in_child(path: Path) -> str:
    store = open_store(path)
    store.heartbeat(1.0)
    store.close()
    return "ok"


def test_many_processes_may_open_a_new_state_at_once(tmp_path: Path) -> None:
    with spawn.Pool(8) as pool:
        for n in range(3):
            path = tmp_path / f"{n}" / "db" / "state.db"
            assert pool.map(open_in_child, [path] * 8, chunksize=1) == ["ok"] * 8


def test_a_store_survives_a_fork(store: SqliteStore) -> None:
    """A forked child must not use its parent's connection: SQLite's locks belong to processes."""
    store.apps.save(AppStatus(APPS[0], failures=1))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        store.apps.save(AppStatus(APPS[0], failures=2))
        os.write(write, str(store.apps.status(APPS[0]).failures).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == "2"
    assert os.waitpid(child, 0)[1] == 0
    assert store.changed()
    assert store.apps.status(APPS[0]).failures == 2
