"""The key of an instance is made once and can be replaced; an interruption leaves the old one or the new one, and
the values that go with it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.age import AgeKeys
from controller.config import Settings
from controller.daemon.instance_key import instance_key, key_file, rotate, settle, try_rotation
from controller.daemon.lock import only_one
from controller.daemon.wiring import prepare_folders
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.encryption import SecretKeys
from controller.store import SqliteStore
from tests.support.stores import open_store

DEMO = AppName("demo")
NEXT = "instance.key.next"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(state=tmp_path)
    prepare_folders(made)
    with closing(open_store(made.database, clock=lambda: 5.0)) as store:
        store.secrets.unlock(SecretKeys(instance_key(made.private)))
        store.age_keys.ensure(DEMO)
        store.apps.save(AppStatus(DEMO))
        ask(store, "0" * 32, "hunter2")
        with store.transaction():
            pass
    return made


@pytest.fixture
def store(settings: Settings) -> Iterator[SqliteStore]:
    with closing(open_store(settings.database)) as opened:
        yield opened


def ask(store: SqliteStore, id: str, value: str) -> None:
    store.secrets.ask(SecretChange(id, DEMO, "keys", ((f"K{id[:1]}", Secret(value)),), "ann", 5.0))


def values(settings: Settings) -> dict[str, str]:
    """As a daemon finds them that starts now."""
    with closing(open_store(settings.database)) as store:
        settle(settings.private, store.secrets)
        store.secrets.unlock(SecretKeys(instance_key(settings.private)))
        return {
            key: value.reveal() for found in store.secrets.of(DEMO).readable for key, value in found.values
        }


def age_keys(settings: Settings) -> tuple[object, ...]:
    """The private keys of age, as a daemon finds them that starts now."""
    with closing(open_store(settings.database)) as store:
        settle(settings.private, store.secrets)
        store.secrets.unlock(SecretKeys(instance_key(settings.private)))
        found = store.age_keys.of(DEMO)
        assert isinstance(found, AgeKeys)
        return tuple((key.recipient, key.identity) for key in found.keys)


def test_keys_of_age_stay_the_same_wherever_it_is_interrupted(settings: Settings) -> None:
    before = age_keys(settings)
    assert len(before) == 1
    rotate(settings)
    assert age_keys(settings) == before
    (settings.private / NEXT).write_bytes(b"n" * 32)  # it died before the values were encrypted
    assert age_keys(settings) == before
    with closing(open_store(settings.database)) as store:
        store.secrets.unlock(SecretKeys(instance_key(settings.private)))
        (settings.private / NEXT).write_bytes(b"n" * 32)
        store.secrets.rekey(SecretKeys(b"n" * 32))  # and here after that
    assert age_keys(settings) == before


def test_it_is_made_once_and_for_the_daemon_alone(tmp_path: Path) -> None:
    key = instance_key(tmp_path)
    assert len(key) == 32
    assert instance_key(tmp_path) == key
    assert key_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_it_is_replaced_with_all_that_goes_with_it(settings: Settings) -> None:
    before = instance_key(settings.private)
    assert rotate(settings) == 1
    assert instance_key(settings.private) != before
    assert values(settings) == {"K0": "hunter2"}
    assert [path.name for path in settings.private.glob("instance*")] == ["instance.key"]
    assert rotate(settings) == 1


def test_a_change_that_waits_is_applied_before(settings: Settings, store: SqliteStore) -> None:
    with closing(open_store(settings.database, clock=lambda: 6.0)) as other:
        ask(other, "1" * 32, "hunter3")
    store.close()
    rotate(settings)
    assert values(settings).keys() == {"K0"}, "it is too old by now: it was refused, not lost"
    with closing(open_store(settings.database)) as after:
        assert [change.state for change in after.secrets.changes(DEMO)] == [
            "refused",
            "applied",
        ]


@pytest.mark.skipif(os.geteuid() != 0, reason="takes the rights of another user")
def test_root_leaves_a_key_that_the_daemon_can_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        made = Settings(state=Path(name) / "state")
        prepare_folders(made)
        open_store(made.database).close()
        instance_key(made.private)
        for path in (Path(name), *Path(name).rglob("*")):
            os.chown(path, 65534, 65534)
        rotate(made)
        owners = {path.name: path.stat().st_uid for path in Path(name).rglob("*")}
        assert {owner for path, owner in owners.items()} == {65534}, owners
        assert "instance.key" in owners


def test_not_while_a_daemon_runs(settings: Settings) -> None:
    key = instance_key(settings.private)
    with only_one(settings.private), pytest.raises(Stalled) as caught:
        rotate(settings)
    assert caught.value.reason == Reason.ALREADY_RUNNING
    assert instance_key(settings.private) == key


def test_a_death_before_the_values_were_encrypted_leaves_the_old_key(
    settings: Settings,
) -> None:
    (settings.private / NEXT).write_bytes(b"n" * 32)
    assert values(settings) == {"K0": "hunter2"}
    assert not (settings.private / NEXT).exists()


def test_a_death_after_the_values_were_encrypted_brings_the_new_key(
    settings: Settings, store: SqliteStore
) -> None:
    store.secrets.unlock(SecretKeys(instance_key(settings.private)))
    (settings.private / NEXT).write_bytes(b"n" * 32)
    store.secrets.rekey(SecretKeys(b"n" * 32))
    store.close()
    assert values(settings) == {"K0": "hunter2"}
    assert instance_key(settings.private) == b"n" * 32
    assert not (settings.private / NEXT).exists()


def test_a_dry_run_after_a_death_says_what_a_rotation_would_do(
    settings: Settings, store: SqliteStore
) -> None:
    store.secrets.unlock(SecretKeys(instance_key(settings.private)))
    old = instance_key(settings.private)
    (settings.private / NEXT).write_bytes(b"n" * 32)
    assert try_rotation(settings) == 1, "nothing was encrypted with the next key yet"
    store.secrets.rekey(SecretKeys(b"n" * 32))
    store.close()
    assert try_rotation(settings) == 1
    assert (instance_key(settings.private), (settings.private / NEXT).read_bytes()) == (old, b"n" * 32)
    assert values(settings) == {"K0": "hunter2"}


def test_a_dry_run_makes_no_key(settings: Settings) -> None:
    key_file(settings.private).unlink()
    with pytest.raises(Stalled) as caught:
        try_rotation(settings)
    assert caught.value.reason == Reason.SECRET_UNREADABLE
    assert not key_file(settings.private).exists()


def test_half_a_key_is_none(settings: Settings) -> None:
    (settings.private / NEXT).write_bytes(b"n" * 7)
    assert values(settings) == {"K0": "hunter2"}


def test_a_lost_key_is_not_replaced_over_what_it_has_encrypted(
    settings: Settings,
) -> None:
    key = instance_key(settings.private)
    key_file(settings.private).unlink()
    with pytest.raises(Stalled) as caught:
        rotate(settings)
    assert caught.value.reason == Reason.SECRET_UNREADABLE
    assert "instance.key" in caught.value.message
    assert not (settings.private / NEXT).exists()
    key_file(settings.private).write_bytes(key)
    assert values(settings) == {"K0": "hunter2"}
