"""What holds for every test: signals that a background job ignores, where its files are, the last resort against a test
that hangs, and the end of what a failed one has left open."""

from __future__ import annotations

import faulthandler
import gc
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Generator

import hypothesis
import pytest

IGNORED_IN_BACKGROUND = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
#: No timing decides whether a test passes, not even that of making inputs, and no chance: the same inputs come in every
#: run. Others are sought by `make fuzz`, or with HYPOTHESIS_PROFILE=search.
PATIENT = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("repeatable", PATIENT, derandomize=True)
hypothesis.settings.register_profile("search", PATIENT, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
#: Whatever the language of the developer is, programs speak English, as the tests expect.
os.environ["LC_ALL"] = "C.UTF-8"
#: Thousands of databases and repositories of tests wait for no disk where memory has room for them.
MEMORY, ROOM = "/dev/shm", 8 * 2**30
FAILED = pytest.StashKey[bool]()
GRACE = 4.0  # seconds at least that a test which has timed out may take to clean up


def pytest_configure() -> None:
    _restore_signals()
    if os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


def _restore_signals() -> None:
    """A shell starts background jobs with SIGINT and SIGQUIT ignored, nohup does the same with SIGHUP, and every
    program that a test starts would inherit that. A handler that does nothing has the same effect on pytest, but
    programs get the default action back when they are executed."""
    for number in IGNORED_IN_BACKGROUND:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that hangs is interrupted by a signal (`timeout_method` in setup.cfg). Where Python code does not get to
    handle it, this process prints the stacks of its threads and exits. Then pytest-xdist reports this one test as
    failed and goes on with the others in a new process; where it is not, scripts/unit-tests begins again with it."""
    marker = item.get_closest_marker("timeout")
    _LAST_RESORT.cover(float(marker.args[0] if marker and marker.args else item.config.getini("timeout")))
    try:
        return (yield)
    finally:
        if item.stash.get(FAILED, False):
            _discard_leftovers()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[FAILED] = report.failed or item.stash.get(FAILED, False)
    return report


def _discard_leftovers() -> None:
    """Close what a failed test has left open: it was not to blame for its failure. Its variables live as long as its
    traceback, which Python keeps until the next test, and that one would fail by the warnings."""
    vars(sys).update(last_value=None, last_traceback=None, last_exc=None)  # the last one from Python 3.12 on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def pytest_unconfigure() -> None:
    faulthandler.cancel_dump_traceback_later()


class _LastResort:
    """The time at which this process ends itself. It is moved about once a minute and not for each test: that stops a
    thread and starts another one, which costs more than most tests do where the processors are busy."""

    def __init__(self) -> None:
        self._at = 0.0

    def cover(self, limit: float) -> None:
        """Leave a test that begins now at least its time, and at most half of it more."""
        needed = time.monotonic() + limit + max(GRACE, limit / 4)
        if not needed <= self._at <= needed + limit / 2:
            self._at = needed + limit / 2
            faulthandler.dump_traceback_later(self._at - time.monotonic(), exit=True)


_LAST_RESORT = _LastResort()
