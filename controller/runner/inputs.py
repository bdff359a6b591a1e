"""What stages take in, brought to this host once a run: files of the caller and of the developer, values, and what the
stages of this run, or of the one that it repeats, have made.

An input is downloaded beside its place and renamed there: what is there is complete, whoever died meanwhile. Several
stages may ask for the same one at once; the second waits for the first.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.domain.errors import Stalled, Transient
from controller.domain.groups import MANIFEST
from controller.domain.keys import FilePath, KeyInvalid, parse_path
from controller.domain.names import ComponentName
from controller.domain.runs import Run, RunInput
from controller.domain.storage import BoxRecord, StoredObject
from controller.ports import Objects
from controller.runner.deps import Deps
from controller.runner.folders import Folders, link_tree, remove_tree
from controller.runner.parallel import in_order
from controller.runner.signals import Signals
from controller.runner.verdict import FULL

_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL)

_RENAMED = {
    "ModelMissing": "InputMissing",
    "ModelInvalid": "InputInvalid",
    "ModelChanged": "InputChanged",
    "ModelIncomplete": "InputChanged",
}


@dataclass(frozen=True)
class _Download:
    found: StoredObject
    place: Path


class Inputs:
    """Of one run. Thread-safe."""

    def __init__(self, deps: Deps, folders: Folders, signals: Signals) -> None:
        self._deps = deps
        self._folders = folders
        self._signals = signals
        self._turns: dict[str, threading.Lock] = {}

    def bring(self, run: Run, name: str) -> Path | None:
        """Where the variable lies now; None if the caller left it out, and may. Stalled `InputMissing`, `InputInvalid`;
        Transient `InputChanged`, `StateDiskFull`, `StateIOError`; otherwise as Objects. Raises Halted, Canceled."""
        maker = run.pipeline.made.get(name)
        if maker and not run.stage(maker).reused_from:
            return self._folders.output(maker, len(run.stage(maker).attempts), name)
        given = next((given for given in run.inputs if given.name == name), None)
        if not maker and not given and name in run.pipeline.optional:
            return None
        place = self._folders.input(name)
        with self._turns.setdefault(name, threading.Lock()):
            if not place.exists():
                self._fetch(run, name, given, place)
        return place

    def _fetch(self, run: Run, name: str, given: RunInput | None, place: Path) -> None:
        draft = self._folders.draft(name)
        with _translated(name):
            remove_tree(draft)
            self._fetch_to(run, name, given, draft)
            draft.rename(place)

    def _fetch_to(self, run: Run, name: str, given: RunInput | None, draft: Path) -> None:
        source = run.pipeline.var(name).mount_from
        if name in run.pipeline.made:
            self._take_over(run, name, draft)
        elif source:
            self._link_model(run, source, draft)
        elif given is None:
            raise Stalled("InputMissing", f"nothing was passed for the input {name!r}")
        elif given.datatype == "FILE":
            self._download(run, given, draft)
        else:
            draft.write_text(given.data)
            draft.chmod(0o644)

    # --- from another run --------------------------------------------------------------------------------------

    def _take_over(self, run: Run, name: str, draft: Path) -> None:
        stage, source = run.pipeline.made[name], run.maker(name)
        before = self._deps.store.runs.get(run.app, source)
        if before is None:
            raise _gone(name, source)
        made = Folders(self._folders.root.parent, source).output(
            stage, len(before.stage(stage).attempts), name
        )
        if not made.is_dir():
            raise _gone(name, source)
        link_tree(made, draft)

    # --- from the developer area -------------------------------------------------------------------------------

    def _link_model(self, run: Run, source: tuple[str, str], draft: Path) -> None:
        """Through the cache of models: a run starts at once with what an earlier one has brought. Linked, since the
        cache may let it go while the run goes on."""
        box, path = source
        record = self._box(run, box)
        try:
            pin = self._deps.models.pin(record.bucket, path)
            self._deps.models.stage(pin)
        except (Stalled, Transient) as error:
            raise type(error)(_RENAMED.get(error.reason, error.reason), error.message) from error
        link_tree(pin.folder / pin.name, draft)

    # --- from the caller's area --------------------------------------------------------------------------------

    def _download(self, run: Run, given: RunInput, draft: Path) -> None:
        record = self._box(run, given.box or next(iter(run.pipeline.boxes), ""))
        try:
            path = parse_path(given.data)
        except KeyInvalid as error:
            raise Stalled("InputInvalid", f"input {given.name!r} ({given.data}): {error}") from error
        objects, area = self._deps.storage.objects(), run.prefix(run.area)
        if path.is_group:
            self._download_group(objects, record, path.key(area), draft)
        elif found := objects.stat(record.bucket, path.key(area)):
            self._save(objects, record.bucket, _Download(found, draft))
        if not draft.exists():
            raise Stalled("InputMissing", _missing(given, record, path))

    def _download_group(self, objects: Objects, record: BoxRecord, prefix: str, draft: Path) -> None:
        wanted = (
            _Download(found, draft / name)
            for found in below(objects, record.bucket, prefix)
            if (name := _sound(found.key.removeprefix(prefix))) != MANIFEST
        )
        for _ in in_order(lambda each: self._save(objects, record.bucket, each), wanted):
            self._signals.check()
        for folder, _, _ in os.walk(draft):
            os.chmod(folder, 0o755)  # whatever the umask

    def _save(self, objects: Objects, bucket: str, each: _Download) -> None:
        each.place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                objects.open(bucket, each.found.key, each.found.etag) as pieces,
                each.place.open("xb") as file,
            ):
                for piece in pieces:
                    self._signals.check()
                    file.write(piece)
                os.fchmod(file.fileno(), 0o644)
        except Stalled as error:
            if error.reason not in ("ObjectChanged", "ObjectMissing"):
                raise
            raise Transient(
                "InputChanged", f"{each.found.key} was replaced while it was brought here"
            ) from error

    def _box(self, run: Run, name: str) -> BoxRecord:
        record = self._deps.store.boxes.get(run.app, ComponentName(name))
        if record is None:
            raise Stalled(
                "InputMissing", f"there is no box {name!r}" if name else "the pipeline has no connected box"
            )
        return record


def below(objects: Objects, bucket: str, prefix: str) -> Iterator[StoredObject]:
    """All objects below the prefix. Some storages list an empty object for each folder, too."""
    after: str | None = ""
    while after is not None:
        page = objects.page(bucket, prefix, after)
        yield from (found for found in page.objects if not found.key.endswith("/"))
        after = page.next


def _sound(name: str) -> str:
    """Containers with an account of their own put objects under any key: it must not lead out of the folder."""
    try:
        parse_path(name)
    except KeyInvalid as error:
        raise Stalled("InputInvalid", f"{name!r} cannot be the name of a file: {error}") from error
    return name


def _missing(given: RunInput, record: BoxRecord, path: FilePath) -> str:
    if path.is_group:
        return f"input {given.name!r}: there are no files in the group {given.data!r} of box {record.box}"
    return f"input {given.name!r}: there is no file {given.data!r} in box {record.box}"


def _gone(name: str, run: str) -> Stalled:
    return Stalled(
        "InputMissing", f"{name!r} was made by run {run}, which is not kept any more: start a new run"
    )


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Transient("StateDiskFull", f"no space left on this host for the input {name!r}") from error
        if error.errno in _NAMES:
            raise Stalled(
                "InputInvalid", f"input {name!r} has names that cannot be those of files: {error}"
            ) from error
        raise Transient("StateIOError", f"cannot bring the input {name!r} to this host: {error}") from error
