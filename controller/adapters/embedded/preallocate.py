"""Reserves space on the disk for the metadata, whatever else fills it.

BadgerDB writes its log through a mapping of a sparse file. On a full disk such a write causes SIGBUS instead
of an error: the server would die at the first request that changes anything, including the removal that would
free space, and could not be restarted. So its log gets blocks before it needs them; a start truncates the old
log to its content, which gives space to the next one. On a full disk uploads are then refused, but reading
and removing continue.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from controller.adapters.embedded.volume import StorageVolume

LOG: Final = 64 * 2**20  # bytes that BadgerDB writes to one log before it begins another
_STEP: Final = 2**20  # bytes; for less nothing is done


def preallocate(volume: StorageVolume) -> None:
    """Extend the log. Called regularly while the server runs, since it begins a new log when one is full. If
    little space is left, the log gets most of it: content can wait.
    """
    for log in volume.home.glob("meta/*.mem"):
        has = _allocated(log)
        wanted = min(LOG, has + volume.free() * 3 // 4)
        if wanted >= has + _STEP:
            _extend(log, wanted)


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:  # written out and removed meanwhile
        return LOG


def _extend(log: Path, size: int) -> None:
    """Allocate blocks with a program of util-linux: where the file system does not support it, the C
    library's function would write zeros instead, over what BadgerDB writes at the same time.
    """
    program = shutil.which("fallocate")
    if program:
        subprocess.run([program, "--length", str(size), log], capture_output=True, check=False)
