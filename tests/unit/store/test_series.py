"""Samples are kept for a day in bounded space, whatever happens to the clock, the file and the daemon."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from controller.domain.apps.samples import (
    BUCKETS,
    COARSE,
    FIELDS,
    FINE,
    RESOLUTIONS,
    Resolution,
    Sample,
)
from controller.domain.errors import Transient
from controller.domain.names import AppName, ComponentName
from controller.store import SqliteStore, open_guest_store
from controller.store.series import LARGEST, SeriesTable

DEMO, MODEL, OTHER = AppName("demo"), ComponentName("model"), ComponentName("other")
FULL = Sample(10, **dict.fromkeys(FIELDS, 1e6), buckets=tuple(range(len(BUCKETS) + 1)))
START = 1_800_000_000


@pytest.fixture
def table(tmp_path: Path) -> SeriesTable:
    return SeriesTable(tmp_path / "series.db", timeout=0.01, durable=False)


def stored(
    table: SeriesTable, resolution: Resolution = FINE, component: ComponentName = MODEL
) -> dict[int, Sample]:
    return {each.at: each.sample for each in table.of(DEMO, component, resolution)}


def test_what_was_added_is_read(table: SeriesTable) -> None:
    assert stored(table) == {}
    sample = Sample(10, requests=3, cpu=0.5, buckets=(0, 3, *[0] * 14))
    table.add(START, {(DEMO, MODEL): sample, (DEMO, OTHER): FULL})
    table.add(START + 10.5, {(DEMO, MODEL): Sample(10, memory=2**30)})
    assert stored(table) == {START: sample, START + 10: Sample(10, memory=2**30)}
    assert stored(table, component=OTHER) == {START: FULL}
    assert table.of(AppName("another"), MODEL, FINE) == ()
    minute = stored(table, COARSE)
    assert minute == {START: replace(sample, seconds=20, memory=2**30)}


def test_a_ring_overwrites_what_is_a_day_old(table: SeriesTable) -> None:
    for number in range(FINE.slots + 5):
        table.add(START + 10 * number, {(DEMO, MODEL): Sample(10, requests=number)})
    found = stored(table)
    assert len(found) == FINE.slots
    assert min(found) == START + 50
    assert len(stored(table, COARSE)) == 61


def test_a_clock_that_goes_back_overwrites_and_does_not_add(table: SeriesTable) -> None:
    table.add(START, {(DEMO, MODEL): Sample(10, requests=1)})
    table.add(START - FINE.window, {(DEMO, MODEL): Sample(10, requests=2)})
    assert stored(table) == {START - FINE.window: Sample(10, requests=2)}


def test_a_daemon_that_begins_again_goes_on(table: SeriesTable, tmp_path: Path) -> None:
    table.add(START + 1, {(DEMO, MODEL): Sample(5, requests=1)})
    SeriesTable(tmp_path / "series.db").add(START + 8, {(DEMO, MODEL): Sample(5, requests=2)})
    assert stored(table) == {START: Sample(10, requests=3)}


def test_samples_go_with_their_component(table: SeriesTable) -> None:
    table.keep({(DEMO, MODEL)})
    table.add(START, {(DEMO, MODEL): FULL, (DEMO, OTHER): FULL})
    table.keep({(DEMO, OTHER)})
    assert (stored(table), stored(table, component=OTHER)) == ({}, {START: FULL})
    table.add(START + 20, {(DEMO, MODEL): FULL})
    assert list(stored(table)) == [START + 20], "nothing of what was before"


@pytest.mark.slow
def test_the_size_has_a_bound(table: SeriesTable, tmp_path: Path) -> None:
    """All rows of some components at their largest."""
    path = tmp_path / "series.db"
    keys = [(DEMO, ComponentName(f"component-{number}")) for number in range(5)]
    for resolution in RESOLUTIONS:
        for slot in range(resolution.slots):
            table.add(START + slot * resolution.step, dict.fromkeys(keys, FULL))
    before = path.stat().st_size
    assert before < len(keys) * LARGEST
    for slot in range(100):
        table.add(START + COARSE.window + slot * 10, dict.fromkeys(keys, FULL))
    assert path.stat().st_size <= before + 2**16


def test_a_damaged_file_begins_again(
    table: SeriesTable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "series.db"
    path.write_bytes(b"not a database, but as long as one " * 500)
    table.add(START, {(DEMO, MODEL): FULL})
    assert "start again" in caplog.text
    table.add(START + 10, {(DEMO, MODEL): FULL})
    assert list(stored(table)) == [START + 10]


def test_tables_of_another_version_begin_again(table: SeriesTable, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "series.db")) as db:
        db.execute("CREATE TABLE samples (other TEXT)")
        db.execute("PRAGMA user_version = 7")
    table.add(START, {(DEMO, MODEL): FULL})
    assert stored(table) == {START: FULL}


def test_a_reader_that_holds_the_file_costs_a_sample(table: SeriesTable, tmp_path: Path) -> None:
    """The web process may only read, and can hold the writer up; nothing else waits for it."""
    table.add(START, {(DEMO, MODEL): FULL})
    with closing(sqlite3.connect(f"file:{tmp_path / 'series.db'}?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM samples").fetchone()
        with pytest.raises(Transient):
            table.add(START + 10, {(DEMO, MODEL): FULL})
    table.add(START + 20, {(DEMO, MODEL): FULL})
    assert sorted(stored(table)) == [START, START + 20]


def test_only_the_group_reads_along(store: SqliteStore, path: Path) -> None:
    store.series.add(START, {(DEMO, MODEL): FULL})
    file = path.with_name("series.db")
    assert stat.S_IMODE(file.stat().st_mode) & 0o027 == 0
    guest = open_guest_store(path)
    assert [each.at for each in guest.series.of(DEMO, MODEL, FINE)] == [START]
    guest.close()
