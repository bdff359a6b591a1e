"""The last valid content of the platform folder, which a daemon uses if it starts when the folder is broken.
Written and read by `platform_folder` in the daemon's private folder: it contains values of Secrets, and no
more users can read it than the folder itself.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controller.atomic import replace_file
from controller.manifests.secret_files import read_host_file
from controller.ports import SourceFile


@dataclass(frozen=True)
class FolderContent:
    """The content on which a reading depends: the files, and the files of the host that their Secrets name."""

    files: tuple[SourceFile, ...]
    revision: str = ""  # the Git commit
    host: Mapping[str, bytes] = field(default_factory=dict)

    def read_file(self, path: str) -> bytes:
        try:
            return self.host[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", path) from None


class ReadRecorder:
    """Reads files of the host, and records their content."""

    def __init__(self) -> None:
        self.seen: dict[str, bytes] = {}

    def __call__(self, path: str) -> bytes:
        self.seen[path] = read_host_file(path)
        return self.seen[path]


@dataclass
class LastGood:
    path: Path
    _kept: FolderContent | None = None

    def keep(self, content: FolderContent) -> None:
        """Write the content atomically, and durably even if the power fails. Raises OSError."""
        if content == self._kept:
            return
        text = json.dumps(
            {
                "revision": content.revision,
                "files": [[file.path, _text(file.content), file.passed_over] for file in content.files],
                "host": {path: _text(value) for path, value in content.host.items()},
            }
        )
        replace_file(self.path, text, durable=True)
        self._kept = content

    def read(self) -> FolderContent | None:
        """Return the content, or None if there is none or it cannot be read."""
        try:
            document = json.loads(self.path.read_bytes())
            files = tuple(SourceFile(path, _bytes(text), why) for path, text, why in document["files"])
            host = {path: _bytes(text) for path, text in document["host"].items()}
            return FolderContent(files, document["revision"], host)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
