"""A small installation with everything that a backup has, and what tests compare after a restore."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pygit2

from controller.age import AgeKeys, new_key
from controller.backup.create import Maker
from controller.backup.places import FolderPlace
from controller.config import Settings
from controller.config.settings import BackupSettings, PlatformSource
from controller.daemon import hosted
from controller.daemon.instance_key import instance_key
from controller.daemon.wiring import prepare_folders
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.spec import Reclaim
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.secret import Secret
from controller.domain.storage.box import BoxRecord
from controller.encryption import SecretKeys
from controller.store import SqliteStore
from controller.store.calls_file import CallFile
from controller.store.names import CallerNameTable
from controller.store.people import PeopleStore
from tests.support.fake_objects import FakeObjects, FakeStorage
from tests.support.stores import open_store

KEY = new_key()
OTHER_KEY = new_key()
DEMO = AppName("demo")
BUCKET = "prichal.demo.files"
SECRET = "hunter2"
TOKEN = "t" * 40


def settings_of(home: Path, to: Path | str = "", **chosen: Any) -> Settings:
    """Return the settings of an installation below `home`, whose backups lie beside it."""
    backup = BackupSettings(to=str(to or home.parent / "backups"), recipients=(KEY.recipient,), **chosen)
    return Settings(state=home / "state", platform=PlatformSource(str(home / "platform")), backup=backup)


def install(settings: Settings, storage: FakeStorage) -> None:
    """Make an installation that has run: an app with a Secret and a key, a box with files, a repository, people."""
    prepare_folders(settings)
    platform = Path(settings.platform.path)
    platform.mkdir(parents=True)
    (platform / "apps.yaml").write_text("kind: Repository\n")
    (platform / "lab").mkdir()
    (platform / "lab" / "more.yaml").write_text("kind: Secret\n")
    with closing(open_store(settings.database)) as store:
        store.secrets.unlock(SecretKeys(instance_key(settings.private)))
        store.age_keys.ensure(DEMO)
        store.apps.save(AppStatus(DEMO))
        store.secrets.ask(
            SecretChange("0" * 32, DEMO, "keys", (("PASSWORD", Secret(SECRET)),), "ann", time.time())
        )
        with store.transaction():
            store.boxes.save(BoxRecord(DEMO, ComponentName("files"), BUCKET, 10**9, Reclaim.RETAIN))
    objects = storage.objects()
    objects.create_bucket(BUCKET)
    put(objects, "developer/weights/model.bin", b"weights" * 1000)
    put(
        objects,
        "users/ann/file_groups/a/ü.txt",
        b"content",
        {"content-type": "text/plain", "x-amz-meta-a": "1"},
    )
    people = PeopleStore(settings.people)
    settings.people.parent.mkdir(exist_ok=True)
    people.add("ann", 5.0)
    CallerNameTable(settings.names).claim(DEMO, "olga", "https://issuer.example.org#1", now=1.0)
    CallFile(settings.async_calls).changed()
    settings.admin_token_file.write_text(TOKEN)
    hosted.create(settings, "colors")
    commit(settings, "colors", "one")


def put(objects: FakeObjects, key: str, content: bytes, headers: dict[str, str] | None = None) -> None:
    objects.put_described(BUCKET, key, BytesIO(content), len(content), headers or {})


def commit(settings: Settings, name: str, text: str, branch: str = "main") -> str:
    """Push, as a person does: objects first, then the branch."""
    repository = pygit2.Repository(str(settings.repositories / f"{name}.git"))
    blob = repository.create_blob(text.encode())
    tree = repository.TreeBuilder()
    tree.insert("file", blob, pygit2.enums.FileMode.BLOB)
    who = pygit2.Signature("ann", "ann@example.org", 1, 0)
    ref = f"refs/heads/{branch}"
    before = repository.references.get(ref)
    parents = [before.target] if before else []
    return str(repository.create_commit(ref, who, who, text, tree.write(), parents))


def facts(settings: Settings, storage: FakeStorage) -> dict[str, Any]:
    """Return what an installation answers."""
    with closing(open_store(settings.database)) as store:
        return {**_state(settings, store), **_files(settings), "boxes": _boxes(storage)}


def _state(settings: Settings, store: SqliteStore) -> dict[str, Any]:
    store.secrets.unlock(SecretKeys(instance_key(settings.private)))
    store.changed()
    with store.transaction():
        pass
    keys = store.age_keys.of(DEMO)
    owned = store.secrets.of(DEMO).readable
    return {
        "apps": [status.app for status in store.apps.all()],
        "secret": {key: value.reveal() for found in owned for key, value in found.values},
        "age": [(key.recipient, key.identity.reveal()) for key in keys.keys]
        if isinstance(keys, AgeKeys)
        else [],
        "box": [(box.app, box.box, box.bucket, box.capacity) for box in store.boxes.all()],
    }


def _files(settings: Settings) -> dict[str, Any]:
    platform = Path(settings.platform.path)
    return {
        "key": (settings.private / "instance.key").read_bytes(),
        "people": [account.name for account in PeopleStore(settings.people).accounts()],
        "names": [owned.name for owned in CallerNameTable(settings.names).all(DEMO)],
        "token": settings.admin_token_file.read_text(),
        "platform": {p.relative_to(platform).as_posix(): p.read_bytes() for p in platform.rglob("*.yaml")},
        "repositories": {each.name: _repository(each.path) for each in hosted.repositories(settings)},
        "hooks": {
            each.name: hosted.hook_secret(settings, each.name) for each in hosted.repositories(settings)
        },
    }


def _repository(path: Path) -> dict[str, Any]:
    repository = pygit2.Repository(str(path))
    refs = {name: str(repository.references[name].target) for name in repository.references}
    content = {name: _texts(repository, target) for name, target in refs.items()}
    return {"refs": refs, "content": content, "head": repository.lookup_reference("HEAD").raw_target}


def _texts(repository: pygit2.Repository, target: str) -> list[str]:
    return [_text(repository, commit) for commit in repository.walk(target)]


def _text(repository: pygit2.Repository, commit: pygit2.Commit) -> str:
    blob = commit.tree["file"]
    assert isinstance(blob, pygit2.Blob)
    return blob.data.decode()


def _boxes(storage: FakeStorage) -> dict[str, Any]:
    return {
        bucket: {
            key: (content, storage.server.described.get((bucket, key), {}))
            for key, (_, content) in objects.items()
        }
        for bucket, objects in storage.server.buckets.items()
    }


def maker_of(settings: Settings, storage: FakeStorage, **chosen: Any) -> Maker:
    place = FolderPlace(Path(settings.backup.to), settings.instance)
    return replace(Maker(settings, place, storage.objects), **chosen)


def tables(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]


def head_document(**changes: Any) -> bytes:
    """Return the head of an archive that was made elsewhere."""
    head = {
        "format": 1,
        "prichal": "0.1.0",
        "schema": 1,
        "instance": "prichal",
        "created": 1.0,
        "buckets": [],
    }
    return json.dumps({**head, **changes}).encode()
