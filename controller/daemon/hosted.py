"""Repositories hosted on this machine, as `prichal repo` lists and creates them. Their hook belongs to
`controller.adapters.hosted`; here it gets the settings.
"""

from __future__ import annotations

import grp
import json
import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller.adapters import hosted, post_receive
from controller.config import Settings
from controller.domain.secret import Secret
from controller.file_trees import remove_tree


@dataclass(frozen=True)
class Hosted:
    name: str
    path: Path


def repositories(settings: Settings) -> tuple[Hosted, ...]:
    """Return the hosted repositories, sorted by name."""
    found = sorted(settings.repositories.glob("*.git")) if settings.repositories.is_dir() else []
    return tuple(Hosted(path.name.removesuffix(".git"), path) for path in found)


def create(settings: Settings, name: str, group: str | None = None) -> tuple[Hosted, Secret]:
    """Create the repository, or renew its hook. Returns it with the secret that its hook signs with, which
    stays the same.

    Members of `group` may push; by default it is the group of the folder of repositories.
    """
    settings.repositories.mkdir(parents=True, exist_ok=True)
    secret = hook_secret(settings, name) or Secret(secrets.token_urlsafe(32))
    group = group or grp.getgrgid(settings.repositories.stat().st_gid).gr_name
    path = hosted.create(settings.repositories, name, settings.web.local_url, secret, group)
    return Hosted(name, path), secret


def planned(settings: Settings, name: str, group: str | None = None) -> tuple[Hosted, Secret]:
    """Return what `create` would, and change nothing. Raises Stalled as it does for what is known before."""
    hosted.require_creatable(name, group)
    path = settings.repositories / f"{name}.git"
    return Hosted(name, path), hook_secret(settings, name) or Secret(secrets.token_urlsafe(32))


def hook_secret(settings: Settings, name: str) -> Secret | None:
    """Return the secret that the hook of repository `name` signs with; None if there is no such repository."""
    try:
        content = json.loads((settings.repositories / f"{name}.git" / post_receive.CONFIG).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return Secret(content["secret"])


def local_url(settings: Settings) -> str:
    """Return the URL of the web process on this host."""
    return settings.web.local_url


#: Repositories of deleted apps stay here for some time, for an admin to put back.
DELETED = "deleted"
KEEP_DELETED = 30 * 86400.0  # seconds


def create_filled(settings: Settings, name: str, first: hosted.FirstCommit) -> tuple[Hosted, Secret]:
    """Create the repository with its first commit, or find the one that this call has created before. Raises as
    `controller.adapters.hosted.create_filled`."""
    settings.repositories.mkdir(parents=True, exist_ok=True)
    group = grp.getgrgid(settings.repositories.stat().st_gid).gr_name
    secret = Secret(secrets.token_urlsafe(32))
    path = hosted.create_filled(settings.repositories, name, local_url(settings), secret, group, first)
    return Hosted(name, path), hook_secret(settings, name) or secret


def is_marked(settings: Settings, name: str, mark: str) -> bool:
    """Return whether a repository was created under this mark."""
    return hosted.mark_of(settings.repositories / f"{name}.git") == mark


def set_aside(settings: Settings, name: str, mark: str) -> None:
    """Move a repository away from where it is pushed to; one that is not there any more is fine. Raises OSError."""
    folder = settings.repositories / DELETED
    folder.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileNotFoundError):
        os.rename(settings.repositories / f"{name}.git", folder / f"{name}.{mark}.git")
        os.utime(folder / f"{name}.{mark}.git")


def remove_old(settings: Settings, now: float, making: Collection[str] = ()) -> None:
    """Remove repositories that were set aside long ago, and drafts but for those of apps that are being made."""
    for path in (settings.repositories / DELETED).glob("*.git"):
        if path.stat().st_mtime < now - KEEP_DELETED:
            remove_tree(path)
    for path in settings.repositories.glob(f"{hosted.DRAFT}*"):
        if path.name.removeprefix(hosted.DRAFT).removesuffix(".git") not in making:
            remove_tree(path)


def undo(settings: Settings, name: str, mark: str) -> None:
    """Remove a repository that `create_filled` has made under this mark, and its draft."""
    path = settings.repositories / f"{name}.git"
    if is_marked(settings, name, mark):
        draft = settings.repositories / f"{hosted.DRAFT}{name}.git"
        remove_tree(draft)
        os.rename(path, draft)  # at once, whatever the removal does
    remove_tree(settings.repositories / f"{hosted.DRAFT}{name}.git")
