"""Files and folders as a whole: copied without taking space, and removed. Used by the runner and by the cache of
models."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def link_tree(source: Path, target: Path) -> None:
    """Copy `source`, a file or a folder, to `target`, by hard links where the disk allows them."""
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
    """Remove a file or folder, and return whether nothing is left of it. Only `rm` can remove very deeply
    nested folders.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except (OSError, RecursionError):
        subprocess.run(["rm", "-rf", "--", str(path)], check=False, capture_output=True)  # noqa: S607 - chosen by PATH on purpose
    return not os.path.lexists(path)
