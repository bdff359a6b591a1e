"""Bare repositories hosted here, for people who push straight to this machine: `prichal repo create NAME`.

Each has a post-receive hook that tells the platform of a push and shows the pusher what comes of it (post_receive.py).
Called by the command line only; the daemon reads these repositories like any other.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pygit2
from pygit2.enums import RepositoryInitFlag, RepositoryInitMode

from controller.adapters import post_receive
from controller.domain.errors import Stalled
from controller.domain.names import is_dns_label
from controller.domain.secret import Secret

HOOK = """\
#!/bin/sh
# Written by `prichal repo create`, which may be run again to renew it.
if [ -x {python} ] && [ -r {script} ]; then
    exec {python} -I -S {script} "$PWD"
fi
echo "prichal: the platform's program is not where it was. Your commit was received and will be picked up by" \\
    "polling. Mend the hook with: prichal repo create" >&2
"""

SETTINGS = {
    "receive.fsckObjects": True,  # what Git itself never makes is refused at the door
    "receive.denyNonFastForwards": False,  # a force push is how a commit is taken back
    "receive.autogc": True,
}


def create(hosted: Path, name: str, hook_url: str, secret: Secret, group: str | None = None) -> Path:
    """Make `<hosted>/<name>.git`, or renew the hook of the one that is there; its path.

    `hook_url` is where the web process listens, e.g. http://127.0.0.1:8000; `secret` the one of the Repository's
    generic webhook. With `group`, its members may push, else the owner alone. Stalled `NameInvalid`, `HostingFailed`.
    """
    if not is_dns_label(name):
        raise Stalled(
            "NameInvalid", f"{name!r} cannot be a repository's name: use a-z, 0-9 and hyphens, at most 63"
        )
    path = hosted / f"{name}.git"
    try:
        _initialise(path, group)
        _write(path / "hooks" / "post-receive", _hook(), 0o755)
        _write(path / post_receive.CONFIG, _config(name, hook_url, secret), 0o640)
        if group is not None:
            _hand_over(path, group)
    except (OSError, LookupError, pygit2.GitError) as error:
        raise Stalled("HostingFailed", f"the repository {path} cannot be made: {error}") from error
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
    """By a rename: a push that comes meanwhile sees the old file or the new one, nobody a secret half written."""
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    draft.chmod(mode)
    draft.replace(path)


def _hand_over(path: Path, group: str) -> None:
    """Folders pass their group on to what is made in them."""
    for item in _everything(path):
        shutil.chown(item, group=group)
        if item.is_dir():
            item.chmod(0o2770)


def _everything(path: Path) -> Iterator[Path]:
    yield path
    yield from path.rglob("*")
