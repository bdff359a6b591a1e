"""Keeps a long-lived process running when one of its steps raises: a bug in the work of one app must end neither the
loop that does it nor the thread of that loop.

A loop calls its steps through `GuardedStep`; the threads and children of a process are a `GuardedGroup`. Both
write the traceback to the log and pause before the next attempt; the pause doubles with each failure in a
row, so that a bug does not keep a processor busy and does not fill the disk with tracebacks. Which part
belongs to which group, and what happens when it ends, is a table in docs/guide/operations.md."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from controller.domain.backoff import Backoff
from controller.domain.errors import ControllerError

log = logging.getLogger(__name__)

BACKOFF = Backoff(0.1, 10.0)
_STEADY = 60.0  # seconds after which a thread or child that ends counts as failing for the first time
_LIVES = 5  # of a child that never becomes steady
_LOOK = 0.05  # seconds between looks at a child

#: A thread's whole work: returns once the event is set.
Life = Callable[[threading.Event], object]
#: Called for each part that ended unexpectedly, with its name and how it ended.
Tell = Callable[[str, str], object]


class Pauses:
    """Counts failures in a row; `next` counts one more and returns the seconds to wait after it."""

    def __init__(self, backoff: Backoff = BACKOFF) -> None:
        self._backoff = backoff
        self._failures = 0

    def next(self) -> float:
        self._failures += 1
        return self._backoff.after(self._failures)

    def reset(self) -> None:
        self._failures = 0


def report(what: str, error: BaseException) -> None:
    """Log an expected failure with its message, or a bug with its traceback. `what` says what did not work."""
    if isinstance(error, ControllerError | OSError):
        log.error("%s: %s", what, error)
    else:
        log.error("%s: bug: %s", what, type(error).__name__, exc_info=error)


class GuardedStep:
    """A step of a loop. After a failure its calls do nothing until the pause is over; the other steps continue."""

    def __init__(self, what: str, work: Callable[..., object], longest: float = BACKOFF.cap) -> None:
        """`what` is for the log and says what a failure means: "no requests are claimed"."""
        self._what = what
        self._work = work
        self._pauses = Pauses(replace(BACKOFF, cap=longest))
        self._not_before = 0.0

    def __call__(self, *args: object) -> None:
        if self._not_before and time.monotonic() < self._not_before:
            return
        try:
            self._work(*args)
        except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001 - all but Ctrl-C
            report(self._what, error)
            self._not_before = time.monotonic() + self._pauses.next()
        else:
            self._pauses.reset()
            self._not_before = 0.0


def run_steps(steps: Iterable[GuardedStep], stop: threading.Event, wait: Callable[[], object]) -> None:
    """Call the steps in turn until `stop`, and `wait` after each round."""
    while not stop.is_set():
        for step in steps:
            step()
        wait()


class GuardedGroup:
    """The threads and children of one process. One that ends before `stop` is set is reported and restarted.
    A child that cannot start ends the process: `failed` says why, and `stop` is set."""

    def __init__(self, stop: threading.Event, tell: Tell, first: float = BACKOFF.initial) -> None:
        """`first` is the pause after the first failure in a row, in seconds."""
        self.failed = ""
        self._stop = stop
        self._tell = tell
        self._backoff = replace(BACKOFF, initial=first)
        self._threads: list[threading.Thread] = []
        self._keepers: list[threading.Thread] = []

    def thread(self, name: str, life: Life) -> None:
        self._threads.append(self._start(name, self._live, life))

    def child(self, name: str, command: Sequence[str]) -> None:
        """Start a process that gets SIGTERM when `stop` is set, and when this process ends."""
        self._keepers.append(self._start(name, self._keep, tuple(command)))

    def join(self, timeout: float) -> None:
        """Wait for the threads, at most `timeout` seconds for each, and without a limit for children, which
        end their work first."""
        for thread in self._threads:
            thread.join(timeout)
        for keeper in self._keepers:
            keeper.join()

    def _start(self, name: str, target: Callable[..., None], work: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=(name, work), name=name, daemon=True)
        thread.start()
        return thread

    def _live(self, name: str, life: Life) -> None:
        pauses = Pauses(self._backoff)
        while not self._stop.is_set():
            born = time.monotonic()
            try:
                life(self._stop)
                how = "by itself"
            except BaseException as error:  # SystemExit, too: no caller is above a thread
                how = f"by {type(error).__name__}"
                log.exception("the thread %s ended by an error", name)
            if not self._stop.is_set():
                self._told(name, how)
            if time.monotonic() - born > _STEADY:
                pauses.reset()
            self._stop.wait(pauses.next())

    def _keep(self, name: str, command: Sequence[str]) -> None:
        pauses, first, young = Pauses(self._backoff), True, 0
        while not self._stop.is_set():
            born = time.monotonic()
            how, is_broken = self._one_life(command)
            if self._stop.is_set():
                return
            self._told(name, how)
            if is_steady := time.monotonic() - born > _STEADY:
                pauses.reset()
            young = 0 if is_steady else young + 1
            if young == _LIVES or (first and is_broken and not is_steady):
                self._fail(f"{name} ended {how} and cannot be kept running; its log says why")
                return
            first = False
            self._stop.wait(pauses.next())

    def _one_life(self, command: Sequence[str]) -> tuple[str, bool]:
        """Run it once, and return how it ended, and whether by its own failure. The thread that waits for it
        also starts it: the kernel ends it with that thread."""
        try:
            process = subprocess.Popen([*dying_with_us(), *command])
        except OSError as error:
            return f"before it began: {error}", True
        while process.poll() is None:
            if self._stop.wait(_LOOK):
                process.terminate()
                process.wait()
        return how_ended(process.returncode), process.returncode > 0

    def _told(self, name: str, how: str) -> None:
        log.error("%s ended %s although nobody stopped it", name, how)
        try:
            self._tell(name, how)
        except Exception as error:  # noqa: BLE001 - a failure to tell must not keep the part from being started
            report(f"that {name} ended is not written down", error)

    def _fail(self, why: str) -> None:
        log.critical("the process ends: %s", why)
        self.failed = why
        self._stop.set()


def how_ended(code: int) -> str:
    """Describe the end of a process for people; `code` is that of subprocess."""
    if code >= 0:
        return f"with code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"by signal {-code}"


def dying_with_us() -> list[str]:
    """Return the command prefix that sends SIGTERM when the starting thread ends, for any reason. It is empty
    without util-linux, and under systemd, whose filter forbids that program: there systemd ends what is left."""
    program = shutil.which("setpriv")
    command = [program, "--pdeathsig", "TERM"] if program else []
    works = program and subprocess.run([*command, program, "--version"], capture_output=True).returncode == 0
    return command if works else []
