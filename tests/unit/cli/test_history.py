"""`prichal history` and `diff` on a real store."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from controller.cli.exits import Exit
from controller.domain.apps.history import (
    HIDDEN,
    AppliedRevision,
    ManifestText,
    difference,
    shown_manifests,
)
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.secret import Secret
from controller.ports import SourceFile
from controller.store.history import KEEP
from tests.unit.cli.conftest import Machine

if TYPE_CHECKING:
    from controller.store import SqliteStore

DEMO = AppName("demo")


def applied(store: SqliteStore, revision: str, text: str, plan: str = "") -> None:
    entry = AppliedRevision(
        DEMO, revision * 40, "Name colours", "Anna", ("push",), 1e9, 1e9 + 2, "Ready", "", plan
    )
    store.history.add(entry, [ManifestText("app.yaml", text)])


def test_the_history_in_columns(machine: Machine, store: SqliteStore) -> None:
    store.apps.save(AppStatus(DEMO))
    found = machine.run("history", DEMO)
    assert (found.code, found.stdout, "Nothing was applied" in found.stderr) == (Exit.OK, "", True)
    applied(store, "a", "x: 1\n", "start it")
    lines = machine.run("history", DEMO).stdout.splitlines()
    assert lines[0].split() == ["ID", "REVISION", "WHEN", "TOOK", "OUTCOME", "BY", "SUBJECT"]
    assert lines[1].split()[:2] == ["1", "a" * 12]
    assert lines[1].endswith("2s    Ready    push  Name colours")
    assert json.loads(machine.run("history", DEMO, "-o", "json").stdout)["history"][0]["plan"] == "start it"
    store.history.add(replace(store.history.list(DEMO)[0], triggers=("rollback",), by="anna"), [])
    assert "rollback (anna)" in machine.run("history", DEMO).stdout


def test_a_difference_for_people(machine: Machine, store: SqliteStore) -> None:
    store.apps.save(AppStatus(DEMO))
    assert machine.run("diff", DEMO, "aaaa").code == Exit.NOT_FOUND
    applied(store, "a", "x: 1\n")
    applied(store, "b", "x: 2\n", "start it")
    found = machine.run("diff", DEMO, "aaaa")
    assert (found.code, found.stdout.splitlines()[-4:]) == (Exit.OK, ["-x: 1", "+x: 2", "", "start it"])
    assert "the same" in machine.run("diff", DEMO, "bbbb", "bbbb").stdout
    assert machine.run("diff", DEMO, "ffff").code == Exit.NOT_FOUND


def test_a_history_of_an_earlier_release(machine: Machine, store: SqliteStore) -> None:
    """It has no columns for the person and for images; they come with the next entry."""
    applied(store, "a", "x: 1\n")
    (path,) = machine.state.rglob("history.db")
    with closing(sqlite3.connect(path)) as db:
        for column in ("person", "resolved"):
            db.execute(f"ALTER TABLE passes DROP COLUMN {column}")
        db.commit()
    (found,) = store.history.list(DEMO)
    assert (found.revision, found.by, found.pins) == ("a" * 40, "", ())
    entry = replace(found, by="anna", pins=(("demo:1", "local demo:1"),), models=((ComponentName("m"), "d"),))
    store.history.add(entry, [])
    assert [(each.by, each.pins, each.models) for each in store.history.list(DEMO)] == [
        ("anna", entry.pins, entry.models),
        ("", (), ()),
    ]


def test_the_history_is_bounded(store: SqliteStore) -> None:
    for number in range(KEEP + 5):
        applied(store, "a", f"x: {number}\n", "y" * 100_000)
    found = store.history.list(DEMO, 1000)
    assert (len(found), found[0].id) == (KEEP, KEEP + 5)
    assert len(found[0].plan) < 20_000


def test_what_does_not_compress_is_not_kept(store: SqliteStore) -> None:
    import secrets

    applied(store, "a", secrets.token_hex(2**19))
    assert store.history.manifests(DEMO, 1) is None


def test_secrets_are_not_shown() -> None:
    text = b"kind: MLComponent\nenv: hunter2-hunter2\n---\nkind: Secret\ndata: {a: b25lLXR3bw==}\n---\nkind: Box\n"
    (shown,) = shown_manifests([SourceFile("a.yaml", text)], (Secret("hunter2-hunter2"),))
    assert shown.text == f"kind: MLComponent\nenv: ***\n---\n{HIDDEN}---\nkind: Box\n"
    (other,) = shown_manifests([SourceFile("a.yaml", b'"kind": "Secret"\ndata: {a: b}\n')], ())
    assert other.text == HIDDEN


def test_files_that_come_and_go() -> None:
    found = difference([ManifestText("old.yaml", "a: 1\n")], [ManifestText("new.yaml", "a: \x1b[2J\n")])
    assert found.splitlines()[:2] == ["--- /dev/null", "+++ b/new.yaml"]
    assert "+++ /dev/null" in found
    assert "\x1b" not in found
