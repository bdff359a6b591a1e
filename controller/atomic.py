"""Files that are replaced as a whole: a reader finds the old content or the new one, however the writer ends."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes | str, mode: int = 0o600, *, durable: bool = False) -> None:
    """Write a draft beside `path`, then rename it. `durable` also brings the content and the name to the disk first,
    so that they survive a power cut. The file gets `mode` only with its whole content. Several threads and processes
    may write one file; the last rename wins. Raises OSError, and then leaves no draft.
    """
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            os.fchmod(descriptor, mode)
            if durable:
                file.flush()
                os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
    if durable:
        flush(path.parent)


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
