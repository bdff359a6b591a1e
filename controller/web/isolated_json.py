"""Parses large untrusted JSON in a separate process, with bounds on memory and time.

The standard library parses a text in one go and with the interpreter's lock held: a malicious text of 15 MiB
takes seconds, in which it blocks all threads of a worker, even its event loop. Small texts are parsed here.
Called in threads; each waits only for its process."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

#: Texts with at least this many bytes are parsed in a process: less takes at most some tens of milliseconds.
LARGE = 2**20
#: Bytes that are read in a thread instead: looking through them takes longer than to ask one.
MEDIUM = 64 * 2**10
PROCESSES = 2  # at once in one worker
CPU_TIME = 10  # seconds of a processor for one text, the start of the process included
DEADLINE = 60.0  # seconds of waiting for one text, on a host that is busy with other work
PRIORITY = 10  # niceness: callers with smaller texts come first, but the others are not starved
RETRY_AFTER = 30  # seconds
MEMORY = 2 * 2**30  # bytes of address space of one process

T = TypeVar("T")

_threads = ThreadPoolExecutor(PROCESSES, thread_name_prefix="aside")


async def read(size: int, work: Callable[..., T], *args: object) -> T:
    """Run `work`, which parses a text of that many bytes, and return its result or raise its error. It must
    be a function of a module with plain values as arguments and result. Raises RequestRefused if that costs
    too much, or if the host is too busy."""
    if size < MEDIUM:
        return work(*args)
    if size < LARGE:
        return await asyncio.to_thread(work, *args)
    return await asyncio.get_running_loop().run_in_executor(_threads, _ask, work, args)


def read_here(size: int, work: Callable[..., T], *args: object) -> T:
    """Do the same for a caller on its own thread."""
    return work(*args) if size < LARGE else _threads.submit(_ask, work, args).result()


def _ask(work: Callable[..., T], args: tuple[object, ...]) -> T:
    """Ask in a separate thread."""
    command = [sys.executable, "-I", "-m", "controller.web.isolated_json", str(CPU_TIME)]
    try:
        done = subprocess.run(
            command, input=pickle.dumps((work, args)), capture_output=True, timeout=DEADLINE, check=False
        )
    except subprocess.TimeoutExpired:
        raise _busy() from None
    if done.returncode:
        raise _too_much()
    result, error = pickle.loads(done.stdout)  # noqa: S301 - from our own process
    if error is not None:
        raise error
    return cast(T, result)


def _too_much() -> RequestRefused:
    return RequestRefused(
        HttpProblem(ProblemKind.TOO_LARGE, "Reading the JSON of the body takes too much time or memory.")
    )


def _busy() -> RequestRefused:
    detail = "The host is too busy to read the JSON of the body. Send the request again later."
    return RequestRefused(HttpProblem(ProblemKind.OVERLOADED, detail, retry_after=RETRY_AFTER))


def main() -> None:
    """Run in the process, with its processor time as the argument: read one task from the standard input, and
    write its result to the standard output."""
    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    os.nice(PRIORITY)
    gc.disable()  # the process ends after it; searching for cycles takes longer than everything else
    work, args = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own process
    try:
        outcome: tuple[object, Exception | None] = (work(*args), None)
    except MemoryError:
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - told to who asked
        outcome = (None, error)
    sys.stdout.buffer.write(pickle.dumps(outcome))


if __name__ == "__main__":
    main()
