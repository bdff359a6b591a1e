"""The inputs of stages, brought to this host once per run: files of the caller and of the developer, values,
and outputs of stages of this run, or of the one that it repeats.

An input is downloaded next to its place and then renamed: what is there is complete, even after a crash.
Several stages may need the same one at once; the second waits for the first.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.file_index import OURS, parse_index
from controller.domain.runs.run import Run, RunInput
from controller.domain.storage.box import BoxRecord, StoredObject
from controller.domain.storage.keys import DEVELOPER_AREA, FileKeyInvalid, FilePath, ancestors, parse_path
from controller.domain.turns import taken
from controller.file_trees import link_tree, remove_tree
from controller.ports import Objects
from controller.runner.concurrency import in_order
from controller.runner.deps import RunnerDeps
from controller.runner.failures import FULL
from controller.runner.folders import RunFolders
from controller.runner.group_locks import GroupLocks
from controller.runner.listing import LARGEST_MANIFEST, below, manifests
from controller.runner.signals import RunSignals

Check = Callable[[], None]


@dataclass(frozen=True)
class StagingHooks:
    """`check` is called repeatedly and ends the work by raising; `waiting` is called with the group to read
    if another run is publishing into it.
    """

    check: Check
    waiting: Callable[[str], None] = lambda group: None


_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL)

_RENAMED = {
    Reason.MODEL_MISSING: Reason.INPUT_MISSING,
    Reason.MODEL_INVALID: Reason.INPUT_INVALID,
    Reason.MODEL_CHANGED: Reason.INPUT_CHANGED,
    Reason.MODEL_INCOMPLETE: Reason.INPUT_CHANGED,
}


@dataclass(frozen=True)
class _Download:
    found: StoredObject
    place: Path


class RunInputs:
    """The inputs of one run. Thread-safe."""

    def __init__(
        self, deps: RunnerDeps, folders: RunFolders, signals: RunSignals, group_locks: GroupLocks
    ) -> None:
        self._deps = deps
        self._folders = folders
        self._signals = signals
        self._group_locks = group_locks
        self._locks: dict[str, threading.Lock] = {}  # by variable

    def bring(self, run: Run, name: str, hooks: StagingHooks | None = None) -> Path | None:
        """Return where the variable is; None if it is optional and the caller left it out. By default the
        work ends when the daemon ends or the run is canceled. Raises Stalled `InputMissing`, `InputInvalid`;
        Transient `InputChanged`, `StateDiskFull`, `StateIOError`; otherwise errors as Objects; ShuttingDown,
        Canceled, and what `check` raises.
        """
        maker = run.pipeline.made.get(name)
        if maker and not run.stage(maker).reused_from:
            return self._folders.output(maker, len(run.stage(maker).attempts), name)
        given = next((given for given in run.inputs if given.name == name), None)
        if not maker and not given and name in run.pipeline.optional:
            return None
        place, hooks = self._folders.input(name), hooks or StagingHooks(self._signals.check)
        with taken(self._locks.setdefault(name, threading.Lock()), hooks.check):
            if not place.exists():
                self._fetch(run, name, given, place, hooks)
        return place

    def _fetch(self, run: Run, name: str, given: RunInput | None, place: Path, hooks: StagingHooks) -> None:
        draft = self._folders.draft(name)
        with _translated(name):
            remove_tree(draft)
            self._fetch_to(run, name, given, draft, hooks)
            draft.rename(place)

    def _fetch_to(
        self, run: Run, name: str, given: RunInput | None, draft: Path, hooks: StagingHooks
    ) -> None:
        source = run.pipeline.var(name).mount_from
        if name in run.pipeline.made:
            self._take_over(run, name, draft)
        elif source:
            self._copy_model(run, source, draft, hooks)
        elif given is None:
            raise Stalled(
                Reason.INPUT_MISSING, Localizable("no value was passed for the input {name!r}", name=name)
            )
        elif given.datatype == "FILE":
            self._download(run, given, draft, hooks)
        else:
            draft.write_text(given.data)
            draft.chmod(0o644)

    # --- from another run --------------------------------------------------------------------------------------

    def _take_over(self, run: Run, name: str, draft: Path) -> None:
        stage, source = run.pipeline.made[name], run.maker(name)
        before = self._deps.store.runs.get(run.app, source)
        if before is None:
            raise _gone(name, source)
        made = RunFolders(self._folders.root.parent, source).output(
            stage, len(before.stage(stage).attempts), name
        )
        if not made.is_dir():
            raise _gone(name, source)
        link_tree(made, draft)

    # --- from the developer area -------------------------------------------------------------------------------

    def _copy_model(self, run: Run, source: tuple[str, str], draft: Path, hooks: StagingHooks) -> None:
        """Copy a model from the cache, so that a run starts at once with what an earlier one has downloaded."""
        box, path = source
        record = self._box(run, box)
        try:
            with self._reading(record.bucket, DEVELOPER_AREA, f"{path.rstrip('/')}/", hooks):
                pin = self._deps.models.pin(record.bucket, path)
                self._deps.models.stage(pin, hooks.check)
        except (Stalled, Transient) as error:
            raise type(error)(_RENAMED.get(error.reason, error.reason), error.message) from error
        self._deps.models.copy_to(pin, draft)

    # --- from the caller's area --------------------------------------------------------------------------------

    def _download(self, run: Run, given: RunInput, draft: Path, hooks: StagingHooks) -> None:
        record = self._box(run, given.box or next(iter(run.pipeline.boxes), ""))
        try:
            path = parse_path(given.data)
        except FileKeyInvalid as error:
            raise Stalled(
                Reason.INPUT_INVALID,
                Localizable(
                    "input {given!r} ({data}): {error}", given=given.name, data=given.data, error=error
                ),
            ) from error
        objects, area = self._deps.storage.objects(), run.prefix(run.area)
        group = path.text if path.is_group else f"{path.text.rpartition('/')[0]}/"
        with self._reading(record.bucket, area, group, hooks):
            _require_whole(objects, record.bucket, area, group, path.text)
            if path.is_group:
                self._download_group(objects, record, path.key(area), draft, hooks.check)
            elif found := objects.stat(record.bucket, path.key(area)):
                _save(objects, record.bucket, _Download(found, draft), hooks.check)
        if not draft.exists():
            raise Stalled(Reason.INPUT_MISSING, _missing(given, record, path))

    @contextmanager
    def _reading(self, bucket: str, area: str, group: str, hooks: StagingHooks) -> Iterator[None]:
        """Keep others from publishing into the group meanwhile."""
        turn = self._group_locks.acquire(
            bucket, area + group, hooks.check, lambda: hooks.waiting(group), shared=True
        )
        with turn:
            yield

    def _download_group(
        self, objects: Objects, record: BoxRecord, prefix: str, draft: Path, check: Check
    ) -> None:
        wanted = (
            _Download(found, draft / name)
            for found in below(objects, record.bucket, prefix)
            if (name := _sound(found.key.removeprefix(prefix))) not in OURS
        )
        for _ in in_order(lambda each: _save(objects, record.bucket, each, check), wanted):
            check()
        for folder, _, names in os.walk(draft):
            os.chmod(folder, 0o755)  # noqa: S103 - whatever the umask
            for name in OURS.intersection(names):
                _require_finished(Path(folder, name))

    def _box(self, run: Run, name: str) -> BoxRecord:
        record = self._deps.store.boxes.get(run.app, ComponentName(name))
        if record is None:
            raise Stalled(
                Reason.INPUT_MISSING,
                Localizable("there is no box {name!r}", name=name)
                if name
                else Localizable("the pipeline has no connected box"),
            )
        return record


def _save(objects: Objects, bucket: str, each: _Download, check: Check) -> None:
    each.place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            objects.open(bucket, each.found.key, each.found.etag) as pieces,
            each.place.open("xb") as file,
        ):
            for piece in pieces:
                check()
                file.write(piece)
            os.fchmod(file.fileno(), 0o644)
    except Stalled as error:
        if error.reason not in (Reason.OBJECT_CHANGED, Reason.OBJECT_MISSING):
            raise
        raise Transient(
            Reason.INPUT_CHANGED,
            Localizable("{key} was replaced while it was downloaded", key=each.found.key),
        ) from error


def _require_whole(objects: Objects, bucket: str, area: str, group: str, path: str) -> None:
    """Raise Transient `InputChanged` if a run has begun to publish to the path, which is in this group or is
    the group, and has not finished: it was interrupted, or will try again.
    """
    for above in (*ancestors(group), group.rstrip("/")):
        rest = path[len(above) + 1 :]
        for found in manifests(objects, bucket, f"{area}{above}/"):
            if not found.complete and found.concerns(rest):
                raise _unfinished(f"{above}/", found.run)


def _require_finished(manifest: Path) -> None:
    """Raise the same for a group inside the one that was read."""
    with suppress(ValueError):
        found = parse_index(manifest.read_bytes()) if manifest.stat().st_size <= LARGEST_MANIFEST else None
        if found and not found.complete:
            raise _unfinished(f"{manifest.parent.name}/", found.run)


def _unfinished(group: str, run: str) -> Transient:
    return Transient(
        Reason.INPUT_CHANGED,
        Localizable(
            "the group {group!r} is not complete: run {run} began to publish into it and has not "
            "finished; repeat that run, or publish into the group again",
            group=group,
            run=run,
        ),
    )


def _sound(name: str) -> str:
    """Return the name if it is valid. Containers with their own account can put objects under any key, which
    must not lead out of the folder.
    """
    try:
        parse_path(name)
    except FileKeyInvalid as error:
        raise Stalled(
            Reason.INPUT_INVALID,
            Localizable("{name!r} cannot be the name of a file: {error}", name=name, error=error),
        ) from error
    return name


def _missing(given: RunInput, record: BoxRecord, path: FilePath) -> str:
    if path.is_group:
        return Localizable(
            "input {given!r}: there are no files in the group {data!r} of box {box}",
            given=given.name,
            data=given.data,
            box=record.box,
        )
    return Localizable(
        "input {given!r}: there is no file {data!r} in box {box}",
        given=given.name,
        data=given.data,
        box=record.box,
    )


def _gone(name: str, run: str) -> Stalled:
    return Stalled(
        Reason.INPUT_MISSING,
        Localizable(
            "{name!r} was an output of run {run}, which has been deleted: start a new run", name=name, run=run
        ),
    )


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Transient(
                Reason.STATE_DISK_FULL,
                Localizable("no space left on this host for the input {name!r}", name=name),
            ) from error
        if error.errno in _NAMES:
            raise Stalled(
                Reason.INPUT_INVALID,
                Localizable(
                    "input {name!r} has names that are not allowed for files: {error}", name=name, error=error
                ),
            ) from error
        raise Transient(
            Reason.STATE_IO_ERROR,
            Localizable("cannot store the input {name!r} on this host: {error}", name=name, error=error),
        ) from error
