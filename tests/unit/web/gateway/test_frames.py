"""Where frames end, whatever they are and however they arrive."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.routing.sockets import CloseCode
from controller.web.gateway.frames import FrameTracker, close_frame

CLOSE = 8
OPCODES = (0, 1, 2, 9, 10)


def frame(opcode: int, size: int, final: bool = True, masked: bool = False, long: int = 0) -> bytes:
    """A frame whose length field has at least `long` bytes beyond the first."""
    first = bytes((final << 7 | opcode,))
    if size > 0xFFFF or long == 8:
        length = bytes((masked << 7 | 127,)) + size.to_bytes(8, "big")
    elif size > 125 or long == 2:
        length = bytes((masked << 7 | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((masked << 7 | size,))
    return first + length + (b"mask" if masked else b"") + b"\x88\x7f"[:size] + b"x" * max(0, size - 2)


frames = st.lists(
    st.builds(
        frame,
        st.sampled_from(OPCODES),
        st.sampled_from((0, 1, 2, 125, 126, 127, 300, 65535, 65536, 70000)),
        st.booleans(),
        st.booleans(),
        st.sampled_from((0, 2, 8)),
    ),
    max_size=6,
)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@given(frames, st.lists(st.integers(0, 10**6), max_size=12))
def test_the_place_between_two_frames_is_found(sent: list[bytes], cuts: list[int]) -> None:
    ends = {0, *accumulate(map(len, sent))}
    tracker, at = FrameTracker(), 0
    assert tracker.between
    for piece in pieces(b"".join(sent), cuts):
        following = [end for end in ends if end >= at]
        wanted = min(following) - at
        found = tracker.until_end(piece)
        # A header that is not complete may not tell how long the frame is; then it is asked again.
        assert found == (wanted if wanted <= len(piece) else None)
        tracker.feed(piece)
        at += len(piece)
        assert tracker.between == (at in ends)
        assert not tracker.closed


@given(frames, st.lists(st.integers(0, 10**6), max_size=12), st.binary(max_size=20))
def test_nothing_is_sent_after_a_close_frame(sent: list[bytes], cuts: list[int], rest: bytes) -> None:
    tracker = FrameTracker()
    for piece in pieces(b"".join(sent) + frame(CLOSE, 2) + rest, cuts):
        tracker.feed(piece)
    assert tracker.closed
    assert not tracker.between
    assert tracker.until_end(b"\x82\x00") is None


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_any_bytes_may_come(garbage: list[bytes]) -> None:
    whole = FrameTracker()
    whole.feed(b"".join(garbage))
    tracker = FrameTracker()
    for piece in garbage:
        tracker.until_end(piece)
        tracker.feed(piece)
    assert (tracker.between, tracker.closed) == (whole.between, whole.closed)


def test_frames_are_counted() -> None:
    tracker = FrameTracker()
    tracker.feed(b"\x82\x00" * 1000)
    assert tracker.frames == 1000
    tracker.feed(b"\x82\x7e\xff\xff" + b"x" * 100)
    assert tracker.frames == 1
    tracker.feed(b"x" * 100)
    assert tracker.frames == 0


@pytest.mark.parametrize("code", CloseCode)
def test_a_close_frame_is_one(code: CloseCode) -> None:
    made = close_frame(code, "Another version.")
    assert made == bytes((0x88, 18)) + code.to_bytes(2, "big") + b"Another version."


@given(st.text())
def test_a_reason_fits_and_is_utf8(reason: str) -> None:
    reason = reason.encode(errors="ignore").decode()
    made = close_frame(CloseCode.GOING_AWAY, reason)
    assert len(made) == 2 + made[1] <= 127
    assert reason.startswith(made[4:].decode())
    tracker = FrameTracker()
    tracker.feed(made)
    assert tracker.closed
