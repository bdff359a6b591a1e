"""A worker's place for the files of its calls: one folder a call, removed when the call is over.

It lies below ``TMPDIR`` (``/tmp``) under a name made of the port, which belongs to one server at a time, and the
worker's seat. So the next worker in that seat finds what a killed one left behind, and clears it away. Nothing is
made before a call needs it: a component without files may do without a writable folder.
"""

from __future__ import annotations

import itertools
import os
import shutil
from typing import BinaryIO, Optional


class ScratchSpace:
    """Folders of the calls of one worker."""

    def __init__(self, port: int, slot: int) -> None:
        self._root = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"prichal-{port}-{slot}")  # noqa: S108 - no file of ours there
        self._names = itertools.count(1)

    def clear(self) -> None:
        """Remove what an earlier worker left."""
        shutil.rmtree(self._root, ignore_errors=True)

    def make(self) -> str:
        """A new, empty folder. Raises OSError."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        if os.lstat(self._root).st_uid != os.geteuid():
            raise PermissionError(f"{self._root} belongs to somebody else")
        path = os.path.join(self._root, str(next(self._names)))
        os.mkdir(path, 0o700)
        return path


class CallFolder:
    """The folder of one call, made when somebody asks for it, and the files that are open for its reply."""

    __slots__ = ("_open", "_path", "_scratch")

    def __init__(self, scratch: ScratchSpace) -> None:
        self._scratch = scratch
        self._path: Optional[str] = None
        self._open: list[BinaryIO] = []

    def path(self) -> str:
        """Raises OSError."""
        if self._path is None:
            self._path = self._scratch.make()
        return self._path

    def keep(self, file: BinaryIO) -> BinaryIO:
        """Close it with the folder."""
        self._open.append(file)
        return file

    def remove(self) -> None:
        """The call is over."""
        for file in self._open:
            file.close()
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
