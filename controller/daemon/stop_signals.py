"""SIGTERM and SIGINT stop the daemon.

A signal handler runs in the main thread between any two of its steps. One that calls `Event.set` waits for ever if the
main thread is just within `Event.wait` and holds the event's lock. So the interpreter writes the signal's number into a
pipe, and a thread of its own, which holds no lock, reads it and sets the event.
"""

from __future__ import annotations

import os
import signal
import threading

SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


def stop_on_signals(stop: threading.Event) -> None:
    """Set `stop` at each of `SIGNALS`, from now to the end of the process. Main thread only."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writing, False)  # as `set_wakeup_fd` demands
    threading.Thread(target=_watch, args=(reading, stop), name="signals", daemon=True).start()
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)  # Without a handler the signal would end the process.


def _watch(reading: int, stop: threading.Event) -> None:
    while numbers := os.read(reading, 64):
        if SIGNALS.intersection(numbers):
            stop.set()
