"""WebSocket frames (RFC 6455 §5.2), as far as a proxy has to know them: where one ends, because a close frame of the
gateway's own may stand only between two others. Pure; used by `tunnel` for what a component sends.

Nothing is decoded, buffered or checked: a component may send any bytes, and they cost no more than their number. If
they are not frames, the gateway only finds no place for its own."""

from __future__ import annotations

from typing import Final

from controller.domain.routing.sockets import CloseCode

LONGEST_REASON: Final = 123  # bytes, because a control frame has at most 125
_CLOSE: Final = 8
_HEADER: Final = 10  # bytes in which a frame says how long it is, at most
_LONG: Final = 126  # the length field of frames whose length follows in two bytes; one more: in eight


def close_frame(code: CloseCode, reason: str) -> bytes:
    """Return a server's close frame: it is not masked."""
    text = reason.encode()[:LONGEST_REASON].decode(errors="ignore").encode()
    return bytes((0x80 | _CLOSE, 2 + len(text))) + code.to_bytes(2, "big") + text


class FrameTracker:
    """Follows the frames in one direction. `closed` is set once a close frame has begun: nothing may follow it.
    `frames` counts those that began in the latest piece."""

    __slots__ = ("_head", "_left", "closed", "frames")

    def __init__(self) -> None:
        self._head = b""  # of a frame whose length is not known yet
        self._left = 0  # bytes until the frame ends that has begun
        self.closed = False
        self.frames = 0

    @property
    def between(self) -> bool:
        """True between two frames, where another one may be sent."""
        return not (self._head or self._left or self.closed)

    def until_end(self, data: bytes) -> int | None:
        """Return how many of the next bytes belong to the frame that has begun; None if it does not end in them."""
        end = self._left
        if self.closed:
            return None
        if self._head:
            extent = _extent(self._head + data[:_HEADER])
            if extent is None:
                return None
            end = extent - len(self._head)
        return end if end <= len(data) else None

    def feed(self, data: bytes) -> None:
        """Follow the next bytes."""
        self.frames = 0
        if self.closed:
            return
        at = self._left
        if self._head:
            head = self._head + data[:_HEADER]
            self.closed = head[0] & 15 == _CLOSE
            extent = _extent(head)
            if extent is None or self.closed:
                self._head = head
                return
            at = extent - len(self._head)
            self._head = b""
        self._follow(data, at)

    def _follow(self, data: bytes, at: int) -> None:
        """Go from frame to frame; the first begins at `at`. It is a hot path: many frames are small."""
        end, frames = len(data), 0
        while at + 1 < end:
            frames += 1
            if data[at] & 15 == _CLOSE:
                self.closed = True
                break
            size = data[at + 1]
            if size < _LONG:
                at += 2 + size
                continue
            head = data[at : at + _HEADER]
            extent = _extent(head)
            if extent is None:
                break
            at += extent
        self.frames = frames
        self._left = max(0, at - end)
        self._head = b"" if self.closed else data[at:end]


def _extent(head: bytes) -> int | None:
    """Return how long the frame is that begins so, its header included; None while that is not known."""
    if len(head) < 2:
        return None
    masked, size, start = head[1] & 128, head[1] & 127, 2
    if size >= _LONG:
        start = 4 if size == _LONG else _HEADER
        if len(head) < start:
            return None
        size = int.from_bytes(head[2:start], "big")
    return start + (4 if masked else 0) + size
