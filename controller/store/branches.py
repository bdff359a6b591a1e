"""Branches that were seen for previews, and the previews that there are (`domain.apps.branch_previews`): written by the
daemon alone. What people decide, and the pull requests of which forges tell, other processes write into the database of
requests; each of these rows is checked when it is read.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from controller.domain.apps.branch_previews import (
    BranchPreview,
    BranchPreviews,
    LeftOut,
    OpenPull,
    PreviewDecision,
    SeenBranch,
    is_branch_name,
    is_preview_ref,
)
from controller.domain.localizable import as_stored, from_document
from controller.domain.names import AppName, is_dns_label
from controller.store.sqlite import Database

MOST_PULLS: Final = 1000  # of one repository, the newest
MOST_DECISIONS: Final = 1000
_HEAD: Final = re.compile(r"[0-9a-f]{40}")

_SEE: Final = """INSERT INTO branches (app, ref, head, since) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET head = excluded.head, since = excluded.since"""
_MADE: Final = """INSERT INTO branch_previews (app, of_app, ref, head, begun, since, ends) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (app) DO UPDATE SET of_app = excluded.of_app, ref = excluded.ref, head = excluded.head,
    since = excluded.since, ends = excluded.ends"""
_KEEP: Final = """INSERT INTO preview_decisions (app, kept, removed) VALUES (?, ?, '')
ON CONFLICT DO UPDATE SET kept = excluded.kept, removed = ''"""
_REMOVE: Final = """INSERT INTO preview_decisions (app, kept, removed) VALUES (?, 0, ?)
ON CONFLICT DO UPDATE SET kept = 0, removed = excluded.removed"""
_PULL: Final = """INSERT INTO pull_requests (repository, number, branch, fork, at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET branch = excluded.branch, fork = excluded.fork, at = excluded.at"""
_PRUNE_PULLS: Final = """DELETE FROM pull_requests WHERE repository = :repository AND number NOT IN (
    SELECT number FROM pull_requests WHERE repository = :repository ORDER BY at DESC, number DESC LIMIT :most)"""


class BranchTable:
    def __init__(self, database: Database) -> None:
        self._database = database

    def seen(self, app: AppName | None = None) -> tuple[SeenBranch, ...]:
        where = "" if app is None else "WHERE app = ?"
        query = f"SELECT * FROM branches {where} ORDER BY app, ref"  # noqa: S608 - constants of ours
        with self._database.read() as db:
            rows = db.execute(query, () if app is None else (app,)).fetchall()
        return tuple(
            SeenBranch(AppName(row["app"]), row["ref"], row["head"], row["since"])
            for row in rows
            if is_dns_label(row["app"]) and _is_sound(row)
        )

    def see(self, app: AppName, seen: Iterable[SeenBranch]) -> bool:
        """Store exactly these branches of an app, and return whether anything has changed. Only what differs is
        written."""
        wanted = {(each.ref, each.head, each.since) for each in seen}
        with self._database.read() as db:
            rows = db.execute("SELECT ref, head, since FROM branches WHERE app = ?", (app,)).fetchall()
        stored = {(row["ref"], row["head"], row["since"]) for row in rows}
        if wanted == stored:
            return False
        gone = {ref for ref, _, _ in stored} - {ref for ref, _, _ in wanted}
        with self._database.write() as db:
            db.executemany("DELETE FROM branches WHERE app = ? AND ref = ?", [(app, ref) for ref in gone])
            db.executemany(_SEE, [(app, *each) for each in sorted(wanted - stored)])
        return True

    def previews(self) -> tuple[BranchPreview, ...]:
        """Return the previews that there are or that are still to be removed, by the app that they belong to, newest
        first."""
        query = "SELECT * FROM branch_previews ORDER BY of_app, since DESC, ref"
        with self._database.read() as db:
            rows = db.execute(query).fetchall()
        return tuple(preview for row in rows if (preview := _preview(row)))

    def preview(self, app: AppName) -> BranchPreview | None:
        with self._database.read() as db:
            row = db.execute("SELECT * FROM branch_previews WHERE app = ?", (app,)).fetchone()
        return _preview(row) if row else None

    def left_out(self) -> tuple[LeftOut, ...]:
        query = "SELECT * FROM branches WHERE why != '' ORDER BY app, since DESC, ref"
        with self._database.read() as db:
            rows = db.execute(query).fetchall()
        return tuple(
            LeftOut(AppName(row["app"]), row["ref"], _message(row["why"])) for row in rows if _is_sound(row)
        )

    def record(self, found: BranchPreviews, declared: Iterable[AppName], now: float) -> None:
        """Store which previews are wanted, and why other branches have none. A preview that is not wanted any more
        stays until it was removed (`forget`), unless its name is that of a declared app now. Unchanged, it writes
        nothing."""
        before = {each.app: each for each in self.previews()}
        begun = {app: each.begun for app, each in before.items()}
        rows = [
            (each.app, each.of, each.ref, each.head, begun.get(each.app, now), each.since, each.ends)
            for each in found.wanted
            if not _is_same(before.get(each.app), each)
        ]
        taken = sorted(before.keys() & set(declared))
        why = {(each.of, each.ref): each.why for each in found.left_out}
        if not rows and not taken and {(e.of, e.ref): e.why for e in self.left_out()} == why:
            return
        with self._database.write() as db:
            db.executemany(_MADE, rows)
            db.executemany("DELETE FROM branch_previews WHERE app = ?", [(app,) for app in taken])
            db.execute("UPDATE branches SET why = '' WHERE why != ''")
            db.executemany(
                "UPDATE branches SET why = ? WHERE app = ? AND ref = ?",
                [(as_stored(text) or text, app, ref) for (app, ref), text in why.items()],
            )

    def forget(self, app: AppName) -> None:
        """Delete a preview that was removed. What people have decided about it stays as long as its branch does."""
        with self._database.write() as db:
            db.execute("DELETE FROM branch_previews WHERE app = ?", (app,))

    # --- what other processes write --------------------------------------------------------------------------------

    def decisions(self) -> Mapping[AppName, PreviewDecision]:
        query = "SELECT * FROM preview_decisions ORDER BY app LIMIT ?"
        with self._database.read() as db:
            rows = db.execute(query, (MOST_DECISIONS,)).fetchall()
        return {
            AppName(row["app"]): PreviewDecision(
                row["kept"], row["removed"] if _HEAD.fullmatch(row["removed"]) else ""
            )
            for row in rows
            if is_dns_label(row["app"])
        }

    def keep(self, app: AppName, at: float) -> None:
        with self._database.write() as db:
            db.execute(_KEEP, (app, at))

    def remove(self, app: AppName, head: str) -> None:
        with self._database.write() as db:
            db.execute(_REMOVE, (app, head))

    def drop_decisions(self, apps: Iterable[AppName]) -> None:
        """Delete what was decided about previews whose branches are gone."""
        gone = sorted(apps)
        if gone:
            with self._database.write() as db:
                db.executemany("DELETE FROM preview_decisions WHERE app = ?", [(app,) for app in gone])

    def pulls(self, repository: str) -> tuple[OpenPull, ...]:
        query = "SELECT * FROM pull_requests WHERE repository = ? ORDER BY number LIMIT ?"
        with self._database.read() as db:
            rows = db.execute(query, (repository, MOST_PULLS)).fetchall()
        return tuple(
            OpenPull(row["number"], row["branch"], bool(row["fork"]))
            for row in rows
            if is_branch_name(row["branch"])
        )

    def open_pull(self, repository: str, pull: OpenPull, at: float) -> None:
        with self._database.write() as db:
            db.execute(_PULL, (repository, pull.number, pull.branch, int(pull.is_fork), at))
            db.execute(_PRUNE_PULLS, {"repository": repository, "most": MOST_PULLS})

    def close_pull(self, repository: str, number: int) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM pull_requests WHERE repository = ? AND number = ?", (repository, number))

    def close_pulls(self, repository: str, numbers: Iterable[int], before: float) -> None:
        """Delete requests of which nothing was heard since `before`, in Unix seconds."""
        closed = [(repository, number, before) for number in numbers]
        if closed:
            query = "DELETE FROM pull_requests WHERE repository = ? AND number = ? AND at < ?"
            with self._database.write() as db:
                db.executemany(query, closed)


def _is_sound(row: sqlite3.Row) -> bool:
    return is_preview_ref(row["ref"]) and _HEAD.fullmatch(row["head"]) is not None


def _message(stored: str) -> str:
    """Return the message that a column has; the text of a release that stored no more."""
    try:
        return from_document(json.loads(stored))
    except (ValueError, RecursionError):
        return stored


def _preview(row: sqlite3.Row) -> BranchPreview | None:
    if not (is_dns_label(row["app"]) and is_dns_label(row["of_app"]) and _is_sound(row)):
        return None
    return BranchPreview(
        AppName(row["app"]),
        AppName(row["of_app"]),
        row["ref"],
        row["head"],
        row["since"],
        row["ends"],
        row["begun"],
    )


def _is_same(before: BranchPreview | None, now: BranchPreview) -> bool:
    return before is not None and (before.of, before.ref, before.head, before.since, before.ends) == (
        now.of,
        now.ref,
        now.head,
        now.since,
        now.ends,
    )
