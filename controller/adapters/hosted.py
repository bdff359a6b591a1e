"""Bare repositories hosted here, for people who push directly to this machine: `prichal repo create NAME`.

Each has a post-receive hook that reports pushes to the platform and shows the result to the person who pushed
(post_receive.py). Called only by the command line; the daemon reads these repositories like any other.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pygit2
from pygit2.enums import RepositoryInitFlag, RepositoryInitMode

from controller.adapters import post_receive
from controller.atomic import replace_file
from controller.domain.errors import Stalled
from controller.domain.names import is_dns_label
from controller.domain.reasons import Reason
from controller.domain.secret import Secret

HOOK = """\
#!/bin/sh
# Written by `prichal repo create`. Run it again to renew this hook.
if [ -x {python} ] && [ -r {script} ]; then
    exec {python} -I -S {script} "$PWD"
fi
echo "prichal: the platform's program has moved. Your commit was received and will be picked up by" \\
    "polling. Renew the hook with: prichal repo create" >&2
"""

SETTINGS: dict[str, bool | str] = {
    # History from other servers is pushed here, too: git-fsck refuses some old and odd commits in any case.
    # Dangerous entries are refused when a commit is read, wherever it comes from.
    "receive.fsckObjects": False,
    "receive.denyNonFastForwards": False,  # a force push is the way to withdraw a commit
    "receive.autogc": True,
}


def create(hosted: Path, name: str, hook_url: str, secret: Secret, group: str | None = None) -> Path:
    """Create `<hosted>/<name>.git`, or renew the hook of an existing one, and return its path.

    `hook_url` is the address of the web process, e.g. http://127.0.0.1:8000; `secret` is that of the
    Repository's generic webhook. Members of `group` may push; without one, only the owner may. Raises Stalled
    `NameInvalid`, `HostingFailed`.
    """
    if not is_dns_label(name):
        raise Stalled(
            Reason.NAME_INVALID,
            f"{name!r} is not a valid repository name: use at most 63 of a-z, 0-9 and hyphens",
        )
    path = hosted / f"{name}.git"
    try:
        _initialise(path, group)
        _write(path / "hooks" / "post-receive", _hook(), 0o755)
        _write(path / post_receive.CONFIG, _config(name, hook_url, secret), 0o640)
        if group is not None:
            _hand_over(path, group)
    except (OSError, LookupError, pygit2.GitError) as error:
        raise Stalled(Reason.HOSTING_FAILED, f"cannot create the repository {path}: {error}") from error
    return path


def _initialise(path: Path, group: str | None) -> None:
    mode = RepositoryInitMode.SHARED_GROUP if group is not None else 0o700
    flags = RepositoryInitFlag.BARE | RepositoryInitFlag.MKPATH
    repository = pygit2.init_repository(str(path), bare=True, flags=flags, mode=mode, initial_head="main")
    for key, value in SETTINGS.items():
        repository.config[key] = value
    if group is not None:
        repository.config["core.sharedRepository"] = "group"


def _hook() -> str:
    python, script = (
        shlex.quote(str(path)) for path in (sys.executable, Path(post_receive.__file__).resolve())
    )
    return HOOK.format(python=python, script=script)


def _config(name: str, hook_url: str, secret: Secret) -> str:
    return json.dumps({"name": name, "url": hook_url.rstrip("/"), "secret": secret.reveal()}, indent=2) + "\n"


def _write(path: Path, content: str, mode: int) -> None:
    """Write a file by a rename: a concurrent push sees the old or the new file, and no process sees half a
    secret.
    """
    path.parent.mkdir(exist_ok=True)
    replace_file(path, content, mode)


def _hand_over(path: Path, group: str) -> None:
    """Set the group of all files. Folders pass it on to new files."""
    for item in _everything(path):
        shutil.chown(item, group=group)
        if item.is_dir():
            item.chmod(0o2770)


def _everything(path: Path) -> Iterator[Path]:
    yield path
    yield from path.rglob("*")
