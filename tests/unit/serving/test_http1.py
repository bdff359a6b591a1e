"""The HTTP reader on any bytes in any pieces: it gives a request, a problem or a disconnect, and nothing else."""

from __future__ import annotations

import gzip
import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serving.http1 import (
    ClientDisconnected,
    HttpRequest,
    HttpResponse,
    RequestReader,
    decoded,
    render,
)
from controller.serving.problems import ServingProblem


def reader(data: bytes, piece: int = 1 << 16) -> RequestReader:
    stream = io.BytesIO(data)
    return RequestReader(
        lambda count: stream.read(min(count, piece)), lambda room: stream.readinto(room[:piece])
    )


def read_whole(data: bytes, piece: int = 1 << 16, limit: int = 1000) -> list[tuple[str, str, bytes] | str]:
    """Every request of the stream, then how it ended."""
    source = reader(data, piece)
    seen: list[tuple[str, str, bytes] | str] = []
    try:
        while request := source.head():
            seen.append((request.method, request.path, bytes(source.body(request, limit))))
        return [*seen, "end"]
    except ServingProblem as problem:
        return [*seen, problem.kind.slug]
    except ClientDisconnected:
        return [*seen, "disconnected"]


FRAGMENTS = st.sampled_from(
    [
        b"GET ", b"POST ", b"/", b"/predict", b"*", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n", b"\n", b"\r", b" ",
        b"\t", b"Host: a\r\n", b"Content-Length: ", b"5", b"\r\n\r\n", b"hello", b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n", b"5\r\nhello\r\n", b"5;x\r\n", b"Connection: close\r\n", b":", b"X-A: b\r\n", b"\x00", b"\xff", b"http://a/b",
    ]
)  # fmt: skip
STREAMS = st.one_of(st.binary(max_size=200), st.lists(FRAGMENTS, max_size=30).map(b"".join))


@given(STREAMS, st.integers(1, 9))
def test_any_bytes_in_any_pieces_give_the_same(data: bytes, piece: int) -> None:
    assert read_whole(data, piece) == read_whole(data)


TOKENS = st.from_regex(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True)
OTHER_HEADERS = TOKENS.map(lambda name: b"x-" + name)
VALUES = st.from_regex(rb"[\x21-\x7e]([\x20-\x7e\x80-\xff\t]{0,20}[\x21-\x7e])?", fullmatch=True)


@given(
    st.lists(
        st.tuples(
            TOKENS, st.dictionaries(OTHER_HEADERS, VALUES, max_size=5), st.binary(max_size=300), st.booleans()
        ),
        max_size=4,
    ),
    st.integers(1, 40),
)
def test_what_is_sent_is_read(
    requests: list[tuple[bytes, dict[bytes, bytes], bytes, bool]], piece: int
) -> None:
    sent = b""
    for method, headers, body, chunked in requests:
        lines = [b"%b /%d HTTP/1.1" % (method, len(body)), b"Host:a"]
        lines += [b"%b: \t%b " % header for header in headers.items()]
        lines.append(b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body))
        framed = b"".join(
            b"%x\r\n%b\r\n" % (len(body[i : i + 99]), body[i : i + 99]) for i in range(0, len(body), 99)
        )
        sent += b"\r\n".join(lines) + b"\r\n\r\n" + (framed + b"0\r\n\r\n" if chunked else body)
    expected = [(method.decode(), f"/{len(body)}", body) for method, _, body, _ in requests]
    assert read_whole(sent, piece) == [*expected, "end"]


def test_header_fields() -> None:
    request = reader(b"GET / HTTP/1.1\r\nHOST: a\r\nX-A: 1\r\nx-a:2 \r\nE:\r\n\r\n").head()
    assert request
    assert request.headers == {b"host": b"a", b"x-a": b"1, 2", b"e": b""}
    assert request.header(b"host") == "a"
    assert request.header(b"none") is None


@pytest.mark.parametrize("limit", [4, 5])
def test_the_limit_counts_the_body(limit: int) -> None:
    for framing in (
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    ):
        sent = b"POST / HTTP/1.1\r\nHost: a\r\n" + framing
        end = [("POST", "/", b"hello"), "end"] if limit == 5 else ["body-too-large"]
        assert read_whole(sent, limit=limit) == end


def test_a_body_over_the_limit_is_not_read() -> None:
    stream = io.BytesIO(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 99)
    source = RequestReader(lambda count: stream.read(min(count, 55)), stream.readinto)
    request = source.head()
    assert request
    before = stream.tell()
    with pytest.raises(ServingProblem):
        bytes(source.body(request, 1000))
    assert stream.tell() == before


def test_many_tiny_chunks_cost_linear_time() -> None:
    """Copying the buffer for every chunk took minutes for this."""
    count = 200_000
    sent = (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * count
        + b"0\r\n\r\n"
    )
    assert read_whole(sent, limit=count) == [("POST", "/", b"x" * count), "end"]


def test_render() -> None:
    sent = render(HttpResponse(200, b"{}", "application/json", [("Allow", "POST")]), "id-1", close=True)
    head, _, body = sent.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert lines[1].startswith(b"Date: ")
    assert lines[2:] == [
        b"Content-Type: application/json", b"Content-Length: 2", b"X-Request-ID: id-1",
        b"Allow: POST", b"Connection: close",
    ]  # fmt: skip
    assert body == b"{}"
    assert render(HttpResponse(200, b"{}"), "id-1", close=False, without_body=True).endswith(b"id-1\r\n\r\n")


def test_close_follows_the_version_and_the_header() -> None:
    cases = {
        (b"1.1", b""): False, (b"1.1", b"Connection: close\r\n"): True, (b"1.1", b"Connection: keep-alive\r\n"): False,
        (b"1.0", b""): True, (b"1.0", b"Connection: keep-alive\r\n"): True,
    }  # fmt: skip
    for (version, header), close in cases.items():
        request = reader(b"GET / HTTP/" + version + b"\r\nHost: a\r\n" + header + b"\r\n").head()
        assert isinstance(request, HttpRequest)
        assert request.close is close


@given(st.binary(max_size=300), st.integers(0, 300), st.sampled_from([b"gzip", b"x-gzip", b"GZIP"]))
def test_a_coded_body_is_what_it_was_or_too_large(body: bytes, limit: int, coding: bytes) -> None:
    try:
        assert decoded(gzip.compress(body), coding, limit) == body
        assert len(body) <= limit
    except ServingProblem as problem:
        assert problem.kind.slug == "body-too-large"
        assert len(body) > limit


@given(st.binary(max_size=100), st.data())
def test_a_coded_body_of_any_bytes_is_decoded_or_a_problem(body: bytes, data: st.DataObject) -> None:
    coded = gzip.compress(body)
    cut = data.draw(st.integers(0, len(coded) - 1))
    for odd in (coded[:cut], coded[:cut] + b"?" + coded[cut + 1 :], body):
        try:
            assert len(decoded(odd, b"gzip", 1000)) <= 1000
        except ServingProblem as problem:
            assert problem.kind.slug == "malformed-coding"


@pytest.mark.parametrize("coding", [b"br", b"deflate", b"zstd", b"gzip, gzip", b"compress", b"*", b"\xff"])
def test_other_codings_are_refused_with_what_is_taken(coding: bytes) -> None:
    with pytest.raises(ServingProblem) as caught:
        decoded(b"x", coding, 1000)
    assert caught.value.kind.slug == "content-coding"
    assert ("Accept-Encoding", "gzip") in caught.value.headers


@pytest.mark.parametrize("coding", [b"identity", b"", b"Identity"])
def test_no_coding(coding: bytes) -> None:
    assert decoded(b"x", coding, 1000) == b"x"


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ServingProblem, match="over the limit"):
            decoded(bomb, b"gzip", 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_members_are_joined_and_bounded() -> None:
    member = gzip.compress(b"ab")
    assert decoded(member * 3, b"gzip", 1000) == b"ababab"
    with pytest.raises(ServingProblem, match="more than 16 members"):
        decoded(gzip.compress(b"") * 100_000, b"gzip", 1000)
