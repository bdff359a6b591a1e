"""Content codings of bodies that the platform reads itself."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.gateway.coding import decoded, refuse_coded
from controller.web.problems import ProblemKind, RequestRefused

LINES = b"accept: */*\r\ncontent-encoding: gzip\r\nx-a: content-encoding: br\r\n"


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"deflate", b"zstd", b"identity, gzip", b"\xff"])
def test_the_platform_takes_no_coding(coding: bytes) -> None:
    with pytest.raises(RequestRefused) as caught:
        refuse_coded([(b"content-type", b"application/json"), (b"content-encoding", coding)])
    problem = caught.value.problem
    assert (problem.kind, problem.code) == (ProblemKind.CONTENT_CODING, 415)
    assert ("accept-encoding", "identity") in problem.headers()


@pytest.mark.parametrize("codings", [(b"identity", b"gzip"), (b"", b"br"), (b"gzip", b"identity")])
def test_no_line_of_a_repeated_coding_is_overlooked(codings: tuple[bytes, bytes]) -> None:
    with pytest.raises(RequestRefused):
        refuse_coded([(b"content-encoding", coding) for coding in codings])
    lines = b"".join(b"content-encoding: %b\r\n" % coding for coding in codings)
    with pytest.raises(RequestRefused) as caught:
        decoded(gzip.compress(b"{}"), lines, 200)
    assert caught.value.problem.kind is ProblemKind.CONTENT_CODING


@pytest.mark.parametrize("headers", [[], [(b"content-encoding", b"identity")], [(b"content-encoding", b"")]])
def test_bodies_without_a_coding_pass(headers: list[tuple[bytes, bytes]]) -> None:
    refuse_coded(headers)


@given(st.binary(max_size=200))
def test_a_coded_body_is_decoded_and_its_header_goes(content: bytes) -> None:
    assert decoded(gzip.compress(content), LINES, 200) == (
        content,
        b"accept: */*\r\nx-a: content-encoding: br\r\n",
    )
    assert decoded(content, b"x-a: content-encoding: br\r\n", 0) == (
        content,
        b"x-a: content-encoding: br\r\n",
    )


@pytest.mark.parametrize(
    ("content", "coding", "kind"),
    [
        (gzip.compress(bytes(201), mtime=0), b"gzip", ProblemKind.TOO_LARGE),
        (b"{}", b"gzip", ProblemKind.MALFORMED_CODING),
        (gzip.compress(b"x" * 100, mtime=0)[:-9], b"gzip", ProblemKind.MALFORMED_CODING),
        (b"{}", b"br", ProblemKind.CONTENT_CODING),
    ],
    ids=["bomb", "plain", "cut", "other"],
)
def test_what_cannot_be_decoded(content: bytes, coding: bytes, kind: ProblemKind) -> None:
    with pytest.raises(RequestRefused) as caught:
        decoded(content, LINES.replace(b"gzip", coding), 200)
    assert caught.value.problem.kind is kind
