"""A tunnel between two connections that a test plays: order, backpressure, and how it ends."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.routing.sockets import CloseCode
from controller.web.gateway import tunnel
from controller.web.gateway.frames import close_frame
from controller.web.gateway.tunnel import MANY, SocketEnd, Tunnel
from tests.support.gateway import until
from tests.support.loops import in_loop

HELLO = b"\x81\x05hello"
CLOSE = b"\x88\x02\x03\xe8"
LOST = close_frame(CloseCode.BAD_GATEWAY, "The component ended the connection.")
GOODBYE = close_frame(CloseCode.SERVICE_RESTART, "bye")


class PlayedTransport(asyncio.Transport):
    """Keeps what is written, and says what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reads = True
        self.ended = ""  # eof, closed or aborted
        self.unsent = 0

    def write(self, data: Any) -> None:
        assert self.ended == "", "nothing is written to a connection that has ended"
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.ended = self.ended or "eof"

    def pause_reading(self) -> None:
        assert self.reads, "it is not read from already"
        self.reads = False

    def resume_reading(self) -> None:
        assert not self.reads, "it is read from already"
        self.reads = True

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def is_closing(self) -> bool:
        return self.ended in ("closed", "aborted")

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Scene:
    """A tunnel that has begun; HEAD is the end of the handshake."""

    def __init__(self, received: bytes = b"", sent: bytes = b"") -> None:
        self.caller, self.component = PlayedTransport(), PlayedTransport()
        self.component.reads = False  # as after the handshake
        self.tunnel = Tunnel(asyncio.get_running_loop())
        self.tunnel.join(self.component)
        self.tunnel.begin(self.caller, b"HEAD", received, sent)

    @property
    def told(self) -> bytes:
        """What the caller got after the handshake."""
        assert self.caller.written.startswith(b"HEAD")
        return self.caller.written[4:]

    @property
    def end(self) -> SocketEnd | None:
        return self.tunnel.ended.result() if self.tunnel.ended.done() else None

    def is_read(self) -> bool:
        """Return True if somebody reads what the component sends."""
        return self.component.reads


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "HANDSHAKE", 0.05)


# --- passing on -------------------------------------------------------------------------------------------------


@in_loop
async def test_what_came_with_the_handshake_comes_first() -> None:
    scene = Scene(received=b"early", sent=HELLO)
    scene.tunnel.feed_data(b" late")
    scene.tunnel.from_component(HELLO)
    assert scene.component.written == b"early late"
    assert scene.told == HELLO * 2
    assert (scene.tunnel.received, scene.tunnel.sent) == (10, 14)
    assert scene.component.reads


@in_loop
async def test_a_component_is_not_read_from_while_the_caller_does_not_read() -> None:
    scene = Scene()
    for _ in range(3):
        scene.tunnel.pause_writing()
        assert not scene.component.reads
        scene.tunnel.resume_writing()
        assert scene.component.reads


@in_loop
async def test_a_caller_is_not_read_from_while_the_component_does_not_read() -> None:
    scene = Scene()
    scene.tunnel.component_slow(True)
    assert not scene.caller.reads
    scene.tunnel.component_slow(False)
    assert scene.caller.reads


@in_loop
async def test_a_flood_of_tiny_frames_has_to_rest() -> None:
    scene = Scene()
    scene.tunnel.from_component(b"\x82\x00" * MANY)
    assert scene.is_read()
    scene.tunnel.from_component(b"\x82\x00" * (MANY + 1))
    assert not scene.is_read()
    scene.tunnel.pause_writing()
    scene.tunnel.resume_writing()
    assert not scene.is_read(), "it rests, whatever the caller does"
    await until(scene.is_read)


# --- the gateway closes -----------------------------------------------------------------------------------------


@in_loop
async def test_a_close_frame_between_two_frames() -> None:
    scene = Scene(sent=HELLO)
    scene.tunnel.close(CloseCode.SERVICE_RESTART, "bye")
    scene.tunnel.from_component(HELLO)
    assert scene.told == HELLO + GOODBYE, "nothing follows a close frame"
    scene.tunnel.feed_data(b"the caller's answer")
    assert scene.component.written == b"the caller's answer"
    scene.tunnel.component_ended()
    assert (scene.end, scene.tunnel.code) == (SocketEnd.GATEWAY, CloseCode.SERVICE_RESTART)


@pytest.mark.parametrize("cut", range(1, len(HELLO)))
def test_a_close_frame_waits_for_the_end_of_a_frame(cut: int) -> None:
    async def scenario() -> None:
        scene = Scene(sent=HELLO[:cut])
        scene.tunnel.close(CloseCode.SERVICE_RESTART, "bye")
        assert scene.told == HELLO[:cut]
        scene.tunnel.from_component(HELLO[cut:] + HELLO)
        assert scene.told == HELLO + GOODBYE

    asyncio.run(scenario())


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=5),
    st.lists(st.integers(0, 2000), max_size=8),
    st.integers(0, 8),
)
def test_a_close_frame_never_stands_within_a_frame(sizes: list[int], cuts: list[int], when: int) -> None:
    async def scenario() -> None:
        frames = [
            bytes((0x82, size)) + b"x" * size
            if size < 126
            else b"\x82\x7e" + size.to_bytes(2, "big") + b"x" * size
            for size in sizes
        ]
        data = b"".join(frames)
        places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        pieces = [data[a:b] for a, b in itertools.pairwise(places)]
        scene = Scene()
        for number, piece in enumerate(pieces):
            if number == when:
                scene.tunnel.close(CloseCode.SERVICE_RESTART, "bye")
            scene.tunnel.from_component(piece)
        if when >= len(pieces):
            scene.tunnel.close(CloseCode.SERVICE_RESTART, "bye")
        before = scene.told.removesuffix(GOODBYE)
        assert scene.told.endswith(GOODBYE)
        assert before in [b"".join(frames[:count]) for count in range(len(frames) + 1)]
        scene.tunnel.leave()

    asyncio.run(scenario())


@in_loop
async def test_a_component_that_closes_is_not_interrupted() -> None:
    scene = Scene(sent=CLOSE)
    scene.tunnel.close(CloseCode.SERVICE_RESTART, "bye")
    assert scene.told == CLOSE
    assert await scene.tunnel.ended is SocketEnd.CLOSED
    assert scene.tunnel.code is None


@pytest.mark.parametrize("begun", [b"\x88", b"\x88\x02", b"\x88\x02\x03"])
def test_a_close_frame_that_has_begun_is_the_last_one(begun: bytes) -> None:
    async def scenario() -> None:
        scene = Scene(sent=begun)
        scene.tunnel.close(CloseCode.SERVICE_RESTART, "bye")
        scene.tunnel.from_component(CLOSE[len(begun) :])
        assert scene.told == CLOSE
        scene.tunnel.component_ended()
        assert scene.end is SocketEnd.CLOSED
        scene.tunnel.leave()

    asyncio.run(scenario())


@in_loop
async def test_who_does_not_finish_the_handshake_is_cut_off() -> None:
    scene = Scene()
    scene.tunnel.close(CloseCode.SERVICE_RESTART, "bye")
    assert await scene.tunnel.ended is SocketEnd.GATEWAY
    scene.tunnel.leave()
    assert (scene.caller.ended, scene.component.ended) == ("closed", "closed")
    await until(lambda: scene.component.ended == "aborted")


@in_loop
async def test_who_does_not_read_is_cut_off() -> None:
    scene = Scene()
    scene.caller.unsent = 1
    scene.tunnel.close(CloseCode.SERVICE_RESTART, "bye")
    await scene.tunnel.ended
    assert scene.caller.ended == "aborted"


@in_loop
async def test_a_frame_that_does_not_end_is_cut_off() -> None:
    scene = Scene(sent=HELLO[:3])
    scene.tunnel.close(CloseCode.SERVICE_RESTART, "bye")
    assert await scene.tunnel.ended is SocketEnd.GATEWAY
    assert scene.told == HELLO[:3]


@in_loop
async def test_it_is_closed_once() -> None:
    scene = Scene()
    scene.tunnel.close(CloseCode.SERVICE_RESTART, "bye")
    scene.tunnel.close(CloseCode.POLICY, "go")
    assert scene.told == GOODBYE
    await scene.tunnel.ended
    scene.tunnel.close(CloseCode.POLICY, "go")
    assert scene.told == GOODBYE


# --- the component ends -----------------------------------------------------------------------------------------


@in_loop
async def test_a_caller_is_told_that_the_component_has_died() -> None:
    scene = Scene(sent=HELLO)
    scene.tunnel.component_ended()
    scene.tunnel.component_ended()  # the end of its data, and that of the connection
    assert scene.told == HELLO + LOST
    assert scene.caller.ended == "eof"
    scene.tunnel.feed_data(b"the caller's answer")
    assert await scene.tunnel.ended is SocketEnd.COMPONENT
    assert scene.tunnel.code is CloseCode.BAD_GATEWAY


@in_loop
async def test_within_a_frame_the_connection_just_ends() -> None:
    scene = Scene(sent=HELLO[:3])
    scene.tunnel.component_ended()
    assert (scene.told, scene.end) == (HELLO[:3], SocketEnd.COMPONENT)
    scene.tunnel.leave()
    assert scene.caller.ended == "closed"


@in_loop
async def test_a_component_that_has_said_goodbye_ends() -> None:
    scene = Scene(sent=HELLO + CLOSE)
    scene.tunnel.component_ended()
    assert (scene.told, scene.end) == (HELLO + CLOSE, SocketEnd.CLOSED)


# --- the caller ends --------------------------------------------------------------------------------------------


@in_loop
async def test_a_caller_who_leaves_ends_the_component_s_connection() -> None:
    scene = Scene(received=b"last words")
    scene.tunnel.feed_eof()
    assert scene.end is SocketEnd.CALLER
    scene.tunnel.leave()
    assert (scene.component.written, scene.component.ended) == (b"last words", "closed")
    scene.tunnel.feed_data(b"more")
    scene.tunnel.from_component(HELLO)
    scene.tunnel.component_slow(True)
    scene.tunnel.resume_writing()
    assert scene.told == b""


@in_loop
async def test_a_task_that_is_cancelled_leaves_both() -> None:
    scene = Scene()
    scene.tunnel.leave()
    assert (scene.end, scene.caller.ended, scene.component.ended) == (SocketEnd.CALLER, "closed", "closed")
