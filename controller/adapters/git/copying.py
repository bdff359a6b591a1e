"""Copies objects from a repository of this host into a clone, large ones as the files in which they lie.

libgit2's own transfer reads, compresses and checks each byte again, which takes more than a minute for two gigabytes of
models. The files of a repository have all of it already: an object that nobody has packed is a file, and a pack is one
of many objects. What was copied is checked when it is read.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pygit2
from pygit2.enums import ObjectType

#: Bytes of a file that is worth copying; libgit2 transfers smaller ones in no time.
LARGE: Final = 2**20
_AT_ONCE: Final = 8 * 2**20  # bytes between two calls of `received`
_FILE_MODE: Final = 0o444
_LOOSE: Final = re.compile(r"[0-9a-f]{2}/[0-9a-f]{38}")
_PACK: Final = re.compile(r"pack/pack-[0-9a-f]{40,64}\.pack")
_TREE, _PARENT, _OBJECT = (
    re.compile(rb"%s ([0-9a-f]{40})\n" % name) for name in (b"tree", b"parent", b"object")
)
_ENTRY = re.compile(rb"([0-7]+) [^\0]+\0(.{20})", re.DOTALL)
_SUBMODULE: Final = 0o160000

#: Gets the number of bytes so far, and may end the copy by raising.
Received = Callable[[int], None]


def has_large(source: pygit2.Repository, clone: pygit2.Repository) -> bool:
    """Return whether the repository has large files that the clone has not."""
    there, here = _objects(source), _objects(clone)
    return any(size > LARGE and not (here / name).exists() for name, size in object_files(there))


def copy(
    source: pygit2.Repository, clone: pygit2.Repository, commits: Iterable[str], received: Received
) -> None:
    """Copy the commits, their history and all objects in them that the clone lacks. What the source itself lacks, like
    the history of a shallow clone, is skipped; `check_complete` decides whether that matters, also after an
    interruption."""
    _ObjectCopy(source, clone, received).run(commits)


class _ObjectCopy:
    """The copy is made in a folder of its own within the clone, which has no part of it before the end. `Clones.sweep`
    removes one that a killed process has left."""

    def __init__(self, source: pygit2.Repository, clone: pygit2.Repository, received: Received) -> None:
        self._source, self._clone = source.odb, clone.odb
        self._there, self._here = _objects(source), _objects(clone)
        self._received = received
        self._number = 0

    def run(self, commits: Iterable[str]) -> None:
        with tempfile.TemporaryDirectory(prefix="tmp_obj_", dir=self._here) as place:
            draft = Path(place)
            missing = tuple(self._missing([pygit2.Oid(hex=commit) for commit in commits]))
            packed = [id for id in missing if not self._copy_file(_loose(id), draft)]
            self._copy_packs(packed, draft)
            copied = pygit2.Odb(place)
            for id in packed:
                if id not in copied:
                    self._write(id, copied)
            self._put_in_place(draft, missing)

    def _missing(self, commits: Iterable[pygit2.Oid]) -> Iterator[pygit2.Oid]:
        """Yield the objects that the clone lacks, each after those that it needs. A long history takes time, too."""
        waiting = [(commit, False) for commit in commits]
        begun: set[pygit2.Oid] = set()
        while waiting:
            id, is_last = waiting.pop()
            if is_last:
                yield id
                continue
            if id in begun or id in self._clone or id not in self._source:
                continue
            begun.add(id)
            self._count(0)
            waiting.append((id, True))
            if self._source.read_header(id)[0] != ObjectType.BLOB:
                waiting.extend((other, False) for other in _needed(*self._source.read(id)))

    def _copy_packs(self, wanted: Iterable[pygit2.Oid], draft: Path) -> None:
        """Copy the large packs, if most of what is in them is wanted."""
        packs = [(name, size) for name, size in object_files(self._there) if size > LARGE and is_pack(name)]
        missing = [(name, size) for name, size in packs if not (self._here / name).exists()]
        if 2 * sum(self._source.read_header(id)[1] for id in wanted) < sum(size for _, size in missing):
            return
        for name, _ in missing:
            # The index first: Git removes it before its pack, which then is of no use.
            if self._copy_file(_index_of(name), draft):
                self._copy_file(name, draft)

    def _write(self, id: pygit2.Oid, copied: pygit2.Odb) -> None:
        kind, content = self._source.read(id)
        if copied.write(kind, content) != id:
            raise ValueError(f"object {id} is damaged")
        self._count(len(content))

    def _copy_file(self, name: str, draft: Path) -> bool:
        """Copy a file of objects; return False if there is none. Others may have put something else in its place."""
        try:
            file = os.open(self._there / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise ValueError(f"{name} is not a file")
            target = draft / name
            target.parent.mkdir(exist_ok=True)
            with open(target, "xb") as copied:
                while count := os.sendfile(copied.fileno(), file, None, _AT_ONCE):
                    self._count(count)
            target.chmod(_FILE_MODE)
        finally:
            os.close(file)
        return True

    def _put_in_place(self, draft: Path, missing: Iterable[pygit2.Oid]) -> None:
        """A pack is there as soon as its index is. Packs are first: what is in none is newer, and may need them."""
        packs = [name for name, _ in object_files(draft) if is_pack(name)]
        for name in (*packs, *map(_index_of, packs), *map(_loose, missing)):
            if (draft / name).exists():
                (self._here / name).parent.mkdir(exist_ok=True)
                os.replace(draft / name, self._here / name)

    def _count(self, number: int) -> None:
        self._number += number
        self._received(self._number)


def _objects(repository: pygit2.Repository) -> Path:
    return Path(repository.path, "objects")


def _loose(id: pygit2.Oid) -> str:
    return f"{str(id)[:2]}/{str(id)[2:]}"


def _index_of(pack: str) -> str:
    return f"{pack.removesuffix('.pack')}.idx"


def object_files(objects: Path) -> Iterator[tuple[str, int]]:
    """Yield the files of a folder of objects, loose ones and packs, as a path below it, with their bytes. Each fetch
    asks for all of them, and there may be thousands: `os.scandir` takes a tenth of the time of `Path.glob`."""
    for folder in _entries(objects):
        for entry in _entries(folder):
            name = f"{folder.name}/{entry.name}"
            if _LOOSE.fullmatch(name) or is_pack(name):
                with suppress(FileNotFoundError):  # it was packed meanwhile
                    yield name, entry.stat(follow_symlinks=False).st_size


def is_pack(name: str) -> bool:
    return bool(_PACK.fullmatch(name))


def _entries(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """Yield what is in a folder, nothing where there is none or it cannot be read."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError), os.scandir(folder) as entries:
        yield from entries


def _needed(kind: int, content: bytes) -> Iterator[pygit2.Oid]:
    if kind == ObjectType.TREE:
        for mode, raw in _ENTRY.findall(content):
            if int(mode, 8) != _SUBMODULE:
                yield pygit2.Oid(raw=raw)
    elif kind == ObjectType.COMMIT:
        header = content.partition(b"\n\n")[0] + b"\n"
        found = _TREE.match(header)
        at = found.end() if found else 0
        while parent := _PARENT.match(header, at):
            at = parent.end()
            yield pygit2.Oid(hex=parent[1].decode())
        if found:
            yield pygit2.Oid(hex=found[1].decode())
    elif kind == ObjectType.TAG and (tagged := _OBJECT.match(content)):
        yield pygit2.Oid(hex=tagged[1].decode())
