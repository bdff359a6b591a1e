"""Ordinary requests are read as gunicorn's own parser reads them, whatever is sent and however it arrives."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from gunicorn.asgi.parser import CallbackRequest, InvalidHeader, PythonProtocol, UnsupportedTransferCoding
from hypothesis import example, given
from hypothesis import strategies as st

from controller.web.ordinary_requests import DIGITS, KEPT, KEPT_FIELDS, LONGEST, RequestParser

HEAD = b"POST /demo/api/predict?x=%31 HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
FIELDS = (
    "method",
    "uri",
    "path",
    "query",
    "raw_path",
    "version",
    "headers_bytes",
    "scheme",
    "content_length",
)
ALSO = ("chunked", "must_close", "_expect_100_continue")


class Reading:
    """What a parser makes of the pieces, or the error."""

    def __init__(self, kind: type[PythonProtocol]) -> None:
        self.seen: list[object] = []
        self.parser = kind(
            on_headers_complete=self._headers,
            on_body=self.body,
            on_message_complete=lambda: self.seen.append("end"),
        )
        self.bytes = b""
        self.ordinary = False

    def _headers(self) -> bool:
        request: Any = getattr(self.parser, "ordinary", None)
        self.ordinary = request is not None
        request = request or CallbackRequest.from_parser(self.parser)
        self.seen.append([getattr(request, name) for name in (*FIELDS, *ALSO)])
        self.seen.append((request.should_close(), request.headers))
        return False

    def body(self, piece: bytes) -> None:
        self.bytes += piece

    def of(self, pieces: list[bytes]) -> list[object]:
        try:
            for piece in pieces:
                self.parser.feed(piece)
        except Exception as error:  # noqa: BLE001 - both have to raise the same
            self.seen.append((type(error), str(error)))
            return self.seen
        state = [self.parser._state, self.parser.is_complete, self.parser.should_keep_alive]
        return [*self.seen, self.bytes, *state, self.parser.remaining()]


def compare(pieces: list[bytes]) -> bool:
    """Return True if the request was an ordinary one."""
    ours = Reading(RequestParser)
    assert ours.of(pieces) == Reading(PythonProtocol).of(pieces)
    return ours.ordinary


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 5\r\n\r\nabcde",
        HEAD + b"Content-Length: 5\r\n\r\nab",
        HEAD + b"Content-Length: 5\r\n\r\n",
        HEAD + b"Content-Length: 0\r\n\r\n",
        HEAD + b"Connection: keep-alive\r\n\r\n",
        HEAD + b"X-Empty:\r\nX-Tab: \t a \t b \t\r\nX-High: \xc3\xa9\r\n\r\n",
        HEAD + b"\r\nGET / HTTP/1.1\r\nHost: behind\r\n\r\n",
        HEAD + b"Content-Length: 1\r\n\r\nxGET / HTTP/1.1\r\n\r\n",
        b"GET /a%20b/%C3%A9?a=b?c HTTP/1.1\r\nHost: here\r\n\r\n",
        b"OPTIONS / HTTP/1.1\r\nA: b\r\n\r\n",
    ],
)
def test_ordinary_requests(data: bytes) -> None:
    assert compare([data])


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        HEAD + b"Content-Length: +3\r\n\r\nabc",
        HEAD + b"Content-Length: 1_0\r\n\r\nabc",
        HEAD + b"Content-Length: -0\r\n\r\n",
        HEAD + b"Content-Length:\r\n\r\n",
        HEAD + b"Host: there\r\n\r\n",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        HEAD + b"Connection: close\r\n\r\n",
        HEAD + b"X-Forwarded-Proto: https\r\n\r\n",
        HEAD + b"X_Forwarded_User: eve\r\n\r\n",
        HEAD + b"Bad Name: x\r\n\r\n",
        HEAD + b" Folded: x\r\n\r\n",
        HEAD + b"X: a\r\n folded\r\n\r\n",
        HEAD + b"X: a\x00b\r\n\r\n",
        HEAD + b"X: a\nY: b\r\n\r\n",
        HEAD + b"X: a\rb\r\n\r\n",
        HEAD + b"No colon\r\n\r\n",
        HEAD + b": no name\r\n\r\n",
        HEAD.replace(b"1.1", b"1.0") + b"\r\n",
        HEAD.replace(b"1.1", b"2.0") + b"\r\n",
        HEAD.replace(b"POST", b"post") + b"\r\n",
        HEAD.replace(b"POST /", b"POST  /") + b"\r\n",
        HEAD.replace(b"/demo", b"http://here/demo") + b"\r\n",
        HEAD.replace(b"/demo", b"/d\xc3\xa9mo") + b"\r\n",
        b"\r\n" + HEAD + b"\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        HEAD + b"X: " + b"y" * LONGEST + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(101)) + b"\r\n",
    ],
)
def test_others_are_left_to_the_parser_of_gunicorn(data: bytes) -> None:
    assert not compare([data])


@pytest.mark.parametrize("digits", [DIGITS + 1, 4301, 8000])
def test_a_length_that_python_does_not_read_is_refused(digits: int) -> None:
    """gunicorn's own parser raises ValueError, which ends the connection without a response, and with a traceback."""
    with pytest.raises(InvalidHeader):
        RequestParser().feed(HEAD + b"Content-Length: " + b"9" * digits + b"\r\n\r\n")


def test_a_request_in_pieces() -> None:
    data = HEAD + b"Content-Length: 5\r\n\r\nabcdeGET / HTTP/1.1\r\nHost: behind\r\n\r\n"
    for at in range(len(data)):
        compare([data[:at], data[at:]])


def test_a_connection_is_used_again() -> None:
    reading = Reading(RequestParser)
    ordinary = []
    for number in range(3):
        for rest in (
            b"Content-Length: 2\r\n\r\n%02d" % number,
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ):
            reading.parser.feed(HEAD + rest)
            ordinary.append(reading.ordinary)
            reading.parser.reset()
    assert ordinary == [True, False] * 3
    assert reading.bytes == b"000102"


LENGTH = b"Content-Length: 2\r\n"
ROUNDS = {
    "the same header": [HEAD + LENGTH + b"\r\nab", HEAD + LENGTH + b"\r\ncd"],
    "another length": [HEAD + LENGTH + b"\r\nab", HEAD + b"Content-Length: 3\r\n\r\ncde"],
    "a field more at its end": [HEAD + b"\r\n", HEAD + b"X-A: 1\r\n\r\n", HEAD + b"\r\n"],
    "another target": [HEAD + b"\r\n", HEAD.replace(b"predict", b"predicT") + b"\r\n"],
    "an unusual one between": [
        HEAD + b"\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        HEAD + b"\r\n",
    ],
    "one of proxies": [HEAD + b"X-Forwarded-Proto: https\r\n\r\n"] * 2,
    "a request behind": [HEAD + LENGTH + b"\r\nab" + HEAD + LENGTH + b"\r\ncd"] * 2,
    "a body that looks like a header": [HEAD + b"Content-Length: %d\r\n\r\n" % len(HEAD) + HEAD] * 2,
}


@pytest.mark.parametrize("requests", ROUNDS.values(), ids=list(ROUNDS))
@pytest.mark.parametrize("cut", [0, 1, 40, len(HEAD) + 5])
def test_a_header_that_comes_again_is_read_alike(requests: list[bytes], cut: int) -> None:
    ours, theirs = Reading(RequestParser), Reading(PythonProtocol)
    for data in requests:
        pieces = [data[:cut], data[cut:]]
        assert ours.of(pieces) == theirs.of(pieces)
        ours.parser.reset()
        theirs.parser.reset()


def test_a_header_that_comes_again_is_read_once() -> None:
    parser, fields = RequestParser(on_headers_complete=lambda: None, on_message_complete=lambda: None), []
    for data in (HEAD + b"\r\n", HEAD + b"\r\n", HEAD + b"X: 1\r\n\r\n"):
        parser.feed(data)
        assert parser.ordinary is not None
        fields.append(parser.ordinary.headers_bytes)
        parser.reset()
    assert fields[0] is fields[1]
    assert fields[1] is not fields[2]


@pytest.mark.parametrize(
    "more", [b"X: %b\r\n" % (b"y" * KEPT), b"".join(b"X%d:\r\n" % n for n in range(KEPT_FIELDS))]
)
def test_a_connection_keeps_no_large_header(more: bytes) -> None:
    parser = RequestParser(on_headers_complete=lambda: None, on_message_complete=lambda: None)
    for data in (HEAD + b"\r\n", HEAD + more + b"\r\n"):
        parser.feed(data)
        assert parser.ordinary is not None
        parser.reset()
    assert parser._last is None


@pytest.mark.parametrize(
    "codings",
    [[b"gzip, chunked"], [b"GZIP", b"chunked"], [b"deflate"], [b"identity, chunked"], [b"compress,chunked"]],
)
def test_transfer_codings_that_nobody_undoes(codings: list[bytes]) -> None:
    """gunicorn takes such bodies, and would pass on coded bytes as if they were not."""
    fields = b"".join(b"Transfer-Encoding: %b\r\n" % coding for coding in codings)
    with pytest.raises(UnsupportedTransferCoding, match="only transfer coding that is understood is chunked"):
        RequestParser(on_headers_complete=lambda: False).feed(HEAD + fields + b"\r\n0\r\n\r\n")


NAMES = (
    b"Host|host|Content-Length|content-type|Connection|Transfer-Encoding|Upgrade|Expect|X-A|X_B|X C||\xc3|TE"
)
TOKENS = st.sampled_from([*NAMES.split(b"|"), b"X-Forwarded-Proto", b"a!#$%&'*+-.^`|~"])
VALUES = st.one_of(
    st.sampled_from(
        [b"5", b"0", b"05", b"close", b"keep-alive", b"Keep-Alive", b"chunked", b"a, b", b"", b" x "]
    ),
    st.binary(max_size=6),
)
LINES = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    TOKENS,
    st.sampled_from([b": ", b":", b" : ", b"", b":\t"]),
    VALUES,
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\n "]),
)
FIRST = st.one_of(
    st.sampled_from(
        [b"GET / HTTP/1.1\r\n", b"POST /a?b=%2F HTTP/1.1\r\n", b"GET /\x7f HTTP/1.1\r\n", b"* / HTTP/1.1\r\n"]
    ),
    st.binary(max_size=12),
)


@given(FIRST, st.lists(LINES, max_size=6), st.binary(max_size=12), st.integers(0, 200))
@example(b"GET / HTTP/1.1\r\n", [], b"", 0)
def test_whatever_is_sent(first: bytes, lines: list[bytes], rest: bytes, at: int) -> None:
    data = b"".join((first, *lines, b"\r\n", rest))
    compare([data])
    compare([data[:at], data[at:]])


# --- bodies in chunks -------------------------------------------------------------------------------------------

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SIZES = st.sampled_from(
    [b"1", b"0001", b"5", b"a", b"A", b"10", b"0", b"00", b"", b"g", b"-1", b"+1", b" 1", b"f" * 17]
)
EXTENSIONS = st.sampled_from(
    [
        b"",
        b"",
        b"",
        b";a",
        b";a=b",
        b' ; a = "b;\\"c"',
        b";",
        b"; =",
        b" ",
        b";a\rb",
        b";a\nb",
        b';a="',
        b";a=\xff",
    ]
)
CHUNKS = st.builds(
    lambda size, extension, end, data, after: size + extension + end + data + after,
    SIZES,
    EXTENSIONS,
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]),
    st.sampled_from([b"x", b"x", b"\r\nabc", b"0123456789", b"", b"\r"]),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"", b"\n", b"\r"]),
)
SOUND = st.builds(
    lambda data, extension: b"%x%b\r\n%b\r\n" % (len(data), extension, data),
    st.one_of(st.binary(min_size=1, max_size=20), st.sampled_from([b"\r\n", b"1\r\nx\r\n", b"0\r\n\r\n"])),
    st.sampled_from([b"", b"", b";a", b";a=b", b' ;a="b"']),
)
ENDS = st.sampled_from(
    [b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0;a\r\n\r\nGET / HTTP/1.1\r\n", b"0\r\nHost: b\r\n\r\n", b""]
)


@given(st.lists(st.one_of(SOUND, SOUND, CHUNKS), max_size=8), ENDS, st.lists(st.integers(0, 300), max_size=4))
def test_a_body_in_chunks(chunks: list[bytes], end: bytes, cuts: list[int]) -> None:
    """However it arrives: whole chunks are taken together, and gunicorn reads the rest."""
    data = b"".join((CHUNKED, *chunks, end))
    places = [0, *sorted(min(len(CHUNKED) + cut, len(data)) for cut in cuts), len(data)]
    compare([data[one:other] for one, other in itertools.pairwise(places)])


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"0001\r\nx\r\n", b"1;a=b\r\nx\r\n", b'1 ; a="b"\r\nx\r\n'])
def test_tiny_chunks_are_taken_together(chunk: bytes) -> None:
    """A quarter of a megabyte of them arrives at once: each by itself would stop the worker's other calls."""
    pieces: list[bytes] = []
    parser = RequestParser(
        on_headers_complete=lambda: False, on_body=pieces.append, on_message_complete=lambda: None
    )
    parser.feed(CHUNKED)
    parser.feed(chunk * 20_000 + chunk[:-1])
    assert len(pieces) <= 2
    parser.feed(chunk[-1:] + chunk + b"0\r\n\r\n")
    assert b"".join(pieces) == b"x" * 20_002
    assert len(pieces) <= 4
    assert parser.is_complete
