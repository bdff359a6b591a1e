"""Bodies in chunks, signed and with checksums behind them: content comes out as it went in, or is refused before its
last piece."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import zlib
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.secret import Secret
from controller.domain.storage.sigv4 import SignatureInvalid, signing_key
from controller.web.objects.checksums import Mismatch
from controller.web.objects.chunks import (
    LEAST_CHUNK,
    MOST_SMALL,
    ChunkedReader,
    ChunkFraming,
    ChunkSigner,
)

SCOPE, DATE, SEED = "20130524/us-east-1/s3/aws4_request", "20130524T000000Z", "a" * 64
KEY = signing_key(Secret("secret"), SCOPE)
EMPTY = hashlib.sha256(b"").hexdigest()
CRC = frozenset({"x-amz-checksum-crc32"})


def signature(last: str, what: str, digests: str) -> str:
    text = f"AWS4-HMAC-SHA256-{what}\n{DATE}\n{SCOPE}\n{last}\n{digests}"
    return hmac.digest(KEY, text.encode(), "sha256").hex()


def framed(pieces: list[bytes], signed: bool, trailer: bool) -> bytes:
    body, last = b"", SEED
    for piece in [*pieces, b""]:
        last = signature(last, "PAYLOAD", f"{EMPTY}\n{hashlib.sha256(piece).hexdigest()}")
        body += b"%x" % len(piece) + (f";chunk-signature={last}".encode() if signed else b"") + b"\r\n"
        body += piece + b"\r\n" if piece else b""
    if trailer:
        crc = base64.b64encode(zlib.crc32(b"".join(pieces)).to_bytes(4, "big")).decode()
        line = f"x-amz-checksum-crc32:{crc}"
        body += line.encode() + b"\r\n"
        if signed:
            digest = hashlib.sha256(f"{line}\n".encode()).hexdigest()
            body += f"x-amz-trailer-signature:{signature(last, 'TRAILER', digest)}\r\n".encode()
    return body + b"\r\n"


def reader(body: bytes, step: int) -> Callable[[], Awaitable[bytes]]:
    left = [body[start : start + step] for start in range(0, len(body), step)]

    async def read() -> bytes:
        return left.pop(0) if left else b""

    return read


def content(body: bytes, length: int, signed: bool, trailer: bool, step: int = 7) -> bytes:
    async def read() -> bytes:
        signer = ChunkSigner(KEY, DATE, SCOPE, SEED) if signed else None
        chunks = ChunkedReader(reader(body, step), length, signer, CRC if trailer else frozenset())
        return b"".join([piece async for piece in chunks.pieces()])

    return asyncio.run(read())


pieces = st.lists(st.binary(min_size=1, max_size=40), max_size=4)


@given(pieces, st.booleans(), st.booleans(), st.integers(1, 50))
def test_what_goes_in_comes_out(pieces: list[bytes], signed: bool, trailer: bool, step: int) -> None:
    whole = b"".join(pieces)
    assert content(framed(pieces, signed, trailer), len(whole), signed, trailer, step) == whole


@given(pieces.filter(any), st.booleans(), st.data())
def test_another_byte_is_refused(pieces: list[bytes], trailer: bool, data: st.DataObject) -> None:
    """Of signed chunks: wherever it is, but for the case of a size."""
    body = framed(pieces, signed=True, trailer=trailer)
    at = data.draw(st.integers(0, len(body) - 3))
    other = bytes([data.draw(st.integers(0, 255).filter(lambda byte: byte != body[at]))])
    changed = body[:at] + other + body[at + 1 :]
    if changed.lower() == body.lower():
        return
    length = sum(map(len, pieces))
    try:
        found = content(changed, length, signed=True, trailer=trailer)
    except (ChunkFraming, Mismatch, SignatureInvalid):
        return
    assert found == b"".join(pieces)


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"", 1),
        (b"1\r\na\r\n0\r\n\r\n", 2),
        (b"2\r\nab\r\n0\r\n\r\n", 1),
        (b"1\r\nab\r\n0\r\n\r\n", 1),
        (b"-1\r\n", 1),
        (b"g\r\n", 1),
        (b"1;x=y\r\na\r\n0\r\n\r\n", 1),
        (b"fffffffff\r\n", 1),
        (b"x" * 10_000, 1),
        (b"1\r\na\r\n0\r\nx-amz-meta-a:1\r\n\r\n", 1),
    ],
)
def test_frames_that_are_none(body: bytes, length: int) -> None:
    with pytest.raises(ChunkFraming):
        content(body, length, signed=False, trailer=False)


def test_nothing_is_whole_before_its_checksum() -> None:
    body = framed([b"abc", b"def"], signed=False, trailer=True).replace(b"abc", b"abX")

    async def read() -> None:
        pieces = ChunkedReader(reader(body, 9), 6, None, CRC).pieces()
        assert await anext(pieces) == b"abX"
        with pytest.raises(Mismatch, match="does not fit"):
            await anext(pieces)  # the last one is held back

    asyncio.run(read())


@pytest.mark.parametrize("signed", [False, True])
def test_a_body_of_tiny_chunks_is_refused(signed: bool) -> None:
    """Each takes as long as a large one; Amazon's storage takes none."""
    small = [b"x"] * (MOST_SMALL - 1)  # and the last one, which is empty
    assert content(framed(small, signed, False), len(small), signed, False, step=2**16) == b"".join(small)
    large = [b"y" * LEAST_CHUNK] * 3
    whole = b"".join([*small, *large])
    assert content(framed([*small, *large], signed, False), len(whole), signed, False, step=2**16) == whole
    with pytest.raises(ChunkFraming, match="more than 1000 chunks"):
        content(framed([*small, b"x"], signed, False), len(small) + 1, signed, False, step=2**16)
