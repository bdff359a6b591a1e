"""Boxes, uploads under way, services and the web process' access to the storage, as the store keeps them."""

from __future__ import annotations

import sqlite3
import stat
import statistics
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from controller.domain.apps.spec import Reclaim
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Api, Route, Service, ServiceKind
from controller.domain.secret import Secret
from controller.domain.storage.box import BoxRecord, BoxState, BoxUsage, PendingUpload, StorageAccess
from controller.store import SqliteStore
from tests.support.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.store.conftest import HandClock

DAY = 86400.0
NOW = 1000.0
A, B = AppName("a"), AppName("b")
DATA, OLD = ComponentName("data"), ComponentName("old")
BOX = BoxRecord(A, DATA, "p.a.data", 100, since=5.0)


@pytest.fixture
def other(store: SqliteStore, path: Path) -> Iterator[SqliteStore]:
    """The same state as another process sees it."""
    with closing(open_store(path)) as other:
        other.changed()
        yield other


def upload(
    key: str, size: int = 10, now: float = NOW, part_of: str = "", bucket: str = BOX.bucket
) -> PendingUpload:
    return PendingUpload(0, bucket, key, size, created=now, expires=now + 900, upload=part_of)


def reserved(store: SqliteStore, wish: PendingUpload) -> int:
    answer = store.boxes.reserve(wish, wish.created)
    assert isinstance(answer, int), f"refused: {answer}"
    return answer


# --- records


def test_a_state_that_an_earlier_release_wrote_is_read() -> None:
    assert BoxState("doomed") is BoxState.DELETING
    with pytest.raises(ValueError, match="gone"):
        BoxState("gone")


def test_a_record_comes_back_whole(store: SqliteStore, other: SqliteStore) -> None:
    kept = BoxRecord(
        B,
        OLD,
        "p.b.old",
        7,
        Reclaim.DELETE,
        BoxState.KEPT,
        used=3,
        files=2,
        measured=9.5,
        since=1.0,
        changed=2.0,
    )
    store.boxes.save(kept)
    store.boxes.save(BOX)
    assert other.boxes.all() == (BOX, kept), "sorted by app and box"
    assert other.boxes.of(B) == (kept,)
    assert other.boxes.get(B, OLD) == kept
    assert other.boxes.get(B, DATA) is None


def test_saving_leaves_alone_what_was_measured(store: SqliteStore, clock: HandClock) -> None:
    store.boxes.save(BOX)
    store.boxes.measured(BOX.bucket, used=40, files=4, at=50.0, settled=())
    clock.at = 60.0
    store.boxes.touch(BOX.bucket)
    store.boxes.save(replace(BOX, capacity=200, state=BoxState.KEPT, since=70.0))
    assert store.boxes.get(A, DATA) == replace(
        BOX, capacity=200, state=BoxState.KEPT, since=70.0, used=40, files=4, measured=50.0, changed=60.0
    )


def test_saving_what_is_stored_writes_nothing(store: SqliteStore, other: SqliteStore) -> None:
    store.boxes.save(BOX)
    store.boxes.measured(BOX.bucket, used=40, files=4, at=50.0, settled=())
    assert other.changed()
    store.boxes.save(BOX)
    assert not other.changed()


def test_a_bucket_belongs_to_one_box(store: SqliteStore) -> None:
    store.boxes.save(BOX)
    with pytest.raises(sqlite3.IntegrityError, match="bucket"):
        store.boxes.save(replace(BOX, app=B))
    assert store.boxes.all() == (BOX,)


def test_a_change_is_never_dated_back(store: SqliteStore, clock: HandClock) -> None:
    store.boxes.save(BOX)
    for clock.at in (60.0, 50.0):
        store.boxes.touch(BOX.bucket)
    record = store.boxes.get(A, DATA)
    assert record is not None
    assert record.changed == 60.0


def test_swapping_exchanges_buckets_with_their_contents(store: SqliteStore, clock: HandClock) -> None:
    kept = BoxRecord(A, OLD, "p.a.old", 70, Reclaim.DELETE, BoxState.KEPT, used=60, files=6, measured=8.0)
    store.boxes.save(BOX)
    store.boxes.save(kept)
    begun = reserved(store, upload("k", bucket=kept.bucket))
    store.boxes.swap(BOX, kept)
    assert store.boxes.get(A, DATA) == replace(
        BOX, bucket="p.a.old", used=60, files=6, measured=8.0, changed=clock.at
    )
    assert store.boxes.get(A, OLD) == replace(kept, bucket="p.a.data", used=0, files=0, measured=0.0)
    assert [pending.id for pending in store.boxes.pending("p.a.old")] == [begun], "it went with its bucket"


def test_the_newest_unfinished_uploads_below_a_key(store: SqliteStore) -> None:
    store.boxes.save(replace(BOX, capacity=10**6))
    for number in range(5):
        reserved(store, upload(f"a/100%_{number}", part_of=f"id-{number}"))
    reserved(store, upload("a/100%_of-a-link"))
    reserved(store, upload("a/100 others", part_of="other"))
    reserved(store, upload("a/100%_old", now=NOW - 1000, part_of="old"))

    def found(below: str, most: int = 20) -> list[str]:
        return [each.upload for each in store.boxes.unfinished(BOX.bucket, below, NOW, most)]

    assert found("a/100%_") == [f"id-{number}" for number in range(5)]
    assert found("a/100%_", 2) == ["id-3", "id-4"]
    assert found("a/100%_3") == ["id-3"]
    assert found("A/") == []
    assert found("")[-1] == "other"


def test_swapping_needs_both(store: SqliteStore) -> None:
    store.boxes.save(BOX)
    with pytest.raises(LookupError, match="no record"):
        store.boxes.swap(BOX, replace(BOX, box=OLD, bucket="gone"))
    assert store.boxes.all() == (BOX,)


def test_forgetting_a_bucket_forgets_its_uploads(store: SqliteStore) -> None:
    store.boxes.save(BOX)
    store.boxes.save(replace(BOX, box=OLD, bucket="p.a.old"))
    reserved(store, upload("k"))
    stays = reserved(store, upload("k", bucket="p.a.old"))
    store.boxes.forget(BOX.bucket)
    assert [record.box for record in store.boxes.all()] == [OLD]
    assert [pending.id for pending in store.boxes.pending()] == [stays]


def test_words_that_are_not_known_keep_the_data(store: SqliteStore, path: Path) -> None:
    store.boxes.save(replace(BOX, reclaim=Reclaim.DELETE, state=BoxState.DELETING))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE boxes SET state = 'odd', reclaim = 'strange'")
    [found] = store.boxes.all()
    assert (found.bucket, found.reclaim, found.state) == (BOX.bucket, Reclaim.RETAIN, BoxState.KEPT)


# --- room


def test_uploads_are_allowed_while_they_fit(store: SqliteStore, other: SqliteStore) -> None:
    store.boxes.save(BOX)
    store.boxes.measured(BOX.bucket, used=30, files=1, at=NOW, settled=())
    first = reserved(store, upload("one", 50))
    assert other.boxes.reserve(upload("two", 21), NOW) == BoxUsage(capacity=100, used=30, pending=50)
    second = reserved(other, upload("two", 20))
    assert store.boxes.usage(BOX.bucket, NOW) == BoxUsage(100, 30, 70)
    assert store.boxes.pending() == (
        replace(upload("one", 50), id=first),
        replace(upload("two", 20), id=second),
    )


def test_an_upload_of_unknown_size_needs_a_box_that_is_not_full(store: SqliteStore) -> None:
    store.boxes.save(BOX)
    reserved(store, upload("one", 99))
    reserved(store, upload("unannounced", 0))
    reserved(store, upload("two", 1))
    assert store.boxes.reserve(upload("another", 0), NOW) == BoxUsage(100, 0, 100)


def test_a_bucket_without_a_record_has_no_room(store: SqliteStore) -> None:
    assert store.boxes.reserve(upload("k", 0), NOW) == BoxUsage(0, 0, 0)
    assert store.boxes.usage(BOX.bucket, NOW) == BoxUsage(0, 0, 0)
    assert store.boxes.pending() == ()


def test_a_change_is_dated_when_it_is_written_down(store: SqliteStore, clock: HandClock) -> None:
    store.boxes.save(BOX)
    clock.at = NOW + 7.0  # it had to wait for another process
    reserved(store, upload("k"))
    record = store.boxes.get(A, DATA)
    assert record is not None
    assert record.changed == NOW + 7.0


def test_an_expired_upload_keeps_no_room(store: SqliteStore) -> None:
    store.boxes.save(BOX)
    old = reserved(store, upload("one", 100))
    assert store.boxes.usage(BOX.bucket, NOW + 899.0).free == 0
    assert store.boxes.usage(BOX.bucket, NOW + 900.0).free == 100
    reserved(store, upload("two", 100, now=NOW + 900.0))
    assert old in [pending.id for pending in store.boxes.pending()], "until a measurement has settled it"


def test_a_newer_upload_of_a_key_takes_over_from_the_older(store: SqliteStore) -> None:
    store.boxes.save(BOX)
    older = reserved(store, upload("k", 60))
    newer = reserved(store, upload("k", 80, now=NOW + 1))
    assert newer != older, "what settles the older one leaves the newer alone"
    assert store.boxes.pending() == (replace(upload("k", 80, now=NOW + 1), id=newer),)


def test_a_newer_upload_that_does_not_fit_leaves_the_older(store: SqliteStore) -> None:
    store.boxes.save(BOX)
    older = reserved(store, upload("k", 60))
    assert store.boxes.reserve(upload("k", 101), NOW) == BoxUsage(100, 0, 0), "what there is for this key"
    assert [pending.id for pending in store.boxes.pending()] == [older]


def test_uploads_in_parts_of_one_key_stand_beside_each_other(store: SqliteStore) -> None:
    store.boxes.save(BOX)
    plain = reserved(store, upload("k", 20))
    first = reserved(store, upload("k", 30, part_of="u1"))
    second = reserved(store, upload("k", 40, part_of="u2"))
    assert store.boxes.usage(BOX.bucket, NOW).pending == 90
    assert store.boxes.upload(BOX.bucket, "u2") == replace(upload("k", 40, part_of="u2"), id=second)
    assert store.boxes.upload("elsewhere", "u2") is None
    assert store.boxes.upload(BOX.bucket, "") is None
    store.boxes.release([first, plain])
    assert [pending.id for pending in store.boxes.pending(BOX.bucket)] == [second]


def test_a_measurement_settles_what_it_has_counted(store: SqliteStore, clock: HandClock) -> None:
    store.boxes.save(BOX)
    seen, unseen = reserved(store, upload("seen", 30)), reserved(store, upload("unseen", 20))
    store.boxes.measured(BOX.bucket, used=30, files=1, at=NOW + 1, settled=[seen])
    assert store.boxes.usage(BOX.bucket, NOW + 1) == BoxUsage(100, used=30, pending=20)
    assert [pending.id for pending in store.boxes.pending()] == [unseen]
    record = store.boxes.get(A, DATA)
    assert record is not None
    assert (record.used, record.files, record.measured, record.changed) == (30, 1, NOW + 1, clock.at)


def test_reserving_is_quick_beside_many_others(store: SqliteStore) -> None:
    store.boxes.save(replace(BOX, capacity=10**9))
    with store.transaction():
        for number in range(5000):
            reserved(store, upload(f"unannounced-{number}", 0))
    durations = []
    for number in range(200):
        begun = time.perf_counter()
        reserved(store, upload(f"k-{number}"))
        durations.append(time.perf_counter() - begun)
    assert statistics.median(durations) < 0.005, "it is about 0.1 ms; a scan of all links would show"


def test_uploads_of_long_ago_are_forgotten(store: SqliteStore, clock: HandClock) -> None:
    store.boxes.save(replace(BOX, since=0.0))
    reserved(store, upload("long ago", now=clock.at - 900 - 31 * DAY))
    stays = reserved(store, upload("lately", now=clock.at - 900 - 29 * DAY, part_of="u"))
    store.prune()
    assert [pending.id for pending in store.boxes.pending()] == [stays]
    assert [record.box for record in store.boxes.all()] == [DATA], "a box is not old"


# --- access


def test_the_web_process_is_told_how_to_reach_the_storage(
    store: SqliteStore, other: SqliteStore, path: Path
) -> None:
    access = StorageAccess("http://127.0.0.1:9000", "https://s3.example.org", "web", Secret("hunter22"), "eu")
    assert other.boxes.access() is None
    store.boxes.record_access(replace(access, secret_key=Secret("older")))
    store.boxes.record_access(access)
    assert other.boxes.access() == access
    file = path.parent / "keys" / "storage.json"
    before = file.stat()
    assert stat.S_IMODE(before.st_mode) == 0o640
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o2750, "its group is that of the web process"
    store.boxes.record_access(access)
    assert file.stat().st_ino == before.st_ino, "the same again writes nothing"
    for damaged in ("", "{", "[]", '{"region": 3}'):
        file.write_text(damaged)
        assert other.boxes.access() is None


# --- services


def service(app: AppName, path: str = "files", kind: ServiceKind = ServiceKind.FILES) -> Service:
    api = Api(path, ComponentName("api"), True, users=(("ann", "scrypt:…"),))
    return Service(app, api, kind, developers=("ann",))


def test_services_are_published_as_a_whole(store: SqliteStore, other: SqliteStore) -> None:
    runs = replace(service(A, "runs", ServiceKind.PIPELINE), pipeline=ComponentName("train"))
    assert store.routes.publish(B, (service(B),)) == 1
    assert store.routes.publish(A, (runs, service(A))) == 2
    assert other.routes.services() == (service(A), runs, service(B)), "sorted by app and path"
    assert other.routes.services(A) == (service(A), runs)
    assert store.routes.publish(A, (runs,)) == 3
    assert other.routes.services(A) == (runs,)
    assert store.routes.publish(A, ()) == 4
    assert other.routes.services() == (service(B),)


def test_services_in_force_already_change_nothing(store: SqliteStore, other: SqliteStore) -> None:
    version = store.routes.publish(A, (service(A),))
    other.changed()
    assert store.routes.publish(A, (service(A),)) == version
    assert store.routes.publish(B, ()) == version
    assert not other.changed()


def test_services_and_routes_share_one_version(store: SqliteStore) -> None:
    store.routes.publish(A, (service(A),))
    assert store.routes.switch(Route(A, DATA, "1:aa", "abc", (), ())) == 2
    assert store.routes.version() == 2


# --- accounts of components


def test_an_upload_in_parts_grows_while_there_is_room(store: SqliteStore, other: SqliteStore) -> None:
    store.boxes.save(BOX)
    reserved(store, upload("k", size=0, part_of="u"))
    assert store.boxes.grow(BOX.bucket, "k", "u", 60, NOW) is None
    assert other.boxes.grow(BOX.bucket, "k", "u", 50, NOW) == BoxUsage(100, 0, 60)
    assert other.boxes.grow(BOX.bucket, "k", "u", 40, NOW) is None
    assert store.boxes.grow(BOX.bucket, "k", "u", -70, NOW) is None
    assert [pending.size for pending in store.boxes.pending(BOX.bucket)] == [30]
    for bucket, key, part_of in ((BOX.bucket, "k", "other"), (BOX.bucket, "other", "u")):
        with pytest.raises(LookupError):
            store.boxes.grow(bucket, key, part_of, 1, NOW)


def test_nothing_grows_in_a_box_that_holds_too_much(store: SqliteStore) -> None:
    store.boxes.save(BOX)
    reserved(store, upload("k", size=0, part_of="u"))
    store.boxes.measured(BOX.bucket, 101, 1, NOW, [])
    assert store.boxes.grow(BOX.bucket, "k", "u", 1, NOW) == BoxUsage(100, 101, 0)


def test_grants_are_all_that_an_account_has(store: SqliteStore, other: SqliteStore) -> None:
    store.boxes.grant("p.a.1", ("p.a.data", "p.a.old"))
    store.boxes.grant("p.b.1", ("p.b.data",))
    assert other.boxes.grants("p.a.1") == {"p.a.data", "p.a.old"}
    assert other.boxes.accounts("p.a.") == {"p.a.1"}
    store.boxes.grant("p.a.1", ("p.a.data",))
    assert other.boxes.grants("p.a.1") == {"p.a.data"}
    store.boxes.grant("p.a.1", ())
    assert not other.boxes.grants("p.a.1")
    assert other.boxes.accounts("p.") == {"p.b.1"}
