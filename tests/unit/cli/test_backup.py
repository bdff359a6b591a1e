"""`prichal backup`, on a host of its own: a key, a backup, its proof, and a restore onto another one."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.config import load
from controller.daemon.instance_key import instance_key
from controller.daemon.wiring import prepare_folders
from controller.store.backup_record import load_record
from tests.support.stores import open_store
from tests.unit.cli.conftest import Machine


@pytest.fixture
def key(tmp_path: Path, machine: Machine) -> Path:
    """A private key, and an installation without boxes that is backed up for it."""
    file = tmp_path / "backup.key"
    made = machine.run("backup", "keygen", str(file))
    assert made.code == Exit.OK
    machine.configure(
        "storage: {backend: none}",
        f"backup: {{to: {tmp_path / 'backups'}, recipients: [{made.stdout.strip()}]}}",
    )
    settings = load(machine.config)
    prepare_folders(settings)
    instance_key(settings.private)
    with closing(open_store(settings.database)):
        pass
    return file


def elsewhere(machine: Machine, tmp_path: Path) -> Machine:
    """Another host that reaches the same place."""
    (tmp_path / "new").mkdir()
    new = Machine(tmp_path / "new")
    place = load(machine.config).backup
    new.configure(
        "storage: {backend: none}", f"backup: {{to: {place.to}, recipients: {list(place.recipients)}}}"
    )
    return new


def test_the_way_from_a_key_to_a_restore(machine: Machine, key: Path, tmp_path: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    made = json.loads(machine.run("backup", "create", "-o", "json").stdout)
    listed = json.loads(machine.run("backup", "list", "-o", "json").stdout)
    assert listed == [made]
    assert machine.run("backup", "list", "-o", "name").stdout.split() == [made["name"]]
    assert made["name"] in machine.run("backup", "list").stdout
    found = machine.run("backup", "verify", "latest", "--identity", str(key))
    assert (found.code, found.stdout[:5]) == (Exit.OK, "good:")
    new = elsewhere(machine, tmp_path)
    restored = new.run("backup", "restore", "latest", "--identity", str(key), "-o", "json")
    assert restored.code == Exit.OK, restored.stderr
    proof = json.loads(restored.stdout)
    assert (proof["instance"], proof["created"], proof["boxFiles"]) == ("prichal", made["created"], 0)
    assert (new.state / "private" / "instance.key").read_bytes() == instance_key(machine.state / "private")
    assert (
        new.state / "private" / "restored-config" / "config.yaml"
    ).read_bytes() == machine.config.read_bytes()
    again = new.run("backup", "restore", "latest", "--identity", str(key))
    assert again.code == Exit.FAILED
    assert "RestoreRefused" in again.stderr


def test_a_backup_is_named_by_its_path_and_the_key_comes_from_a_pipe(
    machine: Machine, key: Path, tmp_path: Path
) -> None:
    name = machine.run("backup", "create", "-o", "name").stdout.strip()
    path = tmp_path / "backups" / name
    found = machine.run("backup", "verify", str(path), "--identity", "-", stdin=key.read_text())
    assert found.code == Exit.OK, found.stderr


def test_errors_say_what_to_do(machine: Machine, key: Path, tmp_path: Path) -> None:
    missing = machine.run("backup", "verify", "latest", "--identity", str(key))
    assert (missing.code, "prichal backup list" in missing.stderr) == (Exit.NOT_FOUND, True)
    assert "There are no backups" in machine.run("backup", "list").stderr
    machine.run("backup", "create")
    machine.run("backup", "keygen", str(tmp_path / "other.key"))
    other = machine.run("backup", "verify", "latest", "--identity", str(tmp_path / "other.key"))
    assert (other.code, "--identity" in other.stderr) == (Exit.FAILED, True)
    (tmp_path / "text").write_text("hello\n")
    none = machine.run("backup", "verify", "latest", "--identity", str(tmp_path / "text"))
    assert (none.code, "not a private key" in none.stderr) == (Exit.FAILED, True)
    assert machine.run("backup", "keygen", str(key)).code == Exit.USAGE  # never over another one
    gone = machine.run("backup", "verify", "./gone", "--identity", str(key))
    assert (gone.code, "UnknownBackup" in gone.stderr) == (Exit.NOT_FOUND, True)
    foreign = machine.run("backup", "verify", str(machine.config), "--identity", str(key))
    assert (foreign.code, "BackupForeign" in foreign.stderr) == (Exit.FAILED, True)


def test_without_a_schedule_the_service_ends_at_once(machine: Machine, key: Path) -> None:
    assert machine.run("backup", "run").code == Exit.OK
    assert load_record(load(machine.config).backup_record).good is None


def test_doctor_says_how_old_the_last_one_is(machine: Machine, key: Path) -> None:
    def found() -> dict[str, object]:
        checks = json.loads(machine.run("doctor", "-o", "json").stdout)
        (check,) = [check for check in checks if check["name"] == "backup"]
        return dict(check)

    assert found()["detail"] == "no backup was made yet"
    machine.run("backup", "create")
    assert found()["ok"] is True
    settings = load(machine.config)
    settings.restore_marker.write_text("{}")
    assert "interrupted" in str(found()["detail"])
