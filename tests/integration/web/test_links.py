"""What a link opens: one method on one object, and nothing else of the storage, whatever is sent with it. Through a
real gunicorn to real storages: the embedded one and MinIO. Each attack is tried, then it is looked whether the other
app's object and the box are as before."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import md5
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit

import pytest

from controller.adapters.objects import S3Objects
from controller.domain.names import AppName
from controller.domain.storage.box import BoxRecord
from controller.domain.storage.keys import user_area
from controller.domain.storage.links import ObjectLink, link_key
from tests.support.publishing import publishing
from tests.support.waiting import wait_for

from .checksums import CHECKSUMS, checksum
from .conftest import Reply
from .test_files import ANN, BOX, BUCKET, CAPACITY, MEBIBYTE, Files, module_files, server  # noqa: F401

OTHERS = "prichal.other.data"
SECRET = b"what another app has stored"
AREA = user_area("ann")


@pytest.fixture
def files(module_files: Files) -> Iterator[Files]:  # noqa: F811
    files = module_files
    files.web.store.boxes.forget(BUCKET)
    for bucket in (BUCKET, OTHERS):
        files.objects.remove_bucket(bucket)
        files.objects.create_bucket(bucket)
    files.objects.put(OTHERS, "developer/secret", io.BytesIO(SECRET), len(SECRET))
    files.web.store.boxes.save(BoxRecord(AppName("demo"), BOX, BUCKET, CAPACITY))
    files.put("data/g/f", b"mine")
    yield files
    assert read(files.objects, OTHERS, "developer/secret") == SECRET
    assert [found.key for found in files.objects.page(OTHERS).objects] == ["developer/secret"]


def read(objects: S3Objects, bucket: str, key: str) -> bytes:
    with objects.open(bucket, key) as pieces:
        return b"".join(pieces)


def ask(
    method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None, target: str = ""
) -> Reply:
    """As it is given: nothing of the target is normalized."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with closing(HTTPConnection(parts.hostname, parts.port, timeout=30)) as connection:
        connection.putrequest(method, target or f"{parts.path}?{parts.query}", skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None and not {"content-length", "transfer-encoding"} & {
            n.lower() for n in headers or {}
        }:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        reply = connection.getresponse()
        return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())


def put_link(files: Files, path: str = "data/g/f", size: int = 0) -> str:
    return str(files.ask("PUT", path, f"size={size}" if size else "").json["presigned_put_url"])


def get_link(files: Files, path: str = "data/g/f") -> str:
    return str(files.ask("GET", path).json["presigned_get_url"])


def part_link(files: Files) -> str:
    upload = files.ask("POST", "data/g/large", f"uploads&size={MEBIBYTE}").json["upload"]
    return str(files.ask("PUT", "data/g/large", f"upload={upload}&part=1").json["presigned_put_url"])


LINKS = {"put": put_link, "part": part_link, "get": get_link}
SOURCE = f"/{OTHERS}/developer/secret"
#: Fields that S3 servers act on: each with a value that would do harm.
ACTED_ON = {
    "x-amz-copy-source": SOURCE,
    "X-Amz-Copy-Source": f"/{BUCKET}/../{OTHERS}/developer/secret",
    "x-amz-copy-source-range": "bytes=0-10",
    "x-amz-copy-source-if-match": "*",
    "x-amz-metadata-directive": "REPLACE",
    "X-Amz-Meta-Snowball-Auto-Extract": "true",
    "x-amz-meta-minio-snowball": "true",
    "x-amz-meta-anything": "1",
    "x-amz-acl": "public-read",
    "x-amz-grant-read": "uri=http://acs.amazonaws.com/groups/global/AllUsers",
    "x-amz-tagging": "a=b",
    "x-amz-tagging-directive": "REPLACE",
    "x-amz-website-redirect-location": "http://example.org/",
    "x-amz-storage-class": "REDUCED_REDUNDANCY",
    "x-amz-server-side-encryption": "AES256",
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-server-side-encryption-customer-key": "a" * 44,
    "x-amz-object-lock-mode": "COMPLIANCE",
    "x-amz-object-lock-legal-hold": "ON",
    "x-amz-bypass-governance-retention": "true",
    "x-amz-expected-bucket-owner": "1",
    "x-amz-request-payer": "requester",
    "x-amz-decoded-content-length": "1",
    "x-amz-trailer": "x-amz-checksum-crc32",
    "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "x-amz-write-offset-bytes": "1",
    "x-amz-mfa": "1",
    "x-amz-nothing-known": "1",
    "x-minio-source-etag": "1",
    "x-minio-source-mtime": "1",
    "x-minio-source-replication-request": "true",
    "x-minio-extract": "true",
    "X-Minio-Force-Delete": "true",
    "x-minio-internal-anything": "1",
    "x_amz_copy_source": SOURCE,
}
#: What does no harm, since it does not pass.
LEFT_OUT = {
    "x-http-method-override": "DELETE",
    "x-method-override": "DELETE",
    "authorization": "Basic YTpi",
    "cookie": "a=b",
    "x-forwarded-host": "example.org",
    "x-forwarded-for": "127.0.0.1",
    "content-disposition": "inline",
    "cache-control": "public",
    "expires": "Thu, 01 Jan 2099 00:00:00 GMT",
    "x-unknown": "1",
    "content-encoding": "gzip",
    "accept-encoding": "gzip",
    "x-amz-date": "20260101T000000Z",
    "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("field", ACTED_ON)
def test_no_field_opens_more(files: Files, kind: str, field: str) -> None:
    link = LINKS[kind](files)
    reply = ask(
        "GET" if kind == "get" else "PUT", link, None if kind == "get" else b"", {field: ACTED_ON[field]}
    )
    assert reply.status == 403, reply.body
    assert SECRET not in reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert files.get("data/g/f") == b"mine", "not emptied either"


@pytest.mark.parametrize("field", LEFT_OUT)
def test_what_is_not_listed_does_not_pass(files: Files, field: str) -> None:
    """The object is as if it had not been sent."""
    fields = {field: LEFT_OUT[field]}
    assert (
        ask("PUT", put_link(files, size=5), b"other", {**fields, "Content-Type": "text/x-own"}).status == 200
    )
    reply = ask("GET", get_link(files), None, fields)
    assert (reply.status, reply.body, reply.headers["content-type"]) == (
        200,
        b"other",
        "text/x-own; charset=utf-8",
    )
    assert not {"content-encoding", "content-disposition", "expires"} & reply.headers.keys()


def test_an_archive_is_a_file_like_others(files: Files) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(f"../{OTHERS}/planted")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"pwned"))
    assert ask("PUT", put_link(files, "data/g/a.tar"), packed.getvalue()).status == 200
    assert files.get("data/g/a.tar") == packed.getvalue()


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "LIST", "PROPFIND"]
)
def test_it_is_good_for_one_method(files: Files, kind: str, method: str) -> None:
    if method == ("GET" if kind == "get" else "PUT"):
        return
    assert ask(method, LINKS[kind](files), b"").status in (400, 403)
    assert files.get("data/g/f") == b"mine"


FORMS = (
    "/../",
    "//",
    "/./",
    "/%2e%2e/",
    "/.%2e/",
    "%2F",
    "/%252e%252e/",
    "%5C",
    "%00",
    "%ff",
    "/..%2f",
    "/%20../",
)


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_path_leads_elsewhere(files: Files, kind: str, form: str) -> None:
    parts = urlsplit(LINKS[kind](files))
    for other in (f"{OTHERS}/developer/secret", ".minio.sys/config/iam/users/prichal-web/identity.json"):
        for path in (
            f"/{BUCKET}{form}{other}",
            f"{parts.path}{form}{other}",
            f"{form}{other}",
            f"/{other}",
            f"http://127.0.0.1/{other}",
        ):
            body = None if kind == "get" else b"pwned"
            reply = ask(
                "GET" if kind == "get" else "PUT", parts.geturl(), body, target=f"{path}?{parts.query}"
            )
            assert reply.status in (400, 403), (path, reply.status, reply.body)


@pytest.mark.parametrize(
    "more",
    [
        "&acl",
        "&tagging=",
        "&uploads",
        "&delete",
        "&policy",
        "&versionId=x",
        "&uploadId=x&partNumber=1",
        "&response-content-type=text/html",
        "&X-Amz-Expires=9",
        "&select&select-type=2",
        "&x",
        "#x",
    ],
)
def test_no_query_opens_more(files: Files, more: str) -> None:
    for method, link in (("PUT", put_link(files)), ("GET", get_link(files))):
        parts = urlsplit(link)
        reply = ask(
            method, link, b"" if method == "PUT" else None, target=f"{parts.path}?{parts.query}{more}"
        )
        assert reply.status in (400, 403)
    assert files.get("data/g/f") == b"mine"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        f"/{BUCKET}",
        f"/{BUCKET}/",
        f"/{BUCKET}/?list-type=2",
        "/minio/admin/v3/info",
        "/minio/health/live",
        "/minio/login",
        "/.minio.sys/",
        "/-/status",
        "*",
        "/?Action=AssumeRole",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_there_is_nothing_without_a_link(files: Files, method: str, path: str) -> None:
    assert ask(method, get_link(files), b"" if method != "GET" else None, target=path or "/").status in (
        400,
        403,
    )


# --- length and room --------------------------------------------------------------------------------------------


def used(files: Files) -> int:
    return sum(found.size for found in files.objects.page(BUCKET).objects)


def test_a_box_holds_what_it_holds_whatever_was_announced(files: Files) -> None:
    """Many links, none with a size, all used at once and again."""
    files.web.store.boxes.save(BoxRecord(AppName("demo"), BOX, BUCKET, 10 * MEBIBYTE))
    links = [put_link(files, f"data/g/{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda link: ask("PUT", link, bytes(4 * MEBIBYTE)), links * 2))
    assert used(files) <= 10 * MEBIBYTE
    assert {reply.status for reply in replies} == {200, 507}


def test_a_full_box_takes_nothing_by_links_of_before(files: Files) -> None:
    announced, silent = put_link(files, "data/g/a", 4), put_link(files, "data/g/b")
    part = part_link(files)
    files.web.store.boxes.measured(BUCKET, CAPACITY + 1, 1, time.time(), [])
    for link in (announced, silent, part):
        reply = ask("PUT", link, b"more")
        assert (reply.status, reply.json["capacity"]) == (507, CAPACITY)
    files.web.store.boxes.measured(BUCKET, 0, 0, time.time(), [])
    for link in (announced, silent, part):
        assert ask("PUT", link, b"more").status == 200


def test_no_more_comes_than_was_announced(files: Files) -> None:
    link = put_link(files, "data/g/new", 4)
    assert ask("PUT", link, b"12345").status == 413
    assert files.ask("GET", "data/g/new").status == 404
    assert ask("PUT", link, b"1234").status == 200
    assert ask("PUT", link, b"123").status == 200, "fewer may come, and again"


def test_parts_have_no_more_than_their_upload(files: Files) -> None:
    upload = files.ask("POST", "data/g/large", f"uploads&size={MEBIBYTE}").json["upload"]
    first, second = (
        str(files.ask("PUT", "data/g/large", f"upload={upload}&part={n}").json["presigned_put_url"])
        for n in (1, 2)
    )
    assert ask("PUT", first, bytes(MEBIBYTE + 1)).status == 413
    assert ask("PUT", first, bytes(MEBIBYTE - 1)).status == 200
    assert ask("PUT", second, b"12").status == 413
    assert ask("PUT", second, b"1").status == 200
    assert ask("PUT", first, bytes(MEBIBYTE - 1)).status == 200, "a part may be sent again"
    assert files.ask("DELETE", "data/g/large", f"upload={upload}").status == 204
    assert ask("PUT", first, b"1").status == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"Transfer-Encoding": "chunked"},
        {"Content-Length": "4", "Transfer-Encoding": "chunked"},
        {"Content-Length": "-4"},
        {"Content-Length": "+4"},
        {"Content-Length": "4, 4"},
        {"Content-Length": "4", "content-length": "5"},
        {"Content-Length": "4", "Content-Encoding": "aws-chunked"},
        {"Transfer-Encoding": "gzip"},
    ],
)
def test_a_length_must_be_one(files: Files, fields: dict[str, str]) -> None:
    reply = ask("PUT", put_link(files), b"4\r\nevil\r\n0\r\n\r\n", fields)
    assert reply.status in (400, 411, 415)
    assert files.get("data/g/f") == b"mine"


def test_a_room_that_was_kept_is_kept_after_a_failure(files: Files) -> None:
    link = put_link(files, "data/g/new", 1000)
    parts = urlsplit(link)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as sock:
        sock.sendall(
            f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc".encode()
        )
    wait_for(
        lambda: [p.size for p in files.web.store.boxes.pending(BUCKET) if p.key.endswith("/new")],
        lambda s: s == [1000],
    )
    assert files.ask("GET", "data/g/new").status == 404
    assert ask("PUT", link, bytes(1000)).status == 200


def test_a_link_of_a_box_that_is_not_declared_any_more(files: Files) -> None:
    link = put_link(files)
    files.web.store.boxes.forget(BUCKET)
    assert ask("PUT", link, b"x").status == 404


# --- what goes on working ---------------------------------------------------------------------------------------


def test_what_s3_s_clients_send_with_links(files: Files) -> None:
    content = os.urandom(3 * MEBIBYTE)
    digest = base64.b64encode(md5(content).digest()).decode()
    wrong = ask("PUT", put_link(files), content[:-1] + b"x", {"Content-MD5": digest})
    assert (wrong.status, wrong.json["code"]) == (400, "BadDigest")
    assert files.get("data/g/f") == b"mine"
    stored = ask("PUT", put_link(files), content, {"Content-MD5": digest, "Content-Type": "text/csv"})
    assert (stored.status, stored.headers["etag"].strip('"')) == (200, md5(content).hexdigest())
    link = get_link(files)
    whole = ask("GET", link)
    assert (whole.body, whole.headers["content-type"]) == (content, "text/csv; charset=utf-8")
    some = ask("GET", link, headers={"Range": "bytes=5-9"})
    assert (some.status, some.body, some.headers["content-range"]) == (
        206,
        content[5:10],
        f"bytes 5-9/{len(content)}",
    )
    etag = whole.headers["etag"]
    assert ask("GET", link, headers={"If-None-Match": etag}).status == 304
    assert ask("GET", link, headers={"If-Match": '"other"'}).status == 412
    assert ask("GET", link, headers={"Range": f"bytes={len(content) + 5}-"}).status == 416


@pytest.mark.parametrize("content", [b"", b"little", bytes(MEBIBYTE)], ids=["empty", "little", "large"])
def test_uploads_with_conditions(files: Files, content: bytes) -> None:
    """What every storage answers, also one that knows no conditions of writes."""
    link = put_link(files, "data/g/new")
    assert ask("PUT", link, content, {"If-Match": "*"}).status in (404, 412)
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: ask("PUT", link, content, {"If-None-Match": "*"}), range(8)))
    assert sorted({reply.status for reply in replies} - {409}) in ([200], [200, 412])
    assert [reply.status for reply in replies].count(200) == 1
    etag = ask("GET", get_link(files, "data/g/new")).headers["etag"]
    for refused in ({"If-None-Match": "*"}, {"If-None-Match": etag}, {"If-Match": '"other"'}):
        reply = ask("PUT", link, b"another", refused)
        assert (reply.status, reply.json["code"]) == (412, "PreconditionFailed")
    assert files.get("data/g/new") == content
    assert ask("PUT", link, b"another", {"If-Match": etag}).status == 200
    assert files.get("data/g/new") == b"another"
    assert not files.web.store.boxes.arriving(BUCKET, "", time.time()), "what was refused keeps no room"


@pytest.mark.parametrize("name", CHECKSUMS)
@pytest.mark.parametrize("kind", ["put", "part"])
def test_checksums_of_the_header_are_compared(files: Files, kind: str, name: str) -> None:
    """Whether the storage does so or not: of much, of little and of nothing."""
    for content in (b"", b"little", os.urandom(400_000)):
        fields = {f"x-amz-checksum-{name}": checksum(name, content)}
        assert ask("PUT", LINKS[kind](files), content, fields).status == 200
        for value, code in ((checksum(name, content + b"x"), "BadDigest"), ("AAAA", "InvalidRequest")):
            wrong = ask("PUT", LINKS[kind](files), content, {f"x-amz-checksum-{name}": value})
            assert (wrong.status, wrong.json["code"]) == (400, code)
        if kind == "put":
            assert files.get("data/g/f") == content
    both = {f"x-amz-checksum-{each}": checksum(each, b"x") for each in ("crc32", "sha1")}
    assert ask("PUT", LINKS[kind](files), b"x", both).status == 400
    assert not files.web.store.boxes.arriving(BUCKET, "", time.time()), "what was refused keeps no room"


@pytest.mark.parametrize(
    ("name", "sent", "expected"),
    [
        ("table.csv", None, "text/csv; charset=utf-8"),
        ("cat.png", "application/octet-stream", "image/png"),
        ("page.html", "application/x-www-form-urlencoded", "text/html; charset=utf-8"),
        ("model.onnx", None, "application/octet-stream"),
        ("table.csv", "text/csv; charset=windows-1251", "text/csv; charset=windows-1251"),
    ],
)
def test_a_file_has_a_type_although_its_upload_had_none(
    files: Files, name: str, sent: str | None, expected: str
) -> None:
    path = f"data/g/{name}"
    fields = {} if sent is None else {"Content-Type": sent}
    assert ask("PUT", put_link(files, path), b"x", fields).status == 200
    reply = ask("GET", get_link(files, path))
    assert reply.headers["content-type"] == expected
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in reply.headers["content-security-policy"]


@pytest.mark.parametrize("also", [{}, {"If-Unmodified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}])
def test_a_part_is_of_the_file_that_the_caller_has_begun_to_read(files: Files, also: dict[str, str]) -> None:
    assert ask("PUT", put_link(files), b"first").status == 200
    etag = ask("GET", get_link(files)).headers["etag"]
    begun = {"Range": "bytes=1-2", "If-Range": etag, **also}
    part = ask("GET", get_link(files), headers=begun)
    assert (part.status, part.body) == ((200, b"first") if also else (206, b"ir"))
    assert ask("PUT", put_link(files), b"other").status == 200
    for condition in (etag, f"W/{etag}", "Fri, 01 Jan 2100 00:00:00 GMT"):
        reply = ask("GET", get_link(files), headers={**begun, "If-Range": condition})
        assert (reply.status, reply.body) == (200, b"other")
        assert "content-range" not in reply.headers


def test_what_is_stored_is_no_page_of_this_host(files: Files) -> None:
    assert ask("PUT", put_link(files), b"<script>", {"Content-Type": "text/html"}).status == 200
    reply = ask("GET", get_link(files))
    assert reply.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert ask("GET", get_link(files), headers={"Service-Worker": "script"}).status == 403


def test_a_browser_saves_what_a_link_says_so_of(files: Files) -> None:
    shown = urlsplit(get_link(files))
    access = files.web.store.boxes.access()
    assert access is not None
    link = ObjectLink("GET", BUCKET, f"{AREA}g/f", int(time.time()), 60, save=True)
    reply = ask("GET", link.url(f"http://{shown.netloc}", link_key(access.secret_key)))
    assert (reply.body, reply.headers["content-disposition"]) == (b"mine", "attachment")
    assert "content-disposition" not in ask("GET", shown.geturl()).headers
    moved = f"{shown.path}?{shown.query}".replace(
        "&X-Amz-Sig", "&response-content-disposition=attachment&X-Amz-Sig"
    )
    assert ask("GET", shown.geturl(), target=moved).status == 403


def test_a_page_of_another_origin_may_use_a_link(files: Files) -> None:
    asked = {"Origin": "https://lab.example.org", "Access-Control-Request-Method": "PUT"}
    preflight = ask("OPTIONS", put_link(files), headers=asked)
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, "*")
    reply = ask("GET", get_link(files), headers={"Origin": "https://lab.example.org"})
    assert reply.headers["access-control-allow-origin"] == "*"


def test_connections_are_kept_and_requests_answered_in_their_order(files: Files) -> None:
    parts = urlsplit(get_link(files))
    assert parts.hostname is not None
    with closing(HTTPConnection(parts.hostname, parts.port, timeout=30)) as connection:
        connection.connect()
        address = connection.sock.getsockname()
        for _ in range(3):
            connection.request("GET", f"{parts.path}?{parts.query}")
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (200, b"mine")
        for content in (b"one", bytes(2 * MEBIBYTE)):
            put = urlsplit(put_link(files))
            connection.request("PUT", f"{put.path}?{put.query}", content)
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (200, b"")
        assert connection.sock.getsockname() == address


def test_who_waits_to_be_told_to_go_on_is_told(files: Files) -> None:
    parts = urlsplit(put_link(files, size=5))
    refused = urlsplit(put_link(files, size=4))
    for target, first in ((parts, b"HTTP/1.1 100 Continue"), (refused, b"HTTP/1.1 413")):
        with socket.create_connection((target.hostname, target.port), timeout=30) as sock:
            fields = "Host: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
            sock.sendall(f"PUT {target.path}?{target.query} HTTP/1.1\r\n{fields}\r\n".encode())
            assert sock.recv(4096).startswith(first)
            if target is parts:
                sock.sendall(b"after")
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    assert files.get("data/g/f") == b"after"


@pytest.mark.parametrize("size", [1, 5, 3 * MEBIBYTE])
def test_what_has_begun_to_come_is_not_stored_where_a_run_publishes(files: Files, size: int) -> None:
    """The last byte decides."""
    target, store, content = urlsplit(put_link(files, size=size)), files.web.store, os.urandom(size)

    def kept() -> list[float]:
        return [p.created for p in store.boxes.pending(BUCKET) if p.key == f"{AREA}g/f"]

    with socket.create_connection((target.hostname, target.port), timeout=30) as sock:
        fields = f"Host: a\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n"
        sock.sendall(f"PUT {target.path}?{target.query} HTTP/1.1\r\n{fields}\r\n".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 Continue"), "it was admitted"
        sock.sendall(content[:-1])
        with publishing(store, AppName("demo"), BUCKET, f"{AREA}g/") as run:
            sock.sendall(content[-1:])
            answer = HTTPResponse(sock)
            answer.begin()
            assert (answer.status, json.loads(answer.read())["run"]) == (409, run)
            assert read(files.objects, BUCKET, f"{AREA}g/f") == b"mine"
    assert kept(), "it may be tried again"
    assert ask("PUT", target.geturl(), content).status == 200
    assert files.get("data/g/f") == content


def test_smuggled_requests_are_not_answered(files: Files) -> None:
    """Bytes behind a request are not the next one before its answer; what cannot be measured ends the connection."""
    link = urlsplit(get_link(files))
    hidden = f"DELETE /{BUCKET}/{AREA}g/f HTTP/1.1\r\nHost: a\r\n\r\n"
    for fields in (
        "",
        "Content-Length: 0\r\n",
        "Content-Length: 5\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: x\r\n",
    ):
        with socket.create_connection((link.hostname, link.port), timeout=30) as sock:
            sock.sendall(f"GET {link.path}?{link.query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{hidden}".encode())
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        assert answer.count(b"HTTP/1.1") == 1
    assert files.get("data/g/f") == b"mine"


def test_the_signature_is_in_no_log(files: Files) -> None:
    link = put_link(files)
    ask("PUT", link, b"x", {"x-amz-acl": "private"})
    assert link.rpartition("=")[2] not in files.web.log.read_text()
    assert ANN not in files.web.log.read_text()
