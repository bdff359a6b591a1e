"""The service looks at the record and the clock, and makes what is due."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from controller.backup.schedule import Schedule, is_scheduled, run
from controller.config import Settings
from controller.domain.backups import BackupRecord, MadeBackup
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.store.backup_record import load_record, save_record
from tests.support.backups import settings_of

DAY = 86400.0


class Host:
    """A clock, and backups that are made by writing the record."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now = 100 * DAY
        self.made: list[float] = []
        self.error: Exception | None = None
        self.schedule = Schedule(settings, self.create, lambda: self.now)

    def create(self) -> None:
        self.made.append(self.now / DAY)
        record = load_record(self.settings.backup_record)
        if self.error:
            save_record(self.settings.backup_record, record.failed(self.now, "r", "m"))
            raise self.error
        save_record(self.settings.backup_record, record.succeeded(MadeBackup("b", self.now, self.now, 1)))

    def at(self, day: float) -> list[float]:
        self.now = day * DAY
        self.schedule.look()
        made, self.made = self.made, []
        return made


@pytest.fixture
def host(tmp_path: Path) -> Host:
    settings = settings_of(tmp_path, schedule="0 0 * * *")
    settings.database.parent.mkdir(parents=True)
    settings.database.write_text("")
    settings.backups.mkdir()
    return Host(settings)


def test_one_a_day(host: Host) -> None:
    assert host.at(100.5) == [100.5]  # the first one, at once
    assert [host.at(100.9), host.at(101.01), host.at(101.02), host.at(101.99), host.at(102)] == [
        [],
        [101.01],
        [],
        [],
        [102],
    ]


def test_what_the_host_slept_through_is_made_up_for_once(host: Host) -> None:
    host.at(100.5)
    assert [host.at(107.3), host.at(107.4), host.at(108)] == [[107.3], [], [108]]


def test_a_failure_is_repeated_and_the_service_goes_on(host: Host) -> None:
    host.error = Transient(Reason.STORAGE_UNREACHABLE, "down")
    assert host.at(100.5) == [100.5]
    minute = 1 / 1440
    assert host.at(100.5 + 9 * minute) == []
    assert host.at(100.5 + 11 * minute) == [100.5 + 11 * minute]
    host.error = Transient(Reason.BACKUP_RUNNING, "another one is under way")
    assert host.at(101) == [101]
    host.error = None
    assert host.at(102) == [102]
    assert load_record(host.settings.backup_record).failure is None


def test_a_bug_does_not_end_the_service(host: Host) -> None:
    stop, rounds = threading.Event(), [0]

    def create() -> None:
        rounds[0] += 1
        if rounds[0] == 2:
            stop.set()
        raise ZeroDivisionError

    replace(host.schedule, create=create).run(stop, pause=0.01)
    assert rounds == [2]


def test_without_an_installation_nothing_is_made(host: Host) -> None:
    host.settings.database.unlink()
    assert host.at(100.5) == []


def test_a_damaged_record_leads_to_a_backup(host: Host) -> None:
    host.at(100.5)
    host.settings.backup_record.write_bytes(b"\xff")
    assert host.at(100.6) == [100.6]
    assert load_record(host.settings.backup_record) != BackupRecord()


def test_a_record_that_cannot_be_written_leads_to_no_backup_with_each_look(host: Host) -> None:
    def create() -> None:
        host.made.append(host.now / DAY)

    host.schedule = replace(host.schedule, create=create, monotonic=lambda: host.now)
    hour = 1 / 24
    assert [host.at(100 + hour * n / 4) for n in range(9)] == [[100], *[[]] * 7, [100 + 2 * hour]]


@pytest.mark.parametrize("chosen", [{"schedule": ""}, {"to": ""}])
def test_where_none_are_scheduled_it_ends(tmp_path: Path, chosen: dict[str, str]) -> None:
    settings = settings_of(tmp_path, schedule="0 0 * * *")
    settings = replace(settings, backup=replace(settings.backup, **chosen))  # type: ignore[arg-type]
    assert not is_scheduled(settings)
    assert run(settings) == 0
