"""Checksums in ETags of object storages. The ETag of an object that was put in one piece is the MD5 of its
content in hex; that of parts is the MD5 of the parts' MD5s and, after a hyphen, their number. S3 checks MD5;
it protects only against accidents.

A storage that encrypts with its own keys returns other ETags; `is_checksum` recognizes them by the response.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

PIECE: Final = 2**20  # bytes that are read at once
_MIB: Final = 2**20
_MOST_PARTS: Final = 10_000
_ETAG: Final = re.compile(r"([0-9a-f]{32})(?:-([1-9][0-9]{0,4}))?")
#: Part sizes of common clients in MiB. The part size of an object is not stored anywhere.
_USUAL: Final = (16, 8, 5, 64, 10, 15, 32, 50, 100, 128, 256, 512, 1024)


class Match(Enum):
    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"  # the ETag is not a checksum, or one of parts of unknown size


def md5(descriptor: int, start: int, length: int) -> hashlib._Hash:
    """Return the MD5 of that many bytes of the file, or of fewer at its end. Does not move its position."""
    digest, end = hashlib.md5(usedforsecurity=False), start + length
    while start < end and (piece := os.pread(descriptor, min(PIECE, end - start), start)):
        digest.update(piece)
        start += len(piece)
    return digest


def of_parts(digests: Iterable[bytes]) -> str:
    """Return the ETag of an object that was put in parts with these MD5s."""
    joined = list(digests)
    return f"{hashlib.md5(b''.join(joined), usedforsecurity=False).hexdigest()}-{len(joined)}"


def compare(descriptor: int, size: int, etag: str) -> Match:
    """Compare a file of `size` bytes with the ETag of an object."""
    found = _ETAG.fullmatch(etag)
    if found is None:
        return Match.UNKNOWN
    if found[2] is None:
        return Match.SAME if md5(descriptor, 0, size).hexdigest() == etag else Match.OTHER
    steps = _part_sizes(size, int(found[2]))
    for step in steps:
        if of_parts(md5(descriptor, start, step).digest() for start in range(0, size, step)) == etag:
            return Match.SAME
    return Match.OTHER if steps else Match.UNKNOWN


def is_of_whole(etag: str) -> bool:
    """Return whether this is the ETag of an object that was put in one piece."""
    found = _ETAG.fullmatch(etag)
    return found is not None and found[2] is None


def contradicts(etag: str, digest: bytes) -> bool:
    """Return whether content with this MD5, put in one piece, cannot have this ETag."""
    found = _ETAG.fullmatch(etag)
    return found is not None and found[0] != digest.hex()


def contradicts_parts(etag: str, expected: str) -> bool:
    """Return whether an object that was put in parts, and must get the ETag `expected`, cannot have this one."""
    found = _ETAG.fullmatch(etag)
    return found is not None and found[2] is not None and etag != expected


def is_checksum(headers: Mapping[str, str]) -> bool:
    """Return whether the ETag with these headers is computed from the content."""
    if "x-amz-server-side-encryption-customer-algorithm" in headers:
        return False
    return not headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")


def _part_sizes(size: int, count: int) -> list[int]:
    """Return the part sizes that give `count` parts of an object of `size` bytes, the likeliest first."""
    least = -(-size // _MOST_PARTS)
    ours = max(16 * _MIB, -(-least // _MIB) * _MIB)  # the part size of the files API
    steps = dict.fromkeys([ours, *(mib * _MIB for mib in _USUAL)])
    fitting = [step for step in steps if -(-size // step) == count]
    return fitting[:1] if count == 1 else fitting
