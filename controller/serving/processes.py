"""What the kernel does to processes and tells of them: signals, exit states, want of memory."""

from __future__ import annotations

import contextlib
import os
import signal


def describe_end(status: int) -> str:
    """A wait status in words: ``ended with exit code 7``, ``was killed by SIGSEGV``."""
    if not os.WIFSIGNALED(status):
        return f"ended with exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {number}"


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
    """If memory runs out the kernel is to choose the worker, not the supervisor that can start a new one."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")


def oom_kills() -> int:
    """How many processes of this control group the kernel has killed for want of memory; 0 where it does not
    tell.
    """
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            counts = dict(line.split() for line in file)
            return int(counts.get("oom_kill", 0))
    return 0
