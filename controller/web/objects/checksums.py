"""Checksums that callers give beside a body (`x-amz-checksum-…`), in its header or behind it, compared here: the
embedded storage looks at none of them. Used by the object proxy for links and for accounts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Protocol

from awscrt import checksums as amazon

PREFIX: Final = "x-amz-checksum-"


class Mismatch(ValueError):
    """The content has another checksum; the text says which."""


class Malformed(ValueError):
    """The given value is not a valid checksum."""


class RunningChecksum(Protocol):
    """Over content that comes in pieces."""

    def update(self, piece: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    def __init__(self, count: Callable[[bytes, int], int], size: int) -> None:
        self._count = count
        self._size = size
        self._value = 0

    def update(self, piece: bytes) -> None:
        self._value = self._count(piece, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


_MADE: Final[Mapping[str, tuple[int, Callable[[], RunningChecksum]]]] = {
    "crc32": (4, lambda: _Crc(zlib.crc32, 4)),
    "crc32c": (4, lambda: _Crc(amazon.crc32c, 4)),
    "crc64nvme": (8, lambda: _Crc(amazon.crc64nvme, 8)),
    "sha1": (20, lambda: hashlib.sha1(usedforsecurity=False)),
    "sha256": (32, hashlib.sha256),
}
#: Names of the header fields.
FIELDS: Final = frozenset(PREFIX + name for name in _MADE)


class Checksum:
    """One that is counted, by the name of its field."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._size, make = _MADE[name.removeprefix(PREFIX)]
        self._counter = make()

    def update(self, piece: bytes) -> None:
        self._counter.update(piece)

    def require(self, claimed: str) -> None:
        """Raises Mismatch, Malformed."""
        try:
            given = base64.b64decode(claimed, validate=True)
        except (binascii.Error, ValueError):
            given = b""
        if len(given) != self._size:
            raise Malformed(f"{self.name} is not a valid checksum in Base64")
        if not hmac.compare_digest(given, self._counter.digest()):
            raise Mismatch(f"{self.name} does not fit the content")


class Claim:
    """A checksum as the header gave it."""

    def __init__(self, name: str, value: str) -> None:
        self._checksum = Checksum(name)
        self._value = value

    def update(self, piece: bytes) -> None:
        self._checksum.update(piece)

    def require(self) -> None:
        """Raises Mismatch, Malformed."""
        self._checksum.require(self._value)


def claim_of(headers: Mapping[str, str]) -> Claim | None:
    """Raises Malformed: there is more than one."""
    names = sorted(FIELDS & headers.keys())
    if len(names) > 1:
        raise Malformed(f"{names[0]} and {names[1]} are given; one says all")
    return Claim(names[0], headers[names[0]]) if names else None


async def compared(pieces: AsyncIterator[bytes], claim: Claim | None) -> AsyncIterator[bytes]:
    """The same pieces, the last one after all have been compared. Raises Mismatch, Malformed."""
    held = b""
    async for piece in pieces:
        if claim is not None:
            claim.update(piece)
        if held:
            yield held
        held = piece
    if claim is not None:
        claim.require()
    if held:
        yield held
