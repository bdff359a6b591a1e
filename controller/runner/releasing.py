"""Releases: what a run has made becomes the module's own data (`publishTo`), once all its stages have succeeded.

A release replaces all of its group in the developer area, and nobody takes half of it for the whole: the group's
manifest says first that it is being written, and last what is there. A daemon that dies in the middle does all of it
again, since `next_step` asks for it until its end is written down. Called by `driving`, in the thread of the run.

Releases into one bucket take turns, whatever runs they are of: whoever comes later replaces all of the earlier one.
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from controller.domain.errors import ControllerError, Stalled
from controller.domain.groups import MANIFEST, unfinished
from controller.domain.keys import KeyInvalid, parse_path
from controller.domain.runs import Run, RunOutput, RunState
from controller.domain.steps import PLATFORM_PAUSES, Finish, release
from controller.domain.storage import Pending, Room
from controller.domain.units import about_size
from controller.ports import Objects
from controller.runner.deps import Deps
from controller.runner.inputs import Inputs, below
from controller.runner.outputs import RESERVED_FOR, SETTLED, Publication, publication, total, upload
from controller.runner.parallel import in_order
from controller.runner.record import Over, Record
from controller.runner.signals import Halted, Signals
from controller.runner.verdict import BUG, Failure, failure_of_error

log = logging.getLogger(__name__)

NEWS = "box"  # why the app is looked at: components may follow what was released
_SLICE = 0.25  # seconds of waiting for one's turn between two looks whether the daemon ends


class Turns:
    """Shared by all runs."""

    def __init__(self) -> None:
        self._locks: dict[str, threading.Lock] = {}  # by bucket

    @contextmanager
    def take(self, bucket: str, signals: Signals) -> Iterator[None]:
        """Raises Halted."""
        lock = self._locks.setdefault(bucket, threading.Lock())
        while not lock.acquire(timeout=_SLICE):
            signals.check_halted()
        try:
            yield
        finally:
            lock.release()


class Releasing:
    """Of one run. `signals` tell of the daemon's end alone: once all stages have succeeded it is too late to cancel."""

    def __init__(self, deps: Deps, record: Record, inputs: Inputs, signals: Signals, turns: Turns) -> None:
        self._deps = deps
        self._record = record
        self._inputs = inputs
        self._signals = signals
        self._turns = turns

    def carry_out(self, output: RunOutput) -> Finish | None:
        """None once it is at its place, which is then written down; else the end that the run comes to. A storage that
        is away is waited for. Raises Halted, Over, and errors of the state."""
        failure = self._try(output)
        for pause in PLATFORM_PAUSES:
            if failure is None or failure.final:
                break
            self._note(failure)
            self._signals.pause(pause)
            failure = self._try(output)
        if failure is None:
            self._write_down(output)
            return None
        state = RunState.ERROR if failure.platform else RunState.FAILED
        return Finish(state, failure.reason, f"output {output.name}: {failure.message}")

    def _try(self, output: RunOutput) -> Failure | None:
        try:
            self._release(self._record.load(), output)
        except ControllerError as error:
            return replace(failure_of_error(error), final=isinstance(error, Stalled))
        except (Halted, Over):
            raise
        except Exception:
            log.exception("bug in a release", extra={"run": self._record.id, "output": output.name})
            return replace(BUG, final=True)
        return None

    def _release(self, run: Run, output: RunOutput) -> None:
        stage = run.pipeline.made[output.name]
        maker = self._deps.store.runs.get(run.app, run.maker(output.name)) or run
        folder = self._inputs.bring(run, output.name)
        assert folder is not None, "only callers leave something out"
        attempt = len(maker.stage(stage).attempts)
        target = publication(self._deps, run, stage, attempt, output, folder)
        with self._turns.take(target.bucket, self._signals):
            put_in_place(self._deps, self._signals, target)

    def _note(self, failure: Failure) -> None:
        message = f"not published yet: {failure.message}"
        self._record.update(lambda run: replace(run, reason=failure.reason, message=message))

    def _write_down(self, output: RunOutput) -> None:
        """With the wish that the app be looked at: neither is there without the other."""
        with self._deps.store.transaction():
            run = self._record.load()
            self._deps.store.runs.save(release(run, output))
            self._deps.store.requests.enqueue(run.app, NEWS)
        fields = {
            "app": run.app,
            "run": run.id,
            "output": output.name,
            "box": output.box,
            "path": output.data,
        }
        log.info("output published to the developer area", extra=fields)


def put_in_place(deps: Deps, signals: Signals, output: Publication) -> None:
    """Make the group what the output is: other files that lie there go. Errors as of `outputs.publish`."""
    objects = deps.storage.objects()
    reserved = _reserve(deps, output, total(output), _size(objects, output))
    done = False
    try:
        _mark(objects, output)
        _remove_stale(objects, signals, output)
        upload(objects, signals, output)
        done = True
    finally:
        _settle(deps, output, reserved, done)


def _mark(objects: Objects, output: Publication) -> None:
    mark = unfinished(output.head).encode()
    objects.put(output.bucket, output.key(MANIFEST), io.BytesIO(mark), len(mark), "application/json")


def _remove_stale(objects: Objects, signals: Signals, output: Publication) -> None:
    """One by one: where folders are real, only that removes those which become empty."""
    found = (each.key for each in below(objects, output.bucket, output.prefix))
    stale = (key for key in found if not _stays(output, key.removeprefix(output.prefix)))
    for _ in in_order(lambda key: objects.remove(output.bucket, [key]), stale):
        signals.check()


def _stays(output: Publication, name: str) -> bool:
    """Whether it will be written over. Containers with an account of their own put objects under any key."""
    try:
        parse_path(name)
    except KeyInvalid:
        return False
    place = output.folder / name
    return name == MANIFEST or (os.path.lexists(place) and (place.is_symlink() or not place.is_dir()))


# --- room -------------------------------------------------------------------------------------------------------


def _size(objects: Objects, output: Publication) -> int:
    """Bytes of what lies there, but for the manifest, which no reservation counts."""
    found = below(objects, output.bucket, output.prefix)
    return sum(each.size for each in found if each.key != output.key(MANIFEST))


def _reserve(deps: Deps, output: Publication, size: int, replaced: int) -> Pending:
    """Room for what the output has more than what it replaces, which the box counts already. Under a key that no object
    will ever have: no measurement may take an older manifest for the end of this."""
    now = deps.clock.now()
    more = max(size - replaced, 1)
    asked = Pending(0, output.bucket, output.key(".publishing"), more, now, now + RESERVED_FOR)
    room = deps.store.boxes.reserve(asked, now)
    if isinstance(room, Room):
        raise Stalled(
            "StorageFull",
            f"it needs {about_size(more)} more than what it replaces, and {about_size(room.free)} of "
            f"{about_size(room.capacity)} are free in the box: make room, or raise its `capacity`",
        )
    return replace(asked, id=room)


def _settle(deps: Deps, output: Publication, reserved: Pending, done: bool) -> None:
    """The room of a complete output is kept until a measurement has seen its manifest, beside what an earlier release
    still keeps so; that of a broken one is given back."""
    boxes, now = deps.store.boxes, deps.clock.now()
    with deps.store.transaction():
        boxes.release([reserved.id])
        if done:
            key = output.key(MANIFEST)
            kept = sum(each.size for each in boxes.pending(output.bucket) if each.key == key)
            boxes.reserve(
                replace(reserved, key=key, size=reserved.size + kept, created=reserved.created - SETTLED), now
            )
        boxes.touch(output.bucket)
