"""When backups are made, which ones are kept, and what is told about them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.backups import (
    RETRY,
    Backup,
    BackupRecord,
    MadeBackup,
    created_at,
    name_at,
    newest_first,
    next_attempt,
    outdated,
    problem_of,
    read_record,
    write_record,
)

DAY = 86400.0
GOOD = MadeBackup("b", 10 * DAY, 10 * DAY + 60, 5)


def daily(after: float) -> float:
    return (math.floor(after / DAY) + 1) * DAY


@given(st.integers(0, 4102444799))
def test_a_name_says_when_it_was_begun(at: int) -> None:
    assert created_at("prichal", name_at("prichal", at)) == at


@pytest.mark.parametrize(
    "name",
    [
        "",
        "prichal-a-20260101T000000Z.tar.gz.age",
        "prichal-a-b-20260101T000000Z.tar.gz.age.part",
        ".prichal-a-b-20260101T000000Z.tar.gz.age.part",
        "prichal-a-b-20260101T000000Z.tar.gz",
        "prichal-a-b-20260231T000000Z.tar.gz.age",
        "prichal-a-b-٢0260101T000000Z.tar.gz.age",
        "prichal-a-b-20260101T000000Z.tar.gz.age\n",
        "x/prichal-a-b-20260101T000000Z.tar.gz.age",
    ],
)
def test_other_names_are_no_backups_of_this_instance(name: str) -> None:
    assert created_at("a-b", name) is None


@given(st.lists(st.integers(0, 100), unique=True), st.integers(1, 20), st.integers(0, 60))
def test_what_is_removed_is_old_and_not_among_the_newest(days: list[int], count: int, age: int) -> None:
    now = 100 * DAY
    backups = [Backup(str(day), day * DAY, 1) for day in days]
    removed = set(outdated(backups, count, age * DAY, now))
    kept = [backup for backup in newest_first(backups) if backup not in removed]
    assert all(backup in kept for backup in newest_first(backups)[:count])
    assert all(now - backup.created > age * DAY for backup in removed)
    assert all(now - backup.created <= age * DAY for backup in kept[count:])


@pytest.mark.parametrize("age", [0.0, DAY])
def test_what_a_wrong_clock_has_made_takes_no_place_of_what_is_newer(age: float) -> None:
    now = 100 * DAY
    wrong = [Backup(f"future {day}", day * DAY, 1) for day in (465, 466)]
    right = [Backup(str(day), day * DAY, 1) for day in (95, 97, 99)]
    assert [each.name for each in outdated([*wrong, *right], 2, age, now)] == ["95"]
    later = 467 * DAY
    assert {each.name for each in outdated([*wrong, *right], 2, age, later)} == {"95", "97", "99"}


def test_the_first_one_is_made_at_once_and_the_next_at_its_time() -> None:
    assert next_attempt(BackupRecord(), daily, 5.0) == 5.0
    assert next_attempt(BackupRecord(GOOD), daily, 10.5 * DAY) == 11 * DAY


def test_a_time_at_which_the_host_slept_is_made_up_for_once() -> None:
    now = 14.5 * DAY
    assert next_attempt(BackupRecord(GOOD), daily, now) == 11 * DAY  # long over: at once
    caught_up = BackupRecord().succeeded(MadeBackup("c", now, now, 1))
    assert next_attempt(caught_up, daily, now + 1) == 15 * DAY


def test_a_failure_is_repeated_before_the_next_time_with_a_growing_pause() -> None:
    record = BackupRecord(GOOD)
    for number in range(1, 9):
        record = record.failed(20 * DAY, "r", "m")
        assert next_attempt(record, daily, 20 * DAY) == 20 * DAY + RETRY.after(number)
    assert next_attempt(record.failed(21 * DAY - 10, "r", "m"), daily, 21 * DAY - 5) == 21 * DAY


def test_a_clock_that_was_ahead_delays_nothing() -> None:
    ahead = BackupRecord(MadeBackup("b", 900 * DAY, 900 * DAY, 1))
    assert next_attempt(ahead, daily, 10.5 * DAY) == 11 * DAY
    assert next_attempt(
        BackupRecord().failed(900 * DAY, "r", "m"), daily, 10.5 * DAY
    ) == 10.5 * DAY + RETRY.after(1)


def test_what_is_wrong() -> None:
    assert problem_of(BackupRecord(), DAY, 0.0) == "no backup was made yet"
    assert problem_of(BackupRecord(GOOD), DAY, 10.5 * DAY) == ""
    assert problem_of(BackupRecord(GOOD), DAY, 12.5 * DAY) == "the last good backup is 2 d 12 h old"
    failed = BackupRecord(GOOD).failed(12 * DAY, "DiskFull", "the disk is full")
    assert problem_of(failed, DAY, 10.5 * DAY) == ""  # it is reported as a failure
    assert problem_of(failed, DAY, 11.1 * DAY).endswith(
        "1 d 2 h old; the last attempt failed: the disk is full"
    )


def test_a_record_is_read_back() -> None:
    for record in (BackupRecord(), BackupRecord(GOOD), BackupRecord(GOOD).failed(1.0, "r", "müde")):
        assert read_record(write_record(record).encode()) == record


@given(st.binary(max_size=200))
def test_a_damaged_record_is_empty(content: bytes) -> None:
    assert read_record(content) == BackupRecord()


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        "{}",
        '{"good": 1, "failure": null}',
        '{"good": null, "failure": {"at": "x"}}',
        "[" * 10_000,
    ],
)
def test_a_record_of_another_kind_is_empty(text: str) -> None:
    assert read_record(text.encode()) == BackupRecord()
