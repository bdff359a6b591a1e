"""The files API over a real store and objects in memory: every rule of paths, areas, links and room."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from controller.config import Settings
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.file_index import under_way
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import cancel, new_run
from controller.domain.storage.box import BoxRecord, BoxState, ObjectPage, PendingUpload
from controller.domain.storage.keys import user_area
from controller.domain.units import rfc3339
from controller.store import SqliteStore
from controller.web.api.files.area import MAX_PUT, MAX_REMOVED
from controller.web.app import create_app
from controller.web.storage import StorageClient
from tests.support.fake_objects import FakeObjects
from tests.support.files import BOX, BUCKET, CAPACITY, Files
from tests.support.gateway import APP
from tests.support.specs import make

ANN = user_area("ann")


@pytest.fixture
def files(store: SqliteStore, settings: Settings, storage: StorageClient, objects: FakeObjects) -> Files:
    return Files(create_app(store, settings, storage).test_client(), store, objects)


def key_of(url: str) -> str:
    """The key that a link leads to."""
    _, bucket, key = unquote(urlsplit(url).path).split("/", 2)
    assert bucket == BUCKET
    return key


def kind(document: dict[str, Any]) -> str:
    return str(document["type"]).removeprefix("urn:prichal:problem:")


# --- boxes --------------------------------------------------------------------------------------------------------


def test_boxes_with_their_room(files: Files) -> None:
    files.store.boxes.measured(BUCKET, 300, 2, time.time(), [])
    files.ask("PUT", "data/g/new", size=50)
    kept = BoxRecord(APP, ComponentName("old"), "prichal.demo.old", 10, state=BoxState.KEPT)
    files.store.boxes.save(kept)
    answer = files.ask("GET", "").json
    expected = {"name": "data", "capacity": CAPACITY, "used": 300, "pending": 50, "files": 2}
    assert answer == {"boxes": [expected]}, "a box that no manifest declares is not shown"


@pytest.mark.parametrize("state", [BoxState.KEPT, BoxState.DELETING])
def test_a_box_that_is_not_declared_is_not_found(files: Files, state: BoxState) -> None:
    files.store.boxes.save(BoxRecord(APP, ComponentName("old"), "prichal.demo.old", 10, state=state))
    for path in ("old/g/f", "old/g/", "none/g/f", "none", "DATA/g/f", "-"):
        for method in ("GET", "DELETE"):
            assert "has no box" in files.problem(404, method, path)["detail"]
    files.problem(404, "PUT", "old/g/f")


def test_what_no_gateway_handed_over_is_a_bug_and_answers_nothing(files: Files) -> None:
    files.given("g/f")
    assert files.client.get("/files/data/g/f").status_code == 500


# --- links --------------------------------------------------------------------------------------------------------


def test_a_link_to_upload(files: Files) -> None:
    before = time.time()
    response = files.ask("PUT", "data/photos/cat.png", size=5)
    assert response.status_code == 200
    assert set(response.json) == {"presigned_put_url", "expires"}
    assert key_of(response.json["presigned_put_url"]) == "users/ann/file_groups/photos/cat.png"
    expires = datetime.fromisoformat(response.json["expires"]).timestamp()
    assert before + 899 <= expires <= time.time() + 900
    [pending] = files.store.boxes.pending(BUCKET)
    assert (pending.key, pending.size, pending.upload) == (ANN + "photos/cat.png", 5, "")


def test_a_link_to_download(files: Files) -> None:
    files.given("photos/cat.png", content=b"meow!")
    answer = files.ask("GET", "data/photos/cat.png").json
    assert set(answer) == {"presigned_get_url", "expires", "size", "etag", "modified"}
    assert key_of(answer["presigned_get_url"]) == ANN + "photos/cat.png"
    assert (answer["size"], answer["etag"]) == (5, files.objects.stat(BUCKET, ANN + "photos/cat.png").etag)  # type: ignore[union-attr]
    assert files.ask("HEAD", "data/photos/cat.png").status_code == 200


def test_a_file_that_is_not_there(files: Files) -> None:
    for method in ("GET", "DELETE"):
        assert "no file photos/cat.png" in files.problem(404, method, "data/photos/cat.png")["detail"]
    assert files.store.boxes.pending(BUCKET) == ()


NAMES = ["two words", "файл 🐈.bin", "a+b", "100%", "%41", "a#b?c&d=e;f", "'\"<>|*:", "..a", "...", "-", "é"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_people_s_own(files: Files, name: str) -> None:
    link = files.ask("PUT", f"data/{name}/{name}", size=1).json["presigned_put_url"]
    assert key_of(link) == f"{ANN}{name}/{name}"
    files.given(f"{name}/{name}")
    assert key_of(files.ask("GET", f"data/{name}/{name}").json["presigned_get_url"]) == f"{ANN}{name}/{name}"
    assert name in files.ask("GET", "data").json["groups"]
    assert [f["name"] for f in files.ask("GET", f"data/{name}").json["files"]] == [name]
    assert files.ask("DELETE", f"data/{name}/{name}").status_code == 204
    assert files.keys() == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("g/" + "x" * 256, "255 bytes"),
        ("ä" * 128 + "/f", "255 bytes"),
        ("/".join(["x" * 99] * 9) + "/xx", "900 bytes"),
    ],
)
def test_what_nothing_can_be_called(files: Files, path: str, why: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE"):
        document = files.problem(400, method, f"data/{path}")
        assert kind(document) == "invalid-path"
        assert why in document["detail"]


def test_a_path_of_900_bytes(files: Files) -> None:
    longest = "/".join(["x" * 99] * 8) + "/" + "y" * 100
    assert len(longest) == 900
    assert files.ask("PUT", f"data/{longest}", size=1).status_code == 200
    assert "1024 bytes" in files.problem(400, "PUT", f"data/{longest}", "u" * 200, size=1)["detail"]


def test_a_link_takes_what_s3_takes_in_one_request(files: Files) -> None:
    files.store.boxes.save(BoxRecord(APP, BOX, BUCKET, 10 * MAX_PUT))
    assert files.ask("PUT", "data/g/f", size=MAX_PUT).status_code == 200
    document = files.problem(413, "PUT", "data/g/f", size=MAX_PUT + 1)
    assert document["limit"] == MAX_PUT
    assert "in parts" in document["detail"]


@pytest.mark.parametrize("size", ["-1", "1.5", "x", "", "1e3", "٣", "9" * 30])
def test_a_size_is_a_number(files: Files, size: str) -> None:
    assert kind(files.problem(400, "PUT", "data/g/f", size=size)) == "bad-request"


def test_bytes_that_are_sent_here_are_not_taken_for_an_upload(files: Files) -> None:
    response = files.ask("PUT", "data/g/f", body=b"content", size=7)
    assert response.status_code == 400
    assert "the bytes are PUT there" in json.loads(response.data)["detail"]
    assert files.store.boxes.pending(BUCKET) == ()


# --- methods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["data/photos", "data/photos/", "data/photos/2026/"])
def test_a_group_takes_no_upload(files: Files, path: str) -> None:
    for method in ("PUT", "POST"):
        response = files.ask(method, path, size=1)
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, DELETE, OPTIONS")
    assert "group" in files.problem(405, "PUT", path)["detail"]


@pytest.mark.parametrize("path", ["data", "data/"])
def test_a_box_is_not_deleted_by_a_caller(files: Files, path: str) -> None:
    files.given("g/f")
    for method in ("PUT", "POST", "DELETE"):
        response = files.ask(method, path, size=1)
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert files.keys() == [ANN + "g/f"]


def test_other_methods(files: Files) -> None:
    files.problem(405, "PATCH", "data/g/f")
    files.problem(405, "POST", "")
    assert "?uploads&size=" in files.problem(400, "POST", "data/g/f")["detail"]


# --- areas --------------------------------------------------------------------------------------------------------

PEOPLE = [
    "ann",
    "Ann",
    "ann/../bob",
    "..",
    ".",
    "%61nn",
    "a nn",
    "böb",
    "developer",
    "users",
    "ann@example.org",
    "",
]


def test_nobody_reaches_the_area_of_another(files: Files) -> None:
    keys = {
        user: key_of(files.ask("PUT", "data/g/f", user, size=1).json["presigned_put_url"]) for user in PEOPLE
    }
    assert len(set(keys.values())) == len(PEOPLE)
    for user, key in keys.items():
        assert re.fullmatch(r"users/[^/]+/file_groups/g/f", key), user
        assert "/../" not in key


def test_a_caller_sees_his_own_files_alone(files: Files) -> None:
    files.given("g/mine")
    files.given("g/theirs", area=user_area("bob"))
    files.given("g/anybody's", area=user_area(None))
    files.given("g/model", area="developer/")
    for user, names in (("ann", ["mine"]), ("bob", ["theirs"]), ("", ["anybody's"]), ("eve", [])):
        assert [f["name"] for f in files.ask("GET", "data/g", user).json["files"]] == names
        assert [f["name"] for f in files.ask("GET", "data", user, recursive=1).json["files"]] == [
            f"g/{name}" for name in names
        ]
    files.problem(404, "GET", "data/g/theirs")
    files.problem(404, "DELETE", "data/g/theirs")
    assert files.ask("DELETE", "data/g", "eve").json == {"deleted": 0, "more": False}
    assert len(files.keys()) == 4


def test_the_developer_area(files: Files) -> None:
    link = files.ask("PUT", "data/resnet/model.onnx", "dev", area="developer", size=1).json
    assert key_of(link["presigned_put_url"]) == "developer/resnet/model.onnx"
    files.given("resnet/model.onnx", area="developer/")
    assert files.ask("GET", "data/resnet/model.onnx", "dev", area="developer").status_code == 200
    files.problem(404, "GET", "data/resnet/model.onnx", "dev")
    assert files.ask("GET", "data", "dev", area="developer").json["groups"] == ["resnet"]
    assert files.ask("DELETE", "data/resnet", "dev", area="developer").json["deleted"] == 1


@pytest.mark.parametrize("user", ["ann", "", "Dev", "developer"])
def test_the_developer_area_is_for_developers(files: Files, user: str) -> None:
    files.given("g/model", area="developer/")
    for method, path in (
        ("GET", "data/g/model"),
        ("GET", "data"),
        ("PUT", "data/g/x"),
        ("DELETE", "data/g/model"),
    ):
        assert kind(files.problem(403, method, path, user, area="developer")) == "not-a-developer"
    assert files.keys() == ["developer/g/model"]


def test_nobody_without_a_name_is_a_developer(files: Files) -> None:
    files.developers = ("", "dev")
    files.problem(403, "GET", "data", "", area="developer")


def test_there_are_no_other_areas(files: Files) -> None:
    for area in ("users", "users/bob", "", "../bob", "Developer"):
        assert kind(files.problem(400, "GET", "data", "dev", area=area)) == "bad-request"


# --- listings -----------------------------------------------------------------------------------------------------


def test_a_group_is_listed_with_its_groups(files: Files) -> None:
    files.given("photos/b.png", "photos/a.png", "photos/2026/may/c.png", "other/d", "photoshop/e")
    listing = files.ask("GET", "data/photos").json
    assert [f["name"] for f in listing["files"]] == ["a.png", "b.png"]
    assert (listing["groups"], listing["next"]) == (["2026"], None)
    first = listing["files"][0]
    stored = files.objects.stat(BUCKET, ANN + "photos/a.png")
    assert stored is not None
    assert (first["size"], first["etag"]) == (7, stored.etag)
    assert first["modified"] == rfc3339(stored.modified)
    assert files.ask("GET", "data/photos/").json == listing
    assert files.ask("GET", "data").json["groups"] == ["other", "photos", "photoshop"]
    deep = files.ask("GET", "data/photos", recursive=1).json
    assert [f["name"] for f in deep["files"]] == ["2026/may/c.png", "a.png", "b.png"]
    assert deep["groups"] == []


def test_a_group_that_is_not_there_is_empty(files: Files) -> None:
    assert files.ask("GET", "data/none/at/all/").json == {"files": [], "groups": [], "next": None}


@pytest.mark.parametrize("recursive", [0, 1])
def test_pages_follow_one_another(files: Files, recursive: int) -> None:
    names = [f"f{number:02}" for number in range(7)] + [f"g{number}/x" for number in range(4)]
    files.given(*(f"many/{name}" for name in names))
    seen: list[str] = []
    after: str | None = ""
    pages = 0
    while after is not None:
        query: dict[str, Any] = {"after": after} if after else {}
        page = files.ask("GET", "data/many", limit=3, recursive=recursive, **query).json
        assert len(page["files"]) + len(page["groups"]) <= 3
        seen += [f["name"] for f in page["files"]] + page["groups"]
        after, pages = page["next"], pages + 1
    assert seen == names if recursive else [name.removesuffix("/x") for name in names]
    assert pages == 4


def test_a_cursor_leads_nowhere_else(files: Files) -> None:
    files.given("g/mine")
    files.given("g/theirs", area=user_area("bob"))
    for after in ("../../../bob/file_groups/g/", "..", "a/../..", "/", "//", "a//b", "\0", "x" * 1100):
        assert "after" in files.problem(400, "GET", "data/g", after=after, recursive=1)["detail"]
    for after in ("!", "$", "\U0010ffff", "...", "a\\b", "a/"):
        names = [f["name"] for f in files.ask("GET", "data/g", after=after, recursive=1).json["files"]]
        assert names in ([], ["mine"])


def test_marks_of_empty_folders_are_no_files(files: Files) -> None:
    files.given("g/", "g/f", "g/empty/", content=b"")
    assert [f["name"] for f in files.ask("GET", "data/g").json["files"]] == ["f"]
    assert [f["name"] for f in files.ask("GET", "data/g", recursive=1).json["files"]] == ["f"]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x"])
def test_limits_of_a_page(files: Files, limit: str) -> None:
    assert "1 to 1000" in files.problem(400, "GET", "data/g", limit=limit)["detail"]


# --- one name, one thing ------------------------------------------------------------------------------------------


def test_no_path_is_both_file_and_group(files: Files) -> None:
    files.given("g/a", "g/b/c/d")
    for path, why in (
        ("g/a/b", "g/a is a file"),
        ("g/a/b/c", "g/a is a file"),
        ("g/b", "g/b is a group"),
        ("g/b/c", "g/b/c is a group"),
    ):
        for method, query in (("PUT", {}), ("POST", {"uploads": ""})):
            document = files.problem(409, method, f"data/{path}", size=1, **query)
            assert (kind(document), why in document["detail"]) == ("path-conflict", True)
    assert files.store.boxes.pending(BUCKET) == (), "no room is kept for what is refused"
    for path in ("g/a", "g/ab", "g/b/c/d", "g/b/c/e", "g/b/cc", "h/a/b"):
        assert files.ask("PUT", f"data/{path}", size=1).status_code == 200


class Counting(FakeObjects):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def stat(self, bucket: str, key: str) -> Any:
        self.asked.append(f"stat {key}")
        return super().stat(bucket, key)

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000, folders: bool = False
    ) -> ObjectPage:
        self.asked.append(f"page {prefix} {limit}")
        return super().page(bucket, prefix, after, limit, folders)


def serve(
    store: SqliteStore,
    settings: Settings,
    objects: FakeObjects,
    given: Callable[[Files], None] = lambda files: None,
) -> Files:
    client = StorageClient(store, lambda access: objects)
    files = Files(create_app(store, settings, client).test_client(), store, objects)
    given(files)
    return files


@pytest.mark.usefixtures("storage")
def test_the_storage_is_asked_as_little_as_possible(store: SqliteStore, settings: Settings) -> None:
    objects = Counting()
    files = serve(store, settings, objects)
    files.ask("PUT", "data/g/f", size=1)
    assert objects.asked == [f"page {ANN}g/f/ 1"], "one segment is never a file"
    objects.asked.clear()
    files.ask("PUT", "data/g/a/b/f", size=1)
    assert sorted(objects.asked) == [f"page {ANN}g/a/b/f/ 1", f"stat {ANN}g/a", f"stat {ANN}g/a/b"]


@pytest.mark.usefixtures("storage")
def test_no_link_is_given_that_would_lead_to_another_program(store: SqliteStore, settings: Settings) -> None:
    objects = FakeObjects()
    client = StorageClient(store, lambda access: objects, serves_links=False)
    application = create_app(store, settings, client).test_client()
    files = Files(application, store, objects)
    files.objects.put(BUCKET, f"{ANN}g/f", BytesIO(b"x"), 1)
    for method, path in (("GET", "data/g/f"), ("PUT", "data/g/new")):
        document = files.problem(503, method, path)
        assert (kind(document), "operator" in document["detail"]) == ("storage-unreachable", True)
    assert store.boxes.pending() == ()
    assert [entry["name"] for entry in files.ask("GET", "data/g/").json["files"]] == ["f"]
    checks = application.get("/-/status").get_json()["checks"]
    assert settings.storage.listen in checks["links"]


# --- room ---------------------------------------------------------------------------------------------------------


def test_a_box_that_is_full(files: Files) -> None:
    files.store.boxes.measured(BUCKET, CAPACITY - 100, 1, time.time(), [])
    assert files.ask("PUT", "data/g/a", size=60).status_code == 200
    document = files.problem(507, "PUT", "data/g/b", size=41)
    numbers = {"capacity": CAPACITY, "used": CAPACITY - 100, "pending": 60, "free": 40, "size": 41}
    assert kind(document) == "box-full"
    assert {name: document[name] for name in numbers} == numbers
    assert files.ask("PUT", "data/g/b", size=40).status_code == 200
    assert files.problem(507, "PUT", "data/g/c")["free"] == 0, "not even without a size"


def test_an_upload_that_is_asked_for_twice_keeps_room_once(files: Files) -> None:
    for size in (10, 30, 20):
        files.ask("PUT", "data/g/a", size=size)
    assert files.store.boxes.usage(BUCKET, time.time()).pending == 30, "the larger one may be stored by now"


def test_what_is_deleted_makes_room_at_once(files: Files) -> None:
    files.ask("PUT", "data/g/a", size=CAPACITY)
    files.given("g/a")
    files.problem(507, "PUT", "data/g/b", size=1)
    before = changed(files)
    assert files.ask("DELETE", "data/g/a").status_code == 204
    assert changed(files) > before, "the box is to be measured again"
    assert files.ask("PUT", "data/g/b", size=CAPACITY).status_code == 200


def changed(files: Files) -> float:
    record = files.store.boxes.get(APP, BOX)
    assert record is not None
    return record.changed


def test_the_room_of_others_stays_kept(files: Files) -> None:
    files.ask("PUT", "data/g/a", size=5)
    files.ask("PUT", "data/g/b", size=7)
    files.ask("PUT", "data/g/a", "bob", size=11)
    files.given("g/a")
    files.ask("DELETE", "data/g/a")
    assert [p.size for p in files.store.boxes.pending(BUCKET)] == [7, 11]


# --- deleting -----------------------------------------------------------------------------------------------------


def test_a_group_is_deleted_with_all_below(files: Files) -> None:
    files.given("g/a", "g/b/c", "g/b/d/e", "gg/f", "other/g")
    before = changed(files)
    assert files.ask("DELETE", "data/g/b/").json == {"deleted": 2, "more": False}
    assert files.ask("DELETE", "data/g").json == {"deleted": 1, "more": False}
    assert files.ask("DELETE", "data/g").json == {"deleted": 0, "more": False}
    assert files.keys() == [ANN + "gg/f", ANN + "other/g"]
    assert changed(files) > before


def test_a_large_group_is_deleted_in_several_requests(files: Files) -> None:
    count = MAX_REMOVED + 1500
    files.given(*(f"g/{number:06}" for number in range(count)), content=b"")
    files.given("h/f")
    assert files.ask("DELETE", "data/g").json == {"deleted": MAX_REMOVED, "more": True}
    assert files.ask("DELETE", "data/g").json == {"deleted": 1500, "more": False}
    assert files.keys() == [ANN + "h/f"]


# --- trouble ------------------------------------------------------------------------------------------------------


class Troubled(FakeObjects):
    """Fails at everything that needs the storage."""

    def __init__(self, error: ControllerError) -> None:
        super().__init__()
        self.error = error

    def stat(self, bucket: str, key: str) -> Any:
        raise self.error

    def page(self, *_: Any, **__: Any) -> Any:
        raise self.error

    def remove(self, *_: Any) -> None:
        raise self.error


@pytest.mark.usefixtures("storage")
@pytest.mark.parametrize(
    ("error", "status", "slug", "retry"),
    [
        (
            Transient(Reason.STORAGE_UNREACHABLE, "connection to 10.0.0.9 refused"),
            503,
            "storage-unreachable",
            True,
        ),
        (Transient(Reason.STORAGE_FULL, "no space on 10.0.0.9"), 507, "storage-full", False),
        (Stalled(Reason.BUCKET_MISSING, "no bucket on 10.0.0.9"), 503, "bucket-missing", True),
        (Stalled(Reason.STORAGE_DENIED, "denied by 10.0.0.9"), 503, "storage-refused", True),
        (Stalled(Reason.STORAGE_REFUSED, "refused by 10.0.0.9"), 503, "storage-refused", True),
        (Transient(Reason.STATE_BUSY, "database of 10.0.0.9"), 503, "store-busy", True),
    ],
)
def test_a_storage_in_trouble(
    store: SqliteStore, settings: Settings, error: ControllerError, status: int, slug: str, retry: bool
) -> None:
    files = serve(store, settings, Troubled(error))
    for method, path in (("GET", "data/g/f"), ("GET", "data/g"), ("PUT", "data/g/f"), ("DELETE", "data/g")):
        response = files.ask(method, path, size=1)
        document = json.loads(response.data)
        assert (response.status_code, kind(document)) == (status, slug)
        assert ("Retry-After" in response.headers) is retry
        assert "10.0.0.9" not in response.text, "what the platform is made of is not told"
    assert store.boxes.pending(BUCKET) == ()
    queued = store.requests.queued(APP)
    assert (queued is not None and queued.reasons == ("drift",)) is (error.reason == "BucketMissing")


@pytest.mark.usefixtures("storage")
def test_a_storage_that_denies_is_for_the_operator_to_see(
    store: SqliteStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    files = serve(store, settings, Troubled(Stalled(Reason.STORAGE_DENIED, "AccessDenied for account web")))
    files.ask("GET", "data/g")
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "AccessDenied" in record.getMessage()


def test_a_storage_that_nobody_has_made_known(store: SqliteStore, settings: Settings) -> None:
    files = serve(store, settings, FakeObjects())
    assert kind(files.problem(503, "GET", "data/g")) == "storage-unreachable"
    assert files.ask("GET", "").status_code == 200, "boxes are known without it"


# --- descriptions -------------------------------------------------------------------------------------------------


def test_the_page_for_people(files: Files) -> None:
    response = files.ask("GET", "-/docs")
    assert response.status_code == 200
    page = response.text
    for shown in (
        "Files at /demo/files",
        "/demo/files/{box}/{file}",
        "presigned_put_url",
        "data",
        "List a group",
    ):
        assert shown in page
    assert "<script" not in page
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert not re.search(r"(src|href)=.https?://", page), "nothing is loaded from elsewhere"


def test_a_box_may_be_called_docs(files: Files) -> None:
    files.store.boxes.save(BoxRecord(APP, ComponentName("docs"), BUCKET + "2", 10))
    files.objects.create_bucket(BUCKET + "2")
    assert files.ask("GET", "docs").json == {"files": [], "groups": [], "next": None}


def test_an_upload_in_parts_keeps_its_room_when_the_file_of_its_name_is_deleted(files: Files) -> None:
    files.given("g/a")
    pending = PendingUpload(0, BUCKET, ANN + "g/a", 99, time.time(), time.time() + 900, upload="u-1")
    files.store.boxes.reserve(pending, time.time())
    assert files.ask("DELETE", "data/g/a").status_code == 204
    assert files.store.boxes.usage(BUCKET, time.time()).pending == 99


# --- groups that a run publishes into -----------------------------------------------------------------------------

RUN = "19c0a7f3e2d5b1f04a6"
WITHIN = [
    ("PUT", "data/out/x"),
    ("PUT", "data/out/deep/x"),
    ("GET", "data/out/"),
    ("GET", "data/out/a"),
    ("GET", "data/out/deep/"),
    ("DELETE", "data/out/a"),
    ("DELETE", "data/out/"),
    ("DELETE", "data/out/deep/"),
]
BESIDE = [
    ("PUT", "data/other/x"),
    ("PUT", "data/outer/x"),
    ("GET", "data/other/"),
    ("GET", "data/"),
    ("GET", "data/other/a"),
    ("DELETE", "data/other/a"),
]


@pytest.fixture
def publishing(files: Files) -> Files:
    """A run is amidst publishing into Ann's group `out/`."""
    for name in ("out/a", "out/deep/b", "other/a"):
        files.given(name)
    stage = make(Stage, "fit", "sha256:1", outputs=("model",))
    pipeline = make(Pipeline, APP, ComponentName("train"), "c0ffee", (stage,), boxes=(ComponentName("data"),))
    files.store.runs.submit(new_run(RUN, pipeline, 1.0, "ann"))
    now = time.time()
    files.store.boxes.reserve(PendingUpload(0, BUCKET, under_way(f"{ANN}out/", RUN), 10, now, now + 100), now)
    return files


@pytest.mark.parametrize(("method", "path"), WITHIN)
def test_nobody_else_writes_there_or_sees_half_of_it(publishing: Files, method: str, path: str) -> None:
    problem = publishing.problem(409, method, path)
    assert (kind(problem), problem["run"]) == ("group-publishing", RUN)
    assert RUN in problem["detail"]
    assert problem["retryAfter"] > 0


@pytest.mark.parametrize(("method", "path"), BESIDE)
def test_what_lies_beside_it_is_as_ever(publishing: Files, method: str, path: str) -> None:
    assert publishing.ask(method, path).status_code in (200, 204)


def test_nor_is_an_upload_in_parts_begun_there(publishing: Files) -> None:
    assert kind(publishing.problem(409, "POST", "data/out/x", uploads="", size=10)) == "group-publishing"


def test_what_is_around_it_is_shown_without_it(publishing: Files) -> None:
    found = publishing.ask("GET", "data/", recursive="true").json["files"]
    assert [file["name"] for file in found] == ["other/a"]


@pytest.mark.parametrize(("method", "path"), WITHIN)
def test_a_publication_that_a_dead_daemon_has_left_ends_with_its_run(
    publishing: Files, method: str, path: str
) -> None:
    run = publishing.store.runs.get(APP, RUN)
    assert run
    publishing.store.runs.save(cancel(run, 2.0))
    assert publishing.ask(method, path).status_code in (200, 201, 204, 404)


def test_others_have_their_own_groups_of_that_name(publishing: Files) -> None:
    publishing.objects.put(BUCKET, f"{user_area('bob')}out/a", BytesIO(b"x"), 1)
    assert publishing.ask("GET", "data/out/", "bob").status_code == 200
