"""What belongs to an installation, and where it goes in an archive:

    private/instance.key, private/platform.json     the key from which all others follow, the platform folder in force
    boxes/BUCKET/KEY                                objects of boxes
    git/NAME/objects/…, git/NAME/refs.json          hosted repositories: files of Git's own, then where branches are
    db/…, web/…                                     databases, as copies; credentials of callers; the admin token
    platform/…                                      the platform folder, unless it is a Git repository
    config/…                                        the configuration and the files that it names, for reference

The order makes it consistent. Databases are copied last, in the order in which rows wander between them, and
repositories after them: so commits that the state names are in the repositories that were copied. What runs name that
wait is looked up once more. Nothing is locked, and nothing waits for a backup.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from controller.adapters.hosted import read_refs
from controller.backup.archive import ArchiveWriter
from controller.backup.places import PiecesFile
from controller.config import Settings
from controller.daemon import hosted
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.runs.run import Run, RunState
from controller.domain.storage.box import ObjectPage, StoredObject
from controller.safe_paths import opened
from controller.store import open_guest_store
from controller.store.copies import copy_database
from controller.store.keys import keys_folder
from controller.store.owners import as_owner_of
from controller.store.shared_file import shared_path
from controller.yaml_documents import Json, parse

ROUNDS: Final = 5
MOST_FILE: Final = 16 * 2**20  # bytes of a file of the platform folder or the configuration
_TRIES: Final = 3
#: Git's own files with objects, which never change. What is under way has other names.
OBJECT_FILE: Final = re.compile(
    r"objects/(?:[0-9a-f]{2}/(?:[0-9a-f]{38}|[0-9a-f]{62})|pack/pack-(?:[0-9a-f]{40}|[0-9a-f]{64})\.(?:pack|idx))"
)
#: Options of the configuration that name a file.
_FILE_OPTIONS: Final = frozenset(
    {"credentials", "smtpCredentials", "smtpCa", "adminTokenFile", "clientSecretFile", "headers"}
)


class BoxObjects(Protocol):
    """What a backup needs of the storage; `S3Objects` has it."""

    def buckets(self) -> frozenset[str]: ...

    def stat(self, bucket: str, key: str) -> StoredObject | None: ...

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000, folders: bool = False
    ) -> ObjectPage: ...

    def open_described(self, bucket: str, found: StoredObject) -> Any: ...


def databases(settings: Settings) -> Mapping[str, Path]:
    """Return the databases by their names in an archive, in the order in which they are copied: calls that end become
    rows of `asked`, and these become rows of the state, which recognises what it has taken already. In another order a
    row could be in none of the copies."""
    state = settings.database
    return {
        "web/calls.db": settings.async_calls,
        "web/people.db": settings.people,
        "web/names.db": settings.names,
        "db/asked/asked.db": shared_path(state),
        "db/state.db": state,
        "db/history.db": state.with_name("history.db"),
    }


def small_files(settings: Settings) -> Mapping[str, Path]:
    """Return files that are copied after the databases."""
    credentials = keys_folder(settings.database) / "credentials.json"
    return {
        "private/platform.json": settings.private / "platform.json",
        "db/keys/credentials.json": credentials,
        "web/admin.token": settings.admin_token_file,
    }


@dataclass
class Copying:
    """One backup under way. `scratch` is a folder of this process alone; `objects` is None without boxes."""

    settings: Settings
    writer: ArchiveWriter
    scratch: Path
    objects: BoxObjects | None
    _buckets: set[str] = field(default_factory=set)
    _objects_of: dict[str, set[str]] = field(default_factory=dict)  # files of repositories
    _refs: dict[str, bytes] = field(default_factory=dict)

    def everything(self, buckets: Iterable[str]) -> None:
        """Write the members. `buckets` are those of the boxes there were at the beginning."""
        key = _content(self.settings.private / "instance.key", self.settings.private)
        if key is None:
            raise _nothing(self.settings)
        self.writer.add_bytes("private/instance.key", key)
        self._copy_buckets(buckets)
        self._settle()
        if _content(self.settings.private / "instance.key", self.settings.private) != key:
            text = "the instance's key was replaced meanwhile; it is tried again"
            raise Transient(Reason.BACKUP_FAILED, text)
        for name, refs in self._refs.items():
            self.writer.add_bytes(f"git/{name}/refs.json", refs)
        self._write_databases()
        self._write_files()

    def _settle(self) -> None:
        """Copy databases and what they name, until no copy names what has gone meanwhile."""
        lacked: list[tuple[str, str]] = []
        for _ in range(ROUNDS):
            before = {each.name for each in hosted.repositories(self.settings)}
            stage(self.settings, self.scratch)
            with copied_state(self.scratch) as store:
                self._copy_buckets(record.bucket for record in store.boxes.all())
                lacking = self._add_named(_named_objects(store))
            for repository in hosted.repositories(self.settings):
                self._copy_repository(repository)
            gone = before - {each.name for each in hosted.repositories(self.settings)}
            for name in gone:
                self._refs.pop(name, None)
            if not gone and lacking in ([], lacked):
                return  # what is named and missing twice is missing on this host, too
            lacked = lacking

    # --- boxes --------------------------------------------------------------------------------------------------

    def _copy_buckets(self, buckets: Iterable[str]) -> None:
        if self.objects is None:
            return
        there = self.objects.buckets()
        for bucket in buckets:
            if bucket in there and bucket not in self._buckets:
                self._buckets.add(bucket)
                for found in _listing(self.objects, bucket):
                    self._copy_object(bucket, found)

    def _copy_object(self, bucket: str, found: StoredObject) -> bool:
        """Write an object as it is now; return False if it was removed meanwhile."""
        assert self.objects is not None
        now: StoredObject | None = found
        for _ in range(_TRIES):
            if now is None:
                return False
            try:
                with self.objects.open_described(bucket, now) as (headers, pieces):
                    self.writer.add(_member(bucket, now.key), now.size, PiecesFile(pieces), headers)
                return True
            except Stalled as error:
                if error.reason not in (Reason.OBJECT_CHANGED, Reason.OBJECT_MISSING):
                    raise
            now = self.objects.stat(bucket, found.key)
        text = f"{bucket}/{found.key} changes faster than it can be read"
        raise Transient(Reason.BACKUP_FAILED, text)

    def _add_named(self, named: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Write objects that a copy of the state names and that arrived after their bucket was read. Return those that
        have gone."""
        if self.objects is None:
            return []
        wanted = {_member(*each): each for each in named if each[0] in self._buckets}
        gone = []
        for name in sorted(wanted.keys() - self.writer.present(wanted)):
            bucket, key = wanted[name]
            found = self.objects.stat(bucket, key)
            if found is None or not self._copy_object(bucket, found):
                gone.append((bucket, key))
        return gone

    # --- repositories -------------------------------------------------------------------------------------------

    def _copy_repository(self, repository: hosted.Hosted) -> None:
        """Write the objects of a repository that are not written yet, and remember where its branches are. These are
        read first: what they lead to is in the files that are there afterwards, since Git writes objects before it
        moves a branch. A file that was packed meanwhile is in the next listing under another name."""
        with as_owner_of(repository.path):
            refs = read_refs(repository.path)
            if refs is None:  # removed meanwhile
                return
            self._refs[repository.name] = refs
            written = self._objects_of.setdefault(repository.name, set())
            while self._has_gone(repository, written):
                pass

    def _has_gone(self, repository: hosted.Hosted, written: set[str]) -> bool:
        """Write the files with objects that are not written yet; return True if one was packed meanwhile."""
        whole = [self._copy_git_file(repository, name, written) for name in _object_files(repository.path)]
        return not all(whole)

    def _copy_git_file(self, repository: hosted.Hosted, name: str, written: set[str]) -> bool:
        """Write a file once; return False if it has gone."""
        if name in written:
            return True
        try:
            place = tuple(name.split("/"))
            with (
                opened(repository.path, place, os.O_RDONLY) as descriptor,
                open(descriptor, "rb", closefd=False) as file,
            ):
                self.writer.add_file(f"git/{repository.name}/{name}", file)
        except FileNotFoundError:
            return False
        written.add(name)
        return True

    # --- files --------------------------------------------------------------------------------------------------

    def _write_databases(self) -> None:
        for name in databases(self.settings):
            path = self.scratch / name
            if path.exists():
                with path.open("rb") as file:
                    self.writer.add_file(name, file)

    def _write_files(self) -> None:
        for name, path in small_files(self.settings).items():
            content = _content(path, path.parent)
            if content is not None:
                self.writer.add_bytes(name, content)
        if not self.settings.platform.url:
            root = Path(self.settings.platform.path)
            for name, content in _platform_files(root):
                self.writer.add_bytes(f"platform/{name}", content)
        for name, content in _configuration(self.settings):
            self.writer.add_bytes(f"config/{name}", content)


def _member(bucket: str, key: str) -> str:
    return f"boxes/{bucket}/{key}"


def stage(settings: Settings, scratch: Path) -> None:
    """Copy all databases below `scratch`, in place of earlier copies."""
    for name, source in databases(settings).items():
        target = scratch / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if not copy_database(source, target) and name == "db/state.db":
            raise _nothing(settings)


@contextmanager
def copied_state(scratch: Path) -> Iterator[Any]:
    """Open the copy of the state, of which the log is made here."""
    from controller.store.database_files import leave_open

    path = scratch / "db" / "state.db"
    leave_open(path)
    with closing(open_guest_store(path)) as store:
        yield store


def _nothing(settings: Settings) -> Stalled:
    text = f"there is no installation in {settings.state}: the platform has not run here yet"
    return Stalled(Reason.STATE_MISSING, text)


def _listing(objects: BoxObjects, bucket: str) -> Iterator[StoredObject]:
    after: str | None = ""
    while after is not None:
        page = objects.page(bucket, "", after)
        yield from page.objects
        after = page.next


def _named_objects(store: Any) -> Iterator[tuple[str, str]]:
    """Yield the files that runs have been given which are not over, as bucket and key."""
    buckets = {(record.app, record.box): record.bucket for record in store.boxes.all()}
    for app in {record.app for record in store.boxes.all()}:
        for run in store.runs.unfinished(app):
            yield from _inputs(run, buckets)


def _inputs(run: Run, buckets: Mapping[Any, str]) -> Iterator[tuple[str, str]]:
    if run.state is not RunState.QUEUED:
        return
    for given in run.inputs:
        bucket = buckets.get((run.app, given.box or next(iter(run.pipeline.boxes), "")))
        if bucket and given.datatype == "FILE" and given.data and not given.data.endswith("/"):
            yield bucket, f"{run.prefix(run.area)}{given.data}"


def _object_files(path: Path) -> list[str]:
    """Return the files of Git with objects, packs before their indexes."""
    found: list[str] = []
    root = path / "objects"
    for folder in os.scandir(root):
        if folder.is_dir(follow_symlinks=False) and (len(folder.name) == 2 or folder.name == "pack"):
            names = (f"objects/{folder.name}/{entry.name}" for entry in os.scandir(folder.path))
            found += (name for name in names if OBJECT_FILE.fullmatch(name))
    return sorted(found, key=lambda name: (name.endswith(".idx"), name))


def _content(path: Path, owner: Path, through: bool = False) -> bytes | None:
    """Return the content of a file of a service, which root reads as its user; None if it is missing. `through`: also
    of one that a link leads to."""
    try:
        with as_owner_of(owner):
            # A pipe that a service has put there must not be waited for.
            follow = 0 if through else os.O_NOFOLLOW
            descriptor = os.open(path, os.O_RDONLY | follow | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_FILE * 4:
            raise Stalled(Reason.BACKUP_FAILED, f"{path} is no file that a backup takes")
        return file.read()


def _platform_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the platform folder but for hidden ones. The daemon reads manifests through links, so what
    these lead to is a file of the backup."""
    if not root.is_dir():
        return
    with as_owner_of(root):
        paths = sorted(path for path in root.rglob("*") if path.is_file())
    for path in paths:
        name = path.relative_to(root)
        if not any(part.startswith(".") for part in name.parts):
            content = _content(path, root, through=True)
            if content is not None:
                yield name.as_posix(), content


def _configuration(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """Yield the configuration, and the files that it names as far as they can be read, each under a number."""
    source = settings.source
    if source is None:
        return
    content = source.read_bytes()
    yield "config.yaml", content
    documents = parse(str(source), content).documents
    for number, name in enumerate(dict.fromkeys(_named_files(documents[0].value if documents else None))):
        path = source.parent / Path(name).expanduser()
        try:
            yield f"files/{number}-{path.name}", path.read_bytes()
        except OSError:  # of the web process alone, say; the daemon starts without it, too
            continue


def _named_files(value: Json) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _FILE_OPTIONS and isinstance(inner, str):
                yield inner
            else:
                yield from _named_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_files(inner)
