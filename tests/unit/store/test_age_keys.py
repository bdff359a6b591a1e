"""Keys of age: made once for each app, rotated and retired by changes that count once, encrypted in the state."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from controller.age import AgeKeys
from controller.domain.apps.age_keys import MAX_AGE_KEYS, KeyAction
from controller.domain.apps.branch_previews import BranchPreview, BranchPreviews
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Stalled
from controller.domain.names import PLATFORM, AppName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.encryption import SecretKeys
from controller.store import SqliteStore, open_guest_store
from controller.store.owned_secrets import OwnedSecretTable
from tests.support.stores import open_store
from tests.unit.store.conftest import HandClock

DEMO, OTHER = AppName("demo"), AppName("other")
KEYS, OTHERS = SecretKeys(b"k" * 32), SecretKeys(b"o" * 32)


@pytest.fixture
def owner(path: Path, clock: HandClock) -> Iterator[SqliteStore]:
    with closing(open_store(path, clock=clock)) as store:
        store.secrets.unlock(KEYS)
        for app in (PLATFORM, DEMO, OTHER):
            store.apps.save(AppStatus(app))
            store.age_keys.ensure(app)
        yield store


@pytest.fixture
def guest(path: Path, owner: SqliteStore, clock: HandClock) -> Iterator[SqliteStore]:
    with closing(open_guest_store(path, clock=clock)) as store:
        yield store


def keys_of(store: SqliteStore, app: AppName = DEMO) -> AgeKeys:
    found = store.age_keys.of(app)
    assert isinstance(found, AgeKeys)
    return found


def change(action: KeyAction, app: AppName = DEMO, at: float = 1_000_000.0) -> SecretChange:
    return SecretChange(uuid.uuid4().hex, app, "", (), "ann", at, action)


def outcome(owner: SqliteStore, guest: SqliteStore, asked: SecretChange) -> str:
    guest.secrets.ask(asked)
    with owner.transaction():
        pass
    found = owner.secrets.change(asked.app, asked.id)
    assert found is not None
    return f"{found.state}: {found.message}"


def test_each_app_has_one_of_its_own(owner: SqliteStore, guest: SqliteStore) -> None:
    found = {app: keys_of(owner, app) for app in (PLATFORM, DEMO, OTHER)}
    assert all(len(keys.keys) == 1 and not keys.problem for keys in found.values())
    assert len({keys.recipients for keys in found.values()}) == 3
    owner.age_keys.ensure(DEMO)
    assert keys_of(owner) == found[DEMO], "making it again changes nothing"
    assert [key.recipient for key in guest.age_keys.listed(DEMO)] == list(found[DEMO].recipients)
    assert keys_of(guest).problem, "only the daemon can decrypt"


def test_no_private_key_lies_in_clear(owner: SqliteStore, path: Path) -> None:
    identity = keys_of(owner).keys[0].identity.reveal()
    files = b"".join(each.read_bytes() for each in sorted(path.parent.rglob("*")) if each.is_file())
    assert identity.encode() not in files
    assert b"AGE-SECRET-KEY" not in files
    assert identity not in repr(keys_of(owner))


def test_rotation_keeps_the_old_ones_until_they_are_retired(owner: SqliteStore, guest: SqliteStore) -> None:
    [first] = keys_of(owner).recipients
    assert "applied: the new age key is age1" in outcome(owner, guest, change(KeyAction.ROTATE))
    second, kept = keys_of(owner).recipients
    assert kept == first
    assert guest.age_keys.listed(DEMO)[0].recipient == second
    assert guest.age_keys.listed(DEMO)[0].by == "ann"
    assert f"applied: deleted the age keys {first}" in outcome(owner, guest, change(KeyAction.RETIRE))
    assert keys_of(owner).recipients == (second,)
    assert "unchanged: there are no older age keys" in outcome(owner, guest, change(KeyAction.RETIRE))
    assert keys_of(owner, OTHER).recipients, "others keep theirs"


def test_a_preview_whose_files_no_pass_of_this_release_has_looked_for_keeps_the_keys(
    owner: SqliteStore, guest: SqliteStore
) -> None:
    outcome(owner, guest, change(KeyAction.ROTATE))
    name, head = AppName("demo-x"), "a" * 40
    preview = BranchPreview(name, DEMO, "refs/heads/x", head, 1.0, 2.0)
    owner.branches.record(BranchPreviews((preview,)), (), 1.0)
    older = AppStatus(name, desired_revision=head, encrypted=None)
    owner.apps.save(older)
    assert "which files of demo-x need its older age keys is not known" in guest.age_keys.retire_refusal(DEMO)
    owner.apps.save(replace(older, app=AppName("unrelated")))
    owner.apps.save(replace(older, encrypted=()))
    assert guest.age_keys.retire_refusal(DEMO) == ""


def test_a_change_counts_once_and_asks_for_a_pass(owner: SqliteStore, guest: SqliteStore) -> None:
    asked = change(KeyAction.ROTATE)
    outcome(owner, guest, asked)
    before = keys_of(owner)
    outcome(owner, guest, asked)
    assert keys_of(owner) == before
    (taken,) = owner.secrets.changes(DEMO)
    assert owner.requests.get(taken.request)
    assert [event.reason for event in owner.events.list(DEMO)] == [Reason.SECRET_CHANGED]


def test_their_number_is_bounded(owner: SqliteStore, guest: SqliteStore) -> None:
    told = [outcome(owner, guest, change(KeyAction.ROTATE)) for _ in range(MAX_AGE_KEYS)]
    assert told[-1].startswith(f"refused: demo has {MAX_AGE_KEYS} age keys")
    assert len(keys_of(owner).keys) == MAX_AGE_KEYS


def test_the_platforms_key_is_rotated_too(owner: SqliteStore, guest: SqliteStore) -> None:
    assert outcome(owner, guest, change(KeyAction.ROTATE, PLATFORM)).startswith("applied")
    assert len(keys_of(owner, PLATFORM).keys) == 2


@pytest.mark.parametrize(
    "asked",
    [
        SecretChange("0" * 32, DEMO, "keys", (), "", 0, KeyAction.ROTATE),
        SecretChange("0" * 32, DEMO, "", (("A", Secret("x")),), "", 0, KeyAction.ROTATE),
        SecretChange("0" * 32, AppName("../x"), "", (), "", 0, KeyAction.ROTATE),
        SecretChange("0" * 32, PLATFORM, "keys", (("A", Secret("x")),), "", 0),
    ],
)
def test_what_nobody_may_ask_for(guest: SqliteStore, asked: SecretChange) -> None:
    with pytest.raises(Stalled):
        guest.secrets.ask(asked)


def test_they_leave_with_their_app(owner: SqliteStore) -> None:
    """The next app of this name must not decrypt the files of this one."""
    before = keys_of(owner)
    owner.secrets.forget(DEMO)
    assert owner.age_keys.listed(DEMO) == ()
    assert "it has no age key yet" in keys_of(owner).problem
    owner.age_keys.ensure(DEMO)
    assert keys_of(owner).recipients != before.recipients


def test_another_key_of_the_instance(owner: SqliteStore, path: Path, clock: HandClock) -> None:
    before = {app: keys_of(owner, app) for app in (PLATFORM, DEMO)}
    with closing(open_store(path, clock=clock)) as store:
        store.secrets.unlock(OTHERS)
        assert "restore that file from the backup" in keys_of(store).problem
        assert "instance.key" in store.secrets.foreign(OTHERS)
        store.secrets.unlock(KEYS)
        assert keys_of(store) == before[DEMO]
        assert isinstance(store.secrets, OwnedSecretTable)
        store.secrets.rekey(OTHERS)
        assert {app: keys_of(store, app) for app in before} == before
        assert [k.identity for k in keys_of(store).keys] == [k.identity for k in before[DEMO].keys]
    with closing(open_store(path, clock=clock)) as store:
        store.secrets.unlock(OTHERS)
        assert keys_of(store) == before[DEMO]
