"""Reserves space for uploads: nothing goes to the storage that does not fit into its box, whatever was announced, by
any link or account, through any number of workers. Asks the database and the storage, so it blocks; the object
proxy calls it in threads.

The database decides: each body is written down there before its first byte goes to the storage, and counts
until it has arrived or failed. The object proxy says now and then what still comes; what a worker that died has
written down expires."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from controller.domain.errors import ControllerError, Stalled
from controller.domain.reasons import Reason
from controller.domain.storage.box import Arrival, BoxRecord, BoxState, BoxUsage, Part, PendingUpload
from controller.domain.storage.links import ObjectLink
from controller.ports import Store
from controller.web.api.files.publications import require_all_settled, require_settled
from controller.web.objects.conditions import WriteCondition
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.storage import StorageClient

log = logging.getLogger(__name__)

MAX_PUT = 5 * 2**30  # bytes in one request, as S3 allows
BELIEVED = 180.0  # seconds that a body counts without a word of its worker
TELL = 60.0  # seconds between such words
UNMEASURED = 3600.0  # seconds that room is kept at most for what was stored and not measured


@dataclass
class Reservations:
    """The reservations of one gateway worker. `abandon_after`: seconds that an upload in parts has. Errors are
    RequestRefused and those of the store and `ports.Objects`."""

    store: Store
    storage: StorageClient
    abandon_after: float = 86400.0
    _coming: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, link: ObjectLink, length: int) -> Arrival:
        """The body that may come now."""
        most = min(link.size or MAX_PUT, MAX_PUT)
        if length > most:
            detail = f"This link takes {most} bytes, {length} were to come."
            raise RequestRefused(HttpProblem(ProblemKind.TOO_LARGE, detail, extra={"limit": most}))
        record, now = self.record(link.bucket), time.time()
        if link.upload:
            return self._admit_part(record, link, length, now)
        require_settled(self.store, record, link.key, now)
        return self._begun(record, Arrival(0, link.bucket, link.key, length, now, now + BELIEVED))

    def _begun(self, record: BoxRecord, arrival: Arrival) -> Arrival:
        allowed = self.store.boxes.arrive(arrival, arrival.began)
        if isinstance(allowed, BoxUsage):
            raise RequestRefused(full(record, allowed, arrival.size))
        return self._numbered(arrival, allowed)

    def _numbered(self, arrival: Arrival, id: int) -> Arrival:
        with self._lock:
            self._coming.add(id)
        return replace(arrival, id=id)

    def require_settled(self, bucket: str, keys: Iterable[str]) -> None:
        """Refused if a run is publishing into a group of one of them. Asked before something begins, and of
        what takes its time once more before its end."""
        require_all_settled(self.store, self.record(bucket), keys, time.time())

    def require_condition(
        self, bucket: str, key: str, condition: WriteCondition, arrival: Arrival | None = None
    ) -> None:
        """Refuse a write whose condition does not hold. With the `arrival` of its body it is asked right before the
        last byte goes to the storage, and decides between callers: what began earlier for that name may be stored at
        any moment, so the caller is to try again; what began later finds this arrival. So of several that ask for the
        same, through any number of workers, one succeeds at most."""
        if arrival is not None:
            coming = self.store.boxes.arriving(bucket, "", time.time())
            if any(each.key == key and each.id < arrival.id for each in coming):
                raise RequestRefused(_not_met("Another request writes this object now.", 409))
        found = self.storage.objects().stat(bucket, key)
        if not condition.holds(found.etag if found else None):
            what = "There is no such object." if found is None else f'The object has the ETag "{found.etag}".'
            raise RequestRefused(_not_met(what, 412))

    def record(self, bucket: str) -> BoxRecord:
        """Return the record of a declared box."""
        for record in self.store.boxes.all():
            if record.bucket == bucket and record.state is BoxState.BOUND:
                return record
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, "There is no such box any more."))

    def stored(self, arrival: Arrival) -> None:
        """Record that the object is stored: its space stays reserved until a measurement has counted it."""
        self._forget(arrival)
        now = time.time()
        self._quietly(lambda: self.store.boxes.arrived(arrival, now + UNMEASURED, now))

    def failed(self, arrival: Arrival) -> None:
        """Record a failed upload. It may be retried while its link is valid, and the announced space stays
        reserved as long."""
        self._forget(arrival)
        self._quietly(lambda: self.store.boxes.failed(arrival))

    def _forget(self, arrival: Arrival) -> None:
        with self._lock:
            self._coming.discard(arrival.id)

    def prolong(self) -> None:
        """Extend the reservations of bodies that this worker is still passing on."""
        with self._lock:
            coming = tuple(self._coming)
        if coming:
            self._quietly(lambda: self.store.boxes.prolong(coming, time.time() + BELIEVED))

    # --- by accounts -------------------------------------------------------------------------------------------

    def put(self, bucket: str, key: str, length: int) -> Arrival:
        """Room for an object that an account sends in one piece, or copies."""
        return self.admit(ObjectLink("PUT", bucket, key, int(time.time()), 1), length)

    def announce(self, bucket: str, key: str) -> Arrival:
        """Record that an object is being deleted, or made of parts that have their space already, so that others with a
        condition see it. A full box does not refuse it."""
        now = time.time()
        arrival = Arrival(0, bucket, key, 0, now, now + BELIEVED)
        return self._numbered(arrival, self.store.boxes.announce(arrival))

    def copy(self, bucket: str, key: str, source: tuple[str, str]) -> Arrival | None:
        """Reserve space for a copy. Return None if the object is copied onto itself or does not exist, which takes
        no space."""
        if source == (bucket, key):
            self.record(bucket)
            return None
        found = self.storage.objects().stat(*source)
        return self.put(bucket, key, found.size if found else 0)

    def begun(self, bucket: str, key: str, upload: str) -> None:
        """Record an upload in parts of unknown size: each part reserves its own space. Refused parts are dropped."""
        now = time.time()
        record = self.record(bucket)
        wanted = PendingUpload(0, bucket, key, 0, now, now + self.abandon_after, upload)
        allowed = self.store.boxes.reserve(wanted, now)
        if isinstance(allowed, BoxUsage):
            self.storage.objects().abort_upload(bucket, key, upload)
            raise RequestRefused(full(record, allowed, 0))

    def grow(self, bucket: str, key: str, upload: str, length: int) -> None:
        record = self.record(bucket)
        if length > MAX_PUT:
            raise RequestRefused(HttpProblem(ProblemKind.TOO_LARGE, f"A part has at most {MAX_PUT} bytes."))
        try:
            usage = self.store.boxes.grow(bucket, key, upload, length, time.time())
        except LookupError:
            raise RequestRefused(_no_upload()) from None
        if usage is not None:
            raise RequestRefused(full(record, usage, length))

    def grow_by_copy(self, bucket: str, key: str, upload: str, source: tuple[str, str]) -> int:
        found = self.storage.objects().stat(*source)
        length = found.size if found else 0
        self.grow(bucket, key, upload, length)
        return length

    def shrink(self, bucket: str, key: str, upload: str, length: int) -> None:
        """A part that did not arrive."""

        def give_back() -> None:
            with suppress(LookupError):
                self.store.boxes.grow(bucket, key, upload, -length, time.time())

        self._quietly(give_back)

    def changed(self, bucket: str) -> None:
        self._quietly(lambda: self.store.boxes.touch(bucket))

    # --- parts -------------------------------------------------------------------------------------------------

    def _admit_part(self, record: BoxRecord, link: ObjectLink, length: int, now: float) -> Arrival:
        """Keep all parts of an upload, including those in transfer, within the announced size. The part is
        recorded before the others are counted, so that a later one sees it, here or in the storage."""
        found = self.store.boxes.upload(link.bucket, link.upload)
        if found is None or found.key != link.key:
            raise RequestRefused(_no_upload())
        wanted = Arrival(0, link.bucket, link.key, length, now, now + BELIEVED, link.upload, link.part)
        arrival = self._begun(record, wanted)
        try:
            self._require_fit(found, arrival, now)
        except BaseException:
            self.failed(arrival)
            raise
        return arrival

    def _require_fit(self, upload: PendingUpload, arrival: Arrival, now: float) -> None:
        coming = self.store.boxes.arriving(arrival.bucket, arrival.upload, now)
        try:
            stored = self.storage.objects().parts(upload.bucket, upload.key, upload.upload)
        except Stalled as error:
            if error.reason == Reason.UPLOAD_MISSING:
                raise RequestRefused(_no_upload()) from error
            raise
        if together(stored, [each for each in coming if each.id <= arrival.id]) > upload.size:
            detail = (
                f"The parts of this upload have {upload.size} bytes together; with this one there are more."
            )
            raise RequestRefused(HttpProblem(ProblemKind.TOO_LARGE, detail, extra={"limit": upload.size}))

    @staticmethod
    def _quietly(work: Callable[[], object]) -> None:
        try:
            work()
        except ControllerError as error:
            log.warning("the room of an upload is not settled: %s", error)


def together(stored: Iterable[Part], coming: Iterable[Arrival]) -> int:
    """The most bytes that an upload takes: of a part that is sent again there are two for a while."""
    sizes = {part.number: part.size for part in stored}
    again: Counter[int] = Counter()
    for each in coming:
        again[each.part] += each.size
    return sum(max(sizes.get(number, 0), again[number]) for number in sizes.keys() | again.keys())


def full(record: BoxRecord, usage: BoxUsage, size: int) -> HttpProblem:
    detail = (
        f"Box {record.box} has {usage.free} bytes free of {usage.capacity}; {usage.used} are stored, "
        f"{usage.pending} are kept for uploads under way, {size} more were to come."
    )
    numbers = {"capacity": usage.capacity, "used": usage.used, "pending": usage.pending}
    return HttpProblem(ProblemKind.BOX_FULL, detail, extra={**numbers, "free": usage.free, "size": size})


def _not_met(detail: str, status: int) -> HttpProblem:
    title, code = (
        ("Precondition failed", "PreconditionFailed")
        if status == 412
        else ("Another write is under way", "ConditionalRequestConflict")
    )
    return HttpProblem(ProblemKind.HTTP, detail, status=status, title=title, extra={"code": code})


def _no_upload() -> HttpProblem:
    return HttpProblem(ProblemKind.NOT_FOUND, "There is no such upload, or not any more. Begin a new one.")
