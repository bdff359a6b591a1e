"""Secrets that people set: sealed on their way, encrypted where they stay, each change applied once, as a whole."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.domain.apps.owned_secrets import (
    KEEP_CHANGES,
    LONGEST_WAIT,
    MAX_BYTES,
    MAX_WAITING,
    ChangeRecord,
    ChangeState,
    SecretChange,
    packed,
)
from controller.domain.apps.requests import Trigger
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Stalled, Transient
from controller.domain.names import PLATFORM, AppName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.encryption import SecretKeys, seal_for
from controller.store import SqliteStore, open_guest_store
from controller.store.owned_secrets import LARGEST
from controller.store.shared_file import shared_path
from tests.support.stores import open_store
from tests.unit.store.conftest import HandClock

DEMO, OTHER = AppName("demo"), AppName("other")
KEYS, OTHERS = SecretKeys(b"k" * 32), SecretKeys(b"o" * 32)


@pytest.fixture
def owner(path: Path, clock: HandClock) -> Iterator[SqliteStore]:
    with closing(open_store(path, clock=clock)) as store:
        store.secrets.unlock(KEYS)
        for app in (DEMO, OTHER):
            store.apps.save(AppStatus(app))
        yield store


@pytest.fixture
def guest(path: Path, owner: SqliteStore, clock: HandClock) -> Iterator[SqliteStore]:
    with closing(open_guest_store(path, clock=clock)) as store:
        yield store


def change(
    secret: str = "keys", app: AppName = DEMO, at: float = 1_000_000.0, /, **values: str | None
) -> SecretChange:
    found = tuple((key, None if value is None else Secret(value)) for key, value in values.items())
    return SecretChange(uuid.uuid4().hex, app, secret, found, "ann", at)


def put(store: SqliteStore, asked: SecretChange) -> str:
    """What becomes of it: the state and the message."""
    return outcome(store, asked, ask(store, asked))


def ask(store: SqliteStore, asked: SecretChange) -> SecretChange:
    store.secrets.ask(asked)
    return asked


def outcome(store: SqliteStore, asked: SecretChange, _: object = None) -> str:
    with store.transaction():  # before which the daemon takes in what others ask for
        pass
    found = store.secrets.change(asked.app, asked.id)
    assert found is not None
    return f"{found.state}: {found.message}"


def values(store: SqliteStore, app: AppName = DEMO) -> dict[str, dict[str, str]]:
    return {s.name: {key: value.reveal() for key, value in s.values} for s in store.secrets.of(app).readable}


def forge(path: Path, id: object, app: object, sealed: object, at: object = 1_000_000.0) -> None:
    with closing(sqlite3.connect(shared_path(path), isolation_level=None)) as db:
        db.execute("INSERT INTO secret_changes VALUES (?, ?, ?, ?)", (id, app, sealed, at))


def all_files(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in sorted(path.parent.rglob("*")) if each.is_file())


# --- from a person to the daemon -----------------------------------------------------------------------------------


def test_a_change_is_applied_and_told(owner: SqliteStore, guest: SqliteStore, path: Path) -> None:
    asked = ask(guest, change(TOKEN="hunter2-horse", OTHER="correct-horse"))
    (waiting,) = guest.secrets.changes(DEMO)
    assert waiting == ChangeRecord(asked.id, DEMO, ChangeState.WAITING, 1_000_000.0)
    assert outcome(owner, asked) == "applied: the Secret 'keys': set TOKEN, OTHER (by ann)"
    assert values(owner) == {"keys": {"OTHER": "correct-horse", "TOKEN": "hunter2-horse"}}
    assert values(owner, OTHER) == {}
    shown = guest.secrets.listed(DEMO)
    assert [(each.secret, each.key, each.by, each.at) for each in shown] == [
        ("keys", "OTHER", "ann", 1_000_000.0),
        ("keys", "TOKEN", "ann", 1_000_000.0),
    ]
    (taken,) = guest.secrets.changes(DEMO)
    request = guest.requests.get(taken.request)
    assert request is not None
    assert (request.app, request.reasons) == (DEMO, (Trigger.SECRET,))
    (event,) = owner.events.list(DEMO)
    assert (event.reason, event.message) == (Reason.SECRET_CHANGED, taken.message)
    assert guest.secrets.of(DEMO).values == (), "only the daemon can read them"
    for value in (b"hunter2", b"correct-horse"):
        assert value not in all_files(path)


def test_an_equal_value_asks_for_nothing(owner: SqliteStore) -> None:
    put(owner, change(TOKEN="hunter2"))
    before = owner.secrets.listed(DEMO)
    assert owner.requests.claim(2_000_000.0) is not None
    assert put(owner, change(TOKEN="hunter2")).startswith("unchanged: the Secret 'keys': has these values")
    assert owner.requests.claim(2_000_000.0) is None
    assert owner.secrets.listed(DEMO) == before
    put(owner, change(TOKEN="hunter3"))
    assert [each.fingerprint for each in owner.secrets.listed(DEMO)] != [each.fingerprint for each in before]


def test_keys_are_removed_one_by_one_and_all_at_once(owner: SqliteStore) -> None:
    put(owner, change(A="1", B="2", C="3"))
    assert put(owner, change(A=None)).endswith("removed A (by ann)")
    assert values(owner) == {"keys": {"B": "2", "C": "3"}}
    assert put(owner, change()).endswith("'keys': removed (by ann)")
    assert values(owner) == {}
    assert put(owner, change()).startswith("refused: nobody has set a Secret 'keys'")
    assert [event.reason for event in owner.events.list(DEMO)][-1] == Reason.SECRET_REFUSED


def test_what_nobody_may_ask_for_is_told_at_once(guest: SqliteStore) -> None:
    for asked in (change("Keys", A="x"), change(A=""), change(A="a\0b"), change(A="x" * 100_001)):
        with pytest.raises(Stalled) as caught:
            guest.secrets.ask(asked)
        assert caught.value.reason == Reason.SECRET_REFUSED
    with pytest.raises(Stalled, match=f"more than {MAX_BYTES} bytes"):
        guest.secrets.ask(change(**{f"K{number}": "x" * 100_000 for number in range(30)}))
    assert guest.secrets.changes(DEMO) == ()


def test_a_share_that_is_used_up(owner: SqliteStore) -> None:
    assert put(owner, change(A="x" * 100_000)).startswith("applied")
    assert "bytes in all Secrets of the app demo" in put(owner, change("more", A="z" * 100_000))
    assert put(owner, change("more", OTHER, A="z" * 100_000)).startswith("applied"), "others are not affected"
    assert values(owner).keys() == {"keys"}


def test_few_wait_at_once(owner: SqliteStore, guest: SqliteStore) -> None:
    asked = [ask(guest, change(**{f"K{number}": "x"})) for number in range(MAX_WAITING)]
    with pytest.raises(Transient, match="is it running") as caught:
        guest.secrets.ask(change(A="x"))
    assert caught.value.reason == Reason.QUEUE_FULL
    ask(guest, change("keys", OTHER, A="x"))
    owner.changed()
    assert all(outcome(owner, each).startswith("applied") for each in asked)
    ask(guest, change(A="x"))


def test_before_the_daemon_has_its_keys_changes_wait(
    path: Path, owner: SqliteStore, guest: SqliteStore
) -> None:
    asked = ask(guest, change(A="x"))
    with closing(open_store(path, clock=HandClock())) as started:
        started.changed()
        found = started.secrets.change(DEMO, asked.id)
        assert found is not None
        assert found.state is ChangeState.WAITING
        assert not started.secrets.of(DEMO).names
        started.secrets.unlock(KEYS)
        assert outcome(started, asked).startswith("applied")


def test_nothing_is_sealed_before_there_is_a_key(path: Path) -> None:
    with closing(open_store(path)), closing(open_guest_store(path)) as asking:
        asked = change(A="x")
        with pytest.raises(Transient, match="has not run yet"):
            asking.secrets.ask(asked)


# --- once, or not at all -------------------------------------------------------------------------------------------


def test_a_death_between_both_databases_applies_nothing_twice(
    path: Path, owner: SqliteStore, guest: SqliteStore, clock: HandClock
) -> None:
    """The state is written first, so the change may be there again; also when somebody repeats it later."""
    first = ask(guest, change(TOKEN="first"))
    with closing(sqlite3.connect(shared_path(path), isolation_level=None)) as db:
        (row,) = db.execute("SELECT * FROM secret_changes").fetchall()
    assert outcome(owner, first).startswith("applied")
    assert put(owner, change(TOKEN="second")).startswith("applied")
    for _ in range(2):
        forge(path, *row)
        assert outcome(owner, first).startswith("applied")
        assert values(owner) == {"keys": {"TOKEN": "second"}}
        clock.at += LONGEST_WAIT / 2
    assert len(owner.secrets.changes(DEMO)) == 2


def test_a_change_that_fails_in_the_middle_leaves_nothing(
    path: Path, owner: SqliteStore, guest: SqliteStore
) -> None:
    """The pass is part of the transaction: without it nothing is stored, and the change is still there."""
    asked = ask(guest, change(A="1", B="2"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(
            "CREATE TRIGGER fail BEFORE INSERT ON secret_changes_taken BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
    with pytest.raises(sqlite3.Error):
        owner.changed()
    assert values(owner) == {}
    assert owner.events.list(DEMO) == ()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER fail")
    assert outcome(owner, asked).startswith("applied")
    assert values(owner) == {"keys": {"A": "1", "B": "2"}}


def test_what_was_asked_long_ago_is_refused(owner: SqliteStore, guest: SqliteStore, clock: HandClock) -> None:
    old = ask(guest, change(A="x"))
    clock.at += LONGEST_WAIT + 1
    assert outcome(owner, old).startswith("refused: the change is too old")
    assert put(owner, change("keys", DEMO, clock.at + 9999, A="x")).startswith(
        "refused: the change is too old, or the clock"
    )
    assert values(owner) == {}


def test_records_are_bounded(path: Path, owner: SqliteStore) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        row = "SELECT i, 'demo', 'keys', 'ann', 'applied', '', 0, 5, '' FROM n"
        db.execute(f"INSERT INTO secret_changes_taken {many} {row}", (KEEP_CHANGES,))
        put(owner, change(A="x"))
        assert db.execute("SELECT count(*) FROM secret_changes_taken").fetchone()[0] == KEEP_CHANGES
    assert owner.secrets.changes(DEMO)[0].state is ChangeState.APPLIED
    assert len(owner.secrets.changes(DEMO)) == 50


# --- hostile -------------------------------------------------------------------------------------------------------


def sealed(asked: SecretChange, keys: SecretKeys = KEYS, app: str = "demo") -> bytes:
    return seal_for(keys.public, packed(asked), f"change {app} {asked.id}".encode())


def test_what_was_sealed_for_one_app_counts_for_no_other(path: Path, owner: SqliteStore) -> None:
    asked = change(TOKEN="stolen")
    forge(path, asked.id, "other", sealed(asked))
    assert "sealed for another key" in outcome(owner, SecretChange(asked.id, OTHER, "", (), "", 0.0))
    forge(path, "1" * 32, "demo", sealed(asked))
    owner.changed()
    assert (values(owner), values(owner, OTHER)) == ({}, {})


def test_what_was_sealed_for_another_key_is_refused_and_told(path: Path, owner: SqliteStore) -> None:
    asked = change(TOKEN="x")
    forge(path, asked.id, "demo", sealed(asked, OTHERS))
    assert outcome(owner, asked) == (
        "refused: the change was sealed for another key than the daemon's: ask for it again"
    )


@pytest.mark.parametrize(
    ("id", "app", "content"),
    [
        ("x", "demo", b""),
        ("0" * 32 + "\n", "demo", b""),
        ("0" * 32, "../demo", b""),
        ("0" * 32, "unknown", b""),
        ("0" * 32, str(PLATFORM), b""),
        ("0" * 32, "demo", bytes(LARGEST + 1)),
    ],
    ids=["id", "id and more", "app", "unknown app", "platform", "size"],
)
def test_rows_that_the_platform_does_not_write_are_dropped(
    path: Path, owner: SqliteStore, guest: SqliteStore, id: str, app: str, content: bytes
) -> None:
    forge(path, id, app, content)
    good = ask(guest, change(A="x"))
    assert outcome(owner, good).startswith("applied")
    assert [each.id for each in owner.secrets.changes(DEMO)] == [good.id]


@pytest.mark.parametrize(
    "asked",
    [
        change("../keys", A="x"),
        change(A="x" * 200_000),
        change(A="\0"),
        change(**{"LD PRELOAD": "x"}),
        SecretChange("2" * 32, DEMO, "keys", (("A", Secret("x")),), "\x1b[2J", 1_000_000.0),
        SecretChange("3" * 32, DEMO, "keys", (("A", Secret("x")),), "x" * 500, 1_000_000.0),
    ],
    ids=["name", "size", "NUL", "key", "author", "long author"],
)
def test_what_ask_refuses_is_refused_by_the_daemon_too(
    path: Path, owner: SqliteStore, asked: SecretChange
) -> None:
    forge(path, asked.id, "demo", sealed(asked))
    owner.changed()
    assert values(owner) == {}
    assert owner.secrets.change(DEMO, asked.id) is None
    assert owner.events.list(DEMO) == ()


# --- keys ----------------------------------------------------------------------------------------------------------


def test_with_another_key_the_values_wait_for_the_right_one(path: Path, owner: SqliteStore) -> None:
    put(owner, change(TOKEN="hunter2"))
    with closing(open_store(path)) as lost:
        lost.secrets.unlock(OTHERS)
        found = lost.secrets.of(DEMO)
        with pytest.raises(Stalled, match=r"instance\.key from the backup") as caught:
            found.get("keys")
        assert caught.value.reason == Reason.SECRET_UNREADABLE
        assert found.values == ()
        assert found.names == frozenset(("keys",))
        (event,) = lost.events.list(PLATFORM)
        assert "1 values of Secrets (demo) were encrypted with another key" in event.message
        lost.secrets.unlock(OTHERS)
        assert len(lost.events.list(PLATFORM)) == 1, "it is told once"
        with pytest.raises(Stalled, match="another key"):
            lost.secrets.rekey(KEYS)
        lost.secrets.unlock(KEYS)
        assert values(lost) == {"keys": {"TOKEN": "hunter2"}}


def test_with_another_key_a_value_can_be_set_again(path: Path, owner: SqliteStore) -> None:
    put(owner, change(TOKEN="hunter2"))
    owner.secrets.unlock(OTHERS)
    asked = change(TOKEN="hunter2")
    assert put(owner, asked).startswith("applied"), "also if it is the same"
    assert values(owner) == {"keys": {"TOKEN": "hunter2"}}


def test_a_damaged_or_moved_value_is_not_used(path: Path, owner: SqliteStore) -> None:
    put(owner, change(TOKEN="hunter2", OTHER="hunter3"))
    put(owner, change("more", TOKEN="hunter4"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(
            "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE key = 'OTHER') WHERE secret = 'keys'"
        )
    with pytest.raises(Stalled, match="damaged in the state, at its key 'TOKEN'"):
        owner.secrets.of(DEMO).get("keys")
    assert values(owner) == {"more": {"TOKEN": "hunter4"}}


def test_other_keys_for_all_values(path: Path, owner: SqliteStore) -> None:
    put(owner, change(TOKEN="hunter2"))
    put(owner, change("keys", OTHER, TOKEN="hunter3"))
    before = owner.secrets.listed(DEMO)
    with closing(sqlite3.connect(path)) as db:
        old = [row[0] for row in db.execute("SELECT sealed FROM secrets").fetchall()]
    assert owner.secrets.rekey(OTHERS) == 2
    assert (values(owner), values(owner, OTHER)) == (
        {"keys": {"TOKEN": "hunter2"}},
        {"keys": {"TOKEN": "hunter3"}},
    )
    assert owner.secrets.foreign(OTHERS) == ""
    assert owner.secrets.public_key == OTHERS.public
    (after,) = owner.secrets.listed(DEMO)
    assert (after.by, after.at) == (before[0].by, before[0].at)
    assert not any(each in path.read_bytes() for each in old), "nothing is left for who has the old key"
    assert put(owner, change(TOKEN="hunter2")).startswith("unchanged")


def test_an_app_that_leaves_takes_its_secrets_along(path: Path, owner: SqliteStore) -> None:
    put(owner, change(TOKEN="hunter2"))
    put(owner, change("keys", OTHER, TOKEN="hunter3"))
    owner.secrets.forget(DEMO)
    assert (owner.secrets.listed(DEMO), owner.secrets.changes(DEMO)) == ((), ())
    assert values(owner, OTHER) == {"keys": {"TOKEN": "hunter3"}}
