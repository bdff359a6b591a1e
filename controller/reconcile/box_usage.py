"""Accounting measures how much is in each box. One thread of the daemon lists the buckets, one at a time,
records the sums and settles the uploads that it has seen arrive. If a box exceeded its capacity, is within it
again, or its developer area changed, its app gets a pass.

The storage does not tell when a link for an upload is used. So a box is measured soon after a link was
issued, and then less and less often; listing takes at most a tenth of the time, however much there is.
Nothing is refused here: `ports.Boxes.reserve` does that, with the figures from here.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from controller.domain.apps.requests import Trigger
from controller.domain.errors import ControllerError, Stalled, Superseded
from controller.domain.localizable import Localizable
from controller.domain.pace import pause_after
from controller.domain.reasons import Reason
from controller.domain.storage.box import BoxRecord, BoxState, PendingUpload, StoredObject
from controller.domain.storage.keys import DEVELOPER_AREA
from controller.guards import report
from controller.ports import Clock, Objects, Storage, Store

log = logging.getLogger(__name__)

LATE = 3600.0  # seconds that an upload may take to arrive, if it began before its link expired

_POLL = 0.5  # seconds between checks of the records: one query of some 20 µs
_RETRY = 5.0  # seconds before a storage that did not answer is called again
_SHORTEST = 1.0  # seconds between two listings of one bucket
_UPLOAD_PAUSE = 0.1  # the pause while uploads are awaited, as a share of the time since they were announced
# For changes that are not announced: a link that is used twice, a container with its own account, a person at
# the storage. The app's own passes see such a change of a model within a minute; for a capacity, ten minutes
# keep a listing of 300,000 files (about a minute) to a tenth of the time.
_IDLE = 600.0
# seconds by which the storage's clock may differ from ours; its times may be cut to whole seconds
_SKEW = 2.0


# --- one listing --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """`used` is in bytes; `settled` has the ids of uploads that need no reserved space any more; `developer`
    is a digest (hex) over keys and ETags of the developer area.
    """

    used: int
    files: int
    settled: frozenset[int]
    developer: str


def measure(
    objects: Objects,
    bucket: str,
    uploads: tuple[PendingUpload, ...],
    now: float,
    stopping: Callable[[], bool] = lambda: False,
) -> Measurement:
    """Measure a bucket, in memory that does not grow with it. `uploads` were read before, so uploads allowed
    during the listing are not settled. Raises what `Objects` does, and Superseded once `stopping()`.
    """
    # Checked before the listing, which therefore contains what is complete by now.
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


def has_arrived(upload: PendingUpload, found: StoredObject) -> bool:
    """Return whether the object at the upload's key is the upload, and not its predecessor. Within the
    clocks' tolerance the size decides: no space need be reserved for an older object of exactly the announced
    size.
    """
    age = found.modified - upload.created
    return age >= _SKEW or (age >= -_SKEW and upload.size in (0, found.size))


def _is_over(objects: Objects, upload: PendingUpload, now: float) -> bool:
    """Return whether the link has expired, or the upload in parts was completed or aborted."""
    if not upload.upload:
        return now >= upload.expires + LATE
    try:
        objects.parts(upload.bucket, upload.key, upload.upload)
    except Stalled as error:
        if error.reason != Reason.UPLOAD_MISSING:
            raise
        return True
    return False


def _listing(objects: Objects, bucket: str, stopping: Callable[[], bool]) -> Iterator[StoredObject]:
    after: str | None = ""
    while after is not None:
        if stopping():
            raise Superseded(Localizable("the daemon stops"))
        page = objects.page(bucket, after=after)
        yield from page.objects
        after = page.next


# --- whose turn it is ---------------------------------------------------------------------------------------------

_NOTHING = hashlib.sha256().hexdigest()  # the digest of an empty developer area


@dataclass(frozen=True)
class LastScan:
    """The last measurement of a bucket. `ended` is in Unix seconds, `took` in seconds; `waiting` means that
    uploads are expected; `error` is the reason of the error it ended with.
    """

    ended: float
    took: float = 0.0
    waiting: bool = False
    developer: str = _NOTHING
    error: str = ""


def next_look(record: BoxRecord, last: LastScan) -> float:
    """Return when to measure the box next, in Unix seconds."""
    if record.state is BoxState.DELETING:
        return math.inf
    if last.error:
        return last.ended + _RETRY
    rest = pause_after(last.took, _SHORTEST)
    if record.changed >= record.measured:
        return last.ended + rest
    if last.waiting:
        return last.ended + max(rest, min(_IDLE, _UPLOAD_PAUSE * (last.ended - record.changed)))
    if record.state is BoxState.KEPT:  # no user can reach it, and a storage should not be started for it
        return math.inf
    return last.ended + max(rest, _IDLE)


def most_due(records: Iterable[BoxRecord], scans: Mapping[str, LastScan], now: float) -> BoxRecord | None:
    """Return the box that has waited longest, or None if none is due. `scans` are by bucket."""
    due = [(next_look(record, scans[record.bucket]), record) for record in records]
    at, first = min(due, key=lambda each: each[0], default=(math.inf, None))
    return first if at <= now else None


# --- the thread ---------------------------------------------------------------------------------------------------


class UsageScanner:
    """Measures boxes in a thread with its own connection to the state, so that a long listing delays nothing
    else. It remembers buckets only in memory; after a restart the records decide what to measure.
    """

    def __init__(self, store: Store, storage: Storage, clock: Clock, abandon_after: float) -> None:
        self._store = store
        self._storage = storage
        self._clock = clock
        self._abandon_after = abandon_after
        self._scans: dict[str, LastScan] = {}
        self._last_error = ""  # the reason of an error that stops all measuring, logged once
        self._access_recorded = False  # whether the web process has the access to the storage

    def run(self, stop: threading.Event) -> None:
        """Run until `stop`. Failures are retried."""
        while not stop.is_set():
            try:
                pause = 0.0 if self.scan_next(stop.is_set) else _POLL
            except Superseded:
                return
            except ControllerError as error:
                self._report(error)
                pause = _RETRY
            except Exception as error:  # noqa: BLE001 - reported, and tried again
                report("could not measure boxes", error)
                pause = _RETRY
            stop.wait(pause)

    def scan_next(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Measure the box that has waited longest; return False if none is due. Without boxes the storage is
        not used, so that our own server is not started for nothing. Raises errors of the storage as a whole
        (Transient) or of the state.
        """
        records = self._store.boxes.all()
        now = self._clock.now()
        self._scans = {record.bucket: self._scan(record, now) for record in records}
        record = most_due(records, self._scans, now)
        if record is None:
            return False
        if not self._access_recorded:  # the configuration may have changed
            self._store.boxes.record_access(self._storage.access())
            self._access_recorded = True
        try:
            self._measure(record, stopping)
        except Stalled as error:  # an error of this box only
            self._give_up(record, error)
        except ControllerError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug with this box must not keep the others from being measured
            report(f"could not measure box {record.app}/{record.box}", error)
            self._give_up(
                record, Stalled(Reason.INTERNAL_ERROR, Localizable("bug: {name}", name=type(error).__name__))
            )
        return True

    def _scan(self, record: BoxRecord, now: float) -> LastScan:
        """Return the last measurement. If the clock was set back, its time is limited to now, so that no box
        waits for the clock to catch up.
        """
        known = self._scans.get(record.bucket)
        if known is None:
            known = LastScan(record.measured, waiting=bool(self._store.boxes.pending(record.bucket)))
        return replace(known, ended=min(known.ended, now))

    def _measure(self, record: BoxRecord, stopping: Callable[[], bool]) -> None:
        began = self._clock.now()
        objects = self._storage.objects()
        uploads = self._without_abandoned(objects, self._store.boxes.pending(record.bucket), began)
        found = measure(objects, record.bucket, uploads, began, stopping)
        self._save(record, found, began)
        ended = self._clock.now()
        # Read again: an upload may have been allowed since, and recorded no later than the measurement.
        waiting = bool(self._store.boxes.pending(record.bucket))
        self._scans[record.bucket] = LastScan(ended, ended - began, waiting, found.developer)
        self._report_recovery()

    def _without_abandoned(
        self, objects: Objects, uploads: tuple[PendingUpload, ...], now: float
    ) -> tuple[PendingUpload, ...]:
        """Abort uploads in parts that were never completed; they take space on the disk that no listing
        shows.
        """
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
            if record.state is BoxState.BOUND and self._changes_app(record, found):
                self._store.requests.enqueue(record.app, Trigger.BOX)

    def _changes_app(self, record: BoxRecord, found: Measurement) -> bool:
        """Return whether the app needs a pass. After a restart the previous developer area is unknown: an
        extra pass is better than a missing one.
        """
        was_over, is_over = record.used > record.capacity, found.used > record.capacity
        return was_over != is_over or found.developer != self._scans[record.bucket].developer

    def _give_up(self, record: BoxRecord, error: Stalled) -> None:
        """Stop measuring this box for now. If its bucket was measured before and is missing now, request a
        pass, which creates it again.
        """
        last = self._scans[record.bucket]
        self._scans[record.bucket] = replace(last, ended=self._clock.now(), error=error.reason)
        if error.reason == last.error:
            return
        missing = error.reason == Reason.BUCKET_MISSING
        if missing and record.state is BoxState.BOUND and record.measured:
            self._store.requests.enqueue(record.app, Trigger.BOX)
        level = logging.INFO if missing else logging.WARNING
        log.log(
            level, "could not measure box: %s", error.message, extra={"app": record.app, "box": record.box}
        )

    def _report(self, error: ControllerError) -> None:
        if error.reason != self._last_error:
            log.warning("could not measure boxes: %s", error.message)
        self._last_error = error.reason

    def _report_recovery(self) -> None:
        if self._last_error:
            log.info("boxes are measured again")
        self._last_error = ""
