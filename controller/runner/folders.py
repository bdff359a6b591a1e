"""Where the files of a run lie on this host, and who may reach them.

    <state>/runs/<run>/in/<variable>               a file or a folder, there completely or not at all
                      /<stage>.<attempt>/out/<variable>/
                      /<stage>.<attempt>/progress/progress
                      /<stage>.<attempt>.log

Images run their commands under any user. So what is mounted is readable, and where they are to write writable, for
everybody; the folder of the run itself is closed, which keeps other users of the host out. What containers wrote is not
to be trusted: links, pipes and devices are never followed or opened.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

_PROGRESS = re.compile(rb"\s*(\d{1,12})\s*/\s*(\d{1,12})\s*")


class Folders:
    """Of one run."""

    def __init__(self, root: Path, run: str) -> None:
        self.root = root / run

    def input(self, variable: str) -> Path:
        return self.root / "in" / variable

    def draft(self, variable: str) -> Path:
        """Where an input lies until it is complete. No variable's name begins with a dot."""
        return self.root / "in" / f".{variable}"

    def attempt(self, stage: str, number: int) -> Path:
        return self.root / f"{stage}.{number}"

    def output(self, stage: str, number: int, variable: str) -> Path:
        return self.attempt(stage, number) / "out" / variable

    def progress(self, stage: str, number: int) -> Path:
        """The folder in which a stage writes the file `progress`."""
        return self.attempt(stage, number) / "progress"

    def log(self, stage: str, number: int) -> Path:
        return self.root / f"{stage}.{number}.log"

    def prepare(self) -> None:
        self.root.mkdir(mode=0o750, exist_ok=True)
        (self.root / "in").mkdir(exist_ok=True)

    def prepare_attempt(self, stage: str, number: int, outputs: Iterable[str]) -> None:
        folders = [self.output(stage, number, name) for name in outputs]
        for folder in (*folders, self.progress(stage, number)):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)

    def read_progress(self, stage: str, number: int) -> str:
        """`N/M` as the stage wrote it, "" if it did not."""
        try:
            content = _read_regular(self.progress(stage, number) / "progress", 64)
        except OSError:
            return ""
        found = _PROGRESS.fullmatch(content)
        return f"{int(found[1])}/{int(found[2])}" if found else ""


def _read_regular(path: Path, most: int) -> bytes:
    """OSError for anything but a file that lies right there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no file")
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def link_tree(source: Path, target: Path) -> None:
    """`target` becomes `source`, a file or a folder, without its bytes being copied where the disk allows."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=_link)
    else:
        _link(source, target)


def _link(source: str | Path, target: str | Path, **_: object) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or too many links
        shutil.copy2(source, target, follow_symlinks=False)


def remove_tree(path: Path) -> bool:
    """Whether nothing is left of it. A stage can nest folders so deep that only `rm` gets at them."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except (OSError, RecursionError):
        subprocess.run(["rm", "-rf", "--", str(path)], check=False, capture_output=True)
    return not os.path.lexists(path)
