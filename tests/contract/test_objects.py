"""What every storage promises (`controller.ports.Objects`, `StorageAdmin`), as one suite: the fake, the embedded one
and MinIO. Faults are real: servers are killed and frozen, disks are full.

Without a `minio` binary (`make minio`) its tests are skipped.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from random import Random

import pytest

from controller.adapters.objects import S3Objects
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.secret import Secret
from controller.domain.storage.box import (
    AccountGrant,
    ObjectPage,
    Part,
    PendingUpload,
    StorageAccount,
    StoredObject,
)
from controller.domain.storage.keys import ancestors
from controller.ports import Objects
from tests.support.engines import unique
from tests.support.storage_worlds import SECRET, SERVERS, FakeWorld, RealWorld, World, a_world
from tests.support.waiting import wait_for

MEBIBYTE = 2**20
ODD_KEYS = (
    "plain.txt",
    "with space.txt",
    "users/ivanov/file_groups/group/файл 1.txt",
    "a/#?+%&=.txt",
    "a/%41%2F.txt",
    "a/;:@$,!*'()[]{}|^~`<>\"",
    "a/😀-\U0010fffd-\u00e9-e\u0301",
    "a/ leading and trailing ",
    "a/.hidden/..name",
    "users/%anonymous/file_groups/g/f",
)
#: 900 bytes in UTF-8, the longest that `domain.storage.keys` lets through, in segments of at most 255.
LONG_KEY = "/".join(["я" * 127, "x" * 255, "z" * 255, "ж" * 66 + "y"])


@pytest.fixture(scope="module", params=SERVERS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Shared by the tests that leave it as it was."""
    with a_world(request.param, tmp_path_factory.mktemp(request.param)) as world:
        yield world


@pytest.fixture(params=SERVERS)
def fragile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """One of its own for a test that breaks it."""
    with a_world(request.param, tmp_path) as world:
        yield world


@pytest.fixture
def objects(world: World) -> Iterator[Objects]:
    objects = world.objects()
    yield objects
    objects.close()


@pytest.fixture
def bucket(objects: Objects) -> Iterator[str]:
    name = f"t.{unique('app')}.box"
    objects.create_bucket(name)
    yield name
    objects.remove_bucket(name)


@pytest.fixture
def account(world: World, bucket: str) -> Iterator[StorageAccount]:
    """May read and write `bucket`."""
    account = StorageAccount(unique("account"), SECRET, (AccountGrant(bucket),))
    world.admin().ensure_account(account)
    yield account
    world.admin().remove_account(account.name)


def put(objects: Objects, bucket: str, key: str, content: bytes = b"content") -> StoredObject:
    return objects.put(bucket, key, io.BytesIO(content), len(content))


def put_all(objects: Objects, bucket: str, keys: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: put(objects, bucket, key, b"x"), keys))


def read(objects: Objects, bucket: str, key: str, etag: str = "") -> bytes:
    with objects.open(bucket, key, etag) as pieces:
        return b"".join(pieces)


def keys(objects: Objects, bucket: str, prefix: str = "") -> list[str]:
    return [found.key for found in objects.page(bucket, prefix).objects]


def walk(
    objects: Objects, bucket: str, prefix: str, limit: int, folders: bool = False, start: str = ""
) -> list[str]:
    """Names of a listing in pages, in the order in which they come."""
    names: list[str] = []
    after: str | None = start
    while after is not None:
        page = objects.page(bucket, prefix, after, limit, folders)
        found = sorted([*(each.key for each in page.objects), *page.prefixes])
        assert len(found) <= (limit or 1000)
        names += found
        after = page.next
    return names


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(ControllerError) as caught:
        call()
    expected = Transient if caught.value.reason in ("StorageUnreachable", "StorageFull") else Stalled
    assert type(caught.value) is expected
    return caught.value.reason


# --- buckets --------------------------------------------------------------------------------------------------------


def test_a_server_tells_its_name(objects: Objects) -> None:
    assert objects.ping()


def test_creating_and_removing_a_bucket_may_be_repeated(objects: Objects) -> None:
    name = f"t.{unique('app')}.box"
    objects.create_bucket(name)
    put(objects, name, "a/b/c")
    objects.create_bucket(name)
    assert name in objects.buckets()
    assert keys(objects, name) == ["a/b/c"]
    objects.remove_bucket(name)
    objects.remove_bucket(name)
    assert name not in objects.buckets()


def test_a_bucket_is_removed_with_more_than_a_page_of_objects_in_folders(objects: Objects) -> None:
    name = f"t.{unique('app')}.box"
    objects.create_bucket(name)
    put_all(objects, name, [f"{n % 7}/{n % 5}/{n}" for n in range(1100)])
    objects.remove_bucket(name)
    assert name not in objects.buckets()


def test_a_missing_bucket_is_told(objects: Objects) -> None:
    name = f"t.{unique('app')}.box"
    calls: tuple[Callable[[], object], ...] = (
        lambda: objects.page(name),
        lambda: put(objects, name, "a"),
        lambda: read(objects, name, "a"),
        lambda: objects.remove(name, ["a", "b"]),
        lambda: objects.begin_upload(name, "a"),
    )
    assert [reason_of(call) for call in calls] == ["BucketMissing"] * len(calls)
    assert objects.stat(name, "a") is None


# --- objects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3 * MEBIBYTE + 1])
def test_what_is_put_is_there(objects: Objects, bucket: str, size: int) -> None:
    content = os.urandom(size)
    stored = put(objects, bucket, "a/b", content)
    assert (stored.key, stored.size, stored.etag) == ("a/b", size, hashlib.md5(content).hexdigest())
    found = objects.stat(bucket, "a/b")
    assert found is not None
    assert (found.key, found.size, found.etag) == (stored.key, stored.size, stored.etag)
    assert (
        abs(found.modified - stored.modified) <= 2
    )  # whole seconds, and the answer may come in the next one
    assert read(objects, bucket, "a/b", found.etag) == content


@pytest.mark.parametrize("key", [*ODD_KEYS, LONG_KEY])
def test_odd_keys(world: World, objects: Objects, bucket: str, key: str) -> None:
    put(objects, bucket, key, b"by key")
    assert keys(objects, bucket) == [key]
    assert walk(objects, bucket, "", 1) == [key]
    assert keys(objects, bucket, key) == [key]
    assert objects.page(bucket, after=key).objects == ()
    found = objects.stat(bucket, key)
    assert found is not None
    assert found.key == key
    assert read(objects, bucket, key) == b"by key"
    assert world.follow("GET", objects.sign("GET", bucket, key, 60)) == (200, b"by key")
    assert world.follow("PUT", objects.sign("PUT", bucket, key, 60), b"by link")[0] == 200
    assert read(objects, bucket, key) == b"by link"
    upload = objects.begin_upload(bucket, key)
    assert objects.parts(bucket, key, upload) == ()
    objects.abort_upload(bucket, key, upload)
    put(objects, bucket, "other")
    objects.remove(bucket, [key, "other"])
    assert keys(objects, bucket) == []


def test_the_long_key_is_as_long_as_keys_may_be() -> None:
    assert len(LONG_KEY.encode()) == 900


def test_another_object_is_noticed_by_its_etag(objects: Objects, bucket: str) -> None:
    first = put(objects, bucket, "a", b"one")
    second = put(objects, bucket, "a", b"two")
    assert first.etag != second.etag
    assert read(objects, bucket, "a", second.etag) == b"two"
    assert reason_of(lambda: read(objects, bucket, "a", first.etag)) == "ObjectChanged"


def test_a_missing_object(objects: Objects, bucket: str) -> None:
    put(objects, bucket, "a/b")
    for key in ("b", "a", "a/"):
        assert objects.stat(bucket, key) is None
    assert reason_of(lambda: read(objects, bucket, "b")) == "ObjectMissing"
    assert reason_of(lambda: read(objects, bucket, "b", "0" * 32)) == "ObjectMissing"


@pytest.mark.parametrize("key", ["plain/copy", "other folder/«копия» 100%.txt"])
def test_an_object_is_copied_as_it_was_found(objects: Objects, bucket: str, key: str) -> None:
    found = put(objects, bucket, "a/оригинал +.txt", b"content")
    copied = objects.copy(bucket, found, key)
    assert (copied.key, copied.size, copied.etag) == (key, 7, found.etag)
    assert read(objects, bucket, key) == read(objects, bucket, found.key) == b"content"
    put(objects, bucket, found.key, b"another")
    assert reason_of(lambda: objects.copy(bucket, found, key)) == "ObjectChanged"
    objects.remove(bucket, [found.key])
    assert reason_of(lambda: objects.copy(bucket, found, key)) == "ObjectMissing"
    assert read(objects, bucket, key) == b"content"


@pytest.fixture
def other(objects: Objects) -> Iterator[str]:
    name = f"t.{unique('preview')}.box"
    objects.create_bucket(name)
    yield name
    objects.remove_bucket(name)


def test_objects_of_any_name_are_copied_into_another_bucket(
    objects: Objects, bucket: str, other: str
) -> None:
    for key in (*ODD_KEYS, LONG_KEY):
        found = put(objects, bucket, key, key.encode())
        copied = objects.copy(bucket, found, key, other)
        assert (copied.key, copied.size, copied.etag) == (key, found.size, found.etag)
        assert read(objects, other, key) == key.encode()
    assert keys(objects, other) == keys(objects, bucket)
    objects.remove(bucket, [LONG_KEY])
    assert read(objects, other, LONG_KEY) == LONG_KEY.encode(), "a copy of its own"
    nowhere = f"{other}.gone"
    assert reason_of(lambda: objects.copy(bucket, found, "a", nowhere)) in ("BucketMissing", "ObjectMissing")
    empty = put(objects, bucket, "empty", b"")
    assert objects.copy(bucket, empty, "empty", other).size == 0


def test_an_object_is_copied_in_parts_with_what_describes_it(
    objects: Objects, bucket: str, other: str
) -> None:
    key, content = "users/анна/big +%.bin", os.urandom(5 * MEBIBYTE + 100)
    described = {"content-type": "text/x-of-its-own", "x-amz-meta-made-by": "anna"}
    found = objects.put_described(bucket, key, io.BytesIO(content), len(content), described)  # type: ignore[attr-defined]
    upload = PendingUpload(0, other, key, found.size, 0.0, 0.0, objects.begin_copy(bucket, found, key, other))
    second = objects.copy_part(bucket, found, upload, 2, 5 * MEBIBYTE, 100)
    assert objects.parts(other, key, upload.upload) == (second,)
    assert keys(objects, other) == []
    first = objects.copy_part(bucket, found, upload, 1, 0, 5 * MEBIBYTE)
    parts = objects.parts(other, key, upload.upload)
    assert parts == (first, second)
    stored = objects.complete_upload(other, key, upload.upload, parts)
    with objects.open_described(other, stored) as (told, pieces):  # type: ignore[attr-defined]
        assert b"".join(pieces) == content
        assert described.items() <= dict(told).items()


def test_a_copy_in_parts_ends_with_its_source(objects: Objects, bucket: str, other: str) -> None:
    found = put(objects, bucket, "a", b"content")
    upload = PendingUpload(0, other, "a", 7, 0.0, 0.0, objects.begin_copy(bucket, found, "a", other))
    put(objects, bucket, "a", b"another")
    assert reason_of(lambda: objects.copy_part(bucket, found, upload, 1, 0, 7)) == "ObjectChanged"
    assert reason_of(lambda: objects.begin_copy(bucket, found, "a", other)) == "ObjectChanged"
    objects.remove(bucket, ["a"])
    assert reason_of(lambda: objects.copy_part(bucket, found, upload, 1, 0, 7)) == "ObjectMissing"
    assert reason_of(lambda: objects.begin_copy(bucket, found, "a", other)) == "ObjectMissing"
    objects.abort_upload(other, "a", upload.upload)
    again = put(objects, bucket, "a", b"content")
    assert reason_of(lambda: objects.copy_part(bucket, again, upload, 1, 0, 7)) == "UploadMissing"


def test_removing_may_be_repeated(objects: Objects, bucket: str) -> None:
    put_all(objects, bucket, ["a", "b/c", "d"])
    objects.remove(bucket, ["a"])
    objects.remove(bucket, ["a", "b/c"])
    objects.remove(bucket, ["a", "b/c", "never/there"])
    objects.remove(bucket, ())
    assert keys(objects, bucket) == ["d"]


def test_folders_are_gone_with_their_last_object(objects: Objects, bucket: str) -> None:
    put_all(objects, bucket, ["u/v/w/1", "u/v/w/2", "u/v/2", "u/x/1", "y/1"])
    objects.remove(bucket, ["u/v/w/1", "u/v/w/2", "u/v/2"])
    assert objects.page(bucket, "u/", folders=True).prefixes == ("u/x/",)
    objects.remove(bucket, ["u/x/1"])
    assert objects.page(bucket, folders=True).prefixes == ("y/",)
    assert keys(objects, bucket) == ["y/1"]
    put(objects, bucket, "u", b"a file where a folder was")


def test_content_that_ends_too_early_stores_nothing(objects: Objects, bucket: str) -> None:
    put(objects, bucket, "a", b"old")
    assert reason_of(lambda: objects.put(bucket, "a", io.BytesIO(b"new"), 10)) == "UploadIncomplete"
    assert read(objects, bucket, "a") == b"old"


def test_only_the_announced_size_is_taken_from_a_stream(objects: Objects, bucket: str) -> None:
    stream = io.BytesIO(b"first,second")
    objects.put(bucket, "a", stream, 6)
    objects.put(bucket, "b", stream, 6)
    assert (read(objects, bucket, "a"), read(objects, bucket, "b")) == (b"first,", b"second")


class PutInParts(S3Objects):
    """What is larger than 6 MiB counts as too large for one request."""

    max_put = 6 * MEBIBYTE
    put_part = 5 * MEBIBYTE


@pytest.mark.parametrize("world", ["embedded", "minio"], indirect=True)
def test_an_object_too_large_for_one_request_is_put_in_parts(world: World, bucket: str) -> None:
    assert isinstance(world, RealWorld)
    objects = PutInParts(world.server.url, world.server.access_key, world.server.secret_key)
    content = os.urandom(11 * MEBIBYTE)
    stored = put(objects, bucket, "a", content)
    assert (stored.size, stored.etag[-2:]) == (len(content), "-3")
    assert read(objects, bucket, "a", stored.etag) == content
    assert (
        reason_of(lambda: objects.put(bucket, "b", io.BytesIO(content), len(content) + 1))
        == "UploadIncomplete"
    )
    assert keys(objects, bucket) == ["a"]


def test_content_is_read_as_it_was_put(world: World, objects: Objects, bucket: str) -> None:
    packed = gzip.compress(b"content")
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
    assert world.follow("PUT", objects.sign("PUT", bucket, "a", 60), packed, headers)[0] == 200
    assert read(objects, bucket, "a") == packed


# --- listings -------------------------------------------------------------------------------------------------------

ADVERSARIAL = [
    *("a!/x", "a-b", "a.b/c", "a/b", "a/b-c/d", "a/b.c", "a0", "ab/c", "b"),
    *("z/\ue000", "z/\uffee", "z/\U00010000", "z/é", "z/~", "zz/ /a", "zz/+/a", "zz/%2F/a"),
]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 1000])
def test_pages_are_in_the_order_of_utf8_and_lose_nothing(objects: Objects, bucket: str, limit: int) -> None:
    put_all(objects, bucket, ADVERSARIAL)
    assert walk(objects, bucket, "", limit) == sorted(ADVERSARIAL, key=str.encode)
    assert walk(objects, bucket, "a", limit) == [key for key in sorted(ADVERSARIAL) if key.startswith("a")]


@pytest.mark.parametrize("folders", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_page_shows_what_was_written_before(
    objects: Objects, bucket: str, limit: int, folders: bool
) -> None:
    """Even if others have listed to that place earlier, and did not go on."""
    put_all(objects, bucket, [f"g/{n}" for n in range(0, 40, 2)])
    ends = [objects.page(bucket, "g/", "", limit, folders).next for _ in range(3)]
    objects.put(bucket, "g/7", io.BytesIO(b"new"), 3)
    objects.put(bucket, "g/8", io.BytesIO(b"another"), 7)
    there = sorted([*(f"g/{n}" for n in range(0, 40, 2)), "g/7"])
    for end in ends:
        assert end is not None
        assert walk(objects, bucket, "g/", limit, folders, end) == [key for key in there if key > end]
    assert walk(objects, bucket, "g/", limit, folders) == there


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_folders_in_pages_come_once(objects: Objects, bucket: str, limit: int) -> None:
    put_all(objects, bucket, ADVERSARIAL)
    heads = {key.partition("/")[0] + ("/" if "/" in key else "") for key in ADVERSARIAL}
    assert walk(objects, bucket, "", limit, folders=True) == sorted(heads)
    assert walk(objects, bucket, "a/", limit, folders=True) == ["a/b", "a/b-c/", "a/b.c"]
    assert walk(objects, bucket, "zz/", limit, folders=True) == ["zz/ /", "zz/%2F/", "zz/+/"]


def entangled(seed: int) -> list[str]:
    """Keys whose names begin with one another, in folders whose names do: what listings of MinIO stumble over."""
    random = Random(seed)
    found: set[str] = set()
    while len(found) < 120:
        segments = [
            "".join(random.choices("ab-!é", k=random.randint(1, 3))) for _ in range(random.randint(1, 3))
        ]
        key = "/".join(("users", *segments))
        if key not in {above for other in found for above in ancestors(other)} and not found & {
            *ancestors(key)
        }:
            found.add(key)
    return sorted(found)


@pytest.mark.parametrize("seed", range(3))
def test_entangled_names(objects: Objects, bucket: str, seed: int) -> None:
    there = entangled(seed)
    put_all(objects, bucket, there)
    heads = sorted({key.split("/")[1] + "/" * (key.count("/") > 1) for key in there})
    for limit in (1, 2, 3, 7, 50):
        assert walk(objects, bucket, "", limit) == there
        assert walk(objects, bucket, "users/", limit, folders=True) == [f"users/{head}" for head in heads]


@pytest.fixture(scope="module")
def crowded(world: World) -> Iterator[tuple[Objects, str, list[str]]]:
    """A bucket with 2,500 objects."""
    objects, name = world.objects(), f"t.{unique('app')}.box"
    objects.create_bucket(name)
    there = [f"users/u/file_groups/g/{n:04}" for n in range(2000)]
    there += [f"users/u/file_groups/h/{n % 100}/{n}" for n in range(500)]
    put_all(objects, name, there)
    yield objects, name, sorted(there)
    objects.remove_bucket(name)
    objects.close()


@pytest.mark.parametrize("limit", [97, 500, 999, 1000])
def test_thousands_of_keys(crowded: tuple[Objects, str, list[str]], limit: int) -> None:
    objects, bucket, there = crowded
    assert walk(objects, bucket, "", limit) == there
    groups = walk(objects, bucket, "users/u/file_groups/h/", limit, folders=True)
    assert groups == sorted(f"users/u/file_groups/h/{n}/" for n in range(100))


def test_who_reads_all_pages_sees_what_was_written_before_the_first(
    crowded: tuple[Objects, str, list[str]],
) -> None:
    objects, bucket, there = crowded
    more = [f"users/u/file_groups/g/1500-{number}" for number in range(3)]
    for number, key in enumerate(more):
        assert objects.page(bucket).next
        assert objects.page(bucket, limit=1000).next
        objects.put(bucket, key, io.BytesIO(b"new"), 3)
        assert walk(objects, bucket, "", 0) == sorted(there + more[: number + 1])
    objects.remove(bucket, more)


def test_the_last_page_knows_that_it_is_the_last(crowded: tuple[Objects, str, list[str]]) -> None:
    objects, bucket, there = crowded
    page = objects.page(bucket, after=there[1999])
    assert (len(page.objects), page.next) == (500, None)
    assert objects.page(bucket, after=there[-1]) == ObjectPage()
    assert objects.page(bucket, "none/").next is None


# --- uploads in parts -----------------------------------------------------------------------------------------------


def send_part(world: World, objects: Objects, bucket: str, upload: str, number: int, content: bytes) -> None:
    query = {"uploadId": upload, "partNumber": str(number)}
    assert world.follow("PUT", objects.sign("PUT", bucket, "big/file", 60, query), content)[0] == 200


def test_an_upload_in_parts(world: World, objects: Objects, bucket: str) -> None:
    first, second = os.urandom(5 * MEBIBYTE), os.urandom(100)
    upload = objects.begin_upload(bucket, "big/file")
    send_part(world, objects, bucket, upload, 2, second)
    send_part(world, objects, bucket, upload, 1, b"torn")
    # Resumed: what is there is told, and a part may be sent again.
    assert [(part.number, part.size) for part in objects.parts(bucket, "big/file", upload)] == [
        (1, 4),
        (2, 100),
    ]
    send_part(world, objects, bucket, upload, 1, first)
    parts = objects.parts(bucket, "big/file", upload)
    digests = [hashlib.md5(content).hexdigest() for content in (first, second)]
    assert parts == (Part(1, len(first), digests[0]), Part(2, 100, digests[1]))
    assert keys(objects, bucket) == []
    assert objects.page(bucket, folders=True).prefixes == ()
    stored = objects.complete_upload(bucket, "big/file", upload, parts)
    assert (stored.key, stored.size) == ("big/file", len(first) + 100)
    assert read(objects, bucket, "big/file", stored.etag) == first + second
    assert reason_of(lambda: objects.parts(bucket, "big/file", upload)) == "UploadMissing"
    assert reason_of(lambda: objects.complete_upload(bucket, "big/file", upload, parts)) == "UploadMissing"


def test_uploads_of_a_key_are_found_again(objects: Objects, bucket: str) -> None:
    for key in ("a b/ф+%&.bin", "plain"):
        begun = {objects.begin_upload(bucket, key) for _ in range(2)}
        objects.begin_upload(bucket, f"{key}-of-another-name")
        assert set(objects.uploads(bucket, key)) == begun
        for upload in objects.uploads(bucket, key):
            objects.abort_upload(bucket, key, upload)
        assert objects.uploads(bucket, key) == ()


def test_an_upload_with_a_part_missing_goes_on(world: World, objects: Objects, bucket: str) -> None:
    upload = objects.begin_upload(bucket, "big/file")
    send_part(world, objects, bucket, upload, 1, b"content")
    there = objects.parts(bucket, "big/file", upload)
    wanted = (*there, Part(2, 5, "0" * 32))
    assert (
        reason_of(lambda: objects.complete_upload(bucket, "big/file", upload, wanted)) == "UploadIncomplete"
    )
    assert objects.stat(bucket, "big/file") is None
    objects.complete_upload(bucket, "big/file", upload, there)
    assert read(objects, bucket, "big/file") == b"content"


def test_an_aborted_upload_leaves_nothing(world: World, objects: Objects, bucket: str) -> None:
    upload = objects.begin_upload(bucket, "big/file")
    send_part(world, objects, bucket, upload, 1, b"content")
    objects.abort_upload(bucket, "big/file", upload)
    objects.abort_upload(bucket, "big/file", upload)
    assert reason_of(lambda: objects.parts(bucket, "big/file", upload)) == "UploadMissing"
    assert keys(objects, bucket) == []


def test_more_parts_than_one_answer_lists(world: World, objects: Objects, bucket: str) -> None:
    upload = objects.begin_upload(bucket, "big/file")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: send_part(world, objects, bucket, upload, n, b"x"), range(1, 1102)))
    found = objects.parts(bucket, "big/file", upload)
    assert [part.number for part in found] == list(range(1, 1102))
    objects.abort_upload(bucket, "big/file", upload)


# --- links ----------------------------------------------------------------------------------------------------------


def test_links_carry_bytes_both_ways(world: World, objects: Objects, bucket: str) -> None:
    content = os.urandom(MEBIBYTE)
    assert world.follow("PUT", objects.sign("PUT", bucket, "a/b", 60), content)[0] == 200
    found = objects.stat(bucket, "a/b")
    assert found is not None
    assert (found.size, found.etag) == (MEBIBYTE, hashlib.md5(content).hexdigest())
    assert world.follow("GET", objects.sign("GET", bucket, "a/b", 60)) == (200, content)
    assert world.follow("GET", objects.sign("GET", bucket, "none", 60))[0] == 404


def test_what_the_answer_to_a_link_means_is_told(world: World, objects: Objects, bucket: str) -> None:
    def reason(method: str, url: str) -> str:
        status, body = world.follow(method, url, b"content")
        error = objects.explain(status, body, "cannot do it")
        assert isinstance(error, Stalled)
        assert str(error).startswith("cannot do it: ")
        return error.reason

    assert reason("GET", objects.sign("GET", bucket, "none", 60)) == "ObjectMissing"
    gone = unique("gone")
    assert reason("GET", objects.sign("GET", gone, "a", 60)) == "BucketMissing"
    assert reason("PUT", objects.sign("PUT", gone, "a", 60)) == "BucketMissing"
    link = objects.sign("GET", bucket, "a", 60)
    assert reason("GET", link[:-1] + ("0" if link[-1] != "0" else "1")) == "StorageDenied"
    assert objects.explain(502, b"<html>bad gateway</html>", "x").reason == "StorageUnreachable"


def test_a_link_is_good_for_one_thing(world: World, objects: Objects, bucket: str) -> None:
    put(objects, bucket, "a/b")
    put(objects, bucket, "a/c", b"other")
    link = objects.sign("GET", bucket, "a/b", 60)
    middle = link.index("ature=") + 20
    tampered = (
        link.replace("/a/b", "/a/c"),
        link.replace(bucket, bucket + "x"),
        link.replace("Expires=", "Expires=9"),
        link[:middle] + ("0" if link[middle] != "0" else "1") + link[middle + 1 :],
    )
    assert all(changed != link for changed in tampered)
    assert [world.follow("GET", changed)[0] for changed in tampered] == [403] * len(tampered)
    assert world.follow("PUT", link, b"written")[0] == 403
    assert world.follow("GET", link) == (200, b"content")


def test_a_link_ends(world: World, objects: Objects, bucket: str) -> None:
    put(objects, bucket, "a")
    link = objects.sign("GET", bucket, "a", 1)
    wait_for(lambda: world.follow("GET", link)[0] == 403)


def test_a_link_of_a_removed_account_is_good_for_nothing(
    world: World, bucket: str, objects: Objects, account: StorageAccount
) -> None:
    put(objects, bucket, "a")
    link = world.objects(account.name).sign("GET", bucket, "a", 60)
    assert world.follow("GET", link)[0] == 200
    world.admin().remove_account(account.name)
    assert world.follow("GET", link)[0] == 403


# --- accounts and quotas --------------------------------------------------------------------------------------------


def test_an_account_reaches_just_its_buckets(
    world: World, bucket: str, objects: Objects, account: StorageAccount
) -> None:
    theirs = world.objects(account.name)
    other = f"t.{unique('other')}.box"
    objects.create_bucket(other)
    put(objects, other, "a")
    put(theirs, bucket, "a")
    put(theirs, bucket, "b/c")
    assert theirs.ping()
    assert theirs.buckets() == {bucket}
    assert keys(theirs, bucket) == ["a", "b/c"]
    assert read(theirs, bucket, "a") == b"content"
    upload = theirs.begin_upload(bucket, "big/file")
    send_part(world, theirs, bucket, upload, 1, b"part")
    theirs.complete_upload(bucket, "big/file", upload, theirs.parts(bucket, "big/file", upload))
    theirs.abort_upload(bucket, "x", theirs.begin_upload(bucket, "x"))
    theirs.remove(bucket, ["a"])
    theirs.remove(bucket, ["b/c", "big/file"])
    assert objects.page(bucket).objects == ()
    forbidden: tuple[Callable[[], object], ...] = (
        lambda: theirs.page(other),
        lambda: theirs.stat(other, "a"),
        lambda: read(theirs, other, "a"),
        lambda: put(theirs, other, "b"),
        lambda: theirs.remove(other, ["a"]),
        lambda: theirs.remove(other, ["a", "b"]),
        lambda: theirs.begin_upload(other, "b"),
        lambda: theirs.create_bucket(f"t.{unique('third')}.box"),
        lambda: theirs.remove_bucket(bucket),
    )
    assert [reason_of(call) for call in forbidden] == ["StorageDenied"] * len(forbidden)
    assert world.follow("GET", theirs.sign("GET", other, "a", 60))[0] == 403
    assert keys(objects, other) == ["a"]
    objects.remove_bucket(other)


def test_an_account_is_brought_to_what_is_asked(
    world: World, bucket: str, objects: Objects, account: StorageAccount
) -> None:
    admin, theirs = world.admin(), world.objects(account.name)
    put(theirs, bucket, "a")
    admin.ensure_account(account)
    admin.ensure_account(StorageAccount(account.name, SECRET, (AccountGrant(bucket, write=False),)))
    assert read(theirs, bucket, "a") == b"content"
    assert reason_of(lambda: put(theirs, bucket, "a")) == "StorageDenied"
    assert reason_of(lambda: theirs.remove(bucket, ["a"])) == "StorageDenied"
    admin.ensure_account(StorageAccount(account.name, SECRET))
    assert reason_of(lambda: read(theirs, bucket, "a")) == "StorageDenied"
    renewed = Secret("another-secret-of-it")
    admin.ensure_account(StorageAccount(account.name, renewed, account.grants))
    assert reason_of(lambda: read(theirs, bucket, "a")) == "StorageDenied"
    assert reason_of(theirs.ping) == "StorageDenied"
    assert read(world.objects(account.name, renewed), bucket, "a") == b"content"


def test_a_grant_may_be_a_pattern_that_later_buckets_match(world: World, objects: Objects) -> None:
    instance = unique("inst")
    web = StorageAccount(f"{instance}-web", SECRET, (AccountGrant(f"{instance}.*"),))
    world.admin().ensure_account(web)
    later, other = f"{instance}.app.box", f"{instance}x.app.box"
    for name in (later, other):
        objects.create_bucket(name)
    put(world.objects(web.name), later, "a")
    assert world.objects(web.name).buckets() == {later}
    assert reason_of(lambda: put(world.objects(web.name), other, "a")) == "StorageDenied"
    for name in (later, other):
        objects.remove_bucket(name)
    world.admin().remove_account(web.name)


def test_accounts_come_and_go(world: World, account: StorageAccount) -> None:
    admin = world.admin()
    assert account.name in admin.accounts()
    admin.remove_account(account.name)
    admin.remove_account(account.name)
    assert account.name not in admin.accounts()
    assert reason_of(world.objects(account.name).ping) == "StorageDenied"


def test_a_quota_may_be_set_and_changed_anywhere(world: World, objects: Objects, bucket: str) -> None:
    world.admin().set_quota(bucket, 10 * MEBIBYTE)
    world.admin().set_quota(bucket, 20 * MEBIBYTE)
    put(objects, bucket, "a")
    assert keys(objects, bucket) == ["a"]


# --- faults ---------------------------------------------------------------------------------------------------------


def test_a_storage_that_is_down(fragile: World) -> None:
    objects, admin = fragile.objects(), fragile.admin()
    objects.create_bucket("t.app.box")
    put(objects, "t.app.box", "a")
    fragile.kill()
    calls: tuple[Callable[[], object], ...] = (
        objects.ping,
        objects.buckets,
        lambda: objects.create_bucket("t.app.other"),
        lambda: objects.remove_bucket("t.app.box"),
        lambda: objects.stat("t.app.box", "a"),
        lambda: objects.page("t.app.box"),
        lambda: read(objects, "t.app.box", "a"),
        lambda: put(objects, "t.app.box", "b"),
        lambda: objects.remove("t.app.box", ["a"]),
        lambda: objects.remove("t.app.box", ["a", "b"]),
        lambda: objects.begin_upload("t.app.box", "b"),
        lambda: objects.parts("t.app.box", "b", "upload"),
        lambda: objects.complete_upload("t.app.box", "b", "upload", (Part(1, 1, "0" * 32),)),
        lambda: objects.abort_upload("t.app.box", "b", "upload"),
        admin.accounts,
        lambda: admin.ensure_account(StorageAccount("somebody", SECRET)),
        lambda: admin.remove_account("somebody"),
        lambda: admin.set_quota("t.app.box", MEBIBYTE),
    )
    assert [reason_of(call) for call in calls] == ["StorageUnreachable"] * len(calls)
    assert "t.app.box" in objects.sign("GET", "t.app.box", "a", 60)
    fragile.start()
    assert read(objects, "t.app.box", "a") == b"content"


def test_accounts_outlive_a_kill(fragile: World) -> None:
    objects = fragile.objects()
    objects.create_bucket("t.app.box")
    fragile.admin().ensure_account(StorageAccount("somebody", SECRET, (AccountGrant("t.*"),)))
    fragile.kill()
    fragile.start()
    wait_for(fragile.admin().accounts)
    put(fragile.objects("somebody"), "t.app.box", "a")


def test_a_storage_that_does_not_answer_is_not_awaited_for_long(fragile: World) -> None:
    objects = fragile.objects()
    with fragile.frozen():
        assert reason_of(objects.ping) == "StorageUnreachable"
    assert objects.ping()


class Midway(io.BytesIO):
    """Content that lets something happen when half of it has been read."""

    def __init__(self, content: bytes, happens: Callable[[], None]) -> None:
        super().__init__(content)
        self._half = len(content) // 2
        self._happens = happens

    def read(self, size: int | None = -1) -> bytes:
        before = self.tell()
        piece = super().read(size)
        if before < self._half <= self.tell():
            self._happens()
        return piece


def test_a_server_killed_during_an_upload_tears_nothing(fragile: World) -> None:
    objects = fragile.objects()
    objects.create_bucket("t.app.box")
    old, new = os.urandom(MEBIBYTE), os.urandom(16 * MEBIBYTE)
    put(objects, "t.app.box", "replaced", old)

    def interrupted(key: str) -> None:
        objects.put("t.app.box", key, Midway(new, fragile.kill), len(new))

    for key in ("replaced", "new"):
        assert reason_of(partial(interrupted, key)) == "StorageUnreachable"
        fragile.start()
    assert read(objects, "t.app.box", "replaced") == old
    assert objects.stat("t.app.box", "new") is None
    assert keys(objects, "t.app.box") == ["replaced"]
    put(objects, "t.app.box", "new", new)
    assert read(objects, "t.app.box", "new") == new


def test_a_server_killed_during_a_download_is_no_short_file(fragile: World) -> None:
    objects = fragile.objects()
    objects.create_bucket("t.app.box")
    put(objects, "t.app.box", "a", os.urandom(64 * MEBIBYTE))

    def interrupted() -> None:
        with objects.open("t.app.box", "a") as pieces:
            for number, _ in enumerate(pieces):
                if number == 0:
                    fragile.kill()

    assert reason_of(interrupted) == "StorageUnreachable"


def test_a_reader_may_leave_early(objects: Objects, bucket: str) -> None:
    put(objects, bucket, "a", os.urandom(8 * MEBIBYTE))
    for _ in range(40):  # more than there are connections
        with objects.open(bucket, "a") as pieces:
            assert next(pieces)


# --- a full disk ----------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 96 MiB, in memory."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def suppress_unreachable() -> Iterator[None]:
    """MinIO breaks off the upload that fills its disk; only from the next one on it says why."""
    try:
        yield
    except Transient as error:
        if error.reason != "StorageUnreachable":
            raise


@pytest.mark.parametrize("kind", SERVERS)
def test_a_full_disk(tmp_path: Path, kind: str) -> None:
    disk = nullcontext(tmp_path) if kind == "fake" else small_disk(tmp_path / "disk")
    with disk as folder, a_world(kind, folder) as world:
        objects = world.objects()
        objects.create_bucket("t.app.box")
        content = os.urandom(4 * MEBIBYTE)
        stored: list[str] = []

        def fill() -> None:
            for number in range(100):
                with suppress_unreachable():
                    put(objects, "t.app.box", f"f/{number}", content)
                    stored.append(f"f/{number}")
                if isinstance(world, FakeWorld):
                    world.server.full = number == 3

        assert reason_of(fill) == "StorageFull"
        assert stored
        assert sorted(keys(objects, "t.app.box")) == sorted(stored)
        assert all(read(objects, "t.app.box", key) == content for key in stored)
