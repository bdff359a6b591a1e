"""Checks of the state: its databases, and the disk below it."""

from __future__ import annotations

import shutil

from controller.config import Settings
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable, joined
from controller.store import open_guest_store
from controller.store.shared_file import asides, shared_path

LEAST_SPACE = 2 * 2**30  # bytes free


def check_state(settings: Settings) -> str:
    if not settings.database.exists():
        raise Finding(
            Localizable("there is no state at {database} yet", database=settings.database),
            Localizable("start with: prichal up (or prichal daemon)"),
        )
    store = open_guest_store(settings.database)
    try:
        damage, unreadable, aside = store.damage(), store.unreadable(), store.aside()
    finally:
        store.close()
    if damage:
        advice = Localizable(
            "stop prichal, move the database away and start prichal; it finds deployed containers again"
        )
        raise Finding(
            Localizable("{database} is damaged: {damage}", database=settings.database, damage=damage[0]),
            advice,
        )
    if unreadable:
        row = unreadable[0]
        what = Localizable(
            "{kind} {name} cannot be read back ({problem})", kind=row.kind, name=row.name, problem=row.problem
        )
        more = Localizable(", and {more} more", more=len(unreadable) - 1) if unreadable[1:] else ""
        advice = Localizable(
            "nothing: the daemon sets the row aside when it reads it, and reports an event of the app"
        )
        raise Finding(joined((f"{settings.database}: ", what, more), ""), advice)
    kept = ""
    if aside:
        names = ", ".join(f"{row.kind} {row.name}" for row in aside[:3])
        kept = (
            Localizable("; {number} unreadable rows were set aside: {names}", number=len(aside), names=names)
            if aside[1:]
            else Localizable("; 1 unreadable row was set aside: {names}", names=names)
        )
    return Localizable("{database} is intact and writable{kept}", database=settings.database, kept=kept)


def check_asking(settings: Settings) -> str:
    path = shared_path(settings.database)
    aside = asides(path)
    if aside:
        kept = aside[-1]
        raise Finding(
            Localizable(
                "what others ask for could not be used and was set aside: {kept} ({size} bytes)",
                kept=kept,
                size=kept.lstat().st_size,
            ),
            Localizable("the history of @platform says why; look who writes there, then remove the file"),
        )
    return Localizable("{path} can be used", path=path)


def check_space(settings: Settings) -> str:
    folder = next(path for path in (settings.state, *settings.state.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < LEAST_SPACE:
        raise Finding(
            Localizable("{free} GiB free below {folder}", free=round(free / 2**30, 1), folder=folder),
            Localizable("free some space: docker image prune, or remove old clones and logs"),
        )
    return Localizable("{free} GiB free below {folder}", free=round(free / 2**30), folder=folder)
