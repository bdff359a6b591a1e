"""What containers may ask of S3: each request is what it says, within its bucket, or refused."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.objects.s3 import (
    S3Error,
    S3Operation,
    canonical_query,
    read_deletion,
    read_request,
    read_source,
    read_target,
    rebuilt_completion,
)

BUCKET = "prichal.demo.data"


def code(method: str, target: str, **headers: str) -> str:
    """Of the refusal, empty if it is none."""
    try:
        bucket, key, query = read_target(target)
        read_request(method, bucket, key, query, {n.replace("_", "-"): v for n, v in headers.items()})
    except S3Error as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("GET", f"/{BUCKET}?location", S3Operation.LOCATION),
        ("GET", f"/{BUCKET}/?list-type=2&prefix=a%2F&delimiter=%2F&encoding-type=url", S3Operation.LIST),
        ("GET", f"/{BUCKET}?prefix=&marker=a&max-keys=5", S3Operation.LIST),
        ("GET", f"/{BUCKET}?uploads=&max-uploads=5", S3Operation.LIST_UPLOADS),
        ("HEAD", f"/{BUCKET}", S3Operation.HEAD_BUCKET),
        ("POST", f"/{BUCKET}?delete", S3Operation.DELETE_MANY),
        ("GET", f"/{BUCKET}/a/b?x-id=GetObject", S3Operation.GET),
        ("HEAD", f"/{BUCKET}/a", S3Operation.HEAD),
        ("GET", f"/{BUCKET}/a?uploadId=x&max-parts=5", S3Operation.LIST_PARTS),
        ("PUT", f"/{BUCKET}/a/", S3Operation.PUT),
        ("PUT", f"/{BUCKET}/a?partNumber=1&uploadId=x", S3Operation.PUT_PART),
        ("POST", f"/{BUCKET}/a?uploads", S3Operation.BEGIN),
        ("POST", f"/{BUCKET}/a?uploadId=x", S3Operation.COMPLETE),
        ("DELETE", f"/{BUCKET}/a?uploadId=x", S3Operation.ABORT),
        ("DELETE", f"/{BUCKET}/a", S3Operation.DELETE),
    ],
)
def test_operations(method: str, target: str, operation: S3Operation) -> None:
    bucket, key, query = read_target(target)
    ask = read_request(method, bucket, key, query, {})
    assert (ask.operation, ask.bucket, ask.key) == (operation, BUCKET, key)
    assert "x-id" not in canonical_query(ask.query)


NOTHING = [
    "acl", "tagging", "policy", "versioning", "versions", "versionId=1", "lifecycle", "cors", "encryption", "torrent",
    "select&select-type=2", "restore", "retention", "legal-hold", "object-lock", "replication", "notification",
    "website", "logging", "requestPayment", "attributes", "events=s3:*", "minio-anything", "list-type=2&acl",
    "response-content-type=text%2Fhtml", "partNumber=1&uploadId=x&acl", "X-Amz-Security-Token=x", "lambdaArn=x",
]  # fmt: skip


@pytest.mark.parametrize("query", NOTHING)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("key", ["", "/a"])
def test_nothing_else_is_passed_on(method: str, key: str, query: str) -> None:
    assert code(method, f"/{BUCKET}{key}?{query}") in ("NotImplemented", "InvalidArgument")


@pytest.mark.parametrize("target", ["/", "", "/.minio.sys/a", "/a", f"//{BUCKET}/a", "*"])
def test_nothing_without_a_bucket(target: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE"):
        assert code(method, target)


WAYS_OUT = ["../other/secret", "a/../../other/secret", "./a", "a/..", "..", " ../a", "a/.. /b", "a\\..\\b"]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_key_prefix_or_source_leads_out(way: str) -> None:
    escaped = quote(way, safe="")
    assert code("GET", f"/{BUCKET}/{quote(way)}") == "InvalidURI"
    for name in ("prefix", "marker"):
        assert code("GET", f"/{BUCKET}?{name}={escaped}") == "InvalidArgument"
    for name in ("prefix", "start-after", "continuation-token"):
        assert code("GET", f"/{BUCKET}?list-type=2&{name}={escaped}") == "InvalidArgument"
    assert code("GET", f"/{BUCKET}?uploads&key-marker={escaped}") == "InvalidArgument"
    for source in (f"/{BUCKET}/{way}", f"{BUCKET}/{quote(way)}", f"{BUCKET}%2F{escaped}"):
        with pytest.raises(S3Error):
            read_source(source)
    with pytest.raises(S3Error):
        read_deletion(f"<Delete><Object><Key>{way}</Key></Object></Delete>".encode())


def test_a_token_that_hides_a_path_is_refused() -> None:
    token = (
        base64.b64encode(b"../other/").decode().replace("=", "%3D").replace("/", "%2F").replace("+", "%2B")
    )
    assert code("GET", f"/{BUCKET}?list-type=2&continuation-token={token}") == "InvalidArgument"


@pytest.mark.parametrize(
    "source", ["", "/", BUCKET, f"/{BUCKET}/", f"/{BUCKET}/a?versionId=1", "//a/b", "%ff/%ff"]
)
def test_a_source_names_an_object(source: str) -> None:
    with pytest.raises(S3Error):
        read_source(source)


def test_sources_are_spelled_anew() -> None:
    assert read_source(f"/{BUCKET}/a b/é%2B".encode().decode("latin-1")) == (BUCKET, "a b/é+")
    ask = read_request("PUT", BUCKET, "x", {}, {"x-amz-copy-source": f"{BUCKET}/a%20b"})
    assert (ask.operation, ask.source, ask.headers["x-amz-copy-source"]) == (
        S3Operation.COPY,
        (BUCKET, "a b"),
        f"/{BUCKET}/a%20b",
    )


ACTED_ON = [
    "x-amz-acl", "x-amz-grant-read", "x-amz-tagging", "x-amz-website-redirect-location", "x-amz-storage-class",
    "x-amz-server-side-encryption", "x-amz-server-side-encryption-customer-key", "x-amz-object-lock-mode",
    "x-amz-bypass-governance-retention", "x-amz-security-token", "x-amz-meta-snowball-auto-extract",
    "x-amz-meta-minio-snowball-prefix", "x-amz-meta-x-amz-key", "x-amz-anything", "x-minio-extract",
    "x-minio-source-etag", "x-minio-force-delete", "x_amz_copy_source", "x-amz-write-offset-bytes", "x-amz-mfa",
    "x-amz-expected-bucket-owner", "x-amz-request-payer", "x-amz-tagging-directive",
]  # fmt: skip


@pytest.mark.parametrize("field", ACTED_ON)
def test_no_field_asks_for_more(field: str) -> None:
    for method, target in (
        ("PUT", f"/{BUCKET}/a"),
        ("GET", f"/{BUCKET}/a"),
        ("GET", f"/{BUCKET}?list-type=2"),
    ):
        bucket, key, query = read_target(target)
        with pytest.raises(S3Error):
            read_request(method, bucket, key, query, {field: "public-read"})


def test_fields_that_pass_and_that_do_not() -> None:
    sent = {
        "content-type": "text/csv",
        "x-amz-meta-mtime": "1",
        "content-encoding": "aws-chunked,gzip",
        "x-amz-acl": "private",
        "x-forwarded-for": "1.2.3.4",
        "cookie": "a=b",
        "x-http-method-override": "DELETE",
        "authorization": "AWS4-HMAC-SHA256 x",
        "host": "h",
    }
    assert read_request("PUT", BUCKET, "a", {}, sent).headers == {
        "content-type": "text/csv",
        "x-amz-meta-mtime": "1",
        "content-encoding": "gzip",
    }


@pytest.mark.parametrize(
    "query",
    ["a=%ff", "a=b+c", "a=%", "a=%zz", "=b", "list-type=2&list-type=2", "prefix=%00", "prefix=%0d%0a", "&"],
)
def test_queries_that_could_be_read_in_two_ways(query: str) -> None:
    with pytest.raises(S3Error):
        read_target(f"/{BUCKET}?{query}")


@given(st.dictionaries(st.text("abc-é &=/", min_size=1), st.text("xyz é+&=%/")))
def test_a_query_means_what_it_says(query: dict[str, str]) -> None:
    _, _, found = read_target(f"/{BUCKET}?{canonical_query(query)}" if query else f"/{BUCKET}")
    assert found == query


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"<Delete>{text}</Delete>".encode()))
def test_documents_of_strangers(body: bytes) -> None:
    for read in (read_deletion, rebuilt_completion):
        with pytest.raises(S3Error):
            read(body)


def test_documents_are_bounded_and_declare_nothing() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]><Delete><Object><Key>&b;</Key></Object></Delete>'
    versions = b"<Delete><Object><Key>a</Key><VersionId>1</VersionId></Object></Delete>"
    for body in (bomb, versions, b"<Delete></Delete>", b"<Delete>" + b" " * 3 * 2**20 + b"</Delete>"):
        with pytest.raises(S3Error):
            read_deletion(body)
    many = b"<Object><Key>a</Key></Object>" * 1001
    with pytest.raises(S3Error):
        read_deletion(b"<Delete>%b</Delete>" % many)


@pytest.mark.parametrize("condition", ["<ETag>x</ETag>", "<LastModifiedTime/>", "<Size>1</Size>"])
def test_a_deletion_of_many_has_no_conditions(condition: str) -> None:
    """Objects that have changed meanwhile would be deleted."""
    body = f"<Delete><Object><Key>a</Key></Object><Object>{condition}<Key>b</Key></Object></Delete>"
    with pytest.raises(S3Error, match="If-Match") as refused:
        read_deletion(body.encode())
    assert (refused.value.status, refused.value.code) == (501, "NotImplemented")


def test_what_was_deleted_is_named_and_what_failed() -> None:
    asked = read_deletion(
        b"<Delete><Object><Key>a&amp;b</Key></Object><Object><Key>c</Key></Object><Object><Key>d</Key></Object></Delete>"
    )
    assert asked.keys == ("a&b", "c", "d")
    answer = (
        b"<DeleteResult><Deleted></Deleted><Error><Key>c</Key><Code>SlowDown</Code><Message>m</Message></Error>"
        b"<Error><Key>d</Key><Code>NoSuchKey</Code></Error></DeleteResult>"
    )
    text = asked.result(answer).decode()
    assert "<Deleted><Key>a&amp;b</Key></Deleted><Deleted><Key>d</Key></Deleted><Error><Key>c</Key>" in text


def test_a_completion_is_numbers_and_etags() -> None:
    body = (
        b'<CompleteMultipartUpload xmlns="x"><Part><PartNumber>1</PartNumber><ETag>"ab-1"</ETag><Other>x</Other></Part>'
        b"</CompleteMultipartUpload>"
    )
    assert b'<Part><PartNumber>1</PartNumber><ETag>"ab-1"</ETag></Part>' in rebuilt_completion(body)
