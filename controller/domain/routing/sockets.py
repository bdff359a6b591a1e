"""When open WebSockets of a component end, and with which close code (RFC 6455 §7.4, the IANA registry of close codes).
Pure; the gateway holds the sockets, and the daemon removes containers."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

#: Seconds for the calls and sockets of a component that left Git: the manifest with its drain time is gone, too.
GONE_DRAIN: Final = 30.0
#: Seconds of the drain time that are kept for closing handshakes, so that the container is still there.
CLOSING: Final = 2.0
#: Seconds between two checks of a caller whose credentials may expire.
RECHECK: Final = 60.0


class CloseCode(IntEnum):
    """The codes that the gateway itself sends."""

    GOING_AWAY = 1001  # there is nothing to come back to
    POLICY = 1008  # the caller may not use the API any more
    SERVICE_RESTART = 1012  # another version or worker takes a new connection
    BAD_GATEWAY = 1014  # the component ended the connection without a word


def open_for(drain: float) -> float:
    """Return for how many seconds a socket may stay open after traffic has left its container. `drain` is the time
    after which the daemon removes the container; the closing handshake happens within it."""
    return max(drain - CLOSING, drain / 2)
