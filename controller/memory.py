"""Memory that is free goes back to the host. Used by the daemon and the workers of the web process.

glibc keeps what was freed for the next time, the more the larger the pieces were that were asked for: after one large
commit, or some large bodies, a process would hold for days what it needed for a second.
"""

from __future__ import annotations

import ctypes
import threading
import time

PAUSE = 30.0  # seconds between two times
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of mallopt(3)
_LARGE = 2**18  # bytes of a piece that is memory of its own, and goes back when it is freed
_ARENAS = 4  # in which threads look for memory; each keeps what it has


def _libc() -> ctypes.CDLL | None:
    """Return None for another C library than glibc, which needs none of this or cannot be told."""
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None


def keep_little() -> None:
    """Set at the start of a process, for it and all that it forks."""
    if libc := _libc():
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Give free pages back, in some milliseconds, and with no lock of the interpreter held."""
    if libc := _libc():
        libc.malloc_trim(0)


def give_back_for_ever() -> None:
    """Do it in a thread that ends with the process."""

    def go_on() -> None:
        while True:
            time.sleep(PAUSE)
            give_back()

    threading.Thread(target=go_on, name="memory", daemon=True).start()
