"""Uploads in parts: the arithmetic of parts, and what becomes of an upload, over a real store and objects in memory."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config import Settings
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.storage.box import BoxRecord, Part, StoredObject
from controller.domain.storage.keys import user_area
from controller.store import SqliteStore
from controller.web.api.files import area
from controller.web.api.files.uploads import MAX_FILE, MAX_PARTS, MIN_PART, absent, part_count, part_size
from controller.web.app import create_app
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.files import BOX, BUCKET, CAPACITY, Files
from tests.support.gateway import APP

#: Together they take seconds.
pytestmark = pytest.mark.slow

SIZE = MIN_PART + 1000
KEY = user_area("ann") + "g/large"

#: What can be done with an upload that has begun: methods and their queries.
USES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("GET", {}),
    ("PUT", {"part": 1}),
    ("POST", {}),
    ("DELETE", {}),
)


@pytest.fixture
def files(store: SqliteStore, settings: Settings, storage: StorageClient, objects: FakeObjects) -> Files:
    return Files(create_app(store, settings, storage).test_client(), store, objects)


@given(st.integers(1, MAX_FILE))
def test_parts_stay_within_the_limits_of_s3(size: int) -> None:
    step, count = part_size(size), part_count(size)
    assert MIN_PART <= step <= 5 * 2**30
    assert 1 <= count <= MAX_PARTS
    assert step * (count - 1) < size <= step * count


@given(st.integers(1, 200 * MIN_PART), st.data())
def test_what_is_absent_is_what_is_lacking(size: int, data: st.DataObject) -> None:
    step, count = part_size(size), part_count(size)
    whole = [Part(n, min(step, size - step * (n - 1)), "etag") for n in range(1, count + 1)]
    assert absent(size, whole) == []
    lost = data.draw(st.sampled_from(whole))
    assert absent(size, [part for part in whole if part is not lost]) == [lost.number]
    cut = [Part(p.number, p.size - 1, p.etag) if p is lost else p for p in whole]
    assert absent(size, cut) == [lost.number]


def begin(files: Files, path: str = "data/g/large", size: int = SIZE) -> str:
    response = files.ask("POST", path, uploads="", size=size)
    assert response.status_code == 201, response.text
    return str(response.json["upload"])


def send_part(files: Files, upload: str, number: int, content: bytes) -> None:
    """The link is asked for; the fake storage is sent the part as what is in its place does it."""
    response = files.ask("PUT", "data/g/large", upload=upload, part=number)
    assert isinstance(files.objects, FakeObjects)
    query = dict(parse_qsl(urlsplit(response.json["presigned_put_url"]).query))
    assert (query["uploadId"], query["partNumber"]) == (upload, str(number))
    named = {name: query[name] for name in ("uploadId", "partNumber")}
    link = files.objects.sign("PUT", BUCKET, user_area("ann") + "g/large", 60, named)
    assert files.objects.follow("PUT", link, content) == (200, b"")


def pending(files: Files) -> list[int]:
    return [upload.size for upload in files.store.boxes.pending(BUCKET)]


def test_from_begin_to_end(files: Files, settings: Settings) -> None:
    before = time.time()
    begun = files.ask("POST", "data/g/large", uploads="", size=SIZE).json
    assert begun == {"upload": begun["upload"], "partSize": MIN_PART, "parts": 2}
    kept = files.store.boxes.upload(BUCKET, begun["upload"])
    assert kept is not None
    assert (kept.key, kept.size) == (KEY, SIZE)
    assert kept.expires >= before + settings.storage.abandon_after
    send_part(files, begun["upload"], 2, b"b" * 1000)
    send_part(files, begun["upload"], 1, b"a" * MIN_PART)
    arrived = files.ask("GET", "data/g/large", upload=begun["upload"]).json
    assert (arrived["size"], arrived["partSize"]) == (SIZE, MIN_PART)
    assert [(part["number"], part["size"]) for part in arrived["parts"]] == [(1, MIN_PART), (2, 1000)]
    done = files.ask("POST", "data/g/large", upload=begun["upload"])
    stored = files.objects.stat(BUCKET, KEY)
    assert stored is not None
    assert (done.status_code, done.json) == (200, {"name": "g/large", "size": SIZE, "etag": stored.etag})
    assert stored.etag.endswith("-2")
    assert pending(files) == [SIZE], "its room is kept until it was counted"
    record = files.store.boxes.get(APP, BOX)
    assert record is not None
    assert record.changed >= before


def test_many_links_for_uploads(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that keep no room, too: each is a row of the database."""
    monkeypatch.setattr(area, "MAX_AWAITED", 3)
    for number in range(2):
        assert files.ask("PUT", f"data/g/{number}", size=0).status_code == 200
    begin(files, size=5)
    for refused in (
        files.ask("PUT", "data/g/new", size=0),
        files.ask("POST", "data/g/parts", uploads="", size=5),
    ):
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
        assert refused.json["type"] == "urn:prichal:problem:too-many-uploads"
    assert files.ask("PUT", "data/g/0", size=7).status_code == 200, "another link for the same file"
    assert len(pending(files)) == 3
    assert isinstance(files.objects, FakeObjects)
    assert len(files.objects.server.uploads) == 1, "nothing is left of the one that was refused"


def test_completing_twice_answers_the_same(files: Files) -> None:
    upload = begin(files, size=5)
    send_part(files, upload, 1, b"whole")
    first = files.ask("POST", "data/g/large", upload=upload)
    again = files.ask("POST", "data/g/large", upload=upload)
    assert (again.status_code, again.json) == (200, first.json)


def test_another_file_is_not_taken_for_the_completed_one(files: Files) -> None:
    upload = begin(files, size=5)
    files.objects.abort_upload(BUCKET, KEY, upload)
    files.problem(404, "POST", "data/g/large", upload=upload)
    files.given("g/large", content=b"another one")
    files.problem(404, "POST", "data/g/large", upload=upload)


def test_what_is_missing_is_told(files: Files) -> None:
    upload = begin(files, size=3 * MIN_PART)
    send_part(files, upload, 2, b"b" * MIN_PART)
    send_part(files, upload, 3, b"c" * 7)
    document = files.problem(409, "POST", "data/g/large", upload=upload)
    assert document["type"].endswith(":upload-incomplete")
    assert (document["size"], document["missing"]) == (3 * MIN_PART, [1, 3])
    assert files.objects.stat(BUCKET, KEY) is None


def test_of_many_missing_parts_the_first_are_told(files: Files) -> None:
    files.store.boxes.save(BoxRecord(APP, BOX, BUCKET, 10**12))
    upload = begin(files, size=500 * MIN_PART)
    assert files.problem(409, "POST", "data/g/large", upload=upload)["missing"] == list(range(1, 101))


def test_other_parts_will_do_if_they_add_up(files: Files) -> None:
    size = 12 * 2**20
    upload = begin(files, size=size)
    for number in (1, 2):
        send_part(files, upload, number, b"x" * (size // 2))
    assert files.ask("POST", "data/g/large", upload=upload).json["size"] == size


def test_parts_that_the_storage_does_not_take(files: Files) -> None:
    upload = begin(files, size=2000)
    for number in (1, 2):
        send_part(files, upload, number, b"x" * 1000)
    document = files.problem(409, "POST", "data/g/large", upload=upload)
    assert "too small" in document["detail"]


def test_the_name_may_have_become_a_group_meanwhile(files: Files) -> None:
    upload = begin(files, size=5)
    send_part(files, upload, 1, b"whole")
    files.given("g/large/file")
    assert files.problem(409, "POST", "data/g/large", upload=upload)["type"].endswith(":path-conflict")
    files.objects.remove(BUCKET, [KEY + "/file"])
    assert files.ask("POST", "data/g/large", upload=upload).status_code == 200


def test_an_upload_that_does_not_fit_is_not_begun(files: Files, objects: FakeObjects) -> None:
    document = files.problem(507, "POST", "data/g/large", uploads="", size=CAPACITY + 1)
    assert (document["free"], document["size"]) == (CAPACITY, CAPACITY + 1)
    assert objects.server.uploads == {}


class LosesTheRace(FakeObjects):
    """While an upload begins, another one takes the room."""

    store: SqliteStore

    def begin_upload(self, bucket: str, key: str) -> str:
        self.store.boxes.measured(BUCKET, CAPACITY, 1, time.time(), [])
        return super().begin_upload(bucket, key)


@pytest.mark.usefixtures("storage")
def test_an_upload_that_loses_the_race_for_room_leaves_nothing(
    store: SqliteStore, settings: Settings
) -> None:
    objects = LosesTheRace()
    objects.store = store
    client = StorageClient(store, lambda access: objects)
    files = Files(create_app(store, settings, client).test_client(), store, objects)
    assert files.problem(507, "POST", "data/g/large", uploads="", size=5)["free"] == 0
    assert (objects.server.uploads, pending(files)) == ({}, [])
    client.close()


@pytest.mark.parametrize("size", ["0", "", "x", str(MAX_FILE + 1)])
def test_the_size_of_an_upload(files: Files, size: str) -> None:
    assert "size" in files.problem(400, "POST", "data/g/large", uploads="", size=size)["detail"]


def test_an_upload_needs_a_size(files: Files) -> None:
    assert "size is missing" in files.problem(400, "POST", "data/g/large", uploads="")["detail"]


@pytest.mark.parametrize("part", ["0", "10001", "", "x", "-1"])
def test_numbers_of_parts(files: Files, part: str) -> None:
    upload = begin(files)
    assert "1 to 10000" in files.problem(400, "PUT", "data/g/large", upload=upload, part=part)["detail"]
    assert "part is missing" in files.problem(400, "PUT", "data/g/large", upload=upload)["detail"]


def test_an_upload_is_given_up(files: Files, objects: FakeObjects) -> None:
    upload = begin(files)
    send_part(files, upload, 1, b"x")
    assert files.ask("DELETE", "data/g/large", upload=upload).status_code == 204
    assert (objects.server.uploads, pending(files)) == ({}, [])
    for method, query in USES:
        files.problem(404, method, "data/g/large", upload=upload, **query)


def test_an_upload_belongs_to_one_file_of_one_caller(files: Files) -> None:
    upload = begin(files)
    for path, user in (("data/g/large", "bob"), ("data/g/other", "ann"), ("data/g/large", "")):
        for method, query in USES:
            files.problem(404, method, path, user, upload=upload, **query)
    for unknown in ("", "nothing", "../" + upload):
        files.problem(404, "GET", "data/g/large", upload=unknown)
    assert pending(files) == [SIZE]


def test_the_storage_may_have_removed_an_upload(files: Files) -> None:
    upload = begin(files)
    files.objects.abort_upload(BUCKET, KEY, upload)
    for method in ("GET", "POST"):
        assert "Begin a new one" in files.problem(404, method, "data/g/large", upload=upload)["detail"]


class Refusing(FakeObjects):
    def complete_upload(self, *_: Any) -> StoredObject:
        raise Stalled(Reason.STORAGE_DENIED, "no")


@pytest.mark.usefixtures("storage")
def test_other_errors_stay_what_they_are(store: SqliteStore, settings: Settings) -> None:
    client = StorageClient(store, lambda access: objects)
    objects = Refusing()
    files = Files(create_app(store, settings, client).test_client(), store, objects)
    upload = begin(files, size=1)
    send_part(files, upload, 1, b"x")
    response = files.ask("POST", "data/g/large", upload=upload)
    assert (response.status_code, json.loads(response.data)["type"]) == (
        503,
        "urn:prichal:problem:storage-refused",
    )
    client.close()
