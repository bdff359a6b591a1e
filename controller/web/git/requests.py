"""Which requests of Git's smart protocol there are, and the bodies of pushes as far as they are looked at. Pure.

Whatever is not exactly one of three requests is refused before Git sees it: the dumb protocol, other services, and
any other spelling of a path (gitprotocol-http(5)). `HEAD` counts as `GET`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controller.domain.git_http import GitService
from controller.web.gateway.body import too_large
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused, method_problem

BELOW: Final = b"/-/git/"
#: In Flask's notation, as in the table of rules (web/auth/rules.py).
ROUTES: Final = (
    ("GET", "/-/git/<hosted>.git/info/refs"),
    ("POST", "/-/git/<hosted>.git/git-upload-pack"),
    ("POST", "/-/git/<hosted>.git/git-receive-pack"),
)
COMMANDS: Final = 16 * 2**20  # bytes of the list of refs of a push
_PATH: Final = re.compile(
    rb"/-/git/([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)\.git/(info/refs|git-upload-pack|git-receive-pack)"
)
_COMMAND: Final = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) ([^\0\n]+)")
_STEP: Final = 256 * 2**10  # decoded bytes at once


@dataclass(frozen=True)
class GitTarget:
    """What a request is about. The content type of a body and of the answer follow from it."""

    repository: str
    service: GitService
    advertises: bool

    @property
    def content_type(self) -> str:
        return f"application/x-{self.service}-{'advertisement' if self.advertises else 'result'}"

    @property
    def request_type(self) -> str:
        return f"application/x-{self.service}-request"


def read_git_target(method: str, path: bytes, query: bytes) -> GitTarget:
    """Raises RequestRefused."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, "Only Git's smart protocol is spoken here."))
    is_list = found[2] == b"info/refs"
    if method not in (("GET", "HEAD") if is_list else ("POST",)):
        allow = "GET, HEAD" if is_list else "POST"
        raise RequestRefused(method_problem(f"Only {allow} is allowed here.", allow))
    service = query.removeprefix(b"service=") if is_list else found[2]
    if service not in (b"git-upload-pack", b"git-receive-pack") or (query if not is_list else b""):
        detail = "The dumb protocol and other services are not spoken here: use a Git of 2010 or newer."
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, detail))
    return GitTarget(found[1].decode(), GitService(service.decode()), is_list)


class GunzippedBody:
    """Decodes a body that is coded as gzip, piece by piece, so that a small one never becomes a large one in memory.
    Its decoded bytes are counted against the limit."""

    def __init__(self, limit: int) -> None:
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._limit = limit
        self._count = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` adds. Raises RequestRefused."""
        while data and not self._decoder.eof:
            try:
                piece = self._decoder.decompress(data, _STEP)
            except zlib.error as error:
                raise _malformed(str(error)) from None
            data = self._decoder.unconsumed_tail
            self._count += len(piece)
            if self._count > self._limit:
                raise too_large(self._limit)
            if piece:
                yield piece
        if data or self._decoder.unused_data:
            raise _malformed("there is more after its end")

    def finish(self) -> None:
        """Raises RequestRefused if the end is missing."""
        if not self._decoder.eof:
            raise _malformed("its end is missing")


def _malformed(why: str) -> RequestRefused:
    return RequestRefused(HttpProblem(ProblemKind.MALFORMED_CODING, f"The body is not gzip: {why}."))


class PushCommands:
    """Reads which refs a push is about, from the beginning of its body (gitprotocol-pack(5)): packets with a length of
    four hexadecimal digits, up to one without content. Git reads them again; here they are counted. Which of them it
    accepts, its hook tells."""

    def __init__(self) -> None:
        self.number = 0
        self._buffer = b""
        self._seen = 0
        self._complete = False

    def feed(self, data: bytes) -> bool:
        """Return True if the list of refs ends in this piece. Raises RequestRefused for what Git would not read either,
        and for too much."""
        if self._complete:
            return False
        self._seen += len(data)
        self._buffer += data
        at = 0
        while not self._complete and len(self._buffer) - at >= 4:
            length = _packet_length(self._buffer[at : at + 4])
            if len(self._buffer) - at < length:
                break
            self._complete = length <= 4
            self._take(self._buffer[at + 4 : at + length])
            at += max(length, 4)
        self._buffer = b"" if self._complete else self._buffer[at:]
        if not self._complete and self._seen > COMMANDS:
            raise too_large(COMMANDS)
        return self._complete

    def _take(self, packet: bytes) -> None:
        if _COMMAND.match(packet) is not None:
            self.number += 1


def _packet_length(digits: bytes) -> int:
    """Return the length of a packet with its digits; 0 to 2 stand for packets that only separate."""
    if not re.fullmatch(rb"[0-9a-fA-F]{4}", digits) or int(digits, 16) == 3:
        raise RequestRefused(
            HttpProblem(ProblemKind.BAD_REQUEST, "The body does not begin with Git's packets.")
        )
    return int(digits, 16)
