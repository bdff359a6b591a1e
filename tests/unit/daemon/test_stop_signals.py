"""A signal stops the daemon, whatever its main thread does at that moment."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: The signal comes while the main thread holds the lock that `Event.wait` holds for some of its steps.
PROGRAM = """
import os, sys, threading
from controller.daemon.stop_signals import stop_on_signals
stop = threading.Event()
stop_on_signals(stop)
with stop._cond:
    os.kill(os.getpid(), int(sys.argv[1]))
    for _ in range(1000):
        pass
assert stop.wait(30)
print("stopped")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_comes_while_the_event_is_locked(number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, str(int(number))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("stopped\n", 0), done.stderr


def test_other_signals_do_not_stop() -> None:
    program = """
import os, signal, threading
from controller.daemon.stop_signals import stop_on_signals
stop = threading.Event()
stop_on_signals(stop)
signal.signal(signal.SIGUSR1, lambda *_: None)
os.kill(os.getpid(), signal.SIGUSR1)
assert not stop.is_set()
os.kill(os.getpid(), signal.SIGTERM)
assert stop.wait(30)
print("stopped")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "stopped\n", done.stderr
