"""A real browser without a window. Pages tell what they have seen by sending it to a server of the test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")


def browser() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def browsing(url: str, profile: Path, *options: str) -> Iterator[None]:
    """Shows the page while the block runs. Other requests than the page's own are not made."""
    program = browser()
    assert program is not None
    command = [
        *(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--disable-popup-blocking", "--disable-background-networking", "--no-first-run"),
        *(f"--user-data-dir={profile}", "--remote-debugging-port=0", *options, url),
    ]
    with (profile.parent / "browser.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
