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
    for path, wanted in ((folder, 0o2750), (asked, 0o3770)):
        mode = path.stat().st_mode if path.exists() else stat.S_IFDIR | wanted
        if stat.S_IMODE(mode) & ~wanted:
            raise Finding(
                Localizable(
                    "more users than necessary can access {path} ({mode})",
                    path=path,
                    mode=stat.filemode(mode),
                ),
                f"chmod {wanted:o} {path}",
            )
    if asked.exists() and not asked.stat().st_mode & stat.S_ISVTX:
        raise Finding(
            Localizable("the web process may remove files of the daemon in {asked}", asked=asked),
            f"chmod 3770 {asked}",
        )
    group = folder.stat().st_gid
    for file in (path for path in (*folder.glob("state.db*"), *asked.glob("asked.db*")) if path.is_file()):
        if file.name.endswith("-journal"):  # empty, and the daemon's alone
            continue
        found, shared = file.stat(), file.parent == asked
        if found.st_gid != group or not found.st_mode & (stat.S_IWGRP if shared else stat.S_IRGRP):
            rights = "g+rw" if shared else "g+r"
            raise Finding(
                Localizable("the web process may not write {file}", file=file)
                if shared
                else Localizable("the web process may not read {file}", file=file),
                f"chgrp --reference={folder} {file}; chmod {rights} {file}",
            )
        if not shared and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Finding(
                Localizable("other users than the daemon can write {file}", file=file),
                f"chmod g-w,o-w {file}",
            )
    _require_closed_keys(folder, keys_folder(settings.database))
    return Localizable(
        "the group of {folder} can read it, only the daemon can write it; both can write {asked}",
        folder=folder,
        asked=asked,
    )


def _require_closed_keys(folder: Path, keys: Path) -> None:
    """Raise if operators, who are members of the group of `folder`, can read the keys."""
    if not keys.exists():
        return
    found = keys.stat()
    if stat.S_IMODE(found.st_mode) & ~0o2750:
        raise Finding(
            Localizable(
                "more users than necessary can access {keys} ({mode})",
                keys=keys,
                mode=stat.filemode(found.st_mode),
            ),
            f"chmod 2750 {keys}",
        )
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
