"""Boxes: the buckets that hold them, the space that is used and reserved, and uploads in progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from controller.domain.names import AppName, ComponentName
from controller.domain.runs.file_index import UnderWayMark
from controller.domain.storage.box import Arrival, BoxRecord, BoxUsage, PendingUpload, StorageAccess
from controller.domain.storage.moves import GroupMove


class Boxes(Protocol):
    """Records which bucket holds which box, how full it is, and uploads in progress. There is one record for each
    app and box, and a bucket belongs to one record."""

    def all(self) -> tuple[BoxRecord, ...]:
        """Sorted by app and box."""

    def of(self, app: AppName) -> tuple[BoxRecord, ...]: ...

    def get(self, app: AppName, box: ComponentName) -> BoxRecord | None: ...

    def save(self, record: BoxRecord) -> None:
        """Save a record, except measurements and `changed`, which an existing record keeps."""

    def forget(self, bucket: str) -> None:
        """Delete the record with its pending uploads."""

    def swap(self, one: BoxRecord, other: BoxRecord) -> None:
        """Exchange their buckets with all measurements; both must exist."""

    def measured(self, bucket: str, used: int, files: int, at: float, settled: Iterable[int]) -> None:
        """Save the counts of a listing that began at `at`; the pending uploads `settled` are part of it."""

    def touch(self, bucket: str) -> None:
        """Record that files were removed, or an upload in parts was completed, so that the box is measured
        again within a second or two. Reserved uploads do not need this."""

    def reserve(self, upload: PendingUpload, now: float, most: int | None = None) -> BoxUsage | int:
        """Allow an upload if the box has space for it, in one transaction, and return its id; else return the
        free space. A newer one for the same key replaces the older, unless it is an upload in parts.
        `upload.id` is ignored. Raises Transient `TooManyUploads` if `most` others are pending."""

    def reserve_first(self, uploads: Sequence[PendingUpload], now: float, most: int) -> int:
        """Allow uploads to one bucket in their order, as far as the box has space and fewer than `most` are pending,
        in one transaction; return how many."""

    def save_move(self, move: GroupMove) -> None:
        """Record how far the move of its `source` is."""

    def forget_move(self, bucket: str, source: str) -> None: ...

    def move(self, bucket: str, source: str) -> GroupMove | None:
        """Return the last move of this group, also one that is done."""

    def moves(self, bucket: str, area: str) -> tuple[GroupMove, ...]:
        """Return moves that are not done, of groups below `area`."""

    def arrive(self, arrival: Arrival, now: float) -> BoxUsage | int:
        """Admit a body if the box has space for it besides all reservations and arrivals of all processes, and
        return its id; else return the free space. A part only needs the space of its upload. `arrival.id` is
        ignored."""

    def announce(self, arrival: Arrival) -> int:
        """Record a change that needs no space, such as a deletion, and return its id. `arrival.id` is ignored."""

    def arriving(self, bucket: str, upload: str, now: float) -> tuple[Arrival, ...]:
        """Return the parts of an upload that are being sent, oldest first; without one, the objects that are being sent
        or changed."""

    def prolong(self, ids: Iterable[int], until: float) -> None:
        """Extend arrivals that are still in progress."""

    def arrived(self, arrival: Arrival, until: float, now: float) -> None:
        """Record that the storage has it. Space for an object stays reserved until a later measurement has
        counted it, or until `until`."""

    def removed(self, bucket: str, keys: Iterable[str], before: float) -> None:
        """Record that files were deleted, which frees their reservations, except for objects that were stored
        after `before`."""

    def failed(self, arrival: Arrival) -> None:
        """Record that it did not arrive. The reservation of a link stays, so that the upload can be retried."""

    def usage(self, bucket: str, now: float) -> BoxUsage: ...

    def pending(self, bucket: str | None = None) -> tuple[PendingUpload, ...]: ...

    def unfinished(self, bucket: str, below: str, now: float, most: int) -> tuple[PendingUpload, ...]:
        """Return the newest uploads in parts of keys that begin with `below` and have not expired, oldest first."""

    def upload(self, bucket: str, upload: str) -> PendingUpload | None:
        """Return the upload in parts with this id."""

    def guard(self, upload: PendingUpload) -> None:
        """Reserve the name without space, or with the space that is reserved for it already: see `publishing`."""

    def publishing(self, bucket: str, now: float) -> tuple[UnderWayMark, ...]:
        """Return the groups that are guarded because runs publish into them; a dead daemon may have left some."""

    def release(self, ids: Iterable[int]) -> None:
        """Release uploads that ended without an object. Completed ones keep their space until a measurement has
        counted it: `touch`."""

    def access(self) -> StorageAccess | None:
        """Return how the web process reaches the storage, as the daemon recorded it."""

    def record_access(self, access: StorageAccess) -> None: ...

    def grow(self, bucket: str, key: str, upload: str, by: int, now: float) -> BoxUsage | None:
        """Reserve this many more or fewer bytes for an upload in parts if the box has space for them; else return
        the free space. LookupError if there is no such upload."""

    def grant(self, account: str, buckets: Iterable[str]) -> None:
        """Allow the account of a component to use exactly these buckets; an empty list deletes the account."""

    def grants(self, account: str) -> frozenset[str]: ...

    def accounts(self, prefix: str) -> frozenset[str]:
        """Return the accounts whose names have this prefix."""
