"""The folders of a run on this host, and who can access them.

    <state>/runs/<run>/in/<variable>               a file or a folder, there completely or not at all
                      /<stage>.<attempt>/out/<variable>/
                      /<stage>.<attempt>/progress/progress
                      /<stage>.<attempt>.log

Images run their commands under any user. So every user can read what is mounted and write where commands have
to write; but only the daemon can access the folders around them, which keeps out all other users of the host,
and those of its group, too: nobody can start a file with a set-id bit that a container has created. The group
can read only logs. What containers wrote is not trusted: links, pipes and devices are never followed or
opened.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from controller.domain.volumes import StagingArea, Volume
from controller.safe_paths import Place, make_folder, opened, part

_PROGRESS = re.compile(rb"\s*(\d{1,12})\s*/\s*(\d{1,12})\s*")


class RunFolders:
    """The folders of one run. Names may have been chosen by others: each is one step down, and no link is
    followed on the way (`safe_paths`). Raises Stalled `PathRefused`.
    """

    def __init__(self, root: Path, run: str) -> None:
        self._base = root
        self._run = part(run)
        self.root = root / self._run

    def input(self, variable: str) -> Path:
        return self.root / "in" / part(variable)

    def draft(self, variable: str) -> Path:
        """Return where an input is until it is complete. No variable's name begins with a dot."""
        return self.root / "in" / part(f".{part(variable)}")

    def attempt(self, stage: str, number: int) -> Path:
        return self.root / part(f"{part(stage)}.{number}")

    def output(self, stage: str, number: int, variable: str) -> Path:
        return self.attempt(stage, number) / "out" / part(variable)

    def progress(self, stage: str, number: int) -> Path:
        """Return the folder in which a stage writes the file `progress`."""
        return self.attempt(stage, number) / "progress"

    def log(self, stage: str, number: int) -> Path:
        return self.root / part(f"{part(stage)}.{number}.log")

    def prepare(self) -> None:
        """Create the folders. Raises OSError if there is anything but folders of ours."""
        make_folder(self._base, (self._run,), 0o750)
        make_folder(self._base, (self._run, "in"), 0o700)

    def prepare_attempt(self, stage: str, number: int, outputs: Iterable[str]) -> None:
        folders = [
            self.output(stage, number, name) for name in outputs
        ]  # all names are checked before anything is created
        make_folder(self._base, self._place(self.attempt(stage, number)), 0o700)
        for folder in (*folders, self.progress(stage, number)):
            make_folder(self._base, self._place(folder), 0o777)

    def volume(self, path: Path) -> Volume:
        """Return the volume of a file or folder of this run."""
        return Volume(StagingArea.RUNS, self._place(path))

    def read_progress(self, stage: str, number: int) -> str:
        """Return `N/M` as the stage wrote it, or "" if it did not."""
        try:
            place = (*self._place(self.progress(stage, number)), "progress")
            content = _read_regular(self._base, place, 64)
        except OSError:
            return ""
        found = _PROGRESS.fullmatch(content)
        return f"{int(found[1])}/{int(found[2])}" if found else ""

    def _place(self, path: Path) -> Place:
        return path.relative_to(self._base).parts


def _read_regular(root: Path, place: Place, most: int) -> bytes:
    """Return the beginning of a regular file. Raises OSError for anything else."""
    with opened(root, place, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{place[-1]} is not a regular file")
        return os.read(descriptor, most)
