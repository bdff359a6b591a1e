"""A measurement that does not end is ended wherever it is, and says where it was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.pages import ROOT

#: Each stands in a process of its own: pytest has the signal.
PROGRAM = """
import threading, time
from benchmarks.limits import Endless, ended_after

def patient():
    while True:
        try:
            time.sleep(0.01)
        except (OSError, Exception):
            pass  # as one that looks for a server which does not answer yet

def waiting():
    threading.Event().wait()

def cleaning_up():
    try:
        waiting()
    finally:
        waiting()

try:
    with ended_after(0.1, again=0.1):
        {what}()
except Endless as end:
    print(end)
"""


@pytest.mark.parametrize("what", ["patient", "waiting", "cleaning_up"])
def test_it_is_ended_and_says_where_it_was(what: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(what=what)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "the measurement was ended after 0.1 s; where it was is said above\n", done.stderr
    assert f"in {what}" in done.stderr


def test_one_that_ends_in_time_is_left_alone() -> None:
    program = "from benchmarks.limits import ended_after\nwith ended_after(3600): print('done')\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
