"""Reads a commit: its files, and what a build sees of a folder, directly from Git objects.

What cannot be used as it is, is refused by name instead of being passed on in part: Git LFS pointers,
symbolic links that lead out of the folder, names that Git itself never creates.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pygit2
from pygit2.enums import FileMode

from controller.adapters import dockerignore
from controller.adapters.dockerignore import IgnoreRules, Matched
from controller.adapters.git import commits
from controller.adapters.git.text import listed
from controller.domain.errors import ControllerError, Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.templates import DESCRIPTION, FILES, MOST_BYTES, MOST_FILE, MOST_FILES, TemplateFile
from controller.domain.text import printable
from controller.domain.units import about_size
from controller.ports import SourceFile

#: Entries of one tree; trees that contain themselves tenfold on ten levels are a few kilobytes in a pack.
MAX_ENTRIES = 100_000
#: Different objects of a commit.
MAX_OBJECTS = 1_000_000
#: Bytes of one tree object, of the path of an entry (the limit of file systems), and of all paths together.
MAX_TREE, MAX_PATH, MAX_PATHS = 32 * 2**20, 4096, 64 * 2**20
#: Bytes of what is read as a whole: a manifest's file and all of them, a Dockerfile or .dockerignore, a
#: link's target.
MAX_FILE, MAX_FILES, MAX_RULES, MAX_LINK = 16 * 2**20, 32 * 2**20, 2**20, 4096
#: Bytes of all manifests of an app: a larger file is none of ours, or one that is refused.
MAX_MANIFEST = 2 * 2**20
#: Symbolic links among manifests, each of which is followed.
MAX_LINKS = 1000
#: 1980-01-01, the first day of ZIP: tools that create wheels and the like from the files fail with earlier
#: times.
TAR_TIME = 315_532_800
#: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: a pointer is shorter than 1024 bytes and begins
#: like this.
LFS_PREFIX, LFS_MAX_SIZE = b"version https://git-lfs.github.com/spec/", 1024
_LFS_SIZE = re.compile(rb"^size ([0-9]{1,18})$", re.MULTILINE)
LINK_HOPS = 8


@dataclass(frozen=True)
class TreeEntry:
    """`path` is relative to the folder that was walked."""

    path: str
    mode: FileMode
    id: pygit2.Oid

    @property
    def hidden(self) -> bool:
        return any(part.startswith(".") for part in self.path.split("/"))


@dataclass(frozen=True)
class TreeLimits:
    """Bytes of one file of a build context, and of all together. Git stores repeated content, or zeros, in
    almost no space: a commit of some kilobytes may be gigabytes of files.
    """

    file: int
    context: int


def size_of(repo: pygit2.Repository, id: pygit2.Oid) -> int:
    """Return the size of an object, from its header. Raises KeyError if it is missing."""
    size: int = repo.odb.read_header(id)[1]
    return size


def content_of(repo: pygit2.Repository, id: pygit2.Oid, path: str, most: int) -> bytes:
    """Return the content of a file, which is not read if it is larger than `most`. Raises Stalled
    `FileTooLarge`.
    """
    size = size_of(repo, id)
    if size > most:
        raise Stalled(
            Reason.FILE_TOO_LARGE,
            Localizable(
                "{path} has {size}, but at most {most} are allowed",
                path=path,
                size=about_size(size),
                most=about_size(most),
            ),
        )
    data: bytes = repo[id].peel(pygit2.Blob).data
    return data


def subtree(repo: pygit2.Repository, id: pygit2.Oid, path: str) -> pygit2.Tree:
    """Return a folder, which is not read if it is too large. Raises Stalled `TreeTooLarge`."""
    if size_of(repo, id) > MAX_TREE:
        raise Stalled(
            Reason.TREE_TOO_LARGE, Localizable("the folder {path!r} has too many entries", path=path or ".")
        )
    return repo[id].peel(pygit2.Tree)


def normalised(path: str) -> str:
    """Return `path` within a repository, "" for its root. Raises Stalled `PathNotFound` if it leads out."""
    clean = posixpath.normpath(path.strip() or ".")
    if clean == ".." or clean.startswith(("/", "../")):
        raise Stalled(
            Reason.PATH_NOT_FOUND, Localizable("the path {path!r} leads out of the repository", path=path)
        )
    return "" if clean == "." else clean


def root_of(repo: pygit2.Repository, commit: str) -> pygit2.Tree:
    return subtree(repo, commits.read(repo, commit).tree, "")


def lookup(repo: pygit2.Repository, commit: str, path: str) -> pygit2.Object:
    """Return the tree or blob at `path`. Raises Stalled `PathNotFound`."""
    root = root_of(repo, commit)
    clean = normalised(path)
    if not clean:
        return root
    try:
        return root[clean]
    except KeyError:
        # Also raised if an object is missing; the caller distinguishes that from a missing path.
        if not _is_entry(root, clean):
            raise Stalled(
                Reason.PATH_NOT_FOUND,
                Localizable("{path!r} is not in commit {commit}", path=path, commit=commit[:12]),
            ) from None
        raise


def _is_entry(tree: pygit2.Tree, path: str) -> bool:
    current: pygit2.Object = tree
    for part in path.split("/"):
        if not isinstance(current, pygit2.Tree) or part not in current:
            return False
        current = current[part]
    return True


def folder(repo: pygit2.Repository, commit: str, path: str) -> pygit2.Tree:
    found = lookup(repo, commit, path)
    if not isinstance(found, pygit2.Tree):
        raise Stalled(
            Reason.PATH_NOT_FOUND,
            Localizable(
                "{path!r} is a file in commit {commit}, but must be a folder", path=path, commit=commit[:12]
            ),
        )
    return found


def walk(repo: pygit2.Repository, tree: pygit2.Tree, rules: IgnoreRules | None = None) -> Iterator[TreeEntry]:
    """Yield every entry below `tree`, folders before their content, in Git's order. What a `.dockerignore`
    excludes is neither returned nor checked.
    """
    rules = rules or IgnoreRules()
    waiting: list[tuple[str, pygit2.Oid, Matched]] = [("", tree.id, ())]
    count = length = 0
    while waiting:
        prefix, id, above = waiting.pop()
        for item in subtree(repo, id, prefix):
            path = prefix + (item.raw_name or b"").decode("utf-8", "surrogateescape")
            ignored, matched = rules.judge(path, above)
            is_folder = isinstance(item, pygit2.Tree)
            if ignored and not (is_folder and rules.enters(path)):
                continue
            _refuse_name(path, path.removeprefix(prefix))
            count += 1
            length += len(path)
            _refuse_size(path, count, length)
            if is_folder:
                waiting.append((f"{path}/", item.id, matched))
            if not ignored:
                yield TreeEntry(path, FileMode(item.filemode), item.id)


def _refuse_size(path: str, count: int, length: int) -> None:
    if count > MAX_ENTRIES:
        raise Stalled(
            Reason.TREE_TOO_LARGE,
            Localizable("there are more than {most} files and folders in it", most=MAX_ENTRIES),
        )
    if len(path) > MAX_PATH:
        raise Stalled(
            Reason.TREE_TOO_LARGE,
            Localizable("{path!r}… is a path of more than {most} characters", path=path[:100], most=MAX_PATH),
        )
    if length > MAX_PATHS:
        raise Stalled(
            Reason.TREE_TOO_LARGE,
            Localizable("its paths have more than {most} together", most=about_size(MAX_PATHS)),
        )


def _refuse_name(path: str, name: str) -> None:
    if name in ("", ".", "..", ".git") or "/" in name:
        raise Stalled(
            Reason.TREE_INVALID,
            Localizable("the commit has an entry {path!r}, which Git itself never creates", path=path),
        )


def check_complete(repo: pygit2.Repository, commit: str) -> None:
    """Raise KeyError if an object of the commit is missing. Each is checked once, however often the commit
    has it.
    """
    root = root_of(repo, commit)
    waiting, seen = [("", root.id)], {root.id}
    while waiting:
        prefix, id = waiting.pop()
        for item in subtree(repo, id, prefix):
            if FileMode(item.filemode) is FileMode.COMMIT or item.id in seen:
                continue
            seen.add(item.id)
            path = prefix + (item.raw_name or b"").decode("utf-8", "surrogateescape")
            if item.id not in repo.odb:
                raise KeyError(Localizable("object {id} ({path}) is missing", id=item.id, path=path))
            if len(seen) > MAX_OBJECTS:
                raise Stalled(
                    Reason.TREE_TOO_LARGE,
                    Localizable("the commit has more than {most} files and folders", most=MAX_OBJECTS),
                )
            if isinstance(item, pygit2.Tree):
                waiting.append((f"{path[-MAX_PATH:]}/", item.id))


@dataclass(frozen=True)
class Damage:
    """An object of a commit that cannot be read, and why. `path` is "" if it is the commit or its top folder."""

    id: str
    path: str
    error: str


def find_damage(
    repo: pygit2.Repository, commit: str, largest: int, known: Damage | None = None
) -> Damage | None:
    """Return the first object of the commit that cannot be read, or the one that is known if it still cannot. It reads
    all of them, and only the headers of those with more than `largest` bytes, which nobody reads, so it is used only in
    case of doubt.
    """
    id, path = known.id if known else commit, known.path if known else ""
    try:
        if known:
            repo.odb.read(pygit2.Oid(hex=known.id))
        for entry in walk(repo, root_of(repo, commit)):
            id, path = str(entry.id), entry.path
            if entry.mode is not FileMode.COMMIT and size_of(repo, entry.id) <= largest:
                repo.odb.read(entry.id)
            id, path = commit, ""  # folders are read on the way
    except ControllerError:
        return None
    except (pygit2.GitError, KeyError, OSError) as error:
        missing = Localizable("it is missing")
        return Damage(id, path, missing if isinstance(error, KeyError) else str(error))
    return None


def is_damaged(repo: pygit2.Repository, commit: str, largest: int) -> bool:
    return find_damage(repo, commit, largest) is not None


# --- files ------------------------------------------------------------------------------------------------------


def read_files(
    repo: pygit2.Repository, commit: str, path: str, suffixes: tuple[str, ...]
) -> tuple[SourceFile, ...]:
    chosen = dict(_chosen(repo, commit, path, suffixes))
    passed_over = _passed_over(repo, chosen)
    found = [
        SourceFile(name, b"", passed_over=passed_over[name])
        if name in passed_over or id is None
        else _file(name, content_of(repo, id, name, MAX_FILE))
        for name, id in chosen.items()
    ]
    pointers = [file.path for file in found if is_lfs_pointer(file.content)]
    if pointers:
        raise _lfs_refusal(pointers)
    return tuple(sorted(found, key=lambda file: file.path))


def read_file(repo: pygit2.Repository, commit: str, path: str, most: int) -> bytes:
    """Return a file, with links followed. Raises Stalled `PathNotFound`, `FileTooLarge`, `LfsPointer`."""
    name = normalised(path)
    found = _follow(_Names(repo), root_of(repo, commit).id, name) if name else None
    if found is None:
        raise Stalled(
            Reason.PATH_NOT_FOUND,
            Localizable("there is no file {path} in commit {commit}", path=path, commit=commit[:12]),
        )
    content = content_of(repo, found, path, most)
    if is_lfs_pointer(content):
        raise _lfs_refusal([path])
    return content


def _passed_over(repo: pygit2.Repository, chosen: dict[str, pygit2.Oid | None]) -> dict[str, str]:
    """Files that are not read, and why: links to none, and those that are too large to be ours, as data of modules may
    be. Where all together are too much to be read, the largest of them go first. Stalled `FileTooLarge`."""
    found: dict[str, str] = {name: _NO_FILE for name, id in chosen.items() if id is None}
    sizes = {name: size_of(repo, id) for name, id in chosen.items() if id is not None}
    left = sum(sizes.values())
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if sizes[name] <= (MAX_FILE if left <= MAX_FILES else MAX_MANIFEST):
            break
        found[name] = Localizable(
            "has {size}, which no manifest has: it is passed over", size=about_size(sizes[name])
        )
        left -= sizes[name]
    if left > MAX_FILES:
        raise Stalled(Reason.FILE_TOO_LARGE, _TOO_MUCH)
    return found


def _file(name: str, content: bytes) -> SourceFile:
    """A pointer of Git LFS to something that is too large to be ours is passed over."""
    size = _LFS_SIZE.search(content) if is_lfs_pointer(content) else None
    if size is None or int(size[1]) <= MAX_MANIFEST:
        return SourceFile(name, content)
    why = Localizable(
        "is a pointer of Git LFS to {size}, which no manifest has: it is passed over",
        size=about_size(int(size[1])),
    )
    return SourceFile(name, b"", passed_over=why)


def _chosen(
    repo: pygit2.Repository, commit: str, path: str, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, pygit2.Oid | None]]:
    """Yield name and content of each file with one of the suffixes; None for a link that leads to no file."""
    base, names, root = normalised(path), _Names(repo), root_of(repo, commit).id
    links = 0
    for entry in walk(repo, folder(repo, commit, path)):
        if entry.mode is FileMode.TREE or entry.hidden or not entry.path.endswith(suffixes):
            continue
        full = posixpath.join(base, entry.path)
        if entry.mode is FileMode.COMMIT:
            continue  # a submodule with such a name
        if entry.mode is not FileMode.LINK:
            yield printable(full), entry.id
            continue
        links += 1
        if links > MAX_LINKS:
            raise Stalled(
                Reason.TREE_TOO_LARGE,
                Localizable("more than {most} of its YAML files are symbolic links", most=MAX_LINKS),
            )
        yield printable(full), _follow(names, root, full)


def template_files(repo: pygit2.Repository, commit: str) -> tuple[TemplateFile, ...]:
    """Return the description of the template at the root of a commit, and its files. Links and submodules among them
    are refused, and so is more than a template may have, before it is read. Raises Stalled `TreeInvalid`,
    `FileTooLarge`, `TreeTooLarge`."""
    found: list[TemplateFile] = []
    size = 0
    for entry in walk(repo, root_of(repo, commit)):
        is_part = entry.path == DESCRIPTION or entry.path.startswith(FILES)
        if not is_part or entry.mode is FileMode.TREE:
            continue
        shown = printable(entry.path[:200])
        if entry.mode in (FileMode.LINK, FileMode.COMMIT):
            what = (
                Localizable("a symbolic link") if entry.mode is FileMode.LINK else Localizable("a submodule")
            )
            raise Stalled(
                Reason.TREE_INVALID,
                Localizable("{shown} is {what}: templates have plain files alone", shown=shown, what=what),
            )
        content = content_of(repo, entry.id, shown, MOST_FILE)
        size += len(content)
        if len(found) > MOST_FILES or size > MOST_BYTES:
            bound = Localizable(
                "{files} files and {bytes}",
                files=MOST_FILES,
                bytes=about_size(MOST_BYTES),
            )
            raise Stalled(
                Reason.TREE_TOO_LARGE,
                Localizable("with {shown}, the template has more than {bound}", shown=shown, bound=bound),
            )
        found.append(TemplateFile(entry.path, content, entry.mode is FileMode.BLOB_EXECUTABLE))
    return tuple(found)


class _Names:
    """The entries of folders by name; each folder is read once."""

    def __init__(self, repo: pygit2.Repository) -> None:
        self.repo = repo
        self._known: dict[pygit2.Oid, dict[bytes, tuple[FileMode, pygit2.Oid]]] = {}

    def find(self, folder: pygit2.Oid, name: str) -> tuple[FileMode, pygit2.Oid] | None:
        if folder not in self._known:
            listed = subtree(self.repo, folder, "")
            self._known[folder] = {i.raw_name or b"": (FileMode(i.filemode), i.id) for i in listed}
        return self._known[folder].get(name.encode("utf-8", "surrogateescape"))


_TOO_MUCH = Localizable(
    "its YAML files have more than {most} together: point the PlatformApp's path to fewer",
    most=about_size(MAX_FILES),
)
_NO_FILE = Localizable("is a symbolic link that does not lead to a file of this commit: it is ignored")


def _follow(names: _Names, root: pygit2.Oid, path: str) -> pygit2.Oid | None:
    """Return the file that the symbolic link at `path` leads to in the same commit; None if it leads to a
    folder, a submodule, nothing or back to itself.
    """
    current = path
    for _ in range(LINK_HOPS):
        parent, found = posixpath.dirname(current), _entry_at(names, root, current)
        if found is None or found.mode in (FileMode.TREE, FileMode.COMMIT):
            return None
        if found.mode is not FileMode.LINK:
            return found.id
        if size_of(names.repo, found.id) > MAX_LINK:
            return None
        target = _link_target(names.repo, found)
        _refuse_escape(path, current, target)
        current = posixpath.normpath(posixpath.join(parent, target))
    return None


def _entry_at(names: _Names, root: pygit2.Oid, path: str) -> TreeEntry | None:
    """Return what is there, without following links in the middle of the path."""
    found: tuple[FileMode, pygit2.Oid] | None = (FileMode.TREE, root)
    for part in normalised(path).split("/"):
        if found is None or found[0] is not FileMode.TREE:
            return None
        found = names.find(found[1], part)
    return TreeEntry(path, *found) if found else None


def _refuse_escape(shown: str, link: str, target: str) -> None:
    """Raise if a link leads out of the folder; `link` is relative to it."""
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(link), target))
    if target.startswith("/") or reached == ".." or reached.startswith("../"):
        raise Stalled(
            Reason.SYMLINK_REFUSED,
            Localizable(
                "{shown} is a symbolic link that leads outside, to {target}; commit the file itself instead",
                shown=shown,
                target=target,
            ),
        )


def is_lfs_pointer(content: bytes) -> bool:
    return len(content) < LFS_MAX_SIZE and content.startswith(LFS_PREFIX)


def _lfs_refusal(paths: list[str]) -> Stalled:
    return Stalled(
        Reason.LFS_POINTER,
        Localizable(
            "Git LFS is not supported, and these files are only pointers to their content: {paths}. "
            "Commit the files themselves, or keep large ones in a data box",
            paths=listed(paths),
        ),
    )


# --- build context ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BuildTree:
    """What a build sees of a folder, sorted by path, without the `.dockerignore` at its root. `dockerfile`
    and `dockerignore` are the ids of these files; the build does not see the second one if it is None.
    """

    entries: tuple[TreeEntry, ...]
    dockerfile: pygit2.Oid
    dockerignore: pygit2.Oid | None

    @property
    def digest(self) -> str:
        """A digest of all that a build can distinguish. Submodules are not part of it."""
        parts = [f"{entry.mode:o} {entry.id} {entry.path}" for entry in self.entries]
        parts += [str(self.dockerfile), str(self.dockerignore)]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def build_context(repo: pygit2.Repository, root: pygit2.Tree, dockerfile: str) -> BuildTree:
    """Return the context, unchecked. Raises Stalled `BuildFailed` if the Dockerfile does not exist."""

    def read(path: str) -> bytes | None:
        found = _blob(repo, root, path)
        return content_of(repo, found, path, MAX_RULES) if found else None

    found = _blob(repo, root, dockerfile)
    if found is None:
        raise Stalled(
            Reason.BUILD_FAILED,
            Localizable("there is no file {dockerfile} in the build context", dockerfile=dockerfile),
        )
    rules = dockerignore.rules_for(read, dockerfile)
    hidden = {dockerignore.NAME, *(name for name in (dockerfile,) if rules.leaves_out(name))}
    shown = None if rules.leaves_out(dockerignore.NAME) else _blob(repo, root, dockerignore.NAME)
    entries = (
        entry
        for entry in walk(repo, root, rules.sparing(dockerignore.NAME, dockerfile))
        if entry.path not in hidden and entry.mode is not FileMode.COMMIT
    )
    ordered = tuple(sorted(entries, key=lambda entry: entry.path))
    return BuildTree(ordered, found, shown)


def _blob(repo: pygit2.Repository, root: pygit2.Tree, path: str) -> pygit2.Oid | None:
    """Return the file at `path`, with links followed within `root`; None if there is none."""
    current = path
    for _ in range(LINK_HOPS):
        try:
            found = root[current]
        except KeyError:
            # Also raised if an object is missing.
            if _is_entry(root, current):
                raise
            return None
        if found.filemode != FileMode.LINK:
            return found.id if isinstance(found, pygit2.Blob) else None
        target = _link_target(repo, TreeEntry(current, FileMode.LINK, found.id))
        _refuse_escape(path, current, target)
        current = posixpath.normpath(posixpath.join(posixpath.dirname(current), target))
    raise Stalled(Reason.SYMLINK_REFUSED, Localizable("{path}: too many symbolic links in a row", path=path))


def check_sendable(repo: pygit2.Repository, context: BuildTree, bounds: TreeLimits) -> None:
    """Raise Stalled `LfsPointer`, `SymlinkRefused` or `ContextTooLarge` with the names of what a build cannot
    use. Everything that can be refused is refused here, not in the middle of the stream.
    """
    _check_sizes(repo, context, bounds)
    pointers = [entry.path for entry in context.entries if _is_pointer_blob(repo, entry)]
    if pointers:
        raise _lfs_refusal(pointers)
    for entry in context.entries:
        if entry.mode is FileMode.LINK:
            _refuse_escape(entry.path, entry.path, _link_target(repo, entry))


def _check_sizes(repo: pygit2.Repository, context: BuildTree, bounds: TreeLimits) -> None:
    left = bounds.context
    for entry in context.entries:
        if entry.mode in (FileMode.TREE, FileMode.LINK):
            continue
        size = size_of(repo, entry.id)
        left -= size
        if size > bounds.file:
            limit = Localizable(
                "{path} has {size}, the limit for one file is {most}",
                path=entry.path,
                size=about_size(size),
                most=about_size(bounds.file),
            )
            raise Stalled(
                Reason.CONTEXT_TOO_LARGE,
                Localizable("{limit} (`git.maxFile`); put large files into a data box", limit=limit),
            )
        if left < 0:
            limit = Localizable(
                "the files of the build context have more than {most} together",
                most=about_size(bounds.context),
            )
            raise Stalled(
                Reason.CONTEXT_TOO_LARGE,
                Localizable("{limit} (`git.maxContext`); exclude some with a .dockerignore", limit=limit),
            )


def _is_pointer_blob(repo: pygit2.Repository, entry: TreeEntry) -> bool:
    """Check whether it is a pointer, by its size first: reading every blob of a large context twice would
    cost as much as the build.
    """
    if entry.mode not in (FileMode.BLOB, FileMode.BLOB_EXECUTABLE):
        return False
    _, size = repo.odb.read_header(entry.id)
    return size < LFS_MAX_SIZE and is_lfs_pointer(repo[entry.id].peel(pygit2.Blob).data)


def _link_target(repo: pygit2.Repository, entry: TreeEntry) -> str:
    target = content_of(repo, entry.id, Localizable("the symbolic link {path}", path=entry.path), MAX_LINK)
    return target.decode("utf-8", "surrogateescape")


def tar(repo: pygit2.Repository, entries: Iterable[TreeEntry]) -> Iterator[bytes]:
    """Yield a tar (POSIX pax) of what a build sees."""
    for entry in entries:
        info, data = _member(repo, entry)
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if data:
            yield data
            yield bytes(-len(data) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(repo: pygit2.Repository, entry: TreeEntry) -> tuple[tarfile.TarInfo, bytes]:
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
