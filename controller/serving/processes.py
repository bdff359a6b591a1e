"""Reads what happened to processes: signals, exit states, out-of-memory kills; and handles processes that the
developer's code forks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Iterator

from . import log
from .log import STDERR

WORKER_OOM_SCORE, FORK_SERVER_OOM_SCORE = 500, 300  # a worker is the first to be killed
FORKED = 70  # exit code of a forked process that came back into the library (EX_SOFTWARE)

LONGEST_LINE = 32 * 1024  # bytes of a message to the supervisor, which reads it in one piece

_worker = 0  # the process whose connections these are
_standard: dict[int, int] = {}  # copies of standard input, output and error


def begin(oom_score: int) -> None:
    """Called first in a process that is forked to run the developer's code. What that code starts can be ended with
    it, signals do what they do in any process, and if memory runs out, the kernel rather kills this one than the
    supervisor, which can start another."""
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number, action in (
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGINT, signal.SIG_IGN),
        (signal.SIGCHLD, signal.SIG_DFL),
    ):
        signal.signal(number, action)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(oom_score))


def ended_children() -> Iterator[tuple[int, int]]:
    """Yield the id and the wait status of each child that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def settle() -> None:
    """Called in a new worker: from now on, only this process may answer."""
    global _worker
    _worker = os.getpid()
    for number in range(STDERR + 1):
        with contextlib.suppress(OSError):  # not open in the first place
            _standard[number] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)


def end_if_forked(reference: str) -> None:
    """Called when the developer's code has returned or raised. If that code forked and this is the child, the calls
    belong to the parent: an answer of the child would reach another caller. So the child ends here.
    """
    if os.getpid() == _worker or not _worker:
        return
    log.write_line(
        f"{reference} forked, and the child went on as if it were the caller's; it ends: use os._exit() in it"
    )
    os._exit(FORKED)


def beyond_standard(sock: socket.socket) -> socket.socket:
    """Keep a connection off the numbers of standard input, output and error, one of which the developer's code has
    closed: what is printed would reach a caller. The number gets back what it stood for, or nothing."""
    number = sock.fileno()
    if number > STDERR:
        return sock
    moved = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
    beyond = socket.socket(sock.family, sock.type, sock.proto, fileno=moved)
    sock.detach()
    with contextlib.suppress(KeyError, OSError):  # its copy is closed, too
        os.dup2(_standard[number], number)  # in one step, so that nothing else gets the number
    log.write_line(f"the developer's code closed file descriptor {number}; it is open again")
    return beyond


def mend_standard() -> None:
    """Open standard input, output and error again that the developer's code has closed."""
    for number in _standard:
        try:
            os.get_inheritable(number)  # asks without letting go of the interpreter: each call does this
        except OSError:
            _open_again(number)


def _open_again(number: int) -> None:
    with contextlib.suppress(OSError):  # its copy is closed, too
        found = fcntl.fcntl(_standard[number], fcntl.F_DUPFD, number)
        if found != number:  # another thread has opened something there
            os.close(found)
            return
        log.write_line(f"the developer's code closed file descriptor {number}; it is open again")


def line_of(text: str) -> bytes:
    """A text as one line for the supervisor. A longer one is cut: of a process that has ended, the rest is not read."""
    return text.replace("\n", " ").encode("utf-8", "replace")[:LONGEST_LINE] + b"\n"


def describe_end(status: int) -> str:
    """A wait status in words: ``ended with exit code 7``, ``was killed by SIGSEGV``."""
    if not os.WIFSIGNALED(status):
        return f"ended with exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {number}"
    return f"was killed by {name}" + (_shared_memory() if number == signal.SIGBUS else "")


def _shared_memory() -> str:
    """The usual reason of SIGBUS in words, with what it takes."""
    try:
        space = os.statvfs("/dev/shm")  # noqa: S108 - no file of ours there
    except OSError:
        return ""
    size = space.f_blocks * space.f_frsize // 2**20
    return (
        f": it used mapped memory that is not there, as happens when /dev/shm ({size} MiB, as large as"
        " resources.shm or else resources.memory says) or another disk is full"
    )


def kill(pid: int) -> None:
    """End a process that was not reaped yet, and what it started. It may not have got to making its group yet."""
    if not pid:
        return  # it is not known yet
    kill_group(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_group(pid: int) -> None:
    """End what is left of the process group that a process leads or led."""
    if not pid:
        return  # 0 means the caller's own group
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def has_ended(pid: int) -> bool:
    """Has a process ended that is not this one's child?"""
    return _state(f"/proc/{pid}/stat") in "ZX"


def wants_to_run(pid: int) -> bool:
    """Does a thread of a process run, or would it, if it got a processor? One that waits for something does not."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return any(_state(f"/proc/{pid}/task/{thread}/stat") == "R" for thread in threads)


def _state(path: str) -> str:
    """The letter of a process or thread in proc(5); "X" if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def oom_kills() -> int:
    """Return how many processes of this control group were OOM-killed; 0 if the kernel does not say."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            counts = dict(line.split() for line in file)
            return int(counts.get("oom_kill", 0))
    return 0
