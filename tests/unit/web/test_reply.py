"""Responses to ordinary requests, as they are written on a connection."""

from __future__ import annotations

import asyncio
import re

import pytest

from controller.web.gateway.headers import Header
from controller.web.reply import BadResponse, Reply, _lower_usual

TYPE: Header = (b"content-type", b"text/plain")
DATE = re.compile(rb"date: [^\r]+\r\n", re.IGNORECASE)


class Line:
    """A connection that keeps what is written on it."""

    def __init__(self) -> None:
        self.left = False
        self.pieces: list[bytes] = []
        self.flow = self
        self.write_paused = False
        self.drained = 0

    def put(self, data: bytes) -> None:
        self.pieces.append(data)

    async def drain(self) -> None:
        self.drained += 1

    @property
    def written(self) -> bytes:
        return DATE.sub(b"", b"".join(self.pieces))


def answer(
    line: Line, status: int, headers: list[Header], *bodies: bytes, end: bool = True, **how: bool
) -> Reply:
    reply = Reply(line, how.get("without_body", False), how.get("closes", False))

    async def run() -> None:
        await reply.send({"type": "http.response.start", "status": status, "headers": headers})
        for number, body in enumerate(bodies, 1):
            more = number < len(bodies) or not end
            await reply.send({"type": "http.response.body", "body": body, "more_body": more})

    asyncio.run(run())
    return reply


def test_head_and_body_are_one_piece() -> None:
    reply = answer(line := Line(), 200, [TYPE, (b"Content-Length", b"2")], b"ok")
    assert line.written == b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 2\r\n\r\nok"
    assert len(line.pieces) == 1
    assert reply.keeps_alive


def test_an_empty_part_takes_the_head_along() -> None:
    answer(line := Line(), 200, [TYPE], b"", end=False)
    assert line.written.endswith(b"transfer-encoding: chunked\r\n\r\n")


def test_a_large_body_is_not_copied() -> None:
    body = bytes(2**17)
    answer(line := Line(), 200, [(b"content-length", b"%d" % len(body))], body)
    assert line.pieces[1] is body or line.pieces[1] == body
    assert len(line.pieces) == 2


def test_a_body_without_a_length_is_chunked() -> None:
    reply = answer(line := Line(), 200, [], b"one", b"", b"three", b"")
    assert line.written.endswith(b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\r\n")
    assert reply.keeps_alive


@pytest.mark.parametrize("body", [b"abc", b"abcd", b"abcdef"])
def test_a_body_is_never_longer_than_its_length(body: bytes) -> None:
    reply = answer(line := Line(), 200, [(b"content-length", b"3")], body)
    assert line.written.endswith(b"\r\n\r\nabc")
    assert reply.keeps_alive


def test_a_body_that_is_too_short_ends_the_connection() -> None:
    assert not answer(Line(), 200, [(b"content-length", b"4")], b"abc").keeps_alive


def test_a_response_without_its_end_ends_the_connection() -> None:
    assert not answer(Line(), 200, [], b"abc", end=False).keeps_alive
    assert not answer(Line(), 200, [(b"content-length", b"3")], b"abc", end=False).keeps_alive


@pytest.mark.parametrize(
    ("status", "head", "kept"),
    [(200, True, b"content-length: 9\r\n"), (304, False, b"content-length: 9\r\n"), (204, False, b"")],
)
def test_responses_without_a_body(status: int, head: bool, kept: bytes) -> None:
    reply = answer(line := Line(), status, [(b"content-length", b"9")], b"not to be", without_body=head)
    assert line.written.partition(b"\r\n")[2] == kept + b"\r\n"
    assert reply.keeps_alive


def test_framing_belongs_to_the_server() -> None:
    answer(line := Line(), 200, [(b"Transfer-Encoding", b"gzip"), (b"content-length", b"1")], b"ab")
    assert line.written == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b=c"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\x00b"),
        (b"x\r\ny", b"b"),
        (b"x y", b"b"),
        (b"", b"b"),
        (b"x:", b"b"),
    ],
)
def test_no_field_ends_its_line_early(header: Header) -> None:
    line = Line()
    with pytest.raises(BadResponse):
        answer(line, 200, [TYPE, header], b"")
    assert not line.pieces


def test_long_names_are_checked_and_take_no_memory() -> None:
    name = b"x" * 60_000
    known = _lower_usual.cache_info().currsize
    answer(line := Line(), 200, [(name, b"1"), (b"Content-Length", b"0")], b"")
    assert name + b": 1\r\n" in line.written
    assert _lower_usual.cache_info().currsize <= known + 1
    with pytest.raises(BadResponse):
        answer(Line(), 200, [(name + b" ", b"1")], b"")


def test_a_connection_that_ends_says_so() -> None:
    reply = answer(line := Line(), 200, [(b"content-length", b"0")], b"", closes=True)
    assert b"connection: close\r\n" in line.written
    assert not reply.keeps_alive


def test_nothing_is_written_for_a_caller_who_has_left() -> None:
    line = Line()
    line.left = True
    assert not answer(line, 200, [TYPE], b"x").started
    assert not line.pieces


def test_two_responses_are_an_error() -> None:
    reply = answer(Line(), 200, [(b"content-length", b"0")], b"")
    with pytest.raises(BadResponse):
        asyncio.run(reply.send({"type": "http.response.body", "body": b"x"}))
    with pytest.raises(BadResponse):
        asyncio.run(reply.send({"type": "http.response.start", "status": 200, "headers": []}))


def test_a_slow_caller_is_waited_for() -> None:
    line = Line()
    line.write_paused = True
    answer(line, 200, [], b"x", b"y")
    assert line.drained == 2
