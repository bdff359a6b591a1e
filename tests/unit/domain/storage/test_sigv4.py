"""Signatures of S3 requests: the examples of Amazon's documentation, and what must not pass."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.secret import Secret
from controller.domain.storage.sigv4 import (
    SignatureInvalid,
    Signed,
    Signer,
    canonical_request,
    check_signature,
    read_signature,
    sign,
    text_to_sign,
)

SECRET = Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NAME = "AKIAIOSFODNN7EXAMPLE"
SCOPE = "20130524/us-east-1/s3/aws4_request"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
AT = datetime(2013, 5, 24, tzinfo=UTC).timestamp()
HOST = "examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("path", "query", "headers", "signature"),
    [
        (
            "/test.txt",
            "",
            {
                "host": HOST,
                "range": "bytes=0-9",
                "x-amz-content-sha256": EMPTY,
                "x-amz-date": "20130524T000000Z",
            },
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "/",
            "lifecycle=",
            {"host": HOST, "x-amz-content-sha256": EMPTY, "x-amz-date": "20130524T000000Z"},
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "/",
            "max-keys=2&prefix=J",
            {"host": HOST, "x-amz-content-sha256": EMPTY, "x-amz-date": "20130524T000000Z"},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_the_examples_of_the_documentation(
    path: str, query: str, headers: dict[str, str], signature: str
) -> None:
    request = canonical_request("GET", path, query, headers, EMPTY)
    assert sign(SECRET, SCOPE, text_to_sign("20130524T000000Z", SCOPE, request)) == signature
    signed = Signed(NAME, SCOPE, tuple(headers), signature, "20130524T000000Z")
    check_signature(signed, SECRET, "GET", path, query, headers, EMPTY, AT)


def test_the_link_of_the_documentation() -> None:
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{NAME}/{SCOPE}",
        "X-Amz-Date": "20130524T000000Z",
        "X-Amz-Expires": "86400",
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Signature": "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    }
    text = (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={NAME}%2F{SCOPE.replace('/', '%2F')}"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    )
    signed = read_signature({"host": HOST}, query)
    for at, fits in ((AT, True), (AT + 86_399, True), (AT + 86_401, False), (AT - 1000, False)):
        if fits:
            check_signature(signed, SECRET, "GET", "/test.txt", text, {"host": HOST}, "UNSIGNED-PAYLOAD", at)
        else:
            with pytest.raises(SignatureInvalid):
                check_signature(
                    signed, SECRET, "GET", "/test.txt", text, {"host": HOST}, "UNSIGNED-PAYLOAD", at
                )


SIGNER = Signer("prichal.demo.abc", Secret("a-secret"), "us-east-1")


def headers_of(payload: str = EMPTY, **more: str) -> dict[str, str]:
    return SIGNER.headers("PUT", "/b/k", "a=1", {"host": "h", **more}, AT, payload)


def passes(method: str, path: str, query: str, headers: dict[str, str], at: float = AT) -> bool:
    try:
        signed = read_signature(headers, {})
        check_signature(
            signed, SIGNER.secret, method, path, query, headers, headers["x-amz-content-sha256"], at
        )
    except SignatureInvalid:
        return False
    return True


@given(st.sampled_from(["x-amz-meta-a", "content-type", "range"]), st.text("abc é", max_size=9))
def test_what_is_made_is_taken(name: str, value: str) -> None:
    assert passes("PUT", "/b/k", "a=1", headers_of(**{name: value}))


@pytest.mark.parametrize(
    "other",
    [
        ("GET", "/b/k", "a=1", {}),
        ("PUT", "/b/l", "a=1", {}),
        ("PUT", "/b/k", "a=2", {}),
        ("PUT", "/b/k", "a=1", {"host": "other"}),
        ("PUT", "/b/k", "a=1", {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}),
        ("PUT", "/b/k", "a=1", {"x-amz-date": "20130524T000001Z"}),
        ("PUT", "/b/k", "a=1", {"x-amz-date": ""}),
        ("PUT", "/b/k", "a=1", {"x-amz-copy-source": "/b/other"}),
        ("PUT", "/b/k", "a=1", {"x-amz-meta-a": "other"}),
        ("PUT", "/b/k", "a=1", {"authorization": ""}),
        ("PUT", "/b/k", "a=1", {"authorization": "AWS name:signature"}),
        ("PUT", "/b/k", "a=1", {"authorization": "Bearer x"}),
    ],
)
def test_another_request_has_another_signature(other: tuple[str, str, str, dict[str, str]]) -> None:
    method, path, query, changed = other
    headers = headers_of(**{"x-amz-meta-a": "1"})
    assert passes("PUT", "/b/k", "a=1", headers)
    assert not passes(method, path, query, {**headers, **changed})


def test_the_clock_and_the_names() -> None:
    headers = headers_of()
    assert passes("PUT", "/b/k", "a=1", headers, AT + 800)
    assert not passes("PUT", "/b/k", "a=1", headers, AT + 1000)
    assert not passes("PUT", "/b/k", "a=1", headers, AT - 1000)
    for names in ("x-amz-date", "x-amz-date;host;x-amz-content-sha256", "host;host;x-amz-date"):
        line = headers["authorization"].replace("host;x-amz-content-sha256;x-amz-date", names)
        assert not passes("PUT", "/b/k", "a=1", {**headers, "authorization": line})
