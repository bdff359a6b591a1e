"""What was needed for a moment is not kept for days."""

from __future__ import annotations

import subprocess
import sys

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
