"""Reads what happened to processes: signals, exit states, out-of-memory kills; and handles processes that the
developer's code forks."""

from __future__ import annotations

import contextlib
import os
import signal

from . import log

FORKED = 70  # exit code of a forked process that came back into the library (EX_SOFTWARE)

_worker = 0  # the process whose connections these are


def settle() -> None:
    """Called in a new worker: from now on, only this process may answer."""
    global _worker
    _worker = os.getpid()


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
        " resources.memory) or another disk is full"
    )


def kill(pid: int) -> None:
    """End a process that was not reaped yet, and what it started. It may not have got to making its group yet."""
    kill_group(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_group(pid: int) -> None:
    """End what is left of the process group that a process leads or led."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def offer_to_oom_killer() -> None:
    """Make the kernel kill the worker if memory runs out, not the supervisor, which can start a new worker."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")


def oom_kills() -> int:
    """Return how many processes of this control group were OOM-killed; 0 if the kernel does not say."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            counts = dict(line.split() for line in file)
            return int(counts.get("oom_kill", 0))
    return 0
