"""Access to files below a folder of ours by names that others may have chosen. Each step goes from the
descriptor of the folder above and follows no link, so that nothing outside is opened, created, changed or
mounted, whatever the names are and whatever changes the folders meanwhile. Used wherever a path of a run is
composed of names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason

Place = tuple[str, ...]  # names, from a folder of ours down

_FOLDER = os.O_PATH | os.O_DIRECTORY


def part(name: str) -> str:
    """Return the name if it can be one step down. Raises Stalled `PathRefused`."""
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name.encode(errors="replace")) > 255:
        raise Stalled(Reason.PATH_REFUSED, f"{name[:80]!r} cannot be the name of a file or a folder")
    return name


def open_below(root: Path, place: Place, flags: int, mode: int = 0o600) -> int:
    """Return a descriptor. Links are followed only on the way to `root`, which is ours. Raises OSError if
    anything below it is a link or is missing, and Stalled `PathRefused`.
    """
    descriptor = os.open(root, (_FOLDER if place else flags) | os.O_CLOEXEC)
    for number, name in enumerate(place, 1):
        how, perhaps = (flags, mode) if number == len(place) else (_FOLDER, 0)
        try:
            inner = os.open(part(name), how | os.O_NOFOLLOW | os.O_CLOEXEC, perhaps, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


@contextmanager
def opened(root: Path, place: Place, flags: int = os.O_PATH, mode: int = 0o600) -> Iterator[int]:
    descriptor = open_below(root, place, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(root: Path, place: Place, mode: int | None = None) -> None:
    """Create the folder at `place` and missing ones above it. If a `mode` is given, the folder gets it,
    whatever the umask. Raises OSError as `open_below`.
    """
    for depth, name in enumerate(place):
        # If something other than a folder exists here, the next step finds out.
        with opened(root, place[:depth], _FOLDER) as above, suppress(FileExistsError):
            os.mkdir(part(name), dir_fd=above)
    with opened(root, place, _FOLDER) as folder:
        if mode is not None:
            change_mode(folder, mode)


def change_mode(descriptor: int, mode: int) -> None:
    """Change a mode. The descriptor may be one of O_PATH, the only way to open a file without rights."""
    os.chmod(f"/proc/self/fd/{descriptor}", mode)


def require_below(root: Path, path: Path) -> Path:
    """Return the path if it is a file or a folder below `root` with no link on the way. Raises Stalled
    `PathRefused`.
    """
    try:
        place = path.relative_to(root).parts
        with opened(root, place) as descriptor:
            mode = os.fstat(descriptor).st_mode
    except (ValueError, OSError) as error:
        raise _refused(path, root) from error
    if not place or not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise _refused(path, root)
    return path


def _refused(path: Path, root: Path) -> Stalled:
    return Stalled(Reason.PATH_REFUSED, f"{path.name[:80]!r} is not a file or folder below {root}")
