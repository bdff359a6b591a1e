"""Checks of folders of the state: who may read and write them."""

from __future__ import annotations

import grp
import pwd
import stat
from pathlib import Path

from controller.config import Settings
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable
from controller.store.keys import keys_folder


def check_private(settings: Settings) -> str:
    if not settings.private.exists():
        return Localizable("{private} will be created at the first start", private=settings.private)
    found = settings.private.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Finding(
            Localizable(
                "other users can access {private} ({mode})",
                private=settings.private,
                mode=stat.filemode(found.st_mode),
            ),
            f"chmod 0700 {settings.private}",
        )
    return Localizable(
        "only {user} can access {private}", user=user_name(found.st_uid), private=settings.private
    )


def check_database_folder(settings: Settings) -> str:
    folder = settings.database.parent
    if not folder.exists():
        return Localizable("{folder} will be created at the first start", folder=folder)
    asked = folder / "asked"
    _require_no_more_rights(folder, 0o2750)
    _require_no_more_rights(asked, 0o3770)
    if asked.exists() and not asked.stat().st_mode & stat.S_ISVTX:
        raise Finding(
            Localizable("the web process may remove files of the daemon in {asked}", asked=asked),
            f"chmod 3770 {asked}",
        )
    for file in (*folder.glob("state.db*"), *asked.glob("asked.db*")):
        if file.is_file() and not file.name.endswith("-journal"):  # empty, and the daemon's alone
            _require_readable(file, folder, is_shared=file.parent == asked)
    _require_closed_keys(folder, keys_folder(settings.database))
    return Localizable(
        "the group of {folder} can read it, only the daemon can write it; both can write {asked}",
        folder=folder,
        asked=asked,
    )


def _require_no_more_rights(folder: Path, most: int) -> None:
    """Raise if a folder that is there gives more rights than it may."""
    mode = folder.stat().st_mode if folder.exists() else 0
    if stat.S_IMODE(mode) & ~most:
        raise Finding(
            Localizable(
                "more users than necessary can access {path} ({mode})", path=folder, mode=stat.filemode(mode)
            ),
            f"chmod {most:o} {folder}",
        )


def _require_readable(file: Path, folder: Path, is_shared: bool) -> None:
    """Raise if the web process, which is in the group of `folder`, cannot read a database, or cannot write one that
    is shared, or if somebody else than the daemon can write one that is not."""
    found = file.stat()
    wanted, rights = (stat.S_IWGRP, "g+rw") if is_shared else (stat.S_IRGRP, "g+r")
    if found.st_gid != folder.stat().st_gid or not found.st_mode & wanted:
        raise Finding(
            Localizable("the web process may not write {file}", file=file)
            if is_shared
            else Localizable("the web process may not read {file}", file=file),
            f"chgrp --reference={folder} {file}; chmod {rights} {file}",
        )
    if not is_shared and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Finding(
            Localizable("other users than the daemon can write {file}", file=file),
            f"chmod g-w,o-w {file}",
        )


def _require_closed_keys(folder: Path, keys: Path) -> None:
    """Raise if operators, who are members of the group of `folder`, can read the keys."""
    if not keys.exists():
        return
    found = keys.stat()
    _require_no_more_rights(keys, 0o2750)
    if found.st_gid == folder.stat().st_gid and (members := _members(found.st_gid)):
        raise Finding(
            Localizable(
                "operators can read the keys of the web process: {members} are in the group of {keys}",
                members=", ".join(members),
                keys=keys,
            ),
            Localizable(
                "give that folder to the group of the web process: chgrp -R prichal-web {keys}", keys=keys
            ),
        )


def _members(group: int) -> list[str]:
    try:
        return grp.getgrgid(group).gr_mem
    except KeyError:
        return []


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return Localizable("user {uid}", uid=uid)
