"""What a container's account opens: the boxes that it was granted, by the operations that are listed, whatever is sent.
Through a real gunicorn to real storages: the embedded one and MinIO. Each attack is signed with the account's own key;
then it is looked whether the other app's object is as before and the own box empty of it."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPConnection
from urllib.parse import quote, urlsplit

import pytest

from controller.domain.names import AppName
from controller.domain.secret import Secret
from controller.domain.storage.accounts import component_secret
from controller.domain.storage.box import BoxRecord, StorageAccess
from controller.domain.storage.links import path_of
from controller.domain.storage.sigv4 import Signer
from controller.web.objects.s3 import canonical_query
from tests.support.publishing import publishing
from tests.support.waiting import wait_for

from .checksums import CHECKSUMS, checksum
from .conftest import Reply
from .test_files import BOX, BUCKET, CAPACITY, MEBIBYTE, Files, access, module_files, server  # noqa: F401

OTHERS = "prichal.other.data"
SECRET = b"what another app has stored"
ACCOUNT = "prichal.demo.0123456789ab"


@dataclass
class Container:
    """Signs any request that it is given, as clients of S3 do."""

    files: Files
    known: StorageAccess
    signer: Signer

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        payload: str = "",
        before_last: Callable[[], None] | None = None,
    ) -> Reply:
        """`path` is sent and signed as it is; the last byte follows when `before_last()` has returned."""
        parts = urlsplit(self.known.public_url)
        text = canonical_query(query or {})
        fields = {"host": parts.netloc, **{n.lower(): v for n, v in (headers or {}).items()}}
        digest = payload or sha256(body).hexdigest()
        fields = self.signer.headers(method, path, text, fields, time.time(), digest)
        assert parts.hostname is not None
        with closing(HTTPConnection(parts.hostname, parts.port, timeout=30)) as connection:
            target = f"{path}?{text}" if text else path
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in fields.items():
                connection.putheader(name, value)
            connection.putheader("content-length", str(len(body)))
            if before_last is None:
                connection.endheaders(body)
            else:
                connection.endheaders(body[:-1])
                before_last()
                connection.send(body[-1:])
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())

    def put(self, key: str, body: bytes, **headers: str) -> Reply:
        return self.ask("PUT", path_of(BUCKET, key), body=body, headers=headers)

    def get(self, key: str) -> Reply:
        return self.ask("GET", path_of(BUCKET, key))


@pytest.fixture
def container(module_files: Files) -> Iterator[Container]:  # noqa: F811
    files = module_files
    for bucket in (BUCKET, OTHERS):
        files.objects.remove_bucket(bucket)
        files.objects.create_bucket(bucket)
        files.web.store.boxes.forget(bucket)
    files.objects.put(OTHERS, "developer/secret", io.BytesIO(SECRET), len(SECRET))
    files.web.store.boxes.save(BoxRecord(AppName("demo"), BOX, BUCKET, CAPACITY))
    files.web.store.boxes.save(BoxRecord(AppName("other"), BOX, OTHERS, CAPACITY))
    files.web.store.boxes.grant(ACCOUNT, (BUCKET,))
    known = access(files.server, files.web.state)
    signer = Signer(ACCOUNT, component_secret(known.secret_key, ACCOUNT), "us-east-1")
    yield Container(files, known, signer)
    with files.objects.open(OTHERS, "developer/secret") as pieces:
        assert b"".join(pieces) == SECRET
    assert [found.key for found in files.objects.page(OTHERS).objects] == ["developer/secret"]
    for found in files.objects.page(BUCKET).objects:
        with files.objects.open(BUCKET, found.key) as pieces:
            assert SECRET not in b"".join(pieces)


def code(reply: Reply) -> str:
    found = re.search(rb"<Code>([^<]*)</Code>", reply.body)
    assert found is not None, reply.body
    return found[1].decode()


# --- what works -------------------------------------------------------------------------------------------------


def test_objects(container: Container) -> None:
    content = os.urandom(3 * MEBIBYTE)
    stored = container.put("g/é a+b", content, **{"content-type": "text/csv", "x-amz-meta-mtime": "12"})
    assert stored.status == 200, stored.body
    found = container.get("g/é a+b")
    assert (found.status, found.body) == (200, content)
    assert (found.headers["content-type"], found.headers["x-amz-meta-mtime"]) == ("text/csv", "12")
    path = path_of(BUCKET, "g/é a+b")
    some = container.ask("GET", path, headers={"range": "bytes=1-3"})
    assert (some.status, some.body) == (206, content[1:4])
    other = container.ask("GET", path, headers={"range": "bytes=1-3", "if-range": '"other"'})
    assert (other.status, other.body) == (200, content)
    head = container.ask("HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(content)), b"")
    assert container.ask("GET", path, headers={"if-none-match": found.headers["etag"]}).status == 304
    copied = container.ask("PUT", path_of(BUCKET, "copy"), headers={"x-amz-copy-source": path})
    assert (copied.status, container.get("copy").body) == (200, content)
    for query in ({"list-type": "2", "prefix": "g/"}, {"prefix": "g/", "delimiter": "/"}):
        listed = container.ask("GET", f"/{BUCKET}", query)
        assert listed.status == 200
        assert b"<Size>%d</Size>" % len(content) in listed.body
    many = b"<Delete><Object><Key>copy</Key></Object><Object><Key>none</Key></Object></Delete>"
    deleted = container.ask("POST", f"/{BUCKET}", {"delete": ""}, many)
    assert (deleted.status, deleted.body.count(b"<Deleted>")) == (200, 2)
    assert container.ask("DELETE", path).status == 204
    assert (container.get("copy").status, container.get("g/é a+b").status) == (404, 404)
    assert container.ask("HEAD", f"/{BUCKET}").status == 200
    assert b"LocationConstraint" in container.ask("GET", f"/{BUCKET}", {"location": ""}).body


@pytest.mark.parametrize("how", ["continuation-token", "start-after", "marker"])
def test_a_listing_shows_what_was_written_before(container: Container, how: str) -> None:
    """Also where others have begun a listing earlier, and did not go on."""
    for number in range(6):
        container.put(f"g/{number}", b"x")
        container.put(f"g/h{number}/f", b"x")
    for delimiter in ({}, {"delimiter": "/"}):
        asked = {
            "prefix": "g/",
            "max-keys": "2",
            **({} if how == "marker" else {"list-type": "2"}),
            **delimiter,
        }
        names = names_of(container.ask("GET", f"/{BUCKET}", asked).body)
        assert len(names) == 2
        for new in ("g/4a", "g/4b"):
            found = container.ask("GET", f"/{BUCKET}", asked)
            container.put(new, b"x")
            seen = []
            while b"<IsTruncated>true</IsTruncated>" in found.body:
                token = re.search(rb"<NextContinuationToken>([^<]+)<", found.body)
                place = (
                    token[1].decode() if token and how == "continuation-token" else names_of(found.body)[-1]
                )
                found = container.ask("GET", f"/{BUCKET}", {**asked, how: place})
                seen += names_of(found.body)
            assert new in seen
            assert seen == sorted(set(seen))
        container.ask(
            "POST", f"/{BUCKET}", {"delete": ""}, b"<Delete><Object><Key>g/4a</Key></Object></Delete>"
        )


@pytest.mark.parametrize("how", ["start-after", "marker"])
def test_a_listing_of_a_folder_may_begin_at_the_folder(container: Container, how: str) -> None:
    """As clients ask who do not want the folder itself: what is in it is not passed over."""
    for key in ("g/0", "g/h/0", "i/0"):
        container.put(key, b"x")
    kind = {} if how == "marker" else {"list-type": "2"}
    asked = {"prefix": "g/", "delimiter": "/", how: "g/", **kind}
    assert names_of(container.ask("GET", f"/{BUCKET}", asked).body) == ["g/0", "g/h/"]


def test_a_large_listing_is_complete_and_shows_what_was_written_before_it_began(container: Container) -> None:
    """Its pages are read as one listing, also where others have begun one earlier, and did not go on."""
    before = {f"m/{number:04}" for number in range(1_200)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: container.put(name, b"x"), sorted(before)))
    asked = {"list-type": "2", "prefix": "m/"}
    container.ask("GET", f"/{BUCKET}", asked)
    container.put("m/9999", b"x")
    seen: list[str] = []
    more: dict[str, str] = {}
    while True:
        found = container.ask("GET", f"/{BUCKET}", {**asked, **more}).body
        seen += [name.decode() for name in re.findall(rb"<Key>([^<]+)</", found)]
        if (token := re.search(rb"<NextContinuationToken>([^<]+)<", found)) is None:
            break
        more = {"continuation-token": token[1].decode()}
    assert seen == sorted(before | {"m/9999"})


def names_of(listing: bytes) -> list[str]:
    found = re.findall(rb"<(?:Key|Prefix)>([^<]+)</", listing.replace(b"<Prefix>g/</Prefix>", b""))
    return sorted(name.decode() for name in found)


def test_what_a_cache_was_told_is_not_taken_back(container: Container) -> None:
    path = path_of(BUCKET, "a")
    for told in ({}, {"cache-control": "max-age=60"}):
        etag = container.put("a", b"hello", **told).headers["etag"]
        whole = container.get("a").headers["cache-control"]
        assert whole == told.get("cache-control", "private, no-store")
        same = container.ask("GET", path, headers={"if-none-match": etag})
        assert (same.status, same.headers.get("cache-control", whole)) == (304, whole)


def test_writes_with_conditions(container: Container) -> None:
    """What every storage answers, also one that knows no conditions of writes."""
    path, source = path_of(BUCKET, "a"), {"x-amz-copy-source": path_of(BUCKET, "source")}
    container.put("source", b"copied")
    new, there, other = {"if-none-match": "*"}, {"if-match": "*"}, {"if-match": '"other"'}
    for body in (b"", b"hello", bytes(3 * MEBIBYTE)):
        assert container.put("a", body, **there).status in (404, 412)
        assert container.put("a", body, **new).status == 200
        etag = container.get("a").headers["etag"]
        for refused in (new, other, {"if-none-match": etag}):
            for reply in (
                container.put("a", b"another", **refused),
                container.put("a", b"", **refused),
                container.ask("PUT", path, {}, FRAMED, {**FRAMED_FIELDS, **refused}, FRAMED_PAYLOAD),
                container.ask("PUT", path, headers={**source, **refused}),
                container.ask("DELETE", path, headers=refused),
                complete(container, "a", refused),
            ):
                assert (reply.status, code(reply)) == (412, "PreconditionFailed")
        assert container.get("a").body == body
        for allowed in ({"if-match": etag}, there, {"if-none-match": '"other"'}):
            assert container.put("a", body, **allowed).status == 200
        assert container.ask("PUT", path, headers={**source, "if-match": etag}).status == 200
        assert container.get("a").body == b"copied"
        etag = container.get("a").headers["etag"]
        assert complete(container, "a", {"if-match": etag}).status == 200
        assert container.get("a").body == b"part"
        etag = container.get("a").headers["etag"]
        assert container.ask("DELETE", path, headers={"if-match": etag}).status == 204
        assert container.get("a").status == 404


def complete(container: Container, key: str, headers: dict[str, str]) -> Reply:
    path, upload = path_of(BUCKET, key), begin(container, key)
    part = container.ask("PUT", path, {"uploadId": upload, "partNumber": "1"}, b"part").headers["etag"]
    done = f"<Part><PartNumber>1</PartNumber><ETag>{part}</ETag></Part>"
    whole = f"<CompleteMultipartUpload>{done}</CompleteMultipartUpload>".encode()
    return container.ask("POST", path, {"uploadId": upload}, whole, headers)


@pytest.mark.parametrize("size", [0, 5, 3 * MEBIBYTE])
def test_of_many_who_make_the_same_object_one_succeeds(container: Container, size: int) -> None:
    """Whatever they send, and while others wait before their last byte."""
    bodies = [bytes((number,)) * size for number in range(12)]
    with ThreadPoolExecutor(len(bodies)) as threads:
        replies = list(threads.map(lambda body: container.put("a", body, **{"if-none-match": "*"}), bodies))
    made = [body for body, reply in zip(bodies, replies, strict=True) if reply.status == 200]
    assert len(made) == 1
    assert container.get("a").body == made[0]
    refused = {(reply.status, code(reply)) for reply in replies if reply.status != 200}
    assert refused <= {(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")}


def test_a_condition_is_judged_at_the_last_byte(container: Container) -> None:
    def overtake() -> None:
        assert container.ask("PUT", path, {}, b"other").status == 200

    path = path_of(BUCKET, "a")
    reply = container.ask("PUT", path, {}, b"hello", {"if-none-match": "*"}, before_last=overtake)
    assert (reply.status, code(reply)) == (412, "PreconditionFailed")
    etag = container.get("a").headers["etag"]
    reply = container.ask("PUT", path, {}, b"hello", {"if-match": etag}, before_last=overtake)
    assert reply.status == 200, "it has become what it was"


def test_uploads_in_parts(container: Container) -> None:
    path, content = path_of(BUCKET, "large"), os.urandom(6 * MEBIBYTE)
    upload = begin(container)
    etags = [
        container.ask("PUT", path, {"uploadId": upload, "partNumber": str(n)}, piece).headers["etag"]
        for n, piece in ((1, content[: 5 * MEBIBYTE]), (2, content[5 * MEBIBYTE :]))
    ]
    assert b"<PartNumber>2</PartNumber>" in container.ask("GET", path, {"uploadId": upload}).body
    assert container.ask("GET", f"/{BUCKET}", {"uploads": ""}).status == 200
    parts = "".join(
        f"<Part><PartNumber>{n}</PartNumber><ETag>{e}</ETag></Part>" for n, e in enumerate(etags, 1)
    )
    document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    assert container.ask("POST", path, {"uploadId": upload}, document).status == 200
    assert container.get("large").body == content
    given_up = begin(container)
    assert container.ask("DELETE", path, {"uploadId": given_up}).status == 204


def test_nothing_changes_where_a_run_publishes(container: Container) -> None:
    content = b"hello"
    assert container.put("out/a", content).status == 200
    path, upload = path_of(BUCKET, "out/large"), begin(container, "out/large")
    part = container.ask("PUT", path, {"uploadId": upload, "partNumber": "1"}, content).headers["etag"]
    done = f"<Part><PartNumber>1</PartNumber><ETag>{part}</ETag></Part>"
    whole = f"<CompleteMultipartUpload>{done}</CompleteMultipartUpload>".encode()
    many = b"<Delete><Object><Key>other</Key></Object><Object><Key>out/a</Key></Object></Delete>"
    out = path_of(BUCKET, "out/a")
    with publishing(container.files.web.store, AppName("demo"), BUCKET, "out/"):
        for reply in (
            container.put("out/a", b"another"),
            container.ask("PUT", path_of(BUCKET, "out/b"), headers={"x-amz-copy-source": out}),
            container.ask("DELETE", out),
            container.ask("POST", f"/{BUCKET}", {"delete": ""}, many),
            container.ask("POST", path, {"uploadId": upload}, whole),
        ):
            assert (reply.status, code(reply)) == (409, "OperationAborted")
        assert container.get("out/a").body == content
        assert container.put("other", b"x").status == 200
    assert container.get("out/large").status == 404
    assert container.ask("DELETE", out).status == 204
    assert container.ask("POST", path, {"uploadId": upload}, whole).status == 200


FRAMED = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
FRAMED_FIELDS = {
    "x-amz-decoded-content-length": "5",
    "x-amz-trailer": "x-amz-checksum-crc32",
    "content-encoding": "aws-chunked",
}
FRAMED_PAYLOAD = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@pytest.mark.parametrize(
    ("body", "fields", "payload"),
    [(b"hello", {}, ""), (bytes(3 * MEBIBYTE), {}, ""), (FRAMED, FRAMED_FIELDS, FRAMED_PAYLOAD)],
    ids=["small", "large", "framed"],
)
def test_what_has_begun_to_come_is_not_stored_where_a_run_publishes(
    container: Container, body: bytes, fields: dict[str, str], payload: str
) -> None:
    """The last byte decides."""
    store, path = container.files.web.store, path_of(BUCKET, "out/a")
    with ExitStack() as stack:

        def begin_publishing() -> None:
            wait_for(lambda: store.boxes.arriving(BUCKET, "", time.time()))
            stack.enter_context(publishing(store, AppName("demo"), BUCKET, "out/"))

        reply = container.ask("PUT", path, {}, body, fields, payload, before_last=begin_publishing)
        assert (reply.status, code(reply)) == (409, "OperationAborted")
    assert container.get("out/a").status == 404
    assert container.ask("PUT", path, {}, body, fields, payload).status == 200


def begin(container: Container, key: str = "large") -> str:
    begun = container.ask("POST", path_of(BUCKET, key), {"uploads": ""})
    found = re.search(rb"<UploadId>([^<]+)</UploadId>", begun.body)
    assert found is not None, begun.body
    return found[1].decode()


def test_a_body_is_what_was_signed(container: Container) -> None:
    wrong = container.ask("PUT", path_of(BUCKET, "a"), body=b"other", payload=sha256(b"signed").hexdigest())
    assert wrong.status == 400
    assert container.get("a").status == 404
    unsigned = container.ask("PUT", path_of(BUCKET, "a"), body=b"other", payload="UNSIGNED-PAYLOAD")
    assert (unsigned.status, container.get("a").body) == (200, b"other")


def test_framed_bodies(container: Container) -> None:
    framed, fields, payload = FRAMED, dict(FRAMED_FIELDS), FRAMED_PAYLOAD
    stored = container.ask("PUT", path_of(BUCKET, "a"), body=framed, headers=fields, payload=payload)
    assert (stored.status, container.get("a").body) == (200, b"hello"), stored.body
    assert "content-encoding" not in container.get("a").headers
    wrong = container.ask(
        "PUT", path_of(BUCKET, "a"), body=framed.replace(b"hello", b"hallo"), headers=fields, payload=payload
    )
    assert (wrong.status, code(wrong), container.get("a").body) == (400, "BadDigest", b"hello")
    forged = b"5;chunk-signature=%b\r\nhello\r\n0;chunk-signature=%b\r\n\r\n" % (b"0" * 64, b"0" * 64)
    fields.pop("x-amz-trailer")
    wrong = container.ask(
        "PUT", path_of(BUCKET, "b"), body=forged, headers=fields, payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    )
    assert (wrong.status, container.get("b").status) == (403, 404)


@pytest.mark.parametrize("name", CHECKSUMS)
@pytest.mark.parametrize("part", [False, True])
def test_checksums_before_and_behind_a_body_are_compared(container: Container, name: str, part: bool) -> None:
    """Whether the storage does so or not; what does not fit is not stored."""
    field, path = f"x-amz-checksum-{name}", path_of(BUCKET, "large")
    query = {"uploadId": begin(container), "partNumber": "1"} if part else {}

    def put(content: bytes, claimed: str, behind: bool) -> Reply:
        if not behind:
            return container.ask("PUT", path, query, content, {field: claimed})
        size = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
        framed = size + f"0\r\n{field}:{claimed}\r\n\r\n".encode()
        fields = {
            "x-amz-decoded-content-length": str(len(content)),
            "x-amz-trailer": field,
            "content-encoding": "aws-chunked",
        }
        return container.ask("PUT", path, query, framed, fields, "STREAMING-UNSIGNED-PAYLOAD-TRAILER")

    for behind in (False, True):
        for content in (b"", b"little", os.urandom(400_000)):
            stored = put(content, checksum(name, content), behind)
            assert stored.status == 200, stored.body
            for value, said in ((checksum(name, content + b"x"), "BadDigest"), ("AAAA", "InvalidRequest")):
                wrong = put(content, value, behind)
                assert (wrong.status, code(wrong)) == (400, said)
            if not part:
                assert container.get("large").body == content


def test_a_deletion_with_another_checksum_deletes_nothing(container: Container) -> None:
    container.put("a", b"x")
    many = b"<Delete><Object><Key>a</Key></Object></Delete>"
    for value, status in ((checksum("crc32", b""), 400), (checksum("crc32", many), 200)):
        reply = container.ask("POST", f"/{BUCKET}", {"delete": ""}, many, {"x-amz-checksum-crc32": value})
        assert (reply.status, container.get("a").status) == (status, 200 if status == 400 else 404)


# --- what does not ----------------------------------------------------------------------------------------------

WAYS_OUT = (
    f"/{OTHERS}/developer/secret",
    f"/{BUCKET}/../{OTHERS}/developer/secret",
    f"/{BUCKET}/%2e%2e/{OTHERS}/developer/secret",
    f"/{BUCKET}/.%2E/{OTHERS}/developer/secret",
    f"/{BUCKET}/a/../../{OTHERS}/developer/secret",
    f"/{BUCKET}/..%2f{OTHERS}%2fdeveloper%2fsecret",
    f"/{BUCKET}/..%5c{OTHERS}%5cdeveloper%5csecret",
    f"/{BUCKET}//../{OTHERS}/developer/secret",
    f"/{BUCKET}/%20../{OTHERS}/developer/secret",
    f"//{OTHERS}/developer/secret",
    f"/./{OTHERS}/developer/secret",
    f"/{BUCKET}/../.minio.sys/config/iam/users/prichal-web/identity.json",
    "/.minio.sys/config/iam/users/prichal-web/identity.json",
    f"/{BUCKET}/%00/../{OTHERS}/developer/secret",
    f"/{BUCKET}/%ff",
    "/minio/admin/v3/info",
    "/",
)


@pytest.mark.parametrize("path", WAYS_OUT)
def test_no_path_leads_out(container: Container, path: str) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "POST"):
        reply = container.ask(method, path, body=b"pwned" if method == "PUT" else b"")
        assert reply.status in (400, 403, 501), (method, reply.status, reply.body)
        assert SECRET not in reply.body


@pytest.mark.parametrize("source", WAYS_OUT)
def test_no_source_leads_out(container: Container, source: str) -> None:
    container.put("own", b"own")
    upload = begin(container)
    for query in ({}, {"uploadId": upload, "partNumber": "1"}):
        for text in (source, source.removeprefix("/"), quote(source, safe="/")):
            reply = container.ask("PUT", path_of(BUCKET, "large"), query, headers={"x-amz-copy-source": text})
            assert reply.status in (400, 403, 404), (text, reply.status, reply.body)
    assert container.get("large").status == 404


@pytest.mark.parametrize("place", [f"../{OTHERS}/", f"a/../../{OTHERS}/", "..", f"..\\{OTHERS}"])
def test_no_listing_leads_out(container: Container, place: str) -> None:
    for query in (
        {"prefix": place},
        {"marker": place},
        {"list-type": "2", "prefix": place, "delimiter": "/"},
        {"list-type": "2", "start-after": place},
        {"list-type": "2", "continuation-token": place},
        {"uploads": "", "prefix": place},
    ):
        reply = container.ask("GET", f"/{BUCKET}", query)
        assert reply.status == 400
        assert b"developer" not in reply.body


@pytest.mark.parametrize(
    "key", [f"../{OTHERS}/developer/secret", f"a/../../{OTHERS}/developer/secret", "", ".."]
)
def test_no_deletion_leads_out(container: Container, key: str) -> None:
    body = f"<Delete><Object><Key>{key}</Key></Object></Delete>".encode()
    assert container.ask("POST", f"/{BUCKET}", {"delete": ""}, body).status == 400


ACTED_ON = {
    "x-amz-meta-snowball-auto-extract": "true",
    "x-amz-meta-minio-snowball": "true",
    "x-amz-acl": "public-read",
    "x-amz-grant-full-control": "id=1",
    "x-amz-tagging": "a=b",
    "x-amz-website-redirect-location": "http://example.org/",
    "x-amz-server-side-encryption": "AES256",
    "x-amz-server-side-encryption-customer-key": "a" * 44,
    "x-amz-object-lock-mode": "COMPLIANCE",
    "x-amz-storage-class": "GLACIER",
    "x-amz-security-token": "x",
    "x-amz-nothing-known": "1",
    "x-minio-extract": "true",
    "x-minio-force-delete": "true",
    "x-minio-source-replication-request": "true",
}


@pytest.mark.parametrize("field", ACTED_ON)
def test_no_field_opens_more(container: Container, field: str) -> None:
    reply = container.put("a", b"x", **{field: ACTED_ON[field]})
    assert reply.status in (400, 403, 501)
    assert container.get("a").status == 404


@pytest.mark.parametrize(
    "query", ["acl", "policy", "tagging", "versioning", "lifecycle", "cors", "select", "restore"]
)
@pytest.mark.parametrize("path", [f"/{BUCKET}", f"/{BUCKET}/a"])
def test_no_other_operation(container: Container, path: str, query: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE"):
        assert container.ask(method, path, {query: ""}).status == 501


def test_what_is_stored_is_no_page_of_this_host(container: Container) -> None:
    """A component can sign an address, and somebody may open it in a browser."""
    path = path_of(BUCKET, "page.html")
    assert container.put("page.html", b"<script>", **{"content-type": "text/html"}).status == 200
    for method in ("GET", "HEAD"):
        shown = container.ask(method, path)
        assert (shown.status, shown.headers["content-type"]) == (200, "text/html")
        assert shown.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert shown.headers["x-content-type-options"] == "nosniff"
        assert "no-store" in shown.headers["cache-control"]
    assert container.ask("GET", path, headers={"service-worker": "script"}).status == 403


def test_a_bucket_is_neither_made_nor_removed(container: Container) -> None:
    assert code(container.ask("PUT", f"/{BUCKET}")) == "BucketAlreadyOwnedByYou"
    assert container.ask("DELETE", f"/{BUCKET}").status == 501
    assert container.ask("PUT", "/prichal.demo.more").status == 403


def test_who_has_no_account(container: Container) -> None:
    container.put("a", b"x")
    for name, secret in (
        (ACCOUNT, Secret("guessed")),
        (
            "prichal.demo.ffffffffffff",
            component_secret(container.known.secret_key, "prichal.demo.ffffffffffff"),
        ),
        (container.known.access_key, container.known.secret_key),
        ("prichal-web", Secret("")),
    ):
        stranger = Container(container.files, container.known, Signer(name, secret, "us-east-1"))
        assert stranger.get("a").status == 403
    container.files.web.store.boxes.grant(ACCOUNT, ())
    assert container.get("a").status == 403, "its component is gone"


def test_its_key_is_worth_nothing_at_the_storage(container: Container) -> None:
    direct = StorageAccess(container.known.internal_url, container.known.internal_url, "", Secret(""))
    reply = Container(container.files, direct, container.signer).ask("GET", f"/{BUCKET}", {"list-type": "2"})
    assert (reply.status, code(reply)) == (403, "InvalidAccessKeyId")


# --- room -------------------------------------------------------------------------------------------------------


def test_a_box_holds_what_it_holds(container: Container) -> None:
    boxes = container.files.web.store.boxes
    boxes.save(BoxRecord(AppName("demo"), BOX, BUCKET, 10 * MEBIBYTE))
    with ThreadPoolExecutor(6) as threads:
        replies = list(threads.map(lambda n: container.put(f"{n}", bytes(4 * MEBIBYTE)), range(6)))
    assert {reply.status for reply in replies} == {200, 507}
    stored = sum(found.size for found in container.files.objects.page(BUCKET).objects)
    assert stored == 8 * MEBIBYTE
    source = next(f"/{BUCKET}/{n}" for n, reply in enumerate(replies) if reply.status == 200)
    copied = container.ask("PUT", path_of(BUCKET, "copy"), headers={"x-amz-copy-source": source})
    assert copied.status == 507
    upload = begin(container)
    part = {"uploadId": upload, "partNumber": "1"}
    assert container.ask("PUT", path_of(BUCKET, "large"), part, bytes(4 * MEBIBYTE)).status == 507
    copied = container.ask("PUT", path_of(BUCKET, "large"), part, headers={"x-amz-copy-source": source})
    assert copied.status == 507
    small = [
        container.ask("PUT", path_of(BUCKET, "large"), {**part, "partNumber": str(n)}, bytes(MEBIBYTE)).status
        for n in range(1, 5)
    ]
    assert small == [200, 200, 507, 507]


def test_what_needs_no_room_is_done_in_a_full_box(container: Container) -> None:
    """With a condition, too: a deletion makes room, and parts have theirs already."""
    boxes = container.files.web.store.boxes
    container.put("a", b"hello")
    etag = container.get("a").headers["etag"]
    path, upload = path_of(BUCKET, "large"), begin(container)
    part = container.ask("PUT", path, {"uploadId": upload, "partNumber": "1"}, b"part").headers["etag"]
    boxes.save(BoxRecord(AppName("demo"), BOX, BUCKET, 1))
    assert container.put("b", b"x").status == 507
    done = f"<Part><PartNumber>1</PartNumber><ETag>{part}</ETag></Part>"
    whole = f"<CompleteMultipartUpload>{done}</CompleteMultipartUpload>".encode()
    assert container.ask("POST", path, {"uploadId": upload}, whole, {"if-none-match": "*"}).status == 200
    assert container.get("large").body == b"part"
    deletion = container.ask("DELETE", path_of(BUCKET, "a"), headers={"if-match": etag})
    assert (deletion.status, container.get("a").status) == (204, 404)
    assert not boxes.arriving(BUCKET, "", time.time())
