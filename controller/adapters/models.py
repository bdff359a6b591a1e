"""Models of boxes on this host: one folder for each content, there completely or not at all.

`<folder>/<digest>/<the model's own name>`; what is on its way in or out lies beside it as `.draft-…`. Only the daemon
writes here. Containers mount the folders read-only, under users of their own, so everybody may read them.
Called by reconcile: resolve asks what there is, the executor stages, a pass that has acted prunes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from controller.adapters.sealing import flush, seal
from controller.domain.errors import Stalled, Transient
from controller.domain.groups import MANIFEST, listed
from controller.domain.keys import DEVELOPER_AREA, KeyInvalid, ancestors, parse_path
from controller.domain.storage import ModelPin, StoredObject
from controller.domain.units import about_size
from controller.ports import Objects, Storage

_DRAFT = ".draft-"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MOST = 64 * 2**20  # bytes of a group's manifest: some 400,000 files


class ModelCache:
    """`controller.ports.Models`. `capacity` in bytes; models in use may go beyond it."""

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

    def folder(self, digest: str) -> Path:
        return self._folder / digest

    def has(self, digest: str) -> bool:
        try:
            os.utime(self.folder(digest))
        except OSError:
            return False
        return True

    # --- pin ---------------------------------------------------------------------------------------------------

    def pin(self, bucket: str, path: str) -> ModelPin:
        key, objects = self._find(bucket, path)
        if not objects:
            raise Stalled("ModelMissing", f"bucket {bucket} holds nothing at {key}")
        digest = _digest(_layout(key, objects))
        return ModelPin(bucket, key, digest, self.folder(digest), self.has(digest), objects)

    def _find(self, bucket: str, path: str) -> tuple[str, tuple[StoredObject, ...]]:
        """The key of the file or folder, and what there is of it. A file goes before a folder of the same name."""
        _require_sound(path)
        source, key = self._storage.objects(), DEVELOPER_AREA + path
        if not path.endswith("/"):
            if file := source.stat(bucket, key):
                return key, (file,)
            key += "/"
        before = source.stat(bucket, key + MANIFEST)
        return key, _whole(source, bucket, key, before, tuple(_below(source, bucket, key)))

    # --- stage -------------------------------------------------------------------------------------------------

    def stage(self, pin: ModelPin) -> None:
        """One download for each content, however many ask at once."""
        with self._turn(pin.digest), _translated(self._folder, pin):
            if self.has(pin.digest):
                return
            self._folder.mkdir(exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self._folder))
            try:
                self._download(pin, draft)
                seal(draft)
                draft.rename(self.folder(pin.digest))
                flush(self._folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def _turn(self, digest: str) -> Iterator[None]:
        with self._lock:
            turn = self._turns.setdefault(digest, threading.Lock())
        with turn:
            yield

    def _download(self, pin: ModelPin, draft: Path) -> None:
        if pin.size > shutil.disk_usage(draft).free:  # known beforehand: no need to fill the disk first
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        source = self._storage.objects()
        for name, found in _layout(pin.key, pin.objects).items():
            place = draft / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _fetch(source, pin, found, place)

    # --- prune -------------------------------------------------------------------------------------------------

    def prune(self, spare: frozenset[str]) -> None:
        with _translated(self._folder):
            if not self._folder.is_dir():
                return
            models = [path for path in self._folder.iterdir() if not path.name.startswith(_DRAFT)]
            over = sum(self._size(path) for path in models) - self._capacity
            for path in sorted(models, key=lambda path: path.stat().st_mtime_ns):
                if over <= 0:
                    return
                if path.name not in spare:
                    over -= self._size(path)
                    self._remove(path)

    def _size(self, model: Path) -> int:
        if model.name not in self._sizes:
            files = (path.stat().st_size for path in model.rglob("*") if path.is_file())
            self._sizes[model.name] = sum(files)
        return self._sizes[model.name]

    def _remove(self, model: Path) -> None:
        """By a rename first: what is there is complete."""
        grave = tempfile.mkdtemp(prefix=_DRAFT, dir=self._folder)
        model.rename(Path(grave, model.name))
        shutil.rmtree(grave)


def _below(source: Objects, bucket: str, folder: str) -> Iterator[StoredObject]:
    """All objects below the folder; some storages list an empty object for each folder, too."""
    after: str | None = ""
    while after is not None:
        page = source.page(bucket, folder, after)
        yield from (found for found in page.objects if not found.key.endswith("/"))
        after = page.next


def _whole(
    source: Objects, bucket: str, folder: str, before: StoredObject | None, found: tuple[StoredObject, ...]
) -> tuple[StoredObject, ...]:
    """The files of the folder. If a run has published them, just those that its manifest lists: a run changes it before
    all else and after all else, so if it was the same `before` the listing and is so after it, nothing has changed in
    between. Transient `ModelIncomplete`."""
    manifest = next((each for each in found if each.key == folder + MANIFEST), None)
    if before is None and manifest is None and source.stat(bucket, folder + MANIFEST) is None:
        return found
    if manifest is None or before is None or manifest.etag != before.etag:
        raise _incomplete(folder)
    files = tuple(each for each in found if each is not manifest)
    try:
        sizes = listed(_read(source, bucket, manifest))
    except ValueError:
        return found  # somebody's own file of that name
    except Stalled as error:
        if error.reason not in ("ObjectChanged", "ObjectMissing"):
            raise
        raise _incomplete(folder) from error
    if sizes != {each.key.removeprefix(folder): each.size for each in files}:
        raise _incomplete(folder)
    return files


def _read(source: Objects, bucket: str, manifest: StoredObject) -> bytes:
    """ValueError if it is too large."""
    if manifest.size > _MOST:
        raise ValueError(f"{manifest.key} has {about_size(manifest.size)}")
    with source.open(bucket, manifest.key, manifest.etag) as pieces:
        return b"".join(pieces)


def _incomplete(folder: str) -> Transient:
    return Transient(
        "ModelIncomplete",
        f"{folder} does not hold what its {MANIFEST} lists: a run is publishing it, or was broken off and has to be "
        f"repeated; files that were put there by hand count only once {MANIFEST} is removed",
    )


def _layout(key: str, objects: Iterable[StoredObject]) -> Mapping[str, StoredObject]:
    """Where below the digest's folder each object goes, sorted. Stalled `ModelInvalid` for keys that lead elsewhere or
    that no file system takes."""
    start = len(key.rstrip("/").rpartition("/")[0]) + 1
    layout = {found.key[start:]: found for found in sorted(objects, key=lambda found: found.key)}
    for name in layout:
        _require_sound(name)
        if above := next((parent for parent in ancestors(name) if parent in layout), None):
            raise Stalled("ModelInvalid", f"model {key}: {above} is a file, and {name} lies below it")
    return layout


def _require_sound(name: str) -> None:
    try:
        parse_path(name)
    except KeyInvalid as error:
        raise Stalled("ModelInvalid", f"{name!r} cannot be the name of a model's file: {error}") from error


def _digest(layout: Mapping[str, StoredObject]) -> str:
    """SHA-256 over names, ETags and sizes. An object without an ETag is told from its successor by its time."""
    digest = hashlib.sha256()
    for name, found in layout.items():
        digest.update(f"{name}\n{found.etag or found.modified}\n{found.size}\n".encode())
    return digest.hexdigest()


def _fetch(source: Objects, pin: ModelPin, found: StoredObject, place: Path) -> None:
    try:
        with source.open(pin.bucket, found.key, found.etag) as pieces, place.open("xb") as file:
            for piece in pieces:
                file.write(piece)
    except Stalled as error:
        if error.reason not in ("ObjectChanged", "ObjectMissing"):
            raise
        raise Transient("ModelChanged", f"{found.key} was replaced while it was brought here") from error
    if (size := place.stat().st_size) != found.size:
        raise Transient("ModelChanged", f"{found.key} has {size} bytes, {found.size} were listed")


@contextmanager
def _translated(folder: Path, pin: ModelPin | None = None) -> Iterator[None]:
    """What the disk refuses, as Transient `StateDiskFull` or `StateIOError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise Transient("StateIOError", f"cannot keep models in {folder}: {error}") from error
        free = about_size(shutil.disk_usage(folder).free)
        need = f"model {pin.name} needs {about_size(pin.size)}" if pin else "there is work to do"
        raise Transient(
            "StateDiskFull",
            f"{need}, and {free} are free below {folder}: make room, or let old models go with a smaller "
            "storage.modelCache",
        ) from error
