"""Parts of the daemon that tests run in a process of their own, which may be killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.pages import ROOT


@contextmanager
def serving(part: str, state: Path, call: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run `tests.support.serve_<part>`, which ends right before it makes `call`."""
    command = [sys.executable, "-m", f"tests.support.serve_{part}", str(state), call]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
