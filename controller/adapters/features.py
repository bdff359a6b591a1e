"""Features of libraries and programs on this machine. Used only by `prichal doctor`."""

from __future__ import annotations

import shutil
import subprocess

import pygit2
from pygit2.enums import Feature


def git_library() -> tuple[str, tuple[str, ...]]:
    """Return the version of libgit2, and which of `https` and `ssh` it was built without."""
    features = pygit2.features
    missing = [name for name, flag in (("https", Feature.HTTPS), ("ssh", Feature.SSH)) if not features & flag]
    return pygit2.LIBGIT2_VERSION, tuple(missing)


def program(name: str, *arguments: str) -> str | None:
    """Return the first line that a program prints about itself; None if it is not installed."""
    if shutil.which(name) is None:
        return None
    done = subprocess.run([name, *arguments], capture_output=True, text=True, timeout=10, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]
