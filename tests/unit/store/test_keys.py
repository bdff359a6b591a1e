"""What is secret lies apart from the state: operators read the one, and the web process alone reads the other."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlite_utils
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.status import RepositoryRecord
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Api, Route, Service, ServiceKind
from controller.domain.secret import Secret
from controller.domain.storage.box import StorageAccess
from controller.store import SqliteStore, open_guest_store, open_store
from controller.store.codec import encode
from controller.store.keys import Credentials, keys_folder
from controller.store.schema import migrations
from tests.support.another import as_another

DEMO, API = AppName("demo"), ComponentName("api")
PASSWORD, TOKEN, HOOK, STORAGE = (
    "scrypt:32768:8:1$salt$5e4d",
    "sha256:c0ffee",
    "hook-secret-value",
    "s3cr3t-of-s3",
)
SECRETS = (PASSWORD, TOKEN, HOOK, STORAGE)
GUARDED = Api("image", API, True, users=(("ann", PASSWORD),), tokens=(("bot", TOKEN),))
ROUTE = Route(DEMO, API, "1:aa", "abc", ("10.0.0.1:80",), (GUARDED,))
SERVICE = Service(DEMO, replace(GUARDED, path="files"), ServiceKind.FILES)
RECORD = RepositoryRecord("demo", (DEMO,), "branch:main", 60.0, "github", HOOK)
ACCESS = StorageAccess("http://a", "http://a", "key", Secret(STORAGE))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db" / "state.db"


def fill(store: SqliteStore) -> None:
    store.routes.switch(ROUTE)
    store.routes.publish(DEMO, (SERVICE,))
    store.repositories.replace((RECORD,))
    store.boxes.record_access(ACCESS)


def require_all(store: SqliteStore) -> None:
    assert store.routes.all() == store.routes.of(DEMO) == (ROUTE,)
    assert store.routes.services() == (SERVICE,)
    assert store.repositories.all() == (RECORD,)
    assert store.repositories.get("demo") == RECORD
    assert store.boxes.access() == ACCESS


@pytest.fixture
def owner(path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(path)) as store:
        fill(store)
        yield store


def what_operators_read(path: Path) -> bytes:
    """All files but those in the folder of the web process' group."""
    files = (each for each in path.parent.rglob("*") if each.is_file() and "keys" not in each.parts)
    return b"".join(each.read_bytes() for each in files)


def test_no_secret_is_in_what_operators_read(path: Path, owner: SqliteStore) -> None:
    content = what_operators_read(path)
    assert b"ann" in content
    assert [secret for secret in SECRETS if secret.encode() in content] == []
    require_all(owner)
    with closing(open_guest_store(path)) as web:
        require_all(web)


def test_the_folder_is_closed_to_all_but_the_daemon_and_its_group(path: Path, owner: SqliteStore) -> None:
    folder = keys_folder(path)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (folder, *folder.iterdir())}
    assert modes == {"keys": 0o2750, "credentials.json": 0o640, "storage.json": 0o640}


@pytest.mark.skipif(os.geteuid() != 0, reason="takes the rights of another user")
def test_an_operator_sees_names_and_no_secret() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = Path(name) / "db" / "state.db"

        def look() -> None:
            with closing(open_guest_store(path)) as store:
                (route,), (service,) = store.routes.all(), store.routes.services()
                (record,) = store.repositories.all()
                assert store.boxes.access() is None
            assert route.apis[0].users == service.api.users == (("ann", ""),)
            assert (route.apis[0].tokens, record.hook_secret) == ((("bot", ""),), "")
            for file in ("credentials.json", "storage.json"):
                with pytest.raises(PermissionError):
                    (keys_folder(path) / file).read_bytes()

        def look_as_web() -> None:
            with closing(open_guest_store(path)) as store:
                require_all(store)
            for each in keys_folder(path).iterdir():
                with pytest.raises(PermissionError):
                    os.open(each, os.O_RDWR)

        with closing(open_store(path)) as store:
            fill(store)
            for each in (path.parent, *path.parent.rglob("*")):
                mode = stat.S_IMODE(each.stat().st_mode)
                os.chown(each, 0, 4243 if "keys" in each.parts else 4242)
                each.chmod(mode)  # a change of the owner takes set-id bits away
            as_another(look, 4242)
            as_another(look_as_web, 4243, 4242)


def test_values_that_no_row_has_any_more_are_forgotten(path: Path, owner: SqliteStore) -> None:
    owner.routes.withdraw(DEMO, API)
    owner.repositories.replace(())
    owner.prune()
    content = (keys_folder(path) / "credentials.json").read_text()
    assert HOOK not in content
    assert PASSWORD in content, "the service has it"
    owner.routes.publish(DEMO, ())
    owner.prune()
    assert json.loads((keys_folder(path) / "credentials.json").read_text()) == {}


def test_the_same_again_writes_nothing(path: Path, owner: SqliteStore) -> None:
    version, file = owner.routes.version(), (keys_folder(path) / "credentials.json").stat()
    fill(owner)
    owner.prune()
    after = (keys_folder(path) / "credentials.json").stat()
    assert owner.routes.version() == version
    assert (after.st_ino, after.st_mtime_ns) == (file.st_ino, file.st_mtime_ns)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"], ids=repr)
def test_what_is_lost_fits_nothing_and_comes_back_with_the_next_pass(
    path: Path, owner: SqliteStore, content: bytes | None
) -> None:
    file = keys_folder(path) / "credentials.json"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with closing(open_guest_store(path)) as web:
        (route,), (record,) = web.routes.all(), web.repositories.all()
        assert (route.apis[0].users, record.hook_secret) == ((("ann", ""),), "")
        fill(owner)
        require_all(web)


@given(st.lists(st.text(max_size=20), max_size=8))
def test_a_handle_stands_for_its_value_and_says_nothing_of_it(values: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "db" / "state.db"
        credentials = Credentials(path)
        handles = {value: credentials.handle(value) for value in values}
        assert {value: Credentials(path).value(handle) for value, handle in handles.items()} == {
            value: value for value in values
        }
        assert len({*handles.values()}) == len(handles)
        assert all(handle == "" or len(handle) == len("key:") + 16 for handle in handles.values())


def test_secrets_of_an_older_state_leave_it_for_good(path: Path) -> None:
    """Pages that SQLite has let go of included."""
    path.parent.mkdir(mode=0o770)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrations.apply(sqlite_utils.Database(db, execute_plugins=False), stop_before="m008_owners")
        db.execute("PRAGMA user_version = 7")
        db.execute("INSERT INTO storage_access VALUES (1, 'http://a', 'http://a', 'k', ?, 'r')", (STORAGE,))
        db.execute("INSERT INTO routes VALUES (?, ?, ?)", (DEMO, API, encode(ROUTE)))
        db.execute("INSERT INTO routes VALUES (?, ?, ?)", (DEMO, "broken", f'{{"apis": ["{PASSWORD}"]}}'))
        db.execute("INSERT INTO services VALUES (?, ?, ?)", (DEMO, "files", encode(SERVICE)))
        db.execute("INSERT INTO repositories VALUES (?, ?)", ("demo", encode(RECORD)))
        aside = "INSERT INTO rows_aside VALUES (1, 1, 'the route of', 'demo', 'demo/x', 'broken', ?)"
        db.execute(aside, (encode(ROUTE),))
        for number in range(200):  # what was, and is no more
            db.execute("INSERT INTO facts VALUES (?, 1)", (f"{PASSWORD}{number}",))
        db.execute("DELETE FROM facts")
    with closing(open_store(path)) as store:
        store.boxes.record_access(ACCESS)
        require_all(store)
        content = what_operators_read(path)
        assert [secret for secret in SECRETS if secret.encode() in content] == []
