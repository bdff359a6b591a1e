"""FILE variables served from a local folder (``files_root``) in place of a box: key -> path, and path ->
key. Files that come with the call are in ``call_files``.
"""

from __future__ import annotations

import os
import shutil
from typing import Optional, Protocol

from .texts import Text

MAX_KEY = 900


class Files(Protocol):
    """The source of FILE inputs and the destination of FILE outputs. ``index``: the variable's place in the
    request's inputs or the reply's outputs. Errors are ValueError with words for people."""

    def fetch(self, index: int, key: str) -> str:
        """The local path of the file under a key."""

    def store(self, path: str, index: int, name: str, call_id: str) -> str:
        """Keep the file at a local path; gives its key."""


class NoFiles:
    """A component without a box."""

    def fetch(self, index: int, key: str) -> str:
        raise ValueError(
            Text(
                "this component has no box connected, so it cannot take files; see connectedBoxes in its manifest"
            )
        )

    def store(self, path: str, index: int, name: str, call_id: str) -> str:
        raise ValueError(
            Text(
                "this component has no box connected, so it cannot give files; see connectedBoxes in its manifest"
            )
        )


class LocalFiles:
    """A folder in place of a box. Nothing outside of it can be reached, symbolic links included."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)

    def fetch(self, index: int, key: str) -> str:
        check_key(key)
        path = os.path.realpath(os.path.join(self._root, key))
        if not self._inside(path) or not os.path.isfile(path):
            raise ValueError(Text("there is no file {key!r}", key=key))
        return path

    def store(self, path: str, index: int, name: str, call_id: str) -> str:
        """A file below the root stays where it is; another is copied to ``outputs/<call id>/<name>/``."""
        real = os.path.realpath(path)
        if not os.path.isfile(real):
            raise ValueError(Text("there is no file at {path!r}", path=path))
        if self._inside(real):
            return os.path.relpath(real, self._root)
        key = os.path.join("outputs", call_id.replace("/", "_").strip("."), name, os.path.basename(path))
        target = os.path.join(self._root, key)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(real, target)
        return key

    def _inside(self, path: str) -> bool:
        return os.path.commonpath([path, self._root]) == self._root


def check_key(key: str) -> None:
    """Raises ValueError for a key that no box takes: '..', empty segments, control characters, over 900
    bytes.
    """
    segments = key.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError(
            Text("the key {key!r} is not a relative path without empty segments, '.' and '..'", key=key)
        )
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        raise ValueError(Text("the key holds a control character"))
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY:
        raise ValueError(Text("the key is longer than {max_key} bytes", max_key=MAX_KEY))


def make_files(root: Optional[str]) -> Files:
    return NoFiles() if root is None else LocalFiles(root)
