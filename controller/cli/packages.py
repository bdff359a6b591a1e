"""What a command says where the packages that it needs are not installed: `pip install prichal` brings those of the
commands for a platform elsewhere, the extras `local` and `server` the others."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason

#: Packages of the extra `local`, by the names under which they are imported; all others belong to `server`.
LOCAL: Final = frozenset(("cronsim", "docker", "h2", "minio", "pygit2", "re2", "requests"))
#: Modules of Python itself that not every system has.
UNIX: Final = frozenset(("fcntl", "grp", "pwd", "resource", "termios"))


def import_unix() -> None:
    """Fail on a system on which no package would help, before one is found to be missing."""
    for name in sorted(UNIX):
        import_module(name)


def missing_package(error: ModuleNotFoundError) -> Stalled | None:
    """Return what to tell about a failed import; None if the module is one of ours, which is a bug."""
    root = (error.name or "").partition(".")[0]
    if root in ("", "controller"):
        return None
    if root in UNIX:
        text = f"this command does not run on {sys.platform}: run it on Linux (on Windows, in WSL)"
        return Stalled(Reason.SYSTEM_UNSUPPORTED, text)
    extra = "local" if root in LOCAL else "server"
    text = f"this command needs the package {root}, which is not installed: pip install 'prichal[{extra}]'"
    return Stalled(Reason.PACKAGES_MISSING, text)
