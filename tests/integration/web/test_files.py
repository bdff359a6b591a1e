"""The files API through a real gunicorn, and its links against real storages: the embedded one and MinIO."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from controller.adapters.objects import S3Objects
from controller.domain.names import ComponentName
from controller.domain.routing.passwords import hash_password, hash_token
from controller.domain.storage.box import BoxRecord, StorageAccess
from controller.domain.storage.keys import user_area
from tests.support.gateway import APP, make_service
from tests.support.serve_web import objects_address, settings_of, with_web
from tests.support.storage_servers import (
    EmbeddedServer,
    StorageServer,
    embedded_server,
    minio_binary,
    minio_server,
)
from tests.support.stores import open_store
from tests.support.waiting import wait_for

from .conftest import Reply, Web, echo, serving

BOX = ComponentName("data")
BUCKET = "prichal.demo.data"
CAPACITY = 10**9
MEBIBYTE = 2**20

ANN = "Basic " + base64.b64encode(b"ann:s3cret").decode()
BOB = "Bearer bobs-token"
DEV = "Bearer devs-token"
SERVERS = {"embedded": embedded_server, "minio": minio_server}


@dataclass
class Files:
    """The API as callers use it; `server` is where the links lead."""

    web: Web
    server: StorageServer
    objects: S3Objects

    def ask(self, method: str, path: str, query: str = "", who: str = ANN, **headers: str) -> Reply:
        """`path` is what comes after `/demo/files/`, not escaped yet."""
        target = f"/demo/files/{quote(path)}" + (f"?{query}" if query else "")
        credentials = {"Authorization": who} if who else {}
        return self.web.ask(method, target, None, **credentials, **headers)

    def put(self, path: str, content: bytes, query: str = "", who: str = ANN) -> Reply:
        """Both steps of an upload."""
        reply = self.ask("PUT", path, f"size={len(content)}&{query}", who)
        assert reply.status == 200, reply.body
        return send("PUT", reply.json["presigned_put_url"], content)

    def get(self, path: str, query: str = "", who: str = ANN) -> bytes:
        reply = self.ask("GET", path, query, who)
        assert reply.status == 200, reply.body
        found = send("GET", reply.json["presigned_get_url"])
        assert (found.status, len(found.body)) == (200, reply.json["size"])
        return found.body

    def given(self, *keys: str) -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda key: self.objects.put(BUCKET, key, io.BytesIO(b"x"), 1), keys))

    def grow(self, used: int) -> None:
        """As if the daemon had just measured the box; uploads that were allowed before have arrived."""
        pending = [upload.id for upload in self.web.store.boxes.pending(BUCKET)]
        self.web.store.boxes.measured(BUCKET, used, 1, time.time(), pending)


def send(method: str, url: str, content: bytes | None = None) -> Reply:
    """To the storage itself, as any HTTP client does it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", content)
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def raw_request(line: str, *fields: str, host: str = "a") -> bytes:
    """The head of a request, just as it is given."""
    lines = [f"{line} HTTP/1.1", f"Host: {host}", "Connection: close", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def kind(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/problem+json"
    return str(reply.json["type"]).removeprefix("urn:prichal:problem:")


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StorageServer]:
    if request.param == "minio" and minio_binary() is None:
        pytest.skip("no minio: `make minio` builds it")
    with SERVERS[request.param](tmp_path_factory.mktemp("storage")) as running:
        yield running


def access(server: StorageServer, state: Path) -> StorageAccess:
    return StorageAccess(server.url, f"http://{objects_address(state)}", server.access_key, server.secret_key)


@pytest.fixture(scope="module")
def module_files(server: StorageServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    state: Path = tmp_path_factory.mktemp("state")
    backend = "embedded" if isinstance(server, EmbeddedServer) else "s3"
    with_web(state, backend=backend)
    users = (("ann", hash_password("s3cret", "salt")),)
    tokens = (("bob", hash_token("bobs-token")), ("dev", hash_token("devs-token")))
    with (
        closing(open_store(settings_of(state).database)) as store,
        closing(server.objects()) as objects,
        echo("none") as component,
    ):
        store.routes.publish(APP, (make_service(developers=("dev",), users=users, tokens=tokens),))
        store.boxes.record_access(access(server, state))
        with serving(state, store, component) as web:
            yield Files(web, server, objects)


@pytest.fixture
def files(module_files: Files) -> Files:
    """With an empty box."""
    files = module_files
    files.web.store.boxes.record_access(access(files.server, files.web.state))
    files.objects.remove_bucket(BUCKET)
    files.objects.create_bucket(BUCKET)
    files.web.store.boxes.save(BoxRecord(APP, BOX, BUCKET, CAPACITY))
    files.grow(0)
    return files


# --- bytes through links ------------------------------------------------------------------------------------------

LONG = "/".join(["ä" * 49 + "x"] * 8) + "/" + "y" * 100

NAMES = [
    "plain",
    "two words",
    "файл 🐈.bin",
    "a+b",
    "100%",
    "%41%2F",
    "a#b?c&d=e;f",
    "'\"<>|*:$@!",
    "..a",
    "...",
    "~",
    "e\u0301",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_goes_in_comes_out(files: Files, name: str) -> None:
    content = os.urandom(1000)
    path = f"data/{name} group/{name}"
    assert files.put(path, content).status == 200
    assert files.get(path) == content
    [found] = files.ask("GET", f"data/{name} group/").json["files"]
    assert (found["name"], found["size"]) == (name, 1000)
    assert found["etag"] == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert files.ask("GET", "data").json["groups"] == [f"{name} group"]
    assert [f["name"] for f in files.ask("GET", "data", "recursive=1").json["files"]] == [
        f"{name} group/{name}"
    ]
    assert files.objects.stat(BUCKET, user_area("ann") + path.removeprefix("data/")) is not None
    assert files.ask("DELETE", path).status == 204
    assert files.ask("GET", path).status == 404


def test_a_path_of_900_bytes(files: Files) -> None:
    assert len(LONG.encode()) == 900
    assert files.put(f"data/{LONG}", b"far away").status == 200
    assert files.get(f"data/{LONG}") == b"far away"
    assert kind(files.ask("PUT", f"data/{LONG}y", "size=1")) == "invalid-path"


def test_an_empty_file(files: Files) -> None:
    assert files.put("data/g/empty", b"").status == 200
    assert files.get("data/g/empty") == b""


@pytest.mark.parametrize(
    "path",
    [
        "data/../../x",
        "data/g/../../../bob/file_groups/g/f",
        "data/g/..",
        "data/g/%2e%2e/f",
        "data/g/%2e./f",
        "data/g%2F..%2Ff",
        "data%2F..%2Fdata/g/f",
        "data/g%2F%2Ff",
        "data/g/..%2ff",
        "data/g/..%5cf",
        "data/g/..\\f",
        "data//g/f",
        "data/g//f",
        "data/g/f%00",
        "data/g/f%0a",
        "data/g/%FF",
        "data/g/%c0%ae%c0%ae/f",
        "data/g/%",
        "%2e%2e/files/data/g/f",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(files: Files, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        reply = files.web.ask(method, f"/demo/files/{path}", None, Authorization=ANN)
        assert (reply.status, kind(reply)) == (400, "ambiguous-path")


CURSORS = [
    *NAMES,
    "a/",
    "a/b/",
    "a\\b",
    "g/../",
    "../../",
    "..",
    "/",
    "a//b",
    ".",
    " .. ",
    "\0",
    "\n",
    "\x85",
    "\ufffe",
]
CURSORS += ["\U0010ffff", "x" * 900, "x/" * 400, "x" * 1100, "\u202e", " ", "!", "a/ ./b", ".. /"]


def test_no_cursor_makes_the_storage_fail(files: Files) -> None:
    """What the storage would choke on is the caller's fault, and is refused before it is asked."""
    assert files.put("data/g/f", b"x").status == 200
    for recursive in ("0", "1"):
        for group in ("data/g/", "data"):
            for after in CURSORS:
                reply = files.ask("GET", group, f"recursive={recursive}&after={quote(after)}")
                assert reply.status in (200, 400), (after, reply.body)


def test_a_query_that_is_not_ascii_is_no_harm(files: Files) -> None:
    answer = files.web.raw(raw_request("GET /demo/files/data?after=\xff", f"Authorization: {ANN}"))
    assert answer.split()[1] in (b"200", b"400")


# --- links and nothing else ---------------------------------------------------------------------------------------


def test_a_link_is_good_for_what_it_is_given_for(files: Files) -> None:
    files.put("data/g/f", b"mine")
    files.put("data/g/f", b"bob's", who=BOB)
    get = files.ask("GET", "data/g/f").json["presigned_get_url"]
    put = files.ask("PUT", "data/g/f", "size=4").json["presigned_put_url"]
    assert "X-Amz-Expires=900" in get
    assert "X-Amz-Expires=900" in put
    signature = get.rpartition("X-Amz-Signature=")[2]
    for method, url in (
        ("PUT", get),
        ("DELETE", get),
        ("GET", put),
        ("GET", get.replace("/ann/", "/bob/")),
        ("GET", get.replace("/g/f?", "/g/other?")),
        ("GET", get.replace(BUCKET, "prichal.other.data")),
        ("GET", get.replace("X-Amz-Expires=900", "X-Amz-Expires=90000")),
        ("GET", get.replace(signature, "0" * 64)),
        ("GET", get.partition("?")[0]),
        ("PUT", put.replace("/ann/", "/bob/")),
        ("PUT", put.partition("?")[0]),
    ):
        assert send(method, url, b"evil" if method == "PUT" else None).status == 403, (method, url)
    assert (files.get("data/g/f"), files.get("data/g/f", who=BOB)) == (b"mine", b"bob's")


def test_a_link_expires(files: Files) -> None:
    files.put("data/g/f", b"mine")
    link = files.objects.sign("GET", BUCKET, user_area("ann") + "g/f", lifetime=1)
    wait_for(lambda: send("GET", link).status, lambda status: status == 403)


# --- who ----------------------------------------------------------------------------------------------------------


def test_each_caller_has_an_area_of_his_own(files: Files) -> None:
    files.put("data/g/f", b"ann's")
    files.put("data/g/f", b"bob's", who=BOB)
    assert (files.get("data/g/f"), files.get("data/g/f", who=BOB)) == (b"ann's", b"bob's")
    assert files.ask("DELETE", "data/g", who=BOB).json == {"deleted": 1, "more": False}
    assert files.ask("GET", "data/g/f", who=BOB).status == 404
    assert files.get("data/g/f") == b"ann's"


SPOOFS = {
    "X_Forwarded_User": "bob",
    "X_Remote_User": "bob",
    "Remote_User": "bob",
    "X_Prichal_User": "bob",
    "Prichal.Call": "bob",
    "UNIP_USER": "bob",
    "Asgi.Scope": "bob",
}


def test_nobody_can_claim_to_be_another(files: Files) -> None:
    files.put("data/g/f", b"bob's", who=BOB)
    assert files.ask("GET", "data/g/f", **SPOOFS).status == 404
    assert files.ask("GET", "data/g/f", "user=bob&area=users/bob", **SPOOFS).status == 400
    assert files.ask("GET", "data", "area=developer", **SPOOFS).status == 403
    for field in ("REMOTE_USER: bob", "X_FORWARDED_USER: bob", "asgi.scope: bob", "prichal.call: bob"):
        answer = files.web.raw(raw_request("GET /demo/files/data/g/f", f"Authorization: {ANN}", field))
        assert answer.split()[1] in (b"400", b"404")


def test_credentials_are_checked_as_for_components(files: Files) -> None:
    files.put("data/g/f", b"mine")
    wrong = "Basic " + base64.b64encode(b"ann:wrong").decode()
    for who in ("", wrong, "Bearer nope"):
        for method, path in (
            ("GET", "data/g/f"),
            ("PUT", "data/g/f"),
            ("DELETE", "data/g"),
            ("GET", "openapi.json"),
        ):
            reply = files.ask(method, path, who=who)
            assert (reply.status, kind(reply)) == (401, "unauthorized")
            assert reply.headers["www-authenticate"].startswith('Basic realm="/demo/files"')
    assert files.get("data/g/f") == b"mine"


def test_a_service_that_nobody_published(files: Files) -> None:
    assert files.web.ask("GET", "/other/files/data").status == 404
    for path in ("/files/data/g/f", "/files/", "/demo/file", "/-/files/data", "/pipelines/"):
        assert files.web.ask("GET", path, None, Authorization=ANN).status == 404


def test_an_api_that_is_open_to_all_has_one_area(files: Files) -> None:
    store = files.web.store
    closed = store.routes.services(APP)
    store.routes.publish(APP, (make_service(developers=("dev",)),))
    try:
        wait_for(lambda: files.ask("GET", "data", who="").status == 200)
        assert files.put("data/g/f", b"anybody's", who="").status == 200
        assert files.get("data/g/f", who=ANN) == b"anybody's", (
            "credentials that nobody asks for change nothing"
        )
        assert files.ask("GET", "data", "area=developer", who=DEV).status == 403
        [key] = [found.key for found in files.objects.page(BUCKET).objects]
        assert key == user_area(None) + "g/f"
        store.routes.publish(APP, (make_service(published=False),))
        wait_for(lambda: files.ask("GET", "data", who="").status == 404)
    finally:
        store.routes.publish(APP, closed)
        wait_for(lambda: files.ask("GET", "data", who="").status == 401)


def test_the_developer_area(files: Files) -> None:
    assert files.put("data/resnet/model.onnx", b"weights", "area=developer", DEV).status == 200
    assert files.get("data/resnet/model.onnx", "area=developer", DEV) == b"weights"
    assert files.ask("GET", "data/resnet/model.onnx", who=DEV).status == 404
    for who in (ANN, BOB):
        assert kind(files.ask("GET", "data/resnet/model.onnx", "area=developer", who)) == "not-a-developer"
    [key] = [found.key for found in files.objects.page(BUCKET).objects]
    assert key == "developer/resnet/model.onnx"


# --- room and names -----------------------------------------------------------------------------------------------


def test_no_path_is_both_file_and_group(files: Files) -> None:
    files.put("data/g/a", b"file")
    files.put("data/g/b/c", b"file")
    for path in ("g/a/b", "g/a/b/c/d", "g/b"):
        for method, query in (("PUT", "size=1"), ("POST", "uploads&size=1")):
            reply = files.ask(method, f"data/{path}", query)
            assert (reply.status, kind(reply)) == (409, "path-conflict")
    assert files.put("data/g/a", b"another").status == 200
    assert files.ask("DELETE", "data/g/a").status == 204
    assert files.put("data/g/a/b", b"file").status == 200


def test_a_full_box_says_its_numbers(files: Files) -> None:
    files.grow(CAPACITY - 10)
    reply = files.ask("PUT", "data/g/f", "size=11")
    assert (reply.status, kind(reply)) == (507, "box-full")
    numbers = {"capacity": CAPACITY, "used": CAPACITY - 10, "pending": 0, "free": 10, "size": 11}
    assert {name: reply.json[name] for name in numbers} == numbers
    assert kind(files.ask("POST", "data/g/f", "uploads&size=11")) == "box-full"
    assert files.put("data/g/f", b"x" * 10).status == 200


def test_many_uploads_at_once_are_promised_no_more_than_there_is(files: Files) -> None:
    files.grow(CAPACITY - 100)

    def ask(number: int) -> int:
        return files.ask("PUT", f"data/g/{number}", "size=10").status

    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(ask, range(40)))
    assert sorted(statuses) == [200] * 10 + [507] * 30


def test_of_two_uploads_of_one_file_one_wins_whole(files: Files) -> None:
    contents = [bytes([number]) * 3 * MEBIBYTE for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda content: files.put("data/g/f", content), contents))
    assert 200 in {reply.status for reply in replies}
    assert files.get("data/g/f") in contents


def test_an_upload_that_breaks_off_leaves_what_was_there(files: Files) -> None:
    files.put("data/g/f", b"before")
    break_off(files.ask("PUT", "data/g/f", "size=1000000").json["presigned_put_url"], b"x" * MEBIBYTE)
    assert files.get("data/g/f") == b"before"


def test_a_large_group_is_listed_in_pages_and_deleted(files: Files) -> None:
    names = sorted(f"f{number:04}" for number in range(1200))
    files.given(*(f"{user_area('ann')}many/{name}" for name in names))
    seen: list[str] = []
    page: dict[str, Any] = {}
    query = "limit=500"
    for count in (500, 500, 200):
        page = files.ask("GET", "data/many", query).json
        assert len(page["files"]) == count
        seen += [found["name"] for found in page["files"]]
        query = f"limit=500&after={quote(page['next'] or '', safe='')}"
    assert seen == names
    assert page["next"] is None
    assert files.ask("DELETE", "data/many/").json == {"deleted": 1200, "more": False}
    assert files.ask("GET", "data/many/").json == {"files": [], "groups": [], "next": None}


# --- uploads in parts ---------------------------------------------------------------------------------------------


def test_an_upload_in_parts_is_resumed_and_completed(files: Files) -> None:
    content = os.urandom(17 * MEBIBYTE)
    begun = files.ask("POST", "data/g/large", f"uploads&size={len(content)}")
    assert begun.status == 201
    upload, step = quote(begun.json["upload"], safe=""), begun.json["partSize"]
    assert (step, begun.json["parts"]) == (16 * MEBIBYTE, 2)

    def link(part: int) -> str:
        reply = files.ask("PUT", "data/g/large", f"upload={upload}&part={part}")
        assert reply.status == 200
        return str(reply.json["presigned_put_url"])

    assert send("PUT", link(2), content[step:]).status == 200
    break_off(link(1), content[:step])
    arrived = files.ask("GET", "data/g/large", f"upload={upload}").json
    assert [(part["number"], part["size"]) for part in arrived["parts"]] == [(2, MEBIBYTE)]
    early = files.ask("POST", "data/g/large", f"upload={upload}")
    assert (early.status, kind(early), early.json["missing"]) == (409, "upload-incomplete", [1])
    assert files.ask("GET", "data/g/large").status == 404
    assert send("PUT", link(1), content[:step]).status == 200
    done = files.ask("POST", "data/g/large", f"upload={upload}")
    assert (done.status, done.json["name"], done.json["size"]) == (200, "g/large", len(content))
    assert files.get("data/g/large") == content
    again = files.ask("POST", "data/g/large", f"upload={upload}")
    assert (again.status, again.json) == (200, done.json), "the answer may have been lost"


def break_off(url: str, content: bytes) -> None:
    """The connection ends in the middle of the body."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as sock:
        length = f"Content-Length: {len(content)}"
        head = raw_request(f"PUT {parts.path}?{parts.query}", length, host=parts.netloc)
        sock.sendall(head + content[: len(content) // 2])


def test_an_upload_in_parts_is_given_up(files: Files) -> None:
    begun = files.ask("POST", "data/g/large", f"uploads&size={MEBIBYTE}").json
    query = f"upload={quote(begun['upload'], safe='')}"
    url = files.ask("PUT", "data/g/large", query + "&part=1").json["presigned_put_url"]
    assert send("PUT", url, b"x" * MEBIBYTE).status == 200
    for path, who in (("data/g/large", BOB), ("data/g/other", ANN)):
        assert files.ask("GET", path, query, who).status == 404
        assert files.ask("PUT", path, query + "&part=1", who).status == 404
        assert files.ask("POST", path, query, who).status == 404
        assert files.ask("DELETE", path, query, who).status == 404
    assert files.ask("DELETE", "data/g/large", query).status == 204
    for method, more in (("GET", ""), ("PUT", "&part=1"), ("POST", ""), ("DELETE", "")):
        assert files.ask(method, "data/g/large", query + more).status == 404
    assert send("PUT", url, b"x").status == 404, "the storage has forgotten it as well"
    assert files.web.store.boxes.pending(BUCKET) == ()


# --- trouble ------------------------------------------------------------------------------------------------------


def test_a_storage_that_is_down_and_comes_back(files: Files) -> None:
    files.put("data/g/f", b"before")
    files.server.kill()
    try:
        for method, path in (
            ("GET", "data/g/f"),
            ("GET", "data/g"),
            ("PUT", "data/g/f"),
            ("DELETE", "data/g"),
        ):
            reply = files.ask(method, path, "size=1")
            assert (reply.status, kind(reply)) == (503, "storage-unreachable")
            assert int(reply.headers["retry-after"]) > 0
        assert files.ask("GET", "").status == 200
    finally:
        files.server.start()
    assert files.get("data/g/f") == b"before"
    assert files.put("data/g/f", b"after").status == 200


def test_a_bucket_that_was_deleted_by_hand_is_asked_for(files: Files) -> None:
    files.objects.remove_bucket(BUCKET)
    reply = files.ask("PUT", "data/g/f", "size=1")
    assert (reply.status, kind(reply)) == (503, "bucket-missing")
    queued = files.web.store.requests.queued(APP)
    assert queued is not None
    assert queued.reasons == ("drift",)
    files.objects.create_bucket(BUCKET)
    assert files.put("data/g/f", b"x").status == 200


def test_a_storage_that_hangs_holds_up_nothing_else(files: Files) -> None:
    """More calls than there are threads wait for it; and the daemon records another storage meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(40) as threads:
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        told = access(files.server, files.web.state)
        files.web.store.boxes.record_access(
            StorageAccess(silent_url, silent_url, told.access_key, told.secret_key)
        )
        waiting = [threads.submit(files.ask, "GET", "data/g") for _ in range(40)]
        silent.accept()[0].close()
        for path in ("/-/healthz", "/-/readyz", "/-/healthz"):
            assert files.web.ask("GET", path).status in (200, 503)
        assert not all(call.done() for call in waiting)
        silent.close()
        assert {call.result().status for call in waiting} <= {200, 503}
        files.web.store.boxes.record_access(told)
        assert files.ask("GET", "data/g").status == 200


# --- descriptions -------------------------------------------------------------------------------------------------


def test_the_descriptions(files: Files) -> None:
    document: dict[str, Any] = json.loads(files.ask("GET", "openapi.json").body)
    assert document["servers"] == [{"url": "/demo/files"}]
    page = files.ask("GET", "-/docs")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"Files at /demo/files" in page.body
