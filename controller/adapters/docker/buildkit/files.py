"""Files that a build asks for, and the protocol in which it asks: https://github.com/tonistiigi/fsutil. The sender
lists everything, in the order of a walk; the receiver asks for the content of files by their place in the list. Pure
but for reading the spooled archive.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from controller.adapters.docker.buildkit.wire import data, decoded, encoded, integer

_STAT, _REQUEST, _DATA, _FINISHED, _ERROR = range(5)  # kinds of packets
_CHUNK = 32 * 1024
#: Bits of a mode as Go has them: https://pkg.go.dev/io/fs#FileMode
_FOLDER, _LINK = 1 << 31, 1 << 27


@dataclass(frozen=True)
class Entry:
    """A file, folder or link. The content of a file is `content`, or a part of the archive."""

    path: str
    mode: int
    size: int = 0
    offset: int = 0
    target: str = ""
    content: bytes | None = None


class FileTree:
    """Entries in the order of a walk, with all folders above them. `archive` is read at any offset."""

    def __init__(self, entries: Iterable[Entry], archive: IO[bytes] | None = None) -> None:
        known = {entry.path: entry for entry in entries}
        for path in list(known):
            while "/" in path:
                path = path.rpartition("/")[0]
                known.setdefault(path, Entry(path, _FOLDER | 0o755))
        self.entries = sorted(known.values(), key=lambda entry: entry.path.split("/"))
        self._archive = archive

    @classmethod
    def of_texts(cls, texts: Mapping[str, bytes]) -> FileTree:
        return cls(Entry(path, 0o644, len(content), content=content) for path, content in texts.items())

    @classmethod
    def of_tar(cls, archive: IO[bytes], more: Mapping[str, bytes]) -> FileTree:
        """Return the tree of an uncompressed archive, which has to stay open, and of some more files."""
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            found = [_entry(member) for member in tar]
        extra = [Entry(path, 0o644, len(text), content=text) for path, text in more.items()]
        return cls([*found, *extra], archive)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        if entry.content is not None:
            yield from (entry.content[at : at + _CHUNK] for at in range(0, entry.size, _CHUNK))
        elif self._archive is not None:
            for at in range(0, entry.size, _CHUNK):
                yield os.pread(self._archive.fileno(), min(_CHUNK, entry.size - at), entry.offset + at)


def _entry(member: tarfile.TarInfo) -> Entry:
    path, mode = os.path.normpath(member.name), stat.S_IMODE(member.mode) & 0o777
    if member.isdir():
        return Entry(path, _FOLDER | mode)
    if member.issym():
        return Entry(path, _LINK | 0o777, target=member.linkname)
    return Entry(path, mode, member.size, member.offset_data)


class Sending:
    """One transfer. `next_packet` returns what is to be sent, None as long as there is nothing."""

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self._listing = iter([*map(_stat_packet, tree.entries), encoded([(1, _STAT)]) or b""])
        self._asked: deque[int] = deque()
        self._content: Iterator[bytes] | None = None
        self._closing = False
        self.finished = False

    def receive(self, message: bytes) -> None:
        """Take a packet of the receiver. Raises WireError, and ValueError for a file that was not listed."""
        fields = decoded(message)
        match integer(fields, 1):
            case kind if kind == _REQUEST:
                number = integer(fields, 3)
                if number >= len(self._tree.entries):
                    raise ValueError(f"there is no file {number}")
                self._asked.append(number)
            case kind if kind == _FINISHED:
                self._closing = True
            case kind if kind == _ERROR:
                raise ValueError(data(fields, 4).decode("utf-8", "replace"))

    def next_packet(self) -> bytes | None:
        for packet in self._listing:
            return packet
        while self._content is None and self._asked:
            self._content = self._of_file(self._asked.popleft())
        if self._content is not None:
            for packet in self._content:
                return packet
            self._content = None
            return self.next_packet()
        if self._closing and not self.finished:
            self.finished = True
            return encoded([(1, _FINISHED)])
        return None

    def _of_file(self, number: int) -> Iterator[bytes]:
        for chunk in self._tree.chunks(self._tree.entries[number]):
            yield encoded([(1, _DATA), (3, number), (4, chunk)])
        yield encoded([(1, _DATA), (3, number)])


def _stat_packet(entry: Entry) -> bytes:
    return encoded(
        [
            (
                2,
                encoded(
                    [
                        (1, entry.path.encode("utf-8", "surrogateescape")),
                        (2, entry.mode),
                        (5, entry.size),
                        (7, entry.target.encode("utf-8", "surrogateescape")),
                    ]
                ),
            )
        ]
    )
