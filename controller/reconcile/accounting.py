"""Accounting: how much is in each box. One thread of the daemon lists the buckets, one at a time, writes down what it
has counted and settles the uploads that it has seen arrive. A box that went over its capacity, came back, or whose
developer area changed gets its app a pass.

Nothing tells when a link for an upload is used. So a box is looked at soon after a link was handed out, and then less
and less often; and whatever there is to list, listing takes at most a tenth of the time. Nothing is refused here:
`ports.Boxes.reserve` does that, with the figures from here.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from controller.domain.errors import ControllerError, Stalled, Superseded
from controller.domain.keys import DEVELOPER_AREA
from controller.domain.storage import BoxRecord, BoxState, Pending, StoredObject
from controller.ports import Clock, Objects, Storage, Store

log = logging.getLogger(__name__)

REASON = "box"  # of the passes that are asked for
LATE = 3600.0  # seconds: an upload that began before its link expired may still be arriving that long after

_POLL = 0.5  # seconds between looks at the records: one query of some 20 µs
_RETRY = 5.0  # seconds before a storage that did not answer is asked again
_SHORTEST = 1.0  # seconds between two listings of one bucket
_SHARE = 10.0  # the pause after a listing, in times of what it took
_PATIENCE = 0.1  # pause while uploads are awaited, in times of how long they have been
# What nobody announced: a link that is used twice, a container with an account of its own, a person at the storage. Its
# own passes see such a change of a model within a minute; for a capacity ten minutes cost a listing of 300,000 files
# (about a minute) a tenth of the time.
_IDLE = 600.0
_SKEW = 2.0  # seconds: the storage's clock against ours, and its times may be cut to whole seconds


# --- one listing --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """`used` in bytes; `settled` are ids of uploads that need no room beside it any more; `developer` is a digest (hex)
    over keys and ETags of the developer area."""

    used: int
    files: int
    settled: frozenset[int]
    developer: str


def measure(
    objects: Objects,
    bucket: str,
    uploads: tuple[Pending, ...],
    now: float,
    stopping: Callable[[], bool] = lambda: False,
) -> Measurement:
    """Count what is in the bucket, in memory that does not grow with it. `uploads` were read before: what is allowed
    during the listing is not settled by it. Raises what `Objects` does, and Superseded once `stopping()`."""
    # Asked before the listing: what is complete by now is in it.
    settled = {upload.id for upload in uploads if _is_over(objects, upload, now)}
    awaited = {upload.key: upload for upload in uploads if not upload.upload}
    used = files = 0
    developer = hashlib.sha256()
    for found in _listing(objects, bucket, stopping):
        used += found.size
        files += 1
        if found.key.startswith(DEVELOPER_AREA):
            developer.update(f"{found.key}\0{found.etag}\0".encode())
        upload = awaited.get(found.key)
        if upload and has_arrived(upload, found):
            settled.add(upload.id)
    return Measurement(used, files, frozenset(settled), developer.hexdigest())


def has_arrived(upload: Pending, found: StoredObject) -> bool:
    """Whether the object at the upload's key is the upload, not what was there before. Within the clocks' tolerance
    the size decides: an older object of just the announced size leaves nothing to keep room for."""
    age = found.modified - upload.created
    return age >= _SKEW or (age >= -_SKEW and upload.size in (0, found.size))


def _is_over(objects: Objects, upload: Pending, now: float) -> bool:
    """A link that nobody can use any more, or an upload in parts that was completed or aborted."""
    if not upload.upload:
        return now >= upload.expires + LATE
    try:
        objects.parts(upload.bucket, upload.key, upload.upload)
    except Stalled as error:
        if error.reason != "UploadMissing":
            raise
        return True
    return False


def _listing(objects: Objects, bucket: str, stopping: Callable[[], bool]) -> Iterator[StoredObject]:
    after: str | None = ""
    while after is not None:
        if stopping():
            raise Superseded("the daemon stops")
        page = objects.page(bucket, after=after)
        yield from page.objects
        after = page.next


# --- whose turn it is ---------------------------------------------------------------------------------------------

_NOTHING = hashlib.sha256().hexdigest()  # digest of an empty developer area


@dataclass(frozen=True)
class Look:
    """The last look at a bucket. `ended` in Unix seconds, `took` in seconds; `waiting`: uploads are to come; `trouble`:
    reason of the error that it ended with."""

    ended: float
    took: float = 0.0
    waiting: bool = False
    developer: str = _NOTHING
    trouble: str = ""


def next_look(record: BoxRecord, last: Look) -> float:
    """When the box is to be measured again, Unix seconds."""
    if record.state is BoxState.DOOMED:
        return math.inf
    if last.trouble:
        return last.ended + _RETRY
    rest = max(_SHORTEST, _SHARE * last.took)
    if record.changed >= record.measured:
        return last.ended + rest
    if last.waiting:
        return last.ended + max(rest, min(_IDLE, _PATIENCE * (last.ended - record.changed)))
    if record.state is BoxState.KEPT:  # nobody can reach it, and for its sake no storage is started
        return math.inf
    return last.ended + max(rest, _IDLE)


def most_due(records: Iterable[BoxRecord], looks: Mapping[str, Look], now: float) -> BoxRecord | None:
    """The box that has waited longest, None if all have their time. `looks` by bucket."""
    turns = [(next_look(record, looks[record.bucket]), record) for record in records]
    at, first = min(turns, key=lambda turn: turn[0], default=(math.inf, None))
    return first if at <= now else None


# --- the thread ---------------------------------------------------------------------------------------------------


class Accountant:
    """`run` is a thread's whole life, with a connection to the state of its own: a long listing holds up nobody. What
    it remembers of each bucket is in memory alone; after a restart boxes are measured by what the records say."""

    def __init__(self, store: Store, storage: Storage, clock: Clock, abandon_after: float) -> None:
        self._store = store
        self._storage = storage
        self._clock = clock
        self._abandon_after = abandon_after
        self._looks: dict[str, Look] = {}
        self._trouble = ""  # reason of what keeps all of it from working, told once

    def run(self, stop: threading.Event) -> None:
        """Until `stop`. Whatever goes wrong is tried again."""
        while not stop.is_set():
            try:
                pause = 0.0 if self.turn(stop.is_set) else _POLL
            except Superseded:
                return
            except ControllerError as error:
                self._tell(error)
                pause = _RETRY
            except Exception:
                log.exception("bug in the accounting")
                pause = _RETRY
            stop.wait(pause)

    def turn(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Measure the box that has waited longest; False if none is due. While there are no boxes the storage is not
        touched, so that a server of our own is not started for nothing. Raises what is the matter with the storage as
        a whole (Transient) or with the state."""
        records = self._store.boxes.all()
        now = self._clock.now()
        self._looks = {record.bucket: self._look(record, now) for record in records}
        record = most_due(records, self._looks, now)
        if record is None:
            return False
        try:
            self._measure(record, stopping)
        except Stalled as error:  # the matter of this box alone
            self._give_up(record, error)
        return True

    def _look(self, record: BoxRecord, now: float) -> Look:
        """A clock that was set back makes nobody wait for the time to come round again."""
        known = self._looks.get(record.bucket)
        if known is None:
            known = Look(record.measured, waiting=bool(self._store.boxes.pending(record.bucket)))
        return replace(known, ended=min(known.ended, now))

    def _measure(self, record: BoxRecord, stopping: Callable[[], bool]) -> None:
        began = self._clock.now()
        objects = self._storage.objects()
        uploads = self._without_abandoned(objects, self._store.boxes.pending(record.bucket), began)
        found = measure(objects, record.bucket, uploads, began, stopping)
        self._save(record, found, began)
        ended = self._clock.now()
        # Asked anew: one may have been allowed since, and been written down no later than the measurement.
        waiting = bool(self._store.boxes.pending(record.bucket))
        self._looks[record.bucket] = Look(ended, ended - began, waiting, found.developer)
        self._all_is_well()

    def _without_abandoned(
        self, objects: Objects, uploads: tuple[Pending, ...], now: float
    ) -> tuple[Pending, ...]:
        """Uploads in parts that nobody completes take room on the disk that no listing shows."""
        abandoned = {u.id: u for u in uploads if u.upload and u.created + self._abandon_after <= now}
        for upload in abandoned.values():
            objects.abort_upload(upload.bucket, upload.key, upload.upload)
            log.info("abandoned upload removed", extra={"bucket": upload.bucket, "key": upload.key})
        if abandoned:
            self._store.boxes.release(abandoned)
        return tuple(upload for upload in uploads if upload.id not in abandoned)

    def _save(self, record: BoxRecord, found: Measurement, began: float) -> None:
        with self._store.transaction():
            self._store.boxes.measured(record.bucket, found.used, found.files, began, found.settled)
            if record.state is BoxState.BOUND and self._is_news(record, found):
                self._store.requests.enqueue(record.app, REASON)

    def _is_news(self, record: BoxRecord, found: Measurement) -> bool:
        """What was in the developer area before a restart is not known: one pass too many, rather than one too few."""
        was_over, is_over = record.used > record.capacity, found.used > record.capacity
        return was_over != is_over or found.developer != self._looks[record.bucket].developer

    def _give_up(self, record: BoxRecord, error: Stalled) -> None:
        """For now. A bucket that was measured before and is gone needs a pass that makes it again."""
        last = self._looks[record.bucket]
        self._looks[record.bucket] = replace(last, ended=self._clock.now(), trouble=error.reason)
        if error.reason == last.trouble:
            return
        missing = error.reason == "BucketMissing"
        if missing and record.state is BoxState.BOUND and record.measured:
            self._store.requests.enqueue(record.app, REASON)
        level = logging.INFO if missing else logging.WARNING
        log.log(level, "box not measured: %s", error.message, extra={"app": record.app, "box": record.box})

    def _tell(self, error: ControllerError) -> None:
        if error.reason != self._trouble:
            log.warning("boxes are not measured: %s", error.message)
        self._trouble = error.reason

    def _all_is_well(self) -> None:
        if self._trouble:
            log.info("boxes are measured again")
        self._trouble = ""
