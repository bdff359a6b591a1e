"""An installation is backed up while it is in use, and comes back on an empty host with the same answers."""

from __future__ import annotations

import grp
import io
import os
import pwd
import resource
import shutil
import signal
import sqlite3
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from urllib.parse import quote

import pygit2
import pytest
import sqlite_utils

from controller.backup import restore as restoring
from controller.backup.archive import ArchiveWriter, Head, reading, writing
from controller.backup.create import only_backup
from controller.backup.restore import restore, verify
from controller.config import Settings
from controller.daemon.last_good import FolderContent, LastGood
from controller.daemon.lock import only_one
from controller.daemon.run import serve
from controller.domain.apps.status import AppStatus
from controller.domain.backups import Backup
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.storage.box import StoredObject
from controller.ports import SourceFile
from controller.store import open_guest_store
from controller.store.backup_record import load_record
from controller.store.codec import encode
from controller.store.people import PeopleStore
from controller.store.schema import migrations
from controller.store.shared_file import shared_path
from controller.store.version import VERSION
from tests.support.backups import (
    BUCKET,
    DEMO,
    KEY,
    OTHER_KEY,
    commit,
    facts,
    install,
    maker_of,
    put,
    settings_of,
)
from tests.support.fake_objects import FakeObjects, FakeStorage
from tests.support.pages import ROOT
from tests.support.stores import open_store

IDENTITIES = (KEY.identity,)


@pytest.fixture
def old(tmp_path: Path) -> Settings:
    settings = settings_of(tmp_path / "old")
    settings.state.parent.mkdir()
    return settings


@pytest.fixture
def storage(old: Settings) -> FakeStorage:
    storage = FakeStorage()
    install(old, storage)
    return storage


@pytest.fixture
def new(tmp_path: Path) -> Settings:
    settings = settings_of(tmp_path / "new")
    settings.state.parent.mkdir()
    return settings


def opener(settings: Settings, made: Backup | str) -> Callable[[], Any]:
    name = made if isinstance(made, str) else made.name
    return partial((Path(settings.backup.to) / name).open, "rb")


def restored(settings: Settings, open_archive: Callable[[], Any], **chosen: Any) -> FakeStorage:
    storage: FakeStorage = chosen.pop("storage", FakeStorage())
    restore(settings, open_archive, IDENTITIES, storage=lambda key: storage, **chosen)
    return storage


def names(settings: Settings, made: Backup) -> list[str]:
    with opener(settings, made)() as source, reading(source, IDENTITIES) as archive:
        return [member.name for member in archive.members()]


def refusal(work: Callable[[], object]) -> ControllerError:
    with pytest.raises(ControllerError) as caught:
        work()
    return caught.value


def test_everything_comes_back(old: Settings, storage: FakeStorage, new: Settings) -> None:
    before = facts(old, storage)
    assert before["secret"] == {"PASSWORD": "hunter2"}
    assert before["repositories"]["colors"]["content"] == {"refs/heads/main": ["one"]}
    made = maker_of(old, storage).create()
    proof = verify(opener(old, made), IDENTITIES)
    assert (proof.head.instance, proof.head.schema, proof.objects) == ("prichal", VERSION, 2)
    there = restored(new, opener(old, made))
    assert facts(new, there) == before
    assert not new.restore_marker.exists()


NAMED = """\
# {there}/colors.git is hosted here
url: {there}/colors.git
---
spec: {{url: "file://{quoted}/colors.git", ref: x}}
---
url: {there}/colors.git/config
url: {there}/../colors.git
url: /srv{there}/colors.git
url: ssh://host{there}/colors.git
"""


def named(settings: Settings) -> str:
    there = settings.repositories
    return NAMED.format(there=there, quoted=quote(str(there)))


def test_repositories_are_named_in_their_new_place(
    old: Settings, storage: FakeStorage, tmp_path: Path
) -> None:
    """The state folder may be another one than before. Addresses that only look alike stay."""
    sealed = f"url: {old.repositories}/colors.git\nsops: {{}}\n"
    platform = Path(old.platform.path)
    (platform / "repositories.yaml").write_text(named(old))
    (platform / "sealed.yaml").write_text(sealed)
    files = (SourceFile("repositories.yaml", named(old).encode()),)
    LastGood(old.private / "platform.json").keep(FolderContent(files))
    new = settings_of(tmp_path / "a host's")
    new.state.parent.mkdir()
    made = maker_of(old, storage).create()
    proof = restore(new, opener(old, made), IDENTITIES, storage=lambda key: FakeStorage())
    assert proof.moved == ("repositories.yaml",)
    restored_to = Path(new.platform.path)
    wanted = named(new).splitlines()[:5] + named(old).splitlines()[5:]
    assert (restored_to / "repositories.yaml").read_text().splitlines() == wanted
    assert (restored_to / "sealed.yaml").read_text() == sealed, "its MAC covers the path"
    content = LastGood(new.private / "platform.json").read()
    assert content is not None
    assert content.files[0].content.decode().splitlines() == wanted


#: Real accounts of the system in place of prichal, prichal-web and prichal-git.
ACCOUNTS = {"root": "root", "prichal": "daemon", "prichal-web": "bin", "prichal-git": "games"}


def laid_out(state: Path) -> None:
    """Make the folders as systemd-tmpfiles does on a host with the package, with their owners."""
    for line in (ROOT / "systemd" / "prichal.tmpfiles").read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind in ("d", "f") and "/var/lib/prichal" in rest:
            place, mode, user, group = rest.split()
            path = state / Path(place).relative_to("/var/lib/prichal")
            path.mkdir(exist_ok=True) if kind == "d" else path.touch()
            shutil.chown(path, ACCOUNTS[user], ACCOUNTS[group])
            path.chmod(int(mode, 8))


def as_service(user: str, groups: Sequence[str], work: Callable[[], object]) -> int:
    """Do something as a service does, in another process; return 0 if it raises nothing."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os.setgroups([grp.getgrnam(ACCOUNTS[group]).gr_gid for group in groups])
        os.setgid(pwd.getpwnam(ACCOUNTS[user]).pw_gid)
        os.setuid(pwd.getpwnam(ACCOUNTS[user]).pw_uid)
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the exit code tells
        traceback.print_exc()
        os._exit(1)


def everything_readable(*folders: Path) -> None:
    for folder in folders:
        assert os.listdir(folder), folder
        for path in folder.rglob("*"):
            os.listdir(path) if path.is_dir() else path.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other users")
def test_what_root_restores_belongs_to_the_services(old: Settings, storage: FakeStorage) -> None:
    """Each of the three users of the package can do its work in the state, and nothing belongs to root."""
    made = maker_of(old, storage).create()
    with TemporaryDirectory() as folder:  # pytest's may be entered by root alone
        Path(folder).chmod(0o755)
        new = settings_of(Path(folder), to=old.backup.to)
        laid_out(new.state)
        platform = Path(new.platform.path)
        platform.mkdir(mode=0o700)
        shutil.chown(platform, ACCOUNTS["prichal"], ACCOUNTS["prichal"])
        restored(new, opener(old, made))
        owners = {path: path.owner() for path in (*new.state.rglob("*"), *platform.rglob("*"))}
        web = new.state / "web"
        wrong = {
            path.relative_to(folder): owner
            for path, owner in owners.items()
            if owner != (ACCOUNTS["prichal-web"] if path.is_relative_to(web) else ACCOUNTS["prichal"])
        }
        assert wrong == {}
        daemon = partial(everything_readable, new.private, new.database.parent, new.repositories, platform)
        assert as_service("prichal", ["prichal"], daemon) == 0
        assert as_service("prichal", ["prichal"], lambda: open_store(new.database).close()) == 0
        credentials = new.database.parent / "keys"
        assert as_service("prichal-web", ["prichal"], lambda: everything_readable(web)) == 0
        assert as_service("prichal-web", ["prichal"], lambda: asking(new)) == 0
        assert as_service("prichal-web", ["prichal"], lambda: everything_readable(new.private)) != 0
        assert as_service("prichal-git", ["prichal"], lambda: commit(new, "colors", "two")) == 0
        assert as_service("prichal-git", ["prichal"], lambda: everything_readable(web)) != 0
        assert credentials.group() == ACCOUNTS["prichal-web"]


def asking(settings: Settings) -> None:
    with closing(open_guest_store(settings.database)) as store:
        store.apps.set_suspended(DEMO, True)
    assert [account.name for account in PeopleStore(settings.people).accounts()] == ["ann"]


def test_files_have_the_rights_that_services_give_them(
    old: Settings, storage: FakeStorage, new: Settings
) -> None:
    made = maker_of(old, storage).create()
    restored(new, opener(old, made))
    modes = {
        path: (new.state / path).stat().st_mode & 0o7777
        for path in (
            "private/instance.key",
            "db/state.db",
            "db/asked/asked.db",
            "web/people.db",
            "web/admin.token",
        )
    }
    assert modes == {
        "private/instance.key": 0o600,
        "db/state.db": 0o640,
        "db/asked/asked.db": 0o660,
        "web/people.db": 0o600,
        "web/admin.token": 0o600,
    }
    assert (new.repositories / "colors.git" / "hooks" / "post-receive").stat().st_mode & 0o777 == 0o755
    assert (Path(old.backup.to) / made.name).stat().st_mode & 0o777 == 0o600


def test_nothing_of_it_is_readable_without_the_key(old: Settings, storage: FakeStorage) -> None:
    made = maker_of(old, storage).create()
    content = (Path(old.backup.to) / made.name).read_bytes()
    assert b"state.db" not in content
    assert b"instance.key" not in content
    assert [path.name for path in old.backups.iterdir() if path.is_dir()] == []  # no copies are left
    error = refusal(lambda: verify(opener(old, made), (OTHER_KEY.identity,)))
    assert error.reason == Reason.BACKUP_KEY_WRONG


def test_boxes_can_be_left_out(old: Settings, storage: FakeStorage, new: Settings) -> None:
    made = maker_of(old, storage).create(boxes=False)
    assert not [name for name in names(old, made) if name.startswith("boxes/")]
    there = restored(new, opener(old, made))
    assert there.server.buckets == {}
    whole = maker_of(old, storage).create()
    other = settings_of(new.state.parent / "other")
    other.state.parent.mkdir()
    assert restored(other, opener(old, whole), boxes=False).server.buckets == {}


def test_a_pipe_in_place_of_a_file_is_not_waited_for(old: Settings, storage: FakeStorage) -> None:
    """The web process owns the folder of the token."""
    old.admin_token_file.unlink()
    os.mkfifo(old.admin_token_file)
    error = refusal(maker_of(old, storage).create)
    assert (error.reason, str(old.admin_token_file) in error.message) == (Reason.BACKUP_FAILED, True)
    assert load_record(old.backup_record).failure is not None


#: Names that file systems, archives and people may take for one another, or for something else.
ODD_NAMES = (
    b"caf\xc3\xa9.yaml",  # composed
    b"cafe\xcc\x81.yaml",  # decomposed
    b"A.yaml",
    b"a.yaml",
    b"\xff\xfe.yaml",  # not UTF-8
    b"\xe2\x80\xae.yaml",  # written from right to left
    b"a\nb.yaml",
    b"-rf",
)


def test_files_of_any_name_and_kind_come_back(
    old: Settings, storage: FakeStorage, new: Settings, tmp_path: Path
) -> None:
    root, elsewhere = os.fsencode(old.platform.path), tmp_path / "elsewhere.yaml"
    elsewhere.write_bytes(b"# elsewhere")
    for number, name in enumerate(ODD_NAMES):
        Path(os.fsdecode(os.path.join(root, name))).write_bytes(b"# %d" % number)
    folder = Path(old.platform.path)
    (folder / "link.yaml").symlink_to(elsewhere)
    (folder / "leads-nowhere.yaml").symlink_to(tmp_path / "missing.yaml")
    (folder / "leads-to-a-folder.yaml").symlink_to(tmp_path)
    (folder / "hard.yaml").hardlink_to(elsewhere)
    with (folder / "sparse.yaml").open("wb") as file:
        file.truncate(200_000)
    made = maker_of(old, storage).create()
    restored(new, opener(old, made))
    for number, name in enumerate(ODD_NAMES):
        found = Path(os.fsdecode(os.path.join(os.fsencode(new.platform.path), name)))
        assert found.read_bytes() == b"# %d" % number, name
    back = Path(new.platform.path)
    for linked in ("link.yaml", "hard.yaml"):
        assert (back / linked).read_bytes() == b"# elsewhere"
        assert not (back / linked).is_symlink()
    assert (back / "sparse.yaml").read_bytes() == bytes(200_000)
    assert not list(back.glob("leads-*"))


def test_two_at_once(old: Settings, storage: FakeStorage) -> None:
    with only_backup(old):
        assert refusal(maker_of(old, storage).create).reason == Reason.BACKUP_RUNNING
    assert maker_of(old, storage).create().size > 0


def test_what_has_failed_is_recorded_and_never_listed(old: Settings, storage: FakeStorage) -> None:
    making = maker_of(old, storage)
    good = making.create()
    storage.down = True
    error = refusal(making.create)
    record = load_record(old.backup_record)
    assert record.failure is not None
    assert (record.failure.reason, record.failure.count) == (error.reason, 1)
    assert record.good is not None
    assert record.good.name == good.name
    assert [each.name for each in making.place.all()] == [good.name]
    storage.down = False
    making.create()
    assert load_record(old.backup_record).failure is None


class BreakingObjects(FakeObjects):
    """A storage that goes down while an object is read."""

    @contextmanager
    def open_described(self, bucket: str, found: StoredObject) -> Iterator[Any]:
        with super().open_described(bucket, found) as (headers, pieces):

            def breaking() -> Iterator[bytes]:
                yield next(iter(pieces))[:10]
                raise Transient(Reason.STORAGE_UNREACHABLE, "it is down")

            yield headers, breaking()


def test_a_storage_that_goes_down_in_the_middle(old: Settings, storage: FakeStorage) -> None:
    making = maker_of(old, storage, objects=lambda: BreakingObjects(storage.server))
    assert refusal(making.create).reason == Reason.STORAGE_UNREACHABLE
    assert list(Path(old.backup.to).iterdir()) == []


def test_a_disk_that_is_full(old: Settings, storage: FakeStorage) -> None:
    """A real one, as far as the process may write: the kernel ends each write with an error."""
    making = maker_of(old, storage)
    good = making.create()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        error = refusal(making.create)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(error, Transient)
    assert [path.name for path in Path(old.backup.to).iterdir()] == [good.name]
    assert load_record(old.backup_record).failure is not None


# --- while everything changes -----------------------------------------------------------------------------------


class ChangingObjects(FakeObjects):
    """A storage in which something happens whenever an object is read."""

    def __init__(self, storage: FakeStorage, happens: Callable[[str], object]) -> None:
        super().__init__(storage.server)
        self.happens = happens

    @contextmanager
    def open_described(self, bucket: str, found: StoredObject) -> Iterator[Any]:
        self.happens(found.key)
        with super().open_described(bucket, found) as opened:
            yield opened


def test_objects_that_change_and_go_meanwhile(old: Settings, storage: FakeStorage, new: Settings) -> None:
    happened: list[str] = []

    def happens(key: str) -> None:
        if not happened:
            happened.append(key)
            put(storage.objects(), key, b"another content")
            storage.objects().remove(BUCKET, ["users/ann/file_groups/a/ü.txt"])

    making = maker_of(old, storage, objects=lambda: ChangingObjects(storage, happens))
    there = restored(new, opener(old, making.create()))
    assert {key: body for key, (_, body) in there.server.buckets[BUCKET].items()} == {
        "developer/weights/model.bin": b"another content"
    }


def test_an_object_that_changes_always_is_no_endless_work(old: Settings, storage: FakeStorage) -> None:
    number = iter(range(1000))

    def happens(key: str) -> None:
        put(storage.objects(), key, str(next(number)).encode())

    making = maker_of(old, storage, objects=lambda: ChangingObjects(storage, happens))
    assert "changes faster" in refusal(making.create).message


@pytest.mark.slow
def test_pushes_and_requests_all_the_time(old: Settings, storage: FakeStorage, new: Settings) -> None:
    """A commit that the state names is in the repository, and branches lead to commits that are there."""
    stop, pushed = threading.Event(), [0]

    def push() -> None:
        with closing(open_store(old.database)) as store:
            while not stop.is_set():
                revision = commit(old, "colors", f"push {pushed[0]}")
                store.apps.save(AppStatus(DEMO, desired_revision=revision))  # the state names the commit
                pushed[0] += 1

    thread = threading.Thread(target=push)
    thread.start()
    try:
        made = [maker_of(old, storage, clock=lambda n=n: 1000.0 + n).create() for n in range(4)]
    finally:
        stop.set()
        thread.join()
    assert pushed[0] > 4
    for number, each in enumerate(made):
        target = settings_of(new.state.parent / str(number))
        target.state.parent.mkdir()
        there = restored(target, opener(old, each))
        commits = len(facts(target, there)["repositories"]["colors"]["content"]["refs/heads/main"])
        with closing(open_store(target.database)) as store:
            (named,) = {status.desired_revision for status in store.apps.all()}
        repository = pygit2.Repository(str(target.repositories / "colors.git"))
        assert repository.get(named) is not None
        assert commits > 1


def test_a_repository_that_is_packed_meanwhile(old: Settings, storage: FakeStorage, new: Settings) -> None:
    """Git moves objects from one file to another while they are read."""
    commits = [commit(old, "colors", f"commit {number}") for number in range(20)]
    path = old.repositories / "colors.git"
    making = maker_of(old, storage)
    seen: list[str] = []

    def add_file(self: Any, name: str, file: BinaryIO) -> None:
        if not seen and name.startswith("git/"):
            subprocess.run(
                ["git", "-C", str(path), "gc", "-q", "--prune=now"],
                check=True,
                env={
                    **os.environ,
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                },
            )
        seen.append(name)
        original(self, name, file)

    original = ArchiveWriter.add_file
    ArchiveWriter.add_file = add_file  # type: ignore[method-assign]
    try:
        made = making.create()
    finally:
        ArchiveWriter.add_file = original  # type: ignore[method-assign]
    assert any("pack-" in name for name in seen)
    there = restored(new, opener(old, made))
    assert len(facts(new, there)["repositories"]["colors"]["content"]["refs/heads/main"]) == len(commits) + 1


# --- what a restore refuses -------------------------------------------------------------------------------------


OCCUPIED: dict[str, Callable[[Settings], Path]] = {
    "a state": lambda settings: settings.database,
    "people": lambda settings: settings.people,
    "a key": lambda settings: settings.private / "instance.key",
    "a file": lambda settings: settings.state / "notes.txt",
    "the platform folder": lambda settings: Path(settings.platform.path) / "apps.yaml",
}


@pytest.mark.parametrize("what", OCCUPIED)
def test_a_host_that_is_not_empty(old: Settings, storage: FakeStorage, new: Settings, what: str) -> None:
    path = OCCUPIED[what](new)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("something")
    made = maker_of(old, storage).create()
    error = refusal(lambda: restored(new, opener(old, made)))
    assert error.reason == Reason.RESTORE_REFUSED
    assert path.name in error.message
    assert path.read_text() == "something"
    assert not new.restore_marker.exists()


def test_a_bucket_that_is_not_empty(old: Settings, storage: FakeStorage, new: Settings) -> None:
    made = maker_of(old, storage).create()
    error = refusal(lambda: restored(new, opener(old, made), storage=storage))
    assert error.reason == Reason.RESTORE_REFUSED
    assert BUCKET in error.message
    assert len(storage.server.buckets[BUCKET]) == 2


def test_while_the_daemon_runs(old: Settings, storage: FakeStorage, new: Settings) -> None:
    made = maker_of(old, storage).create()
    new.private.mkdir(parents=True)
    with only_one(new.private):
        assert refusal(lambda: restored(new, opener(old, made))).reason == Reason.ALREADY_RUNNING


def archive_of(members: dict[str, bytes], **head: Any) -> Callable[[], io.BytesIO]:
    out = io.BytesIO()
    with writing(out, (KEY.recipient,), replace(Head("prichal", "0.1.0", VERSION, 1.0), **head)) as writer:
        for name, content in members.items():
            writer.add_bytes(name, content)
    return lambda: io.BytesIO(out.getvalue())


WHOLE = {"private/instance.key": b"k" * 32, "db/state.db": b""}


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ({"schema": VERSION + 1}, Reason.BACKUP_TOO_NEW),
        ({"prichal": "99.0.0"}, Reason.BACKUP_TOO_NEW),
        ({"instance": "other"}, Reason.RESTORE_REFUSED),
    ],
)
def test_a_backup_of_another_one_or_a_newer_one(new: Settings, head: dict[str, Any], reason: Reason) -> None:
    error = refusal(lambda: restored(new, archive_of(WHOLE, **head)))
    assert error.reason == reason
    assert not new.restore_marker.exists()


def test_one_that_needs_more_room_than_there_is(new: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "RESERVE", 2**62)
    error = refusal(lambda: restored(new, archive_of(WHOLE)))
    assert error.reason == Reason.RESTORE_REFUSED
    assert "free" in error.message


@pytest.mark.parametrize(
    ("backend", "boxes", "is_enough"),
    [("embedded", True, False), ("embedded", False, True), ("s3", True, True), ("none", False, True)],
)
def test_files_of_boxes_need_room_only_where_they_go(
    new: Settings, monkeypatch: pytest.MonkeyPatch, backend: str, boxes: bool, is_enough: bool
) -> None:
    monkeypatch.setattr(restoring, "RESERVE", 0)
    free = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    new = replace(new, storage=replace(new.storage, backend=backend))
    key, state = WHOLE.items()
    members = dict((key, ("boxes/prichal.demo.files/large", b"x" * 2**21), state))
    archive = archive_of(members, buckets=("prichal.demo.files",))
    there = FakeStorage()
    if is_enough:
        restored(new, archive, boxes=boxes, storage=there)
        assert len(there.server.buckets.get("prichal.demo.files", {})) == boxes
    else:
        assert "free" in refusal(lambda: restored(new, archive, boxes=boxes, storage=there)).message
        assert not new.restore_marker.exists()


def test_files_of_boxes_before_the_key(new: Settings) -> None:
    error = refusal(lambda: restored(new, archive_of({"boxes/prichal.demo.files/x": b"", **WHOLE})))
    assert error.reason == Reason.BACKUP_DAMAGED


def test_a_link_in_the_platform_folder_leads_nowhere(new: Settings, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "hosts").write_text("of the host")
    platform = Path(new.platform.path)
    platform.mkdir(parents=True)
    (platform / "lab").symlink_to(outside)
    with pytest.raises((ControllerError, OSError)):
        restored(new, archive_of({**WHOLE, "platform/lab/hosts": b"x"}))
    assert (outside / "hosts").read_text() == "of the host"


@pytest.mark.parametrize("version", range(9, VERSION))
def test_one_of_an_older_release_is_migrated(new: Settings, tmp_path: Path, version: int) -> None:
    """Its state has the schema of that release, which is not touched before the restore."""
    path = tmp_path / "db" / "state.db"
    open_store(path).close()  # makes the database of requests, which migrations fill
    path.unlink()
    following = migrations._migrations[version].name
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("ATTACH ? AS asked", (str(shared_path(path)),))
        migrations.apply(sqlite_utils.Database(db, execute_plugins=False), stop_before=following)
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("INSERT INTO apps (app, status) VALUES (?, ?)", (DEMO, encode(AppStatus(DEMO, "abc"))))
        db.execute(
            "INSERT INTO events (app, type, reason, message, revision, at) VALUES (?, 'Normal', 'Ready', 'ok', '', 1)",
            (DEMO,),
        )
    archive = archive_of({**WHOLE, "db/state.db": path.read_bytes()}, schema=version)
    restored(new, archive)
    with closing(sqlite3.connect(new.database)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == VERSION
    with closing(open_store(new.database)) as store:
        assert store.apps.status(DEMO) == AppStatus(DEMO, "abc")
        assert [event.message for event in store.events.list(DEMO)] == ["ok"]
        assert store.branches.previews() == ()
    assert not new.restore_marker.exists()


@pytest.mark.parametrize("lacking", WHOLE)
def test_one_that_lacks_what_is_needed(new: Settings, lacking: str) -> None:
    error = refusal(lambda: restored(new, archive_of({k: v for k, v in WHOLE.items() if k != lacking})))
    assert error.reason == Reason.BACKUP_DAMAGED
    assert lacking in error.message


@pytest.mark.parametrize(
    "name",
    [
        "private/other",
        "private/instance.key.next",
        "serving/x.py",
        "db/state.db-wal",
        "storage/volume/x",
        "git/colors/hooks/post-receive",
        "git/colors/config",
        "git/colors/objects/info/alternates",
        "platform/.git/config",
        "platform/lab/.git/hooks/post-merge",
        "git/-x/refs.json",
        "git/a.b/refs.json",
        "boxes/other.bucket/key",
        "boxes/prichal.demo.files",
        "unknown",
    ],
)
def test_members_that_belong_nowhere(new: Settings, name: str) -> None:
    made = archive_of({**WHOLE, name: b"x"})
    for work in (lambda: verify(made, IDENTITIES), lambda: restored(new, made)):
        error = refusal(work)
        assert error.reason == Reason.BACKUP_DAMAGED
        assert repr(name) in error.message
    assert not new.restore_marker.exists(), "it is proved first, so nothing was changed"
    assert not list(new.state.rglob("post-receive"))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"head": "x", "refs": {"refs/heads/main": "' + b"0" * 40 + b'"}, "secret": "", "mark": ""}',
    ],
)
def test_refs_that_lead_nowhere(new: Settings, document: bytes) -> None:
    error = refusal(lambda: restored(new, archive_of({**WHOLE, "git/colors/refs.json": document})))
    assert error.reason == Reason.HOSTING_FAILED
    assert not (new.repositories / "colors.git").exists()


# --- a restore that was cut -------------------------------------------------------------------------------------


class CutFile(io.BytesIO):
    """A file that ends in the second reading: the disk is lost."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 2000:
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_a_restore_that_was_cut_is_told_and_done_again(
    old: Settings, storage: FakeStorage, new: Settings
) -> None:
    before = facts(old, storage)
    made = maker_of(old, storage).create()
    content = (Path(old.backup.to) / made.name).read_bytes()
    readings = iter((io.BytesIO(content), CutFile(content)))
    there = FakeStorage()
    error = refusal(lambda: restored(new, lambda: next(readings), storage=there))
    assert (error.reason, "Input/output error" in error.message) == (Reason.RESTORE_INCOMPLETE, True)
    error = refusal(lambda: serve(new, threading.Event()))
    assert error.reason == Reason.RESTORE_INCOMPLETE
    assert "prichal backup restore" in error.message
    (new.state / "db").mkdir(exist_ok=True)
    (new.state / "db" / "state.db").write_bytes(b"half")
    restored(new, opener(old, made), storage=there)
    assert facts(new, there) == before


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Callable[[str], object]]:
    """A file system at a folder; yields what changes its options."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o"]
    if os.geteuid() != 0 or subprocess.run([*mount, options, "none", str(folder)], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield lambda other: subprocess.run([*mount, f"remount,{other}", "none", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("disk", ["of the state", "of the platform folder"])
def test_a_restore_onto_a_full_disk_is_told_and_done_again(
    old: Settings, storage: FakeStorage, new: Settings, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    """It has room for the bytes, but not for so many files."""
    monkeypatch.setattr(restoring, "RESERVE", 0)
    before = facts(old, storage)
    made = maker_of(old, storage).create()
    archive = Path(old.backup.to) / made.name
    content = archive.read_bytes()
    place = new.state if disk == "of the state" else Path(new.platform.path)
    there = FakeStorage()
    with small_disk(
        place, "size=64m,nr_inodes=20" if place == new.state else "size=64m,nr_inodes=2"
    ) as change:
        error = refusal(lambda: restored(new, opener(old, made), storage=there))
        assert (type(error), error.reason) == (Stalled, Reason.RESTORE_INCOMPLETE)
        assert "a disk is full" in error.message
        assert refusal(lambda: serve(new, threading.Event())).reason == Reason.RESTORE_INCOMPLETE
        assert archive.read_bytes() == content
        assert facts(old, storage) == before
        change("nr_inodes=10000")
        restored(new, opener(old, made), storage=there)
        assert facts(new, there) == before


def test_a_restore_again_replaces_what_the_one_before_has_put_into_boxes(
    old: Settings, storage: FakeStorage, new: Settings
) -> None:
    first = maker_of(old, storage).create()
    there = FakeStorage()
    there.full = True
    with pytest.raises(Transient):
        restored(new, opener(old, first), storage=there)
    there.full = False
    put(there.objects(), "developer/left.bin", b"of the restore before")
    restored(new, opener(old, first), storage=there)
    assert "developer/left.bin" not in there.server.buckets[BUCKET]
    assert len(there.server.buckets[BUCKET]) == 2


def test_without_an_installation_there_is_nothing_to_back_up(new: Settings) -> None:
    error = refusal(maker_of(new, FakeStorage()).create)
    assert isinstance(error, Stalled)
    assert error.reason == Reason.STATE_MISSING


def test_a_damaged_state_is_no_backup(old: Settings, storage: FakeStorage) -> None:
    with old.database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(20_000))
    for suffix in ("-wal", "-shm"):
        old.database.with_name(f"state.db{suffix}").unlink(missing_ok=True)
    assert refusal(maker_of(old, storage).create).reason == Reason.STATE_CORRUPT
    assert list(Path(old.backup.to).glob("*")) == []
