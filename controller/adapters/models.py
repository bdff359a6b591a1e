"""Models of boxes on this host: one folder for each content, which is complete if it exists.

The path is `<folder>/<digest>/<the model's own name>`; what is being added or removed is next to it as
`.draft-…`. Only the daemon writes here. Containers mount the folders read-only, under different users, so all
users may read them. Called by reconcile: resolve asks what exists, the executor stages models, and a pass
that has acted removes old ones.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from controller.adapters.sealing import seal
from controller.atomic import flush
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.runs.file_index import FILE_INDEX, MARK, listed
from controller.domain.storage.box import ModelPin, StoredObject
from controller.domain.storage.keys import DEVELOPER_AREA, FileKeyInvalid, ancestors, parse_path
from controller.domain.turns import taken
from controller.domain.units import about_size
from controller.domain.volumes import StagingArea, Volume
from controller.file_trees import link_tree
from controller.ports import Objects, Storage

_DRAFT = ".draft-"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MOST = 64 * 2**20  # bytes of a group's manifest: some 400,000 files


class ModelCache:
    """Implements `controller.ports.Models`. `capacity` is in bytes; models in use may exceed it."""

    def __init__(self, folder: Path, storage: Storage, capacity: int) -> None:
        self._folder = folder
        self._storage = storage
        self._capacity = capacity
        self._lock = threading.Lock()
        self._turns: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._sizes: dict[str, int] = {}  # by digest: content never changes

    def recover(self) -> None:
        for draft in self._folder.glob(f"{_DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)

    def volume(self, digest: str) -> Volume:
        return Volume(StagingArea.MODELS, (digest,))

    def copy_to(self, pin: ModelPin, target: Path) -> None:
        link_tree(self._path(pin.digest) / pin.name, target)

    def _path(self, digest: str) -> Path:
        return self._folder / digest

    def has(self, digest: str) -> bool:
        try:
            os.utime(self._path(digest))
        except OSError:
            return False
        return True

    # --- pin ---------------------------------------------------------------------------------------------------

    def pin(self, bucket: str, path: str) -> ModelPin:
        key, objects = self._find(bucket, path)
        if not objects:
            raise Stalled(
                Reason.MODEL_MISSING,
                Localizable("bucket {bucket} has no file or group {key}", bucket=bucket, key=key),
            )
        digest = _digest(_layout(key, objects))
        return ModelPin(bucket, key, digest, self.volume(digest), self.has(digest), objects)

    def _find(self, bucket: str, path: str) -> tuple[str, tuple[StoredObject, ...]]:
        """Return the key of the file or folder, and its objects. A file takes precedence over a folder of the
        same name.
        """
        _require_sound(path)
        source, key = self._storage.objects(), DEVELOPER_AREA + path
        if not path.endswith("/"):
            if file := source.stat(bucket, key):
                return key, (file,)
            key += "/"
        before = source.stat(bucket, key + FILE_INDEX)
        return key, _whole(source, bucket, key, before, tuple(_below(source, bucket, key)))

    # --- stage -------------------------------------------------------------------------------------------------

    def stage(self, pin: ModelPin, check: Callable[[], None] = lambda: None) -> None:
        """Stage a model, with one download for each content, however many callers need it at once."""
        with self._locked(pin.digest, check), _translated(self._folder, pin):
            if self.has(pin.digest):
                return
            self._folder.mkdir(exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self._folder))
            try:
                self._download(pin, draft, check)
                seal(draft)
                draft.rename(self._path(pin.digest))
                flush(self._folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def _locked(self, digest: str, check: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            turn = self._turns.setdefault(digest, threading.Lock())
        with taken(turn, check):
            yield

    def _download(self, pin: ModelPin, draft: Path, check: Callable[[], None]) -> None:
        if pin.size > shutil.disk_usage(draft).free:  # known in advance, so the disk need not be filled first
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        source = self._storage.objects()
        for name, found in _layout(pin.key, pin.objects).items():
            place = draft / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _fetch(source, pin, found, place, check)

    # --- prune -------------------------------------------------------------------------------------------------

    def prune(self, spare: Callable[[], frozenset[str]]) -> None:
        with _translated(self._folder):
            if not self._folder.is_dir():
                return
            models = [path for path in self._folder.iterdir() if not path.name.startswith(_DRAFT)]
            over = sum(self._size(path) for path in models) - self._capacity
            if over <= 0:
                return
            spared = spare()
            for path in sorted(models, key=lambda path: path.stat().st_mtime_ns):
                if over <= 0:
                    return
                if path.name not in spared:
                    over -= self._size(path)
                    self._remove(path)

    def _size(self, model: Path) -> int:
        if model.name not in self._sizes:
            files = (path.stat().st_size for path in model.rglob("*") if path.is_file())
            self._sizes[model.name] = sum(files)
        return self._sizes[model.name]

    def _remove(self, model: Path) -> None:
        """Remove a model. It is renamed first, so that existing ones are complete."""
        grave = tempfile.mkdtemp(prefix=_DRAFT, dir=self._folder)
        model.rename(Path(grave, model.name))
        shutil.rmtree(grave)


def _below(source: Objects, bucket: str, folder: str) -> Iterator[StoredObject]:
    """Yield all objects below the folder; some storages list an empty object for each folder, too."""
    after: str | None = ""
    while after is not None:
        page = source.page(bucket, folder, after)
        yield from (found for found in page.objects if not found.key.endswith("/"))
        after = page.next


def _whole(
    source: Objects, bucket: str, folder: str, before: StoredObject | None, found: tuple[StoredObject, ...]
) -> tuple[StoredObject, ...]:
    """Return the files of the folder. If a run has published them, only those in its manifest: a run changes
    the manifest first and last, so if it is the same `before` and after the listing, nothing has changed in
    between. Raises Transient `ModelIncomplete`.
    """
    manifest = next((each for each in found if each.key == folder + FILE_INDEX), None)
    if any(each.key == folder + MARK for each in found):
        raise _incomplete(folder)
    if before is None and manifest is None and source.stat(bucket, folder + FILE_INDEX) is None:
        return found
    if manifest is None or before is None or manifest.etag != before.etag:
        raise _incomplete(folder)
    files = tuple(each for each in found if each is not manifest)
    try:
        sizes = listed(_read(source, bucket, manifest))
    except ValueError:
        return found  # a file of the same name that is not ours
    except Stalled as error:
        if error.reason not in (Reason.OBJECT_CHANGED, Reason.OBJECT_MISSING):
            raise
        raise _incomplete(folder) from error
    if sizes != {each.key.removeprefix(folder): each.size for each in files}:
        raise _incomplete(folder)
    return files


def _read(source: Objects, bucket: str, manifest: StoredObject) -> bytes:
    """Return the content of a manifest. Raises ValueError if it is too large."""
    if manifest.size > _MOST:
        raise ValueError(Localizable("{key} has {size}", key=manifest.key, size=about_size(manifest.size)))
    with source.open(bucket, manifest.key, manifest.etag) as pieces:
        return b"".join(pieces)


def _incomplete(folder: str) -> Transient:
    return Transient(
        Reason.MODEL_INCOMPLETE,
        Localizable(
            "{folder} does not have the files that its {index} lists: a run is publishing it, "
            "or failed and must be repeated; files added by hand count only after {index} is "
            "removed",
            folder=folder,
            index=FILE_INDEX,
        ),
    )


def _layout(key: str, objects: Iterable[StoredObject]) -> Mapping[str, StoredObject]:
    """Return where below the digest's folder each object goes, sorted. Raises Stalled `ModelInvalid` for keys
    that lead elsewhere or that file systems do not accept.
    """
    start = len(key.rstrip("/").rpartition("/")[0]) + 1
    layout = {found.key[start:]: found for found in sorted(objects, key=lambda found: found.key)}
    for name in layout:
        _require_sound(name)
        if above := next((parent for parent in ancestors(name) if parent in layout), None):
            raise Stalled(
                Reason.MODEL_INVALID,
                Localizable(
                    "model {key}: {above} is a file, but {name} is below it", key=key, above=above, name=name
                ),
            )
    return layout


def _require_sound(name: str) -> None:
    try:
        parse_path(name)
    except FileKeyInvalid as error:
        raise Stalled(
            Reason.MODEL_INVALID,
            Localizable(
                "{name!r} is not a valid name for a file of a model: {error}", name=name, error=error
            ),
        ) from error


def _digest(layout: Mapping[str, StoredObject]) -> str:
    """Return the SHA-256 over names, ETags and sizes. The time replaces a missing ETag."""
    digest = hashlib.sha256()
    for name, found in layout.items():
        digest.update(f"{name}\n{found.etag or found.modified}\n{found.size}\n".encode())
    return digest.hexdigest()


def _fetch(
    source: Objects, pin: ModelPin, found: StoredObject, place: Path, check: Callable[[], None]
) -> None:
    try:
        with source.open(pin.bucket, found.key, found.etag) as pieces, place.open("xb") as file:
            for piece in pieces:
                check()
                file.write(piece)
    except Stalled as error:
        if error.reason not in (Reason.OBJECT_CHANGED, Reason.OBJECT_MISSING):
            raise
        raise Transient(
            Reason.MODEL_CHANGED, Localizable("{key} was replaced while it was downloaded", key=found.key)
        ) from error
    if (size := place.stat().st_size) != found.size:
        raise Transient(
            Reason.MODEL_CHANGED,
            Localizable(
                "{key} has {size} bytes, but {listed} were listed",
                key=found.key,
                size=size,
                listed=found.size,
            ),
        )


@contextmanager
def _translated(folder: Path, pin: ModelPin | None = None) -> Iterator[None]:
    """Translate errors of the disk to Transient `StateDiskFull` or `StateIOError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise Transient(
                Reason.STATE_IO_ERROR,
                Localizable("cannot keep models in {folder}: {error}", folder=folder, error=error),
            ) from error
        free = about_size(shutil.disk_usage(folder).free)
        need = (
            Localizable("model {name} needs {size}", name=pin.name, size=about_size(pin.size))
            if pin
            else Localizable("space is needed")
        )
        raise Transient(
            Reason.STATE_DISK_FULL,
            Localizable(
                "{need}, but only {free} are free below {folder}: free some space, or set a smaller "
                "storage.modelCache to remove old models",
                need=need,
                free=free,
                folder=folder,
            ),
        ) from error
