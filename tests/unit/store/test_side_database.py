"""Databases beside the state: damage costs what was in them, and hinders nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from controller.domain.apps.history import AppliedRevision, ManifestText
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName
from controller.store.history import MOST_PLAN, HistoryTable
from controller.store.side_database import SideDatabase

A = AppName("a")
CREATE = ("CREATE TABLE IF NOT EXISTS texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "texts.db"


@pytest.fixture
def database(path: Path) -> SideDatabase:
    return SideDatabase(path, CREATE)


def add(database: SideDatabase, text: str) -> None:
    with database.writing() as db:
        db.execute("INSERT INTO texts (text) VALUES (?)", (text,))


def texts(database: SideDatabase) -> list[str] | None:
    return database.read(lambda db: [text for (text,) in db.execute("SELECT text FROM texts")])


def test_nothing_is_there_before_something_was_written(database: SideDatabase, path: Path) -> None:
    assert texts(database) is None
    path.touch()
    assert texts(database) is None
    add(database, "one")
    assert texts(database) == ["one"]


def test_what_fails_amidst_is_not_kept(database: SideDatabase) -> None:
    add(database, "one")
    with pytest.raises(sqlite3.IntegrityError), database.writing() as db:
        db.execute("INSERT INTO texts (text) VALUES ('two')")
        db.execute("INSERT INTO texts (text) VALUES (NULL)")
    assert texts(database) == ["one"]


def test_a_file_that_is_no_database_is_replaced(database: SideDatabase, path: Path) -> None:
    path.write_bytes(b"this is not a database, it is a letter\n" * 100)
    assert texts(database) is None
    add(database, "one")
    assert texts(database) == ["one"]


def test_a_page_that_is_damaged_costs_one_writing(database: SideDatabase, path: Path) -> None:
    """The tables are there, so it is found when the rows are met."""
    add(database, "x" * 20_000)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    assert texts(database) is None
    with pytest.raises(Stalled, match="SQLite"):
        add(database, "lost")
    add(database, "one")
    assert texts(database) == ["one"]


def test_a_damaged_history_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"this is not a database, it is a letter\n" * 100)
    history = HistoryTable(path)
    assert (history.list(A), history.manifests(A, 1)) == ((), None)
    entry = AppliedRevision(A, "c0ffee", "", "", (), 1.0, 2.0, "Ready", "", "")
    history.add(entry, [ManifestText("app.yaml", "kind: X")])
    assert [found.revision for found in history.list(A)] == ["c0ffee"]


def test_a_history_of_an_earlier_release_gets_messages_and_plans_that_can_be_translated(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history.db"
    plan = joined((Localizable("start {name}", name="namer"), Localizable("remove {name}", name="old")), "\n")
    entry = AppliedRevision(A, "c0ffee", "", "", (), 1.0, 2.0, "Ready", Localizable("as declared"), plan)
    HistoryTable(path).add(entry, ())
    with closing(sqlite3.connect(path)) as db, db:
        for column in ("message_told", "plan_told"):
            db.execute(f"ALTER TABLE passes DROP COLUMN {column}")
    history = HistoryTable(path)
    (old,) = history.list(A)
    assert (old.message, old.plan, type(old.plan)) == ("as declared", plan, str)
    history.add(entry, ())
    huge = Localizable("{text}", text="\n".join(f"start {number}" for number in range(5_000)))
    history.add(replace(entry, plan=huge), ())
    long, new, _ = history.list(A)
    assert isinstance(new.message, Localizable)
    assert isinstance(new.plan, Localizable)
    assert (
        new.plan.said(lambda pattern: pattern.replace("start", "запустить")) == "запустить namer\nremove old"
    )
    assert len(long.plan) <= MOST_PLAN


def test_releases_are_the_entries_without_their_texts(tmp_path: Path) -> None:
    history = HistoryTable(tmp_path / "history.db")
    pinned = (("demo:1", "demo sha256:c0ffee"),)
    entry = AppliedRevision(
        A, "c0ffee", "Say hello", "Anna", ("push",), 1.0, 2.0, "Ready", "as declared", "start"
    )
    for revision in ("first", "second"):
        history.add(
            replace(entry, revision=revision, pins=pinned, images=(("api", "demo:1"),), by="anna"), ()
        )
    assert history.releases(A) == tuple(replace(each, message="", plan="") for each in history.list(A))
    assert [each.revision for each in history.releases(A)] == ["second", "first"]
