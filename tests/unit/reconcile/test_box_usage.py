"""Accounting: what a listing settles, whose turn it is, and what the thread makes of it. The storage is a small one in
memory whose clock the test turns, and which lets things happen between two pages of a listing."""

from __future__ import annotations

import logging
import threading
import tracemalloc
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.apps.requests import Outcome
from controller.domain.errors import Stalled, Superseded, Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.storage.box import (
    BoxRecord,
    BoxState,
    BoxUsage,
    ObjectPage,
    Part,
    PendingUpload,
    StorageAccess,
    StoredObject,
)
from controller.domain.storage.keys import DEVELOPER_AREA
from controller.ports import Objects, Storage
from controller.reconcile.box_usage import (
    LATE,
    LastScan,
    Measurement,
    UsageScanner,
    has_arrived,
    measure,
    most_due,
    next_look,
)
from controller.store import SqliteStore
from tests.support.clock import FakeClock
from tests.support.failing import BUGS, Faults, failing_store
from tests.support.stores import open_store

#: Together they take seconds.
pytestmark = pytest.mark.slow

APP, DATA, OLD = AppName("demo"), ComponentName("data"), ComponentName("old")
BOX = BoxRecord(APP, DATA, "p.demo.data", capacity=100)
T = 1000.0
DOWN = Transient(Reason.STORAGE_UNREACHABLE, "the storage does not answer")
MISSING = Stalled(Reason.BUCKET_MISSING, "there is no such bucket")


class Shelf:
    """One storage of one bucket, as far as accounting looks at it."""

    def __init__(self, clock: FakeClock, page: int = 2) -> None:
        self.held: dict[str, StoredObject] = {}
        self.uploads: dict[str, str] = {}  # id -> key, of uploads in parts that are under way
        self.fault: Exception | None = None
        self.reached = 0
        self.between: Callable[[], None] = lambda: None
        self._clock = clock
        self._page = page

    @property
    def bytes(self) -> int:
        return sum(found.size for found in self.held.values())

    def lay(self, key: str, size: int, etag: str = "e") -> None:
        self.held[key] = StoredObject(key, size, etag, self._clock.now())

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000, folders: bool = False
    ) -> ObjectPage:
        self._reach()
        keys = sorted(self.held)
        start = bisect_right(keys, after)
        chosen = keys[start : start + self._page]
        found = tuple(self.held[key] for key in chosen)
        self.between()
        return ObjectPage(found, next=chosen[-1] if keys[start + self._page :] else None)

    def parts(self, bucket: str, key: str, upload: str) -> tuple[Part, ...]:
        self._reach()
        if self.uploads.get(upload) != key:
            raise Stalled(Reason.UPLOAD_MISSING, "there is no such upload")
        return ()

    def abort_upload(self, bucket: str, key: str, upload: str) -> None:
        self._reach()
        self.uploads.pop(upload, None)

    def _reach(self) -> None:
        self.reached += 1
        if self.fault:
            raise self.fault


class OneShelf:
    """The storage, for as far as it is started."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.asked = 0

    def objects(self) -> Objects:
        self.asked += 1
        return cast(Objects, self.shelf)

    def access(self) -> StorageAccess:
        return StorageAccess("http://127.0.0.1:1", "http://127.0.0.1:2", "me", Secret("a-secret-key"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(T)


@pytest.fixture
def shelf(clock: FakeClock) -> Shelf:
    return Shelf(clock)


@pytest.fixture
def storage(shelf: Shelf) -> OneShelf:
    return OneShelf(shelf)


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteStore]:
    with closing(open_store(tmp_path / "db" / "state.db", clock=clock.now)) as store:
        yield store


@pytest.fixture
def usage_scanner(store: SqliteStore, storage: OneShelf, clock: FakeClock) -> UsageScanner:
    return UsageScanner(store, cast(Storage, storage), clock, abandon_after=86400.0)


def upload(key: str, size: int = 0, created: float = T, parts: str = "", number: int = 1) -> PendingUpload:
    return PendingUpload(number, BOX.bucket, key, size, created, created + 900, parts)


def count(shelf: Shelf, *uploads: PendingUpload, now: float = T) -> Measurement:
    return measure(cast(Objects, shelf), BOX.bucket, uploads, now)


def begin(store: SqliteStore, clock: FakeClock, key: str, size: int, parts: str = "") -> int:
    reserved = store.boxes.reserve(upload(key, size, clock.now(), parts), clock.now())
    assert isinstance(reserved, int), f"refused: {reserved}"
    return reserved


def stored(store: SqliteStore) -> BoxRecord:
    record = store.boxes.get(APP, DATA)
    assert record is not None
    return record


def asked_for(store: SqliteStore) -> tuple[str, ...]:
    """Reasons of the pass that waits for the app; it is taken."""
    request = store.requests.claim(now=1e12)
    if request is None:
        return ()
    store.requests.finish(request.id, Outcome.READY, "", "")
    return request.reasons


# --- one listing --------------------------------------------------------------------------------------------------


def test_all_pages_are_counted(shelf: Shelf) -> None:
    for number in range(7):
        shelf.lay(f"users/ann/{number}", 10 + number)
    found = count(shelf)
    assert (found.used, found.files, found.settled) == (91, 7, frozenset())


def test_an_upload_that_arrived_is_settled(shelf: Shelf) -> None:
    shelf.lay("here", 10)
    found = count(shelf, upload("here", 10, number=1), upload("not yet", 10, number=2))
    assert found.settled == {1}


@pytest.mark.parametrize(
    ("modified", "size", "arrived"),
    [
        (T + 5, 10, True),
        (T + 5, 99, True),  # another size than was announced, but certainly put with the link or after it
        (T + 1, 10, True),
        (T - 1, 10, True),  # cut to whole seconds, or a clock that is slow
        (T + 1, 99, False),  # may have been there before
        (T - 1, 99, False),
        (T - 3, 10, False),  # was there before
    ],
)
def test_what_was_there_before_is_not_the_upload(modified: float, size: int, arrived: bool) -> None:
    found = StoredObject("k", size, "e", modified)
    assert has_arrived(upload("k", 10), found) is arrived


def test_an_unannounced_upload_arrives_with_any_size() -> None:
    assert has_arrived(upload("k", 0), StoredObject("k", 7, "e", T))


def test_an_unused_link_is_dropped_when_nothing_can_arrive_through_it(shelf: Shelf) -> None:
    link = upload("k", 10)
    assert not count(shelf, link, now=link.expires + LATE - 1).settled
    assert count(shelf, link, now=link.expires + LATE).settled == {1}


def test_an_upload_in_parts_is_settled_when_it_is_over(shelf: Shelf, clock: FakeClock) -> None:
    shelf.uploads["u"] = "big"
    shelf.lay("big", 10)  # by another upload of the same key
    link = upload("big", 10, parts="u")
    assert not count(shelf, link, now=link.expires + LATE).settled, "it is still under way"
    del shelf.uploads["u"]
    assert count(shelf, link).settled == {1}


def test_a_storage_that_cannot_tell_settles_nothing(shelf: Shelf) -> None:
    shelf.fault = Stalled(Reason.STORAGE_DENIED, "may not look")
    with pytest.raises(Stalled, match="may not look"):
        count(shelf, upload("big", parts="u"))


def test_the_digest_is_about_the_developer_area_alone(shelf: Shelf) -> None:
    shelf.lay("users/ann/file_groups/developer/x", 1)
    nothing = count(shelf).developer
    assert nothing == LastScan(0.0).developer, "as if never looked at"
    shelf.lay("developer/model", 5, "v1")
    first = count(shelf).developer
    shelf.lay("users/ann/file_groups/g/y", 1)
    assert nothing != first == count(shelf).developer
    shelf.lay("developer/model", 5, "v2")
    second = count(shelf).developer
    shelf.lay("developer/other", 5)
    assert len({nothing, first, second, count(shelf).developer}) == 4


def test_a_listing_ends_with_the_daemon(shelf: Shelf) -> None:
    for number in range(10):
        shelf.lay(f"{number}", 1)
    with pytest.raises(Superseded):
        measure(cast(Objects, shelf), BOX.bucket, (), T, stopping=lambda: shelf.reached == 2)
    assert shelf.reached == 2


class Endless:
    """So many objects that each page is made when it is asked for."""

    FILES = 300_000

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000, folders: bool = False
    ) -> ObjectPage:
        start = int(after or 0)
        end = min(start + limit, self.FILES)
        objects = tuple(StoredObject(f"{n:08}", 2, f"{n:032x}", T) for n in range(start + 1, end + 1))
        return ObjectPage(objects, next=f"{end:08}" if end < self.FILES else None)


@pytest.mark.slow
def test_memory_stays_flat_however_much_there_is() -> None:
    tracemalloc.start()
    try:
        found = measure(cast(Objects, Endless()), BOX.bucket, (upload("00000007", 2),), T)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.files, found.used, sorted(found.settled)) == (300_000, 600_000, [1])
    assert peak < 2 * 2**20, "a few pages; all objects would be some 90 MiB"


# --- whose turn it is ---------------------------------------------------------------------------------------------

MEASURED = replace(BOX, measured=T, changed=T - 500)


@pytest.mark.parametrize(
    ("record", "last", "pause"),
    [
        pytest.param(BOX, LastScan(0.0), 1.0, id="never measured"),
        pytest.param(replace(BOX, measured=T, changed=T), LastScan(T), 1.0, id="changed since"),
        pytest.param(
            replace(BOX, measured=T, changed=T), LastScan(T, took=3.0), 30.0, id="a tenth of the time"
        ),
        pytest.param(MEASURED, LastScan(T), 600.0, id="nothing to come"),
        pytest.param(MEASURED, LastScan(T, took=90.0), 900.0, id="nothing to come, much to list"),
        pytest.param(replace(MEASURED, changed=T - 5), LastScan(T, waiting=True), 1.0, id="awaited for 5 s"),
        pytest.param(MEASURED, LastScan(T, waiting=True), 50.0, id="awaited for 500 s"),
        pytest.param(
            MEASURED, LastScan(T, took=6.0, waiting=True), 60.0, id="awaited, and a tenth of the time"
        ),
        pytest.param(
            replace(MEASURED, changed=T - 50_000), LastScan(T, waiting=True), 600.0, id="awaited for long"
        ),
        pytest.param(MEASURED, LastScan(T, error="BucketMissing"), 5.0, id="could not be measured"),
        pytest.param(replace(MEASURED, state=BoxState.KEPT), LastScan(T), float("inf"), id="kept"),
        pytest.param(
            replace(MEASURED, state=BoxState.KEPT), LastScan(T, waiting=True), 50.0, id="kept, awaited"
        ),
        pytest.param(replace(BOX, state=BoxState.DELETING), LastScan(0.0), float("inf"), id="deleting"),
    ],
)
def test_the_pause_before_a_box_is_measured_again(record: BoxRecord, last: LastScan, pause: float) -> None:
    assert next_look(record, last) == last.ended + pause


def test_the_box_that_waited_longest_comes_first() -> None:
    one, two = MEASURED, replace(MEASURED, box=OLD, bucket="other")
    looks = {one.bucket: LastScan(T), two.bucket: LastScan(T - 1)}
    assert most_due([one, two], looks, T + 599.0 - 0.1) is None
    assert most_due([one, two], looks, T + 599.0) == two
    assert most_due([one, two], looks, T + 900.0) == two
    assert most_due([], {}, T) is None


# --- the thread ---------------------------------------------------------------------------------------------------


def test_without_boxes_the_storage_is_left_alone(usage_scanner: UsageScanner, storage: OneShelf) -> None:
    assert not usage_scanner.scan_next()
    assert storage.asked == 0


def test_boxes_that_are_only_kept_start_no_storage(
    usage_scanner: UsageScanner, storage: OneShelf, store: SqliteStore
) -> None:
    store.boxes.save(replace(BOX, state=BoxState.KEPT, used=5, measured=T - 5000, changed=T - 6000))
    assert not usage_scanner.scan_next()
    assert storage.asked == 0


def test_a_measurement_is_written_down(
    usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    begin(store, clock, "one", 30)
    begin(store, clock, "two", 20)
    shelf.lay("one", 30)
    clock.advance(1.0)
    assert usage_scanner.scan_next()
    assert not usage_scanner.scan_next(), "once is enough for now"
    assert store.boxes.usage(BOX.bucket, clock.now()) == BoxUsage(100, used=30, pending=20)
    assert stored(store) == replace(BOX, used=30, files=1, measured=T + 1, changed=T)
    assert asked_for(store) == (), "nothing that a pass would act on"


def test_an_upload_is_noticed_about_a_second_after_it_ended(
    usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    usage_scanner.scan_next()
    clock.advance(60.0)
    begin(store, clock, "developer/model", 30)
    usage_scanner.scan_next()
    clock.advance(1.0)
    shelf.lay("developer/model", 30)
    assert usage_scanner.scan_next()
    assert asked_for(store) == ("box",)
    assert stored(store).used == 30


def test_what_was_removed_is_noticed_about_a_second_later(
    usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    shelf.lay("one", 90)
    usage_scanner.scan_next()
    clock.advance(5.0)
    del shelf.held["one"]
    store.boxes.touch(BOX.bucket)
    assert usage_scanner.scan_next()
    assert store.boxes.usage(BOX.bucket, clock.now()).free == 100


def test_over_capacity_and_back_ask_for_a_pass_once_each(
    usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    told = []
    for size in (100, 101, 150, 100, 99):
        shelf.lay("one", size)
        clock.advance(600.0)
        assert usage_scanner.scan_next()
        told.append(asked_for(store))
    assert told == [(), ("box",), (), ("box",), ()]


def test_only_another_developer_area_asks_for_a_pass(
    usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    told = []
    for key, etag in (("users/x", "1"), ("developer/m", "1"), ("users/x", "2"), ("developer/m", "2")):
        shelf.lay(key, 1, etag)
        clock.advance(600.0)
        assert usage_scanner.scan_next()
        told.append(asked_for(store))
    assert told == [(), ("box",), (), ("box",)]


def test_after_a_restart_one_pass_looks_at_the_models(
    usage_scanner: UsageScanner, store: SqliteStore, storage: OneShelf, shelf: Shelf, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    shelf.lay("developer/m", 1)
    usage_scanner.scan_next()
    assert asked_for(store) == ("box",)
    again = UsageScanner(store, cast(Storage, storage), clock, abandon_after=86400.0)
    clock.advance(600.0)
    assert again.scan_next()
    assert asked_for(store) == ("box",)


def test_after_a_restart_uploads_are_still_awaited(
    usage_scanner: UsageScanner, store: SqliteStore, storage: OneShelf, shelf: Shelf, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    begin(store, clock, "one", 30)
    clock.advance(1.0)
    usage_scanner.scan_next()
    again = UsageScanner(store, cast(Storage, storage), clock, abandon_after=86400.0)
    shelf.lay("one", 30)
    clock.advance(1.0)
    assert again.scan_next()
    assert store.boxes.pending() == ()


def test_a_kept_box_asks_for_nothing(usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf) -> None:
    store.boxes.save(replace(BOX, state=BoxState.KEPT))
    shelf.lay("developer/m", 500)
    assert usage_scanner.scan_next()
    assert stored(store).used == 500
    assert asked_for(store) == ()


def test_what_is_allowed_during_a_listing_stays_reserved(
    usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    older = begin(store, clock, "a", 10)
    for key in "abc":
        shelf.lay(key, 10)
    newer: list[int] = []

    def once_more() -> None:
        shelf.between = lambda: None
        newer.append(begin(store, clock, "a", 40))

    shelf.between = once_more
    usage_scanner.scan_next()
    assert older not in newer
    assert [pending.id for pending in store.boxes.pending()] == newer
    assert store.boxes.usage(BOX.bucket, clock.now()) == BoxUsage(100, used=30, pending=40)


def test_what_is_allowed_during_a_listing_is_awaited(
    usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf, clock: FakeClock
) -> None:
    """Even if it is dated before the listing, because the clock was corrected meanwhile."""
    store.boxes.save(BOX)
    clock.advance(10.0)

    def corrected() -> None:
        shelf.between = lambda: None
        clock.advance(-5.0)
        begin(store, clock, "a", 40)

    shelf.between = corrected
    usage_scanner.scan_next()
    assert stored(store).changed < stored(store).measured
    clock.advance(1.0)
    assert usage_scanner.scan_next()


def test_an_abandoned_upload_in_parts_is_removed(
    usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    shelf.uploads = {"old": "big", "young": "bigger"}
    begin(store, clock, "big", 30, "old")
    clock.advance(43200.0)
    young = begin(store, clock, "bigger", 30, "young")
    clock.advance(43200.0)
    usage_scanner.scan_next()
    assert shelf.uploads == {"young": "bigger"}
    assert [pending.id for pending in store.boxes.pending()] == [young]


def test_a_bucket_that_is_gone_asks_for_one_pass_and_holds_up_no_other(
    usage_scanner: UsageScanner,
    store: SqliteStore,
    shelf: Shelf,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    store.boxes.save(BOX)
    usage_scanner.scan_next()
    clock.advance(600.0)
    shelf.fault = MISSING
    assert usage_scanner.scan_next()
    assert asked_for(store) == ("box",)
    store.boxes.save(replace(BOX, box=OLD, bucket="other"))
    shelf.fault = None
    assert usage_scanner.scan_next()
    assert not usage_scanner.scan_next(), "the one in trouble has its pause"
    shelf.fault = MISSING
    clock.advance(5.0)
    assert usage_scanner.scan_next()
    assert asked_for(store) == (), "asked for once"
    assert len([record for record in caplog.records if "could not measure" in record.message]) == 1
    shelf.fault = None
    clock.advance(5.0)
    assert usage_scanner.scan_next()
    assert stored(store).measured == clock.now()


def test_a_bucket_that_is_being_made_is_no_news(
    usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf
) -> None:
    store.boxes.save(BOX)
    shelf.fault = MISSING
    assert usage_scanner.scan_next()
    assert asked_for(store) == ()


def test_a_clock_that_is_set_back_stops_nothing(
    usage_scanner: UsageScanner, store: SqliteStore, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    usage_scanner.scan_next()
    clock.advance(-50_000.0)
    assert not usage_scanner.scan_next()
    clock.advance(600.0)
    assert usage_scanner.scan_next(), "not when that time has come round again"


class Turns(threading.Event):
    """The daemon's life: waiting takes no time, lets something happen, and ends with the script."""

    def __init__(self, clock: FakeClock, *script: Callable[[], None]) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._clock = clock
        self._script = iter(script)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self._clock.advance(timeout)
        step = next(self._script, None)
        if step is None:
            self.set()
        else:
            step()
        return self.is_set()


def test_a_storage_that_is_down_is_told_once_and_tried_again(
    usage_scanner: UsageScanner,
    store: SqliteStore,
    shelf: Shelf,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    store.boxes.save(BOX)
    shelf.lay("one", 30)
    shelf.fault = DOWN

    def recover() -> None:
        shelf.fault = None

    turns = Turns(clock, lambda: None, lambda: None, recover, lambda: None)
    usage_scanner.run(turns)
    assert turns.waits[:3] == [5.0, 5.0, 5.0]
    assert stored(store).used == 30
    told = [record.message for record in caplog.records]
    assert told == ["could not measure boxes: the storage does not answer", "boxes are measured again"]


def test_a_bug_does_not_end_the_thread(
    usage_scanner: UsageScanner,
    store: SqliteStore,
    shelf: Shelf,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.boxes.save(BOX)
    shelf.fault = ZeroDivisionError("a bug")

    def repair() -> None:
        shelf.fault = None

    usage_scanner.run(Turns(clock, repair, *[lambda: None] * 12))
    assert stored(store).measured > 0
    assert "could not measure box demo/data: bug: ZeroDivisionError" in caplog.text


def test_the_thread_ends_in_the_middle_of_a_listing(
    usage_scanner: UsageScanner, store: SqliteStore, shelf: Shelf, clock: FakeClock
) -> None:
    store.boxes.save(BOX)
    for number in range(10):
        shelf.lay(f"{number}", 1)
    turns = Turns(clock)
    shelf.between = turns.set
    usage_scanner.run(turns)
    assert shelf.reached == 1
    assert stored(store).measured == 0.0


# --- never over ---------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "c", "d", "e"])
STEP = st.one_of(
    st.tuples(st.just("announce"), KEYS, st.integers(1, 60)),
    st.tuples(st.just("put"), KEYS, st.just(0)),
    st.tuples(st.just("remove"), KEYS, st.just(0)),
)


@given(steps=st.lists(st.one_of(STEP, st.lists(STEP, max_size=4)), max_size=25))
@settings(max_examples=150, deadline=None)
def test_announced_uploads_never_go_over(steps: list[object]) -> None:
    """A list among the steps is a measurement, with what happens between its pages. Every link is used once."""
    with TemporaryDirectory() as folder, closing(open_store(Path(folder) / "db" / "state.db")) as store:
        clock = FakeClock(T)
        shelf = Shelf(clock)
        store.boxes.save(BOX)
        links: dict[str, int] = {}

        def act(verb: str, key: str, size: int) -> None:
            clock.advance(0.6)
            now = clock.now()
            if verb == "announce" and isinstance(store.boxes.reserve(upload(key, size, now), now), int):
                links[key] = size
            elif verb == "put" and key in links:
                shelf.lay(key, links.pop(key))
            elif verb == "remove" and key not in links:
                shelf.held.pop(key, None)
            room = store.boxes.usage(BOX.bucket, clock.now())
            assert shelf.bytes <= room.used + room.pending, "every byte is counted or reserved"
            assert shelf.bytes <= BOX.capacity

        for step in steps:
            if isinstance(step, tuple):
                act(*step)
                continue
            script = iter(cast(list[tuple[str, str, int]], step))
            shelf.between = lambda script=script: act(*step) if (step := next(script, None)) else None  # type: ignore[misc]
            now = clock.now()
            found = measure(cast(Objects, shelf), BOX.bucket, store.boxes.pending(), now)
            shelf.between = lambda: None
            store.boxes.measured(BOX.bucket, found.used, found.files, now, found.settled)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug()).__name__)
def test_a_bug_that_meets_one_box_keeps_no_other_from_being_measured(
    store: SqliteStore, storage: OneShelf, clock: FakeClock, bug: Callable[[], Exception]
) -> None:
    other = replace(BOX, box=OLD, bucket="p.demo.old")
    for record in (BOX, other):
        store.boxes.save(record)
    page = storage.shelf.page

    def fails_for_one(bucket: str, prefix: str = "", after: str = "", limit: int = 1000) -> ObjectPage:
        if bucket == BOX.bucket:
            raise bug()
        return page(bucket, prefix, after, limit)

    storage.shelf.page = fails_for_one  # type: ignore[method-assign, assignment]
    storage.shelf.lay("a", 7)
    usage_scanner = UsageScanner(store, cast(Storage, storage), clock, abandon_after=86400.0)
    assert [usage_scanner.scan_next() for _ in range(3)] == [True, True, False]
    measured = store.boxes.get(APP, OLD)
    assert measured is not None
    assert measured.used == 7


@pytest.mark.parametrize(
    "step", ["boxes.all", "boxes.pending", "boxes.measured", "transaction", "requests.enqueue"]
)
def test_a_bug_in_any_step_ends_no_accounting(
    store: SqliteStore, storage: OneShelf, clock: FakeClock, step: str
) -> None:
    faults = Faults()
    faults.arm(step, [BUGS[0]()])
    store.boxes.save(BOX)
    storage.shelf.lay(f"{DEVELOPER_AREA}model", 7)
    usage_scanner = UsageScanner(
        failing_store(store, faults), cast(Storage, storage), clock, abandon_after=86400.0
    )
    for _ in range(3):  # as `run` calls it
        with suppress(RuntimeError):
            usage_scanner.scan_next()
        clock.advance(3600.0)
    assert faults.left == 0
    assert stored(store).used == 7
