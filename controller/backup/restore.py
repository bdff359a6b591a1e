"""Proves a backup, and restores it onto an empty host while prichal is stopped.

An archive is read twice: first as a whole, so that one that is damaged, foreign or too new changes nothing; then again,
into place. A file in the state folder says that a restore is under way. It goes last: until then no daemon starts, and
the next restore begins by removing what this one has made. Nothing in an archive chooses where something is written:
each member has a name of a list, or belongs to a repository, a bucket or the platform folder by names that are checked.
"""

from __future__ import annotations

import errno
import grp
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, cast
from urllib.parse import quote

from controller import __version__
from controller.adapters import hosted
from controller.atomic import flush, replace_file
from controller.backup.archive import PIECE, ArchiveMember, ArchiveReader, Head, Readable, damaged, reading
from controller.backup.contents import MOST_FILE, OBJECT_FILE, databases, small_files
from controller.backup.create import only_backup
from controller.config import Settings
from controller.daemon.last_good import LastGood
from controller.daemon.lock import only_one
from controller.daemon.wiring import build_storage, prepare_folders
from controller.domain.errors import Stalled
from controller.domain.names import is_dns_label
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.units import about_size
from controller.file_trees import remove_tree
from controller.ports import Storage
from controller.safe_paths import make_folder, open_below
from controller.store import open_store
from controller.store.database_files import SHARED_FOLDER_MODE
from controller.store.keys import FOLDER_MODE as KEYS_MODE
from controller.store.keys import keys_folder
from controller.store.owners import as_owner_of
from controller.store.shared_file import shared_path
from controller.store.version import VERSION

RESERVE: Final = 64 * 2**20  # bytes of the disk that are left alone
#: What may be in a state folder that is empty otherwise.
_FREE: Final = frozenset({"private/daemon.lock", "backup/lock", "git-http.sock", "restore.incomplete"})
#: Folders whose group is not that of the folder above: they stay when the rest is removed.
_STAY: Final = frozenset({"db/asked", "db/keys"})
_MODES: Final = {
    "db/state.db": 0o640,
    "db/history.db": 0o640,
    "db/asked/asked.db": 0o660,
    "db/keys/credentials.json": 0o640,
    "web/names.db": 0o640,
}
#: Members that are files of their own, whatever the settings say.
_KNOWN: Final = frozenset({*databases(Settings()), *small_files(Settings()), "private/instance.key"})
_SOPS: Final = re.compile(rb"""^\s*["']?sops["']?\s*:""", re.MULTILINE)
_ENOUGH_FOR_REFS: Final = hosted.MOST_REFS

Open = Callable[[], AbstractContextManager[BinaryIO]]


class RestoredObjects(Protocol):
    """What a restore needs of the storage; `S3Objects` has it."""

    def buckets(self) -> frozenset[str]: ...
    def create_bucket(self, bucket: str) -> None: ...
    def remove_bucket(self, bucket: str) -> None: ...
    def page(self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000) -> Any: ...
    def put_described(self, bucket: str, key: str, content: BinaryIO, size: int, headers: Any) -> object: ...


@dataclass(frozen=True)
class Proof:
    """A backup that was read from its beginning to its end."""

    head: Head
    members: int
    size: int  # bytes of all members
    objects: int  # of boxes
    object_size: int = 0  # bytes of these
    moved: tuple[
        str, ...
    ] = ()  # files of the platform folder that name hosted repositories in their new place


def verify(open_archive: Open, identities: Collection[Secret]) -> Proof:
    """Read a backup as a whole, and restore nothing. Raises as `archive.reading`."""
    with open_archive() as source, reading(source, identities) as archive:
        objects, object_size, names = 0, 0, set()
        for member in archive.members():
            if problem := member_problem(member, archive.head):
                raise damaged(problem)
            if member.name.startswith("boxes/"):
                objects, object_size = objects + 1, object_size + member.size
            elif not member.name.startswith(("git/", "platform/", "config/")):
                names.add(member.name)
        for needed in ("private/instance.key", "db/state.db"):
            if needed not in names:
                raise damaged(f"it lacks {needed}")
        return Proof(archive.head, archive.count, archive.size, objects, object_size)


def member_problem(member: ArchiveMember, head: Head) -> str:
    """Return why no backup has such a member; "" if it may."""
    name = member.name
    area, _, rest = name.partition("/")
    first, _, inner = rest.partition("/")
    match area:
        case _ if name in _KNOWN:
            return ""
        case "boxes" if inner and first.startswith(f"{head.instance}."):
            return ""
        case "boxes":
            return f"it has the member {name!r}, which belongs to no box"
        case "git" if not is_dns_label(first):
            return f"it has the member {name!r}, which belongs to no repository"
        case "git" if inner == "refs.json":
            return f"{name} has {member.size} bytes" if member.size > _ENOUGH_FOR_REFS else ""
        case "git":
            is_object = OBJECT_FILE.fullmatch(inner) is not None
            return "" if is_object else f"it has the member {name!r}, which is not a file of Git"
        # No backup has hidden files of the platform folder: `.git` could have hooks.
        case "platform" if rest and not any(part.startswith(".") for part in rest.split("/")):
            return f"{name} has {member.size} bytes" if member.size > MOST_FILE else ""
        case "platform":
            return f"it has the member {name!r}, which is not a file of the platform folder"
        case "config" if rest:
            return ""
        case _:
            return f"it has the member {name!r}, which belongs nowhere"


def restore(
    settings: Settings,
    open_archive: Open,
    identities: Collection[Secret],
    boxes: bool = True,
    storage: Callable[[bytes], Storage] | None = None,
) -> Proof:
    """Restore a backup onto this host. Raises Stalled `AlreadyRunning`, `RestoreRefused` if something is there already,
    and errors as `verify`; then nothing was changed. Whatever else is raised, such as Stalled `RestoreIncomplete` for a
    disk that is full, leaves an incomplete restore, which the next one replaces."""
    prepare_folders(settings)
    with _alone(settings):
        again = settings.restore_marker.exists()
        if not again:
            _require_empty(settings)
        proof = verify(open_archive, identities)
        _require_fitting(settings, proof)
        _require_room(settings, proof, boxes)
        work = _Restore(settings, proof.head, boxes, storage or (lambda key: build_storage(settings, key)))
        try:
            work.begin(again)
            with open_archive() as source, reading(source, identities) as archive:
                work.take(archive)
            work.finish()
        except PermissionError:
            raise
        except OSError as error:
            raise _interrupted(error, settings) from error
        finally:
            work.close()
    return replace(proof, moved=tuple(work.moved))


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the locks of the daemon and of backups. root leaves nothing in their files that the daemon cannot read."""
    lock = only_one(settings.private)
    with as_owner_of(settings.private):
        lock.__enter__()
    try:
        with only_backup(settings):
            yield
    finally:
        lock.__exit__(None, None, None)


def _require_empty(settings: Settings) -> None:
    state = settings.state
    for folder, _, files in os.walk(state):
        for file in files:
            path = Path(folder) / file
            name = path.relative_to(state).as_posix()
            # systemd-tmpfiles makes the databases, with their owners; a marker may have been cut while it was written.
            is_made = name in _MODES and path.lstat().st_size == 0
            if name not in _FREE and not is_made and not name.startswith(".restore.incomplete."):
                raise _refused(
                    f"{state} is not empty: it has {name}", "stop prichal and move the folder away"
                )
    platform = Path(settings.platform.path)
    if settings.platform.url or not platform.is_dir():
        return
    for path in sorted(platform.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(platform).parts):
            raise _refused(f"the platform folder {platform} is not empty: it has {path.name}", "move it away")


def _require_fitting(settings: Settings, proof: Proof) -> None:
    head = proof.head
    if head.schema > VERSION or _numbers(head.prichal) > _numbers(__version__):
        raise Stalled(
            Reason.BACKUP_TOO_NEW,
            f"the backup was made by prichal {head.prichal}, which is newer than this {__version__}: install that "
            "version or a newer one, then restore it",
        )
    if head.instance != settings.instance:
        ours = f"but `instance` of the configuration is {settings.instance!r}"
        text = f"the backup is of the instance {head.instance!r}, {ours}"
        raise _refused(
            text, f"set it to {head.instance!r}: names of containers, networks and buckets have it"
        )


def _require_room(settings: Settings, proof: Proof, boxes: bool) -> None:
    """Files of boxes need room here if they come here: into the storage that the daemon runs."""
    is_here = boxes and settings.storage.backend == "embedded"
    size = proof.size if is_here else proof.size - proof.object_size
    free = shutil.disk_usage(settings.state).free
    if size + RESERVE > free:
        text = f"the backup has {about_size(size)} for {settings.state}, which has {about_size(free)} free"
        raise _refused(text, "free some space")


def _refused(problem: str, advice: str) -> Stalled:
    return Stalled(Reason.RESTORE_REFUSED, f"{problem}; {advice}, then try again. Nothing was changed")


def _interrupted(error: OSError, settings: Settings) -> Stalled:
    """Return what an error of the disk means, in the middle of a restore. The state, the platform folder and hosted
    repositories may lie on different disks, and many small files take more than their bytes."""
    where = f" ({error.filename})" if error.filename else ""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    problem = "a disk is full" if is_full else str(error.strerror or error)
    advice = "free some space on it" if is_full else "repair this"
    folders = (
        f"{settings.state}, {settings.repositories} and {settings.platform.path or 'the platform folder'}"
    )
    told = (
        f"the restore to {folders} was interrupted: {problem}{where}; {advice}, then restore again. It begins again, "
        "and prichal does not start before that. The backup is as it was"
    )
    return Stalled(Reason.RESTORE_INCOMPLETE, told)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdecimal())


@dataclass
class _Restore:
    settings: Settings
    head: Head
    boxes: bool
    open_storage: Callable[[bytes], Storage]
    moved: list[str] = field(default_factory=list)
    _storage: Storage | None = None
    _begun: set[str] = field(default_factory=set)  # buckets that this restore may empty

    # --- the marker ---------------------------------------------------------------------------------------------

    def begin(self, again: bool) -> None:
        if again:
            self._begun = set(_marked(self.settings.restore_marker))
        self._mark()
        if again:
            _empty(self.settings.state)

    def _mark(self) -> None:
        document = {"created": self.head.created, "buckets": sorted(self._begun)}
        with as_owner_of(self.settings.private):
            replace_file(self.settings.restore_marker, json.dumps(document), durable=True)

    def finish(self) -> None:
        """Migrate the state, which proves that it can be used, and remove the marker."""
        with as_owner_of(self.settings.private):
            with closing(open_store(self.settings.database)) as store:
                records = store.boxes.all()
            if self.boxes and self.head.buckets:
                for record in records:
                    self._objects().create_bucket(record.bucket)
        self.close()
        flush(self.settings.state)
        self.settings.restore_marker.unlink()
        flush(self.settings.state)

    def close(self) -> None:
        if self._storage is not None:
            self._storage.close()
            self._storage = None

    # --- members ------------------------------------------------------------------------------------------------

    def take(self, archive: ArchiveReader) -> None:
        takers = {
            "boxes": self._take_object,
            "git": self._take_git,
            "platform": self._take_platform,
            "config": self._take_config,
        }
        for member in archive.members():
            if problem := member_problem(member, self.head):
                raise damaged(problem)
            area, _, rest = member.name.partition("/")
            if member.name in _KNOWN:
                self._take_file(member)
            else:
                takers[area](member, rest)

    def _take_file(self, member: ArchiveMember) -> None:
        root = self.settings.state / member.name.partition("/")[0]
        with as_owner_of(self._folder(root, member.name)):
            place = tuple(member.name.split("/")[1:])
            (root / Path(*place)).unlink(missing_ok=True)  # an empty one
            self._write(root, place, member.content, _MODES.get(member.name, 0o600))
            if member.name == "private/platform.json":
                self._move_last_good(self.settings.private / "platform.json")

    def _folder(self, root: Path, name: str) -> Path:
        """Return the folder of a file. Those of credentials and requests have rights of their own."""
        if not root.is_dir():
            with as_owner_of(self.settings.state):
                root.mkdir(mode=0o750)
        state = self.settings.database
        for folder, mode in (
            (shared_path(state).parent, SHARED_FOLDER_MODE),
            (keys_folder(state), KEYS_MODE),
        ):
            if (self.settings.state / name).parent == folder and not folder.is_dir():
                with as_owner_of(root):
                    folder.mkdir()
                    folder.chmod(mode)
        return root

    def _move_last_good(self, path: Path) -> None:
        last = LastGood(path)
        content = last.read()
        if content is not None:
            files = (replace(each, content=self._with_new_places(each.content)) for each in content.files)
            last.keep(replace(content, files=tuple(files)))

    def _with_new_places(self, content: bytes) -> bytes:
        return with_new_places(content, self.head.repositories, self.settings.repositories)

    def _write(self, root: Path, place: tuple[str, ...], content: Readable, mode: int) -> None:
        """Write a file that is not there yet, below a folder of ours."""
        make_folder(root, place[:-1])
        descriptor = open_below(root, place, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with open(descriptor, "wb") as file:
            while piece := content.read(PIECE):
                file.write(piece)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)

    # --- boxes --------------------------------------------------------------------------------------------------

    def _take_object(self, member: ArchiveMember, rest: str) -> None:
        if not self.boxes:
            return
        bucket, _, key = rest.partition("/")
        objects = self._objects()
        self._begin_bucket(objects, bucket)
        content = cast(BinaryIO, member.content)
        objects.put_described(bucket, key, content, member.size, member.headers)

    def _begin_bucket(self, objects: RestoredObjects, bucket: str) -> None:
        if bucket in self._begun:
            return
        if bucket in objects.buckets() and objects.page(bucket, limit=1).objects:
            raise Stalled(
                Reason.RESTORE_REFUSED,
                f"the bucket {bucket} of the storage is not empty: empty it or use another storage, then restore again",
            )
        self._begun.add(bucket)
        self._mark()
        objects.create_bucket(bucket)

    def _objects(self) -> RestoredObjects:
        """Return the storage. The embedded one is started as the daemon's user, with the key that was restored."""
        if self._storage is None:
            with as_owner_of(self.settings.private):
                try:
                    key = (self.settings.private / "instance.key").read_bytes()
                except FileNotFoundError:
                    raise damaged("it has files of boxes before the key of the instance") from None
                self._storage = self.open_storage(key)
                objects = cast(RestoredObjects, self._storage.objects())
                for bucket in self._begun & objects.buckets():  # of the restore before this one
                    objects.remove_bucket(bucket)
            self._begun.clear()
        return cast(RestoredObjects, self._storage.objects())

    # --- repositories, the platform folder, the configuration -----------------------------------------------------

    def _take_git(self, member: ArchiveMember, rest: str) -> None:
        name, _, file = rest.partition("/")
        root = self.settings.repositories
        with as_owner_of(root):
            draft = hosted.draft_of(root, name)
            if file == "refs.json":
                group = grp.getgrgid(root.stat().st_gid).gr_name
                document = _whole(member)
                hosted.restore_refs(root, name, self.settings.web.local_url, group, document)
            else:
                draft.mkdir(exist_ok=True)
                self._write(draft, tuple(file.split("/")), member.content, 0o444)

    def _take_platform(self, member: ArchiveMember, rest: str) -> None:
        if self.settings.platform.url:
            return
        place = tuple(rest.split("/"))
        root = Path(self.settings.platform.path)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = _whole(member)
        moved = self._with_new_places(content)
        if moved != content:
            self.moved.append(rest)
        with as_owner_of(root):
            make_folder(root, place[:-1])  # which follows no link, so the next line does not, either
            (root / rest).unlink(missing_ok=True)  # of a restore that was cut
            self._write(root, place, BytesIO(moved), 0o600)

    def _take_config(self, member: ArchiveMember, rest: str) -> None:
        """The configuration of this host decides; that of the backup is laid beside it, for comparison."""
        with as_owner_of(self.settings.private):
            self._write(self.settings.private, ("restored-config", *rest.split("/")), member.content, 0o600)


def with_new_places(content: bytes, old: str, new: Path) -> bytes:
    """Return a file of the platform folder that names hosted repositories where they are now. A file that sops has
    encrypted is left as it is, since its MAC covers the paths; the daemon then says in which line one is wrong."""
    if old in ("", str(new)) or _SOPS.search(content):
        return content
    before = b"|".join(re.escape(text.encode()) for text in (old, quote(old)))
    place = rb"""(?<![^\s"'])(file://|)(?:%s)(?=/[a-z0-9-]+\.git(?![^\s"',}]))""" % before
    return re.sub(place, lambda at: at[1] + (quote(str(new)) if at[1] else str(new)).encode(), content)


def _whole(member: ArchiveMember) -> bytes:
    pieces = []
    while piece := member.content.read(PIECE):
        pieces.append(piece)
    return b"".join(pieces)


def _marked(marker: Path) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(marker.read_bytes())["buckets"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _empty(state: Path) -> None:
    """Remove what a restore has made that was cut. The state was empty before it."""
    for top in state.iterdir():
        for path in sorted(top.iterdir()) if top.is_dir() and not top.is_symlink() else (top,):
            name = path.relative_to(state).as_posix()
            if name in _STAY:
                for inner in path.iterdir():
                    remove_tree(inner)
            elif name not in _FREE:
                remove_tree(path)
