"""Reading a commit: its files, its content id, a tar of a folder. All straight from Git objects.

What cannot be used as it stands is refused by name instead of being passed on half: Git LFS pointers, symbolic links
that lead out of the folder, names that no honest Git makes.
"""

from __future__ import annotations

import logging
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pygit2
from pygit2.enums import FileMode

from controller.adapters.git.text import listed
from controller.domain.errors import Stalled
from controller.ports import SourceFile

log = logging.getLogger(__name__)

#: Entries of one tree; trees that contain themselves tenfold on ten levels are a few kilobytes in a pack.
MAX_ENTRIES = 100_000
#: 1980-01-01, the first day of ZIP: tools that make wheels and the like from the files fail on anything earlier.
TAR_TIME = 315_532_800
#: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: a pointer is shorter than 1024 bytes and begins so.
LFS_PREFIX, LFS_MAX_SIZE = b"version https://git-lfs.github.com/spec/", 1024
LINK_HOPS = 8


@dataclass(frozen=True)
class Entry:
    """`path` is relative to the folder that was walked."""

    path: str
    mode: FileMode
    id: pygit2.Oid

    @property
    def hidden(self) -> bool:
        return any(part.startswith(".") for part in self.path.split("/"))


def normalised(path: str) -> str:
    """`path` within a repository, "" for its root. Stalled `PathNotFound` if it leads out."""
    clean = posixpath.normpath(path.strip() or ".")
    if clean == ".." or clean.startswith(("/", "../")):
        raise Stalled("PathNotFound", f"the path {path!r} leads out of the repository")
    return "" if clean == "." else clean


def lookup(repo: pygit2.Repository, commit: str, path: str) -> pygit2.Object:
    """The tree or blob at `path`. Stalled `PathNotFound`."""
    root = repo[commit].peel(pygit2.Tree)
    clean = normalised(path)
    if not clean:
        return root
    try:
        return root[clean]
    except KeyError:
        # Also raised where an object is missing; the caller tells that from a path that is not there.
        if not _is_entry(root, clean):
            raise Stalled("PathNotFound", f"{path!r} is not in commit {commit[:12]}") from None
        raise


def _is_entry(tree: pygit2.Tree, path: str) -> bool:
    head, _, rest = path.partition("/")
    if head not in tree:
        return False
    below = tree[head]
    return not rest or (isinstance(below, pygit2.Tree) and _is_entry(below, rest))


def folder(repo: pygit2.Repository, commit: str, path: str) -> pygit2.Tree:
    found = lookup(repo, commit, path)
    if not isinstance(found, pygit2.Tree):
        raise Stalled("PathNotFound", f"{path!r} is a file in commit {commit[:12]}, a folder is needed")
    return found


def walk(tree: pygit2.Tree) -> Iterator[Entry]:
    """Every entry below `tree`, folders before what is in them, in Git's order."""
    waiting: list[tuple[str, pygit2.Tree]] = [("", tree)]
    count = 0
    while waiting:
        prefix, current = waiting.pop()
        for item in current:
            count += 1
            entry = Entry(prefix + _name(item), FileMode(item.filemode), item.id)
            if count > MAX_ENTRIES:
                raise Stalled("TreeTooLarge", f"the commit has more than {MAX_ENTRIES} files and folders")
            yield entry
            if isinstance(item, pygit2.Tree):
                waiting.append((entry.path + "/", item))


def _name(item: pygit2.Object) -> str:
    name = (item.raw_name or b"").decode("utf-8", "surrogateescape")
    if name in ("", ".", "..", ".git") or "/" in name:
        raise Stalled("TreeInvalid", f"the commit has an entry called {name!r}, which Git itself never makes")
    return name


def check_complete(repo: pygit2.Repository, commit: str) -> None:
    """KeyError if an object of the commit is missing."""
    for entry in walk(repo[commit].peel(pygit2.Tree)):
        if entry.mode is not FileMode.COMMIT and entry.id not in repo:
            raise KeyError(f"object {entry.id} ({entry.path}) is missing")


# --- files ------------------------------------------------------------------------------------------------------


def read_files(
    repo: pygit2.Repository, commit: str, path: str, suffixes: tuple[str, ...]
) -> tuple[SourceFile, ...]:
    root = folder(repo, commit, path)
    base = normalised(path)
    found = []
    for entry in walk(root):
        if entry.mode is FileMode.TREE or entry.hidden or not entry.path.endswith(suffixes):
            continue
        full = posixpath.join(base, entry.path)
        if entry.mode is FileMode.COMMIT:
            continue  # a submodule that happens to be called so
        blob = _follow(repo, commit, full) if entry.mode is FileMode.LINK else entry.id
        found.append(SourceFile(full, repo[blob].peel(pygit2.Blob).data))
    pointers = [file.path for file in found if is_lfs_pointer(file.content)]
    if pointers:
        raise _lfs_refusal(pointers)
    return tuple(sorted(found, key=lambda file: file.path))


def _follow(repo: pygit2.Repository, commit: str, path: str) -> pygit2.Oid:
    """The file that the symbolic link at `path` stands for, somewhere in the same commit."""
    current = path
    for _ in range(LINK_HOPS):
        found = lookup(repo, commit, current)
        if found.filemode != FileMode.LINK:
            return found.id
        target = found.peel(pygit2.Blob).data.decode("utf-8", "surrogateescape")
        _refuse_escape(path, current, target)
        current = posixpath.join(posixpath.dirname(current), target)
    raise Stalled("SymlinkRefused", f"{path}: too many symbolic links one behind the other")


def _refuse_escape(shown: str, link: str, target: str) -> None:
    """`link` is relative to the folder that must not be left."""
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(link), target))
    if target.startswith("/") or reached == ".." or reached.startswith("../"):
        raise Stalled(
            "SymlinkRefused",
            f"{shown} is a symbolic link that leads outside, to {target}; put the file there",
        )


def is_lfs_pointer(content: bytes) -> bool:
    return len(content) < LFS_MAX_SIZE and content.startswith(LFS_PREFIX)


def _lfs_refusal(paths: list[str]) -> Stalled:
    return Stalled(
        "LfsPointer",
        f"Git LFS is not supported, and these files are only pointers to their content: {listed(paths)}. "
        "Commit the files themselves, or keep large ones in a data box",
    )


# --- archive ----------------------------------------------------------------------------------------------------


def archive_entries(repo: pygit2.Repository, commit: str, path: str) -> tuple[Entry, ...]:
    """What a tar of the folder has in it, sorted. Everything that can be refused is refused here, not in its middle."""
    entries = sorted(walk(folder(repo, commit, path)), key=lambda entry: entry.path)
    pointers = [entry.path for entry in entries if _is_pointer_blob(repo, entry)]
    if pointers:
        raise _lfs_refusal(pointers)
    for entry in entries:
        if entry.mode is FileMode.LINK:
            _refuse_escape(entry.path, entry.path, _link_target(repo, entry))
        elif entry.mode is FileMode.COMMIT:
            log.warning("submodule left out of a build context", extra={"path": entry.path, "commit": commit})
    return tuple(entry for entry in entries if entry.mode is not FileMode.COMMIT)


def _is_pointer_blob(repo: pygit2.Repository, entry: Entry) -> bool:
    """Looks at sizes first: reading every blob of a large context twice would cost as much as the build."""
    if entry.mode not in (FileMode.BLOB, FileMode.BLOB_EXECUTABLE):
        return False
    _, size = repo.odb.read_header(entry.id)
    return size < LFS_MAX_SIZE and is_lfs_pointer(repo[entry.id].peel(pygit2.Blob).data)


def _link_target(repo: pygit2.Repository, entry: Entry) -> str:
    return repo[entry.id].peel(pygit2.Blob).data.decode("utf-8", "surrogateescape")


def tar(repo: pygit2.Repository, entries: Iterable[Entry]) -> Iterator[bytes]:
    """A tar (POSIX pax) of `archive_entries`."""
    for entry in entries:
        info, data = _member(repo, entry)
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if data:
            yield data
            yield bytes(-len(data) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(repo: pygit2.Repository, entry: Entry) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(entry.path)
    info.mtime = TAR_TIME
    info.mode = 0o755
    if entry.mode is FileMode.TREE:
        info.type = tarfile.DIRTYPE
        return info, b""
    if entry.mode is FileMode.LINK:
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, _link_target(repo, entry)
        return info, b""
    data = repo[entry.id].peel(pygit2.Blob).data
    info.size = len(data)
    info.mode = 0o755 if entry.mode is FileMode.BLOB_EXECUTABLE else 0o644
    return info, data
