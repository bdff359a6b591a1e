"""Bodies framed as `aws-chunked`, as Amazon's SDKs send them: taken apart, each chunk's signature and the trailing
checksum checked. Used by the object proxy; nothing of a body is kept but one chunk."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from controller.domain.storage.sigv4 import SignatureInvalid
from controller.web.objects.checksums import Checksum

MAX_CHUNK = 16 * 2**20  # bytes of one signed chunk, which is held until its signature was checked
MAX_LINE = 4096
#: Amazon's storage takes no smaller chunk but the last one. Some are taken here, but not a body that is made of them:
#: each takes as long as a large one, for which all other callers of the worker wait.
LEAST_CHUNK, MOST_SMALL = 8 * 2**10, 1000
PIECE = 256 * 1024
_HEADER = re.compile(rb"([0-9a-fA-F]{1,8})(?:;chunk-signature=([0-9a-f]{64}))?")
_EMPTY = hashlib.sha256(b"").hexdigest()


class ChunkFraming(ValueError):
    """The body is not framed as it says."""


@dataclass
class ChunkSigner:
    """Signatures of chunks go on from the one of the header. `key` is the signing key of `scope`."""

    key: bytes
    date: str
    scope: str
    last: str

    def check(self, content: bytes, signature: str) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self._check("PAYLOAD", f"{_EMPTY}\n{digest}", signature)

    def check_trailer(self, lines: bytes, signature: str) -> None:
        self._check("TRAILER", hashlib.sha256(lines).hexdigest(), signature)

    def _check(self, what: str, digests: str, signature: str) -> None:
        text = f"AWS4-HMAC-SHA256-{what}\n{self.date}\n{self.scope}\n{self.last}\n{digests}"
        fits = hmac.digest(self.key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(fits.encode(), signature.encode()):
            raise SignatureInvalid("the signature of a chunk does not fit")
        self.last = signature


class ChunkedReader:
    """`read` gives pieces of the framed body, empty at its end. `signer` is None where chunks are not signed; `trailer`
    names the fields that come behind them."""

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        length: int,
        signer: ChunkSigner | None,
        trailer: frozenset[str],
    ) -> None:
        self._read = read
        self._left = length
        self._signer = signer
        self._trailer = trailer
        self._buffer = bytearray()
        self._checks = [Checksum(name) for name in trailer]

    async def pieces(self) -> AsyncIterator[bytes]:
        """The content, `length` bytes in all; the last piece comes when all has been checked. Raises ChunkFraming,
        SignatureInvalid, Mismatch, Malformed."""
        held, small = b"", 0
        while True:
            size, signature = self._head(await self._line())
            small += size < LEAST_CHUNK
            if small > MOST_SMALL:
                raise ChunkFraming(f"more than {MOST_SMALL} chunks have less than {LEAST_CHUNK} bytes")
            if size > self._left:
                raise ChunkFraming("there is more than x-amz-decoded-content-length says")
            if not size:
                break
            async for piece in self._content(size, signature):
                for check in self._checks:
                    check.update(piece)
                if held:
                    yield held
                held = piece
            self._left -= size
            if await self._exactly(2) != b"\r\n":
                raise ChunkFraming("a chunk does not end where it should")
        if self._left:
            raise ChunkFraming("there is less than x-amz-decoded-content-length says")
        if self._signer is not None:
            self._signer.check(b"", signature)
        await self._read_trailer()
        if held:
            yield held

    def _head(self, line: bytes) -> tuple[int, str]:
        found = _HEADER.fullmatch(line)
        if found is None or (found[2] is None) != (self._signer is None):
            raise ChunkFraming("a chunk has no size, or no signature")
        return int(found[1], 16), (found[2] or b"").decode()

    async def _content(self, size: int, signature: str) -> AsyncIterator[bytes]:
        if self._signer is None:
            while size:
                piece = await self._exactly(min(size, PIECE))
                size -= len(piece)
                yield piece
            return
        if size > MAX_CHUNK:
            raise ChunkFraming(f"a signed chunk has at most {MAX_CHUNK} bytes")
        content = await self._exactly(size)
        self._signer.check(content, signature)
        yield content

    async def _read_trailer(self) -> None:
        lines: dict[str, str] = {}
        signed = b""
        while line := await self._line(at_end=True):
            name, _, value = line.decode("latin-1").partition(":")
            name, value = name.strip().lower(), value.strip()
            if name != "x-amz-trailer-signature":
                signed += f"{name}:{value}\n".encode("latin-1")
            lines[name] = value
            if len(lines) > 10:
                raise ChunkFraming("there is too much behind the last chunk")
        signature = lines.pop("x-amz-trailer-signature", "")
        if lines.keys() != self._trailer:
            raise ChunkFraming("behind the last chunk there is not what x-amz-trailer says")
        if self._signer is not None and self._trailer:
            self._signer.check_trailer(signed, signature)
        for check in self._checks:
            check.require(lines[check.name])

    async def _line(self, at_end: bool = False) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_LINE:
                raise ChunkFraming("a line is too long")
            piece = await self._read()
            if not piece:
                if at_end and not self._buffer:
                    return b""
                raise ChunkFraming("the body ends before its end")
            self._buffer += piece
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = await self._read()
            if not piece:
                raise ChunkFraming("the body ends before its end")
            self._buffer += piece
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        return content
