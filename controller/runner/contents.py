"""The content of the folder of an output, which is not trusted: it is validated, and opened for the next
stages.

A folder that a container has written may contain anything. Links are read as the container reads them, where
the folder is at its mount path, and stand for copies of their targets; nothing is followed out of the folder.
Files are opened from folder to folder by descriptor, without following links, so changes between a check and
the opening do no harm.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable, joined
from controller.domain.reasons import Reason
from controller.domain.runs.file_index import OURS
from controller.safe_paths import Place, change_mode, open_below, opened

_MOST_LINKS = 40  # in one path, as in the kernel
#: Limits on links to folders and on what is reached through them: a few links to folders of links could stand
#: for more copies than can be read.
_MOST_FOLDERS = 10_000
_MOST_COPIES = 100_000

_SET_ID = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_LONGEST = 4096  # bytes of a path that commands can name

_TOO_MANY = Localizable(
    "exceeds a limit: links to folders stand for over {most_copies} copies, or there are over {most_folders}",
    most_copies=_MOST_COPIES,
    most_folders=_MOST_FOLDERS,
)


@dataclass(frozen=True)
class OutputFile:
    """One file. `name` is relative to the variable's folder; `place` is where its content is."""

    name: str
    place: Place
    size: int  # bytes


@dataclass(frozen=True)
class _FolderEntry:
    name: str
    mode: int
    size: int


@dataclass(frozen=True)
class _Folder:
    """`via` has the folders whose links have led here, and which are still being read."""

    name: Place
    place: Place
    via: tuple[Place, ...] = ()


@dataclass(frozen=True)
class OutputContents:
    """The content of the folder of one output. `mount` is its path in the container."""

    folder: Path
    mount: str

    def files(self) -> Iterator[OutputFile]:
        """Yield the files in a fixed order. Raises Stalled `OutputInvalid` for what cannot be published."""
        pending, folders, copies = [_Folder((), ())], 0, 0
        while pending:
            here = pending.pop()
            for entry in self._entries(here):
                name, place, via = (*here.name, entry.name), (*here.place, entry.name), here.via
                mode, size = entry.mode, entry.size
                if stat.S_ISLNK(mode):
                    place, mode, size = self._followed(place, name)
                    via = (*via, here.place)
                copies += bool(here.via)
                folders += via != here.via and stat.S_ISDIR(mode)
                if copies > _MOST_COPIES or folders > _MOST_FOLDERS:
                    raise _refused(name, _TOO_MANY)
                if stat.S_ISDIR(mode):
                    if any(place == above[: len(place)] for above in via):
                        raise _refused(name, Localizable("is a link to a folder that contains it"))
                    pending.append(_Folder(name, place, via))
                elif not stat.S_ISREG(mode):
                    raise _refused(
                        name, Localizable("is neither a file nor a folder, but a pipe, a socket or a device")
                    )
                elif len(name) > 1 or entry.name not in OURS:
                    yield OutputFile("/".join(name), place, size)

    def mode_of(self, name: str) -> int:
        """Return the mode of the file at this name, with links followed; 0 if there is none."""
        with suppress(Stalled, OSError):
            return self._walk(deque(name.split("/")), self._mount, tuple(name.split("/")))[1]
        return 0

    def open(self, place: Place) -> int:
        """Return a descriptor for reading. Raises OSError if anything on the way is a link or is gone."""
        return open_below(self.folder, place, os.O_RDONLY | os.O_NONBLOCK)

    def _entries(self, here: _Folder) -> list[_FolderEntry]:
        try:
            with (
                opened(self.folder, here.place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as descriptor,
                os.scandir(descriptor) as found,
            ):
                entries = [_entry(each.name, each.stat(follow_symlinks=False)) for each in found]
        except OSError as error:
            place = "/".join(here.name)[:200] or self.folder.name
            raise Stalled(
                Reason.OUTPUT_INVALID,
                Localizable(
                    "cannot read the folder {place!r}: {strerror}", place=place, strerror=error.strerror
                ),
            ) from error
        return sorted(entries, key=lambda entry: entry.name)

    # --- links -------------------------------------------------------------------------------------------------

    @property
    def _mount(self) -> Place:
        return tuple(part for part in self.mount.split("/") if part)

    def _followed(self, link: Place, name: Place) -> tuple[Place, int, int]:
        """Return the place, mode and size of a link's target. Raises Stalled `OutputInvalid` with the `name`
        of the link.
        """
        return self._walk(deque(link[-1:]), (*self._mount, *link[:-1]), name)

    def _walk(self, todo: deque[str], here: Place, name: Place) -> tuple[Place, int, int]:
        """Walk along the names `todo` from the container's folder `here`; the host follows no links."""
        mount, links = self._mount, 0
        while todo:
            part = todo.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                here = here[:-1]
                continue
            here = (*here, part)
            if here == mount[: len(here)]:  # above the output, on the way into it
                continue
            if here[: len(mount)] != mount:
                raise _leaves(name, self.mount)
            try:
                found = os.lstat(self.folder.joinpath(*here[len(mount) :]))
                if stat.S_ISLNK(found.st_mode):
                    links += 1
                    target = os.readlink(self.folder.joinpath(*here[len(mount) :]))
                    todo.extendleft(reversed(target.split("/")))
                    here = () if target.startswith("/") else here[:-1]
                elif todo and not stat.S_ISDIR(found.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            except OSError as error:
                raise _refused(
                    name, Localizable("is a link that leads to nothing: {strerror}", strerror=error.strerror)
                ) from error
            if links > _MOST_LINKS:
                raise _refused(name, Localizable("is a link that leads back to itself"))
        if here[: len(mount)] != mount:
            raise _leaves(name, self.mount)
        place = here[len(mount) :]
        found = os.lstat(self.folder.joinpath(*place))
        return place, found.st_mode, found.st_size


def _entry(name: str, found: os.stat_result) -> _FolderEntry:
    return _FolderEntry(name, found.st_mode, found.st_size)


def _refused(name: Place, why: str) -> Stalled:
    return Stalled(Reason.OUTPUT_INVALID, joined((repr("/".join(name)), why), " "))


def _leaves(name: Place, mount: str) -> Stalled:
    why = Localizable(
        "is a link that leads out of the output: only files below {mount} in the container can be published",
        mount=mount,
    )
    return _refused(name, why)


# --- for the stages that follow ---------------------------------------------------------------------------------


def open_up(folder: Path) -> None:
    """Make a stage's output readable for all users, since the next stage may run as another one. Set-id bits
    are removed, and devices are closed. Raises Stalled `OutputMissing` if there is no file, `OutputInvalid`
    for what cannot be read.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise Stalled(
            Reason.OUTPUT_MISSING, Localizable("the output {folder!r} is not a folder", folder=folder.name)
        )
    if not sum(not stat.S_ISDIR(mode) for mode in _opened_up(folder)):
        raise Stalled(
            Reason.OUTPUT_MISSING,
            Localizable(
                "the stage has written no files to its output {folder!r}; its path is in the environment",
                folder=folder.name,
            ),
        )


def _opened_up(folder: Path) -> Iterator[int]:
    """Yield the modes of all files, links and folders at any depth, with the entries of one folder in memory
    at a time. All users can read them afterwards.
    """
    pending: list[Place] = [()]
    while pending:
        here = pending.pop()
        for name, mode in _entries_opened_up(folder, here):
            if stat.S_ISDIR(mode):
                pending.append((*here, name))
            yield mode


def _entries_opened_up(root: Path, here: Place) -> list[tuple[str, int]]:
    """Open up the entries of one folder, by descriptor, so that nothing else is changed even if they are
    replaced.
    """
    path = root.joinpath(*here)
    try:
        if len(os.fsencode(path)) >= _LONGEST:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        with opened(root, here, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW) as folder:
            _allow(folder, 0o555)
            with _read_through(folder) as readable, os.scandir(readable) as found:
                entries = [(each.name, each.stat(follow_symlinks=False).st_mode) for each in found]
            for name, mode in entries:
                path = root.joinpath(*here, name)
                if stat.S_ISREG(mode) and mode & (_SET_ID | 0o444) != 0o444:
                    _allow_file(folder, name)
                elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                    _close_device(folder, name)
    except OSError as error:
        raise Stalled(
            Reason.OUTPUT_INVALID, Localizable("cannot read {closed}", closed=_closed(path, error))
        ) from error
    return sorted(
        entry
        for entry in entries
        if stat.S_ISDIR(entry[1]) or stat.S_ISREG(entry[1]) or stat.S_ISLNK(entry[1])
    )


@contextmanager
def _read_through(folder: int) -> Iterator[int]:
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _allow_file(folder: int, name: str) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            _allow(descriptor, 0o444)
    finally:
        os.close(descriptor)


def _close_device(folder: int, name: str) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            change_mode(descriptor, 0)
    finally:
        os.close(descriptor)


def _closed(place: Path, error: OSError) -> str:
    """Return what cannot be read, and why, as far as it is known."""
    with suppress(OSError):
        found = place.lstat()
        if isinstance(error, PermissionError):
            mode = stat.S_IMODE(found.st_mode)
            return Localizable(
                "{place}: it belongs to user {st_uid} and is closed ({mode})",
                place=str(place)[-200:],
                st_uid=found.st_uid,
                mode=format(mode, "04o"),
            )
    return f"{str(place)[-200:]}: {error.strerror}"


def _allow(descriptor: int, wanted: int) -> None:
    mode = os.fstat(descriptor).st_mode
    unwanted = _SET_ID if stat.S_ISREG(mode) else 0  # a folder's bit only decides the group of its files
    if mode & (wanted | unwanted) != wanted:
        change_mode(descriptor, (stat.S_IMODE(mode) | wanted) & ~unwanted)
