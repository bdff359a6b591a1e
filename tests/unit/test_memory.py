"""What was needed for a moment is not kept for days."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controller import memory

#: Threads that hold many pieces of all sizes at once and free them, but for a few small ones in between.
CODE = """
import re, threading
from controller import memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def burst(kept):
    pieces = [bytearray(size) for _ in range(40) for size in (2_000, 20_000, 200_000, 900_000)]
    kept.append(pieces[0])

if {bounded}:
    memory.keep_little()
kept = []
before = resident()
for _ in range(4):
    threads = [threading.Thread(target=burst, args=(kept,)) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
if {bounded}:
    memory.give_back()
print(resident() - before)
"""


def grown(bounded: bool) -> float:
    """Return MiB that a process keeps."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(bounded=bounded)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def test_memory_goes_back_to_the_host() -> None:
    assert grown(bounded=True) < 15
    assert grown(bounded=True) <= grown(bounded=False)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.memory.ctypes.CDLL", lambda name: object())
    memory.keep_little()
    memory.give_back()


#: Eight threads with a connection each, as a worker has them, that read large values once.
READING = """
import json, re, sys, threading
from pathlib import Path
from controller import memory
from controller.store.shared_file import shared_path
from controller.store.sqlite import connect
from tests.support.stores import open_store

def kept():
    return int(re.search(r"Private_Dirty:\\s+(\\d+)", open("/proc/self/smaps_rollup").read())[1]) / 1024

memory.keep_little()
path = Path(sys.argv[1]) / "db" / "state.db"
open_store(path).close()
with connect(path) as db:
    for table in ("main.large", "asked.large"):
        db.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, value TEXT)")
        for id in range(20):
            db.execute(f"INSERT INTO {table} VALUES (?, ?)", (id, "x" * 900_000))
before, all_have_read, end = kept(), threading.Barrier(9), threading.Event()

def read():
    db = connect(path, guest=bool(sys.argv[2]))
    for table in ("main.large", "asked.large"):
        for id in range(20):
            db.execute(f"SELECT value FROM {table} WHERE id = ?", (id,)).fetchone()
    all_have_read.wait()
    end.wait()
    db.close()

threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads: thread.start()
all_have_read.wait()
memory.give_back()
print(kept() - before)
end.set()
"""


@pytest.mark.parametrize("guest", ["", "guest"])
def test_connections_keep_little_of_large_values(tmp_path: Path, guest: str) -> None:
    command = [sys.executable, "-c", READING, str(tmp_path), guest]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 16, "with the cache that SQLite has by default it is more than 30 MiB"
