"""Room for what is uploaded is one bound over all workers: several of them with one state and one storage, and every
order of what may happen to bodies that are on their way."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.domain.names import AppName, ComponentName
from controller.domain.storage.box import Arrival, BoxRecord, Part, PendingUpload
from controller.domain.storage.links import ObjectLink
from controller.ports import Boxes
from controller.store import SqliteStore
from controller.web.objects.conditions import ANY, WriteCondition
from controller.web.objects.reservations import Reservations, together
from controller.web.problems import ProblemKind, RequestRefused
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeStorage
from tests.support.stores import open_store

BUCKET, KEY = "prichal.demo.data", "users/ann/file_groups/g/f"
CAPACITY, NOW = 100, 1000.0


class Workers:
    """Two, with `open_store` of their own."""

    def __init__(self, folder: Path) -> None:
        path = folder / "state" / "prichal.db"
        self.storage = FakeStorage()
        self.objects = self.storage.objects()
        self.objects.create_bucket(BUCKET)
        self.stores: tuple[SqliteStore, ...] = (open_store(path), open_store(path))
        self.stores[0].boxes.save(BoxRecord(AppName("demo"), ComponentName("data"), BUCKET, CAPACITY))
        self.stores[0].boxes.record_access(self.storage.access())
        self.clients = [StorageClient(store, self.storage.connect) for store in self.stores]
        self.rooms = [
            Reservations(store, client) for store, client in zip(self.stores, self.clients, strict=True)
        ]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for store in self.stores:
            store.close()


def refused(rooms: Reservations, link: ObjectLink, length: int) -> ProblemKind:
    with pytest.raises(RequestRefused) as caught:
        rooms.admit(link, length)
    return caught.value.problem.kind


def link(key: str = KEY, size: int = 0, upload: str = "", part: int = 0) -> ObjectLink:
    return ObjectLink("PUT", BUCKET, key, int(time.time()), 900, size, upload, part)


def test_bodies_through_several_workers_share_one_room(tmp_path: Path) -> None:
    with closing(Workers(tmp_path)) as workers:
        one, other = workers.rooms
        first = one.admit(link("a"), 60)
        assert refused(other, link("b"), 50) is ProblemKind.BOX_FULL
        assert refused(other, link("a"), 50) is ProblemKind.BOX_FULL, (
            "of one name, too: both lie on the disk for a while"
        )
        second = other.admit(link("b"), 40)
        one.failed(first)
        other.stored(second)
        assert refused(one, link("a"), 61) is ProblemKind.BOX_FULL, (
            "what was stored counts before it was measured"
        )
        one.stored(one.admit(link("a"), 60))


NEW = WriteCondition(none_match=frozenset((ANY,)))


def not_met(rooms: Reservations, arrival: Arrival | None, condition: WriteCondition = NEW) -> int:
    """Return the status of the refusal, or 0 if the write may go on."""
    try:
        rooms.require_condition(BUCKET, KEY, condition, arrival)
    except RequestRefused as refused:
        return refused.problem.code
    return 0


def test_of_writes_with_a_condition_the_earliest_goes_on(tmp_path: Path) -> None:
    with closing(Workers(tmp_path)) as workers:
        one, other = workers.rooms
        elsewhere = one.admit(link("b"), 1)
        first, second, third = one.admit(link(), 1), other.admit(link(), 1), one.admit(link(), 1)
        assert [not_met(other, each) for each in (None, first, second, third)] == [0, 0, 409, 409]
        one.failed(first)
        assert [not_met(one, each) for each in (second, third)] == [0, 409]
        workers.objects.put(BUCKET, KEY, io.BytesIO(b"x"), 1)
        other.stored(second)
        assert [not_met(one, each) for each in (third, None)] == [412, 412]
        found = workers.objects.stat(BUCKET, KEY)
        assert found is not None
        same, changed = (WriteCondition(match=frozenset((tag,))) for tag in (found.etag, "other"))
        assert (not_met(one, third, same), not_met(one, third, changed)) == (0, 412)
        one.failed(elsewhere)


def test_parts_through_several_workers_share_one_upload(tmp_path: Path) -> None:
    with closing(Workers(tmp_path)) as workers:
        one, other = workers.rooms
        upload = workers.objects.begin_upload(BUCKET, KEY)
        now = time.time()
        workers.stores[0].boxes.reserve(PendingUpload(0, BUCKET, KEY, 10, now, now + 900, upload), now)
        first = one.admit(link(upload=upload, part=1), 6)
        assert refused(other, link(upload=upload, part=2), 5) is ProblemKind.TOO_LARGE
        assert refused(other, link(upload=upload, part=1), 5) is ProblemKind.TOO_LARGE
        second = other.admit(link(upload=upload, part=2), 4)
        workers.objects.put_part(BUCKET, KEY, upload, 1, bytes(6))
        one.stored(first)
        other.failed(second)
        assert refused(other, link(upload=upload, part=2), 5) is ProblemKind.TOO_LARGE, (
            "the storage has the first"
        )
        other.stored(other.admit(link(upload=upload, part=1), 6))  # sent again
        assert workers.stores[0].boxes.usage(BUCKET, time.time()).pending == 10


def test_a_part_of_no_upload_takes_nothing(tmp_path: Path) -> None:
    with closing(Workers(tmp_path)) as workers:
        upload = workers.objects.begin_upload(BUCKET, KEY)
        now = time.time()
        workers.stores[0].boxes.reserve(PendingUpload(0, BUCKET, KEY, 10, now, now + 900, upload), now)
        workers.objects.abort_upload(BUCKET, KEY, upload)
        assert refused(workers.rooms[0], link(upload=upload, part=1), 6) is ProblemKind.NOT_FOUND
        assert workers.stores[1].boxes.arriving(BUCKET, upload, now) == ()


def test_what_still_comes_is_told_and_what_a_dead_worker_left_expires(tmp_path: Path) -> None:
    with closing(Workers(tmp_path)) as workers:
        boxes = workers.stores[1].boxes
        arrival = workers.rooms[0].admit(link("a"), 60)
        assert boxes.usage(BUCKET, arrival.until - 1).free == 40
        assert boxes.usage(BUCKET, arrival.until).free == CAPACITY
        workers.stores[0].boxes.prolong([arrival.id], arrival.until + 60)
        assert boxes.usage(BUCKET, arrival.until).free == 40
        workers.rooms[0].prolong()
        assert boxes.usage(BUCKET, time.time() + 100).free == 40
        workers.rooms[0].failed(arrival)
        workers.rooms[0].prolong()
        assert boxes.usage(BUCKET, time.time()).free == CAPACITY


parts = st.dictionaries(st.integers(1, 3), st.integers(0, 9))
coming = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), max_size=5)


@given(parts, coming)
def test_an_upload_is_never_counted_below_what_it_can_take(
    stored: dict[int, int], coming: list[tuple[int, int]]
) -> None:
    """Whichever of the parts that are sent again comes last."""
    arrivals = [Arrival(0, BUCKET, KEY, size, NOW, NOW, "u", part) for part, size in coming]
    counted = together([Part(number, size, "") for number, size in stored.items()], arrivals)
    assert counted >= sum((stored | dict(coming)).values())
    assert counted >= sum((dict(coming) | stored).values())
    assert counted >= sum(size for _, size in coming)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("link", "begin", "begin", "store", "fail", "measure")),
        st.sampled_from(("a", "b", "c")),
        st.integers(0, 60),
        st.integers(0, 1),
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Boxes]]:
    with closing(Workers(tmp_path_factory.mktemp("boxes"))) as workers:
        yield [store.boxes for store in workers.stores]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_a_box_never_holds_more_than_it_holds(
    boxes: list[Boxes], steps: list[tuple[str, str, int, int]]
) -> None:
    """Bodies on their way and objects together, whatever happens in which order through which of two processes."""
    boxes[0].forget(BUCKET)
    boxes[0].save(BoxRecord(AppName("demo"), ComponentName("data"), BUCKET, CAPACITY))
    stored: dict[str, int] = {}
    coming: list[Arrival] = []
    for number, (step, key, size, process) in enumerate(steps):
        now, table = NOW + number, boxes[process]
        own = next((each for each in coming if each.key == key), None)
        if step == "link":
            table.reserve(PendingUpload(0, BUCKET, key, size, now, now + 900), now)
        elif step == "begin":
            wanted = Arrival(0, BUCKET, key, size, now, now + 900)
            found = table.arrive(wanted, now)
            if isinstance(found, int):
                coming.append(Arrival(found, BUCKET, key, size, now, now + 900))
        elif step == "measure":
            settled = [each.id for each in table.pending(BUCKET) if each.key in stored]
            table.measured(BUCKET, sum(stored.values()), len(stored), now, settled)
        elif own is not None:
            coming.remove(own)
            if step == "store":
                stored[key] = own.size
                table.arrived(own, now + 900, now)
            else:
                table.failed(own)
        assert sum(stored.values()) + sum(each.size for each in coming) <= CAPACITY
        room = table.usage(BUCKET, now)
        assert room.used + room.pending <= CAPACITY
