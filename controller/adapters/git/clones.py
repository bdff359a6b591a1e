"""The folder of bare clones: who may touch one, and how clones are added and removed.

- `NAME.git`: the clone; always complete, since it is added and removed by a rename
- `NAME.lock`: flock(2) held while a clone is written; released by the kernel when its process dies
- `.new-NAME.*`: a clone being added or removed, or left by a killed process
- `.blank.git`: an empty repository, which is needed to ask a server for its refs
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pygit2

from controller.adapters.git.copying import is_pack, object_files

#: What a killed fetch leaves within a clone. Nobody else writes while we hold the lock, so all of it is stale.
LEFTOVERS = ("**/*.lock", "objects/pack/pack_git2_*", "objects/pack/tmp_*", "objects/**/tmp_obj_*")
#: Every fetch adds a pack, and reading searches all of them.
MAX_PACKS = 50
SMALL_PACK = 64 * 2**20  # bytes
#: Objects in files of their own, which `copying` makes of those that nobody has packed.
MAX_LOOSE = 2000
SMALL_LOOSE = 2**20  # bytes


class Clones:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _initialise(folder / ".blank.git")

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.git"

    def blank(self) -> AbstractContextManager[pygit2.Repository]:
        return _opened(self.folder / ".blank.git")

    def open(self, name: str) -> AbstractContextManager[pygit2.Repository]:
        """Open the clone. Raises pygit2.GitError if it does not exist or is not a repository."""
        return _opened(self.path(name))

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock. Unlike a threading.Lock, flock also holds against a second process; a new descriptor
        for each holder makes it hold between threads.
        """
        with open(self.folder / f"{name}.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def sweep(self, name: str) -> None:
        """Remove what a killed fetch left. Hold the lock."""
        for leftover in self.folder.glob(f".new-{name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for pattern in LEFTOVERS:
            for found in self.path(name).glob(pattern):
                shutil.rmtree(found) if found.is_dir() else found.unlink()

    @contextmanager
    def fresh(self, name: str) -> Iterator[pygit2.Repository]:
        """Yield an empty clone that replaces the old one if the block succeeds. Hold the lock."""
        place = Path(tempfile.mkdtemp(prefix=f".new-{name}.", dir=self.folder))
        try:
            _initialise(place)
            with _opened(place) as clone:
                yield clone
            self._discard(name)
            os.replace(place, self.path(name))
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def remove(self, name: str) -> None:
        with self.locked(name):
            self.sweep(name)
            self._discard(name)

    def remove_damaged(self, name: str, identity: int | None) -> None:
        """Remove the clone with this `identity`, but not one that has replaced it since."""
        with self.locked(name):
            if identity is not None and self.identity(name) == identity:
                self._discard(name)

    def identity(self, name: str) -> int | None:
        """Return what distinguishes a clone from its successor of the same name; None if there is none."""
        try:
            return self.path(name).stat().st_ino
        except FileNotFoundError:
            return None

    def _discard(self, name: str) -> None:
        """Remove a clone. It is renamed first, so that no process sees half a clone."""
        if self.identity(name) is not None:
            grave = tempfile.mkdtemp(prefix=f".new-{name}.", dir=self.folder)
            os.replace(self.path(name), grave)
            shutil.rmtree(grave, ignore_errors=True)

    @staticmethod
    def stored(clone: pygit2.Repository) -> int:
        """Return the bytes of its objects."""
        return sum(file.stat().st_size for file in Path(clone.path, "objects").glob("*/*"))

    @staticmethod
    def compact(clone: pygit2.Repository) -> None:
        """Combine many packs into one, and many objects that lie in files of their own into another. Hold the lock.
        Readers keep the old files open, and find the new one. Large ones stay: compressing them again takes
        minutes, and there are few.
        """
        folder = Path(clone.path, "objects")
        files = tuple(object_files(folder))
        packs = [folder / name for name, size in files if is_pack(name) and size <= SMALL_PACK]
        if len(packs) > MAX_PACKS and _packed_again(clone, _objects(packs, folder / "pack")):
            for pack in packs:
                pack.with_suffix(".idx").unlink()
                pack.unlink()
        loose = [name for name, size in files if not is_pack(name) and size <= SMALL_LOOSE]
        if len(loose) > MAX_LOOSE and _packed_again(
            clone, [pygit2.Oid(hex=name.replace("/", "")) for name in loose]
        ):
            for name in loose:
                (folder / name).unlink()


def _packed_again(clone: pygit2.Repository, objects: Collection[pygit2.Oid]) -> bool:
    """Write the objects into a new pack. Return True if all of them are in it, so that their old places may go."""

    def choose(builder: pygit2.PackBuilder) -> None:
        for each in objects:
            builder.add(each)

    folder = Path(clone.path, "objects", "pack")
    before = set(folder.glob("*.pack"))
    # A pack has the name of what is in it: where there was one of this name, nothing is new.
    return clone.pack(pack_delegate=choose) == len(objects) > 0 and set(folder.glob("*.pack")) > before


def _initialise(place: Path) -> None:
    """Create a repository, or set up an existing one. Redirects are followed only within one host: by default
    libgit2 would follow the first one anywhere, and send the credentials there.
    """
    repository = pygit2.init_repository(place, bare=True)
    repository.config["http.followRedirects"] = False
    repository.free()


def _objects(packs: list[Path], folder: Path) -> frozenset[pygit2.Oid]:
    """Return the objects in some of a folder's packs. libgit2 lists only all packs below a folder, so these
    get a folder.
    """
    with tempfile.TemporaryDirectory(prefix="tmp_", dir=folder) as place:
        (Path(place) / "pack").mkdir()
        for pack in packs:
            for file in (pack, pack.with_suffix(".idx")):
                os.link(file, Path(place) / "pack" / file.name)
        return frozenset(pygit2.OdbBackendPack(place))


@contextmanager
def _opened(path: Path) -> Iterator[pygit2.Repository]:
    """Yield a repository that is freed at once, not when nothing refers to it: libgit2 shares open packs by
    their path in the whole process, and would show those of a damaged clone in its successor.
    """
    repository = pygit2.Repository(str(path))
    try:
        yield repository
    finally:
        repository.free()
