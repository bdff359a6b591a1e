"""The manifest of a published group: `.manifest.json`, which lists the group's files and is written last. Pure.

    {"run": "19c0…", "stage": "fit", "attempt": 1, "files": [{"name": "a/x.bin", "size": 5, "sha256": "…"}]}

While a group is being written, there is a mark of the same form with `"complete": false` in it. For a group that is
replaced as a whole it stands in place of the manifest, without the files. For a group in which callers may have files
of their own there is no manifest meanwhile, and the mark is `.publishing.json`. It lists what runs have put there so
far and are about to put there, so that the next run knows what may be removed. Written by the runner; read by all who
must not take half of a group for the whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

FILE_INDEX = ".manifest.json"
MARK = ".publishing.json"
OURS = frozenset({FILE_INDEX, MARK})  # names in a group that are not files of the output


_UNDER_WAY = ".publishing."


def under_way(prefix: str, run: str) -> str:
    """The key under which space is reserved while a run publishes into the group with this prefix of keys. No
    object has it, so no measurement takes an older manifest for the end of this."""
    return f"{prefix}{_UNDER_WAY}{run}"


@dataclass(frozen=True)
class UnderWayMark:
    """A publication that is under way: `prefix` is that of the keys of its group."""

    prefix: str
    run: str

    @classmethod
    def parse(cls, key: str) -> UnderWayMark | None:
        folder, slash, name = key.rpartition("/")
        return cls(folder + slash, name[len(_UNDER_WAY) :]) if name.startswith(_UNDER_WAY) else None


@dataclass(frozen=True)
class IndexedFile:
    """A file of a manifest. `sha256` is "" if it was not known yet."""

    size: int  # bytes
    sha256: str = ""


@dataclass(frozen=True)
class FileIndex:
    """`files` with their names; None if the group is being replaced and they are not told. While it is being
    replaced, a name may be there twice: as it was, and as it is to be."""

    run: str
    complete: bool
    files: tuple[tuple[str, IndexedFile], ...] | None

    def concerns(self, path: str) -> bool:
        """Return True if it lists this file, or files in this group, which ends in `/`; both are relative to
        its own group, which is empty."""
        if self.files is None or not path:
            return True
        return any(name.startswith(path) if path.endswith("/") else name == path for name, _ in self.files)


def index_head(run: str, stage: str, attempt: int) -> str:
    """Return the beginning of a file index, which says who made it. The caller appends members and closes it with
    `}`."""
    return json.dumps({"run": run, "stage": stage, "attempt": attempt})[:-1]


def unfinished_head(head: str) -> str:
    """Return the beginning of a mark, which is continued like that of `index_head`."""
    return f'{head}, "complete": false'


def unfinished(head: str) -> str:
    """Return the mark of a group that is being replaced as a whole."""
    return f"{unfinished_head(head)}}}\n"


def parse_index(content: bytes) -> FileIndex:
    """Parse a file index or a mark. Raises ValueError if it is neither, but some other file of that name."""
    try:
        found = json.loads(content)
        complete = not (isinstance(found["run"], str) and found.get("complete") is False)
        files = found["files"] if complete else found.get("files")
        listed = None if files is None else tuple((str(file["name"]), _listed(file)) for file in files)
        return FileIndex(str(found["run"]), complete, listed)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not the manifest of a group") from error


def _listed(file: Mapping[str, object]) -> IndexedFile:
    return IndexedFile(int(str(file["size"])), str(file.get("sha256", "")))


def listed(content: bytes) -> Mapping[str, int] | None:
    """Return the sizes (bytes) of the group's files by name, None if it is being written. Raises ValueError
    as `parse_index`."""
    manifest = parse_index(content)
    return {name: file.size for name, file in manifest.files or ()} if manifest.complete else None
