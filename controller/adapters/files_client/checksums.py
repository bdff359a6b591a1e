"""Checksums as object storages give them: the ETag of what was put in one piece is the MD5 of its content in hex,
that of parts the MD5 of the parts' MD5s and, after a hyphen, their number. MD5 is what S3 checks; it guards against
accidents alone.

A storage that encrypts with keys of its own gives other ETags; `is_checksum` tells by its answer.
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
#: Part sizes of usual clients in MiB. The size that an object was put with is not kept anywhere.
_USUAL: Final = (16, 8, 5, 64, 10, 15, 32, 50, 100, 128, 256, 512, 1024)


class Match(Enum):
    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"  # this ETag is no checksum, or one of parts of unknown size


def md5(descriptor: int, start: int, length: int) -> hashlib._Hash:
    """Of that many bytes of the file, or of fewer if it ends before. Its position stays where it is."""
    digest, end = hashlib.md5(usedforsecurity=False), start + length
    while start < end and (piece := os.pread(descriptor, min(PIECE, end - start), start)):
        digest.update(piece)
        start += len(piece)
    return digest


def of_parts(digests: Iterable[bytes]) -> str:
    """ETag of an object that was put in parts with these MD5s."""
    joined = list(digests)
    return f"{hashlib.md5(b''.join(joined), usedforsecurity=False).hexdigest()}-{len(joined)}"


def compare(descriptor: int, size: int, etag: str) -> Match:
    """Whether a file of `size` bytes is the object with this ETag."""
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


def contradicts(etag: str, digest: bytes) -> bool:
    """Whether something with this MD5, put in one piece, cannot have this ETag."""
    found = _ETAG.fullmatch(etag)
    return found is not None and found[0] != digest.hex()


def contradicts_parts(etag: str, expected: str) -> bool:
    """Whether an object that was put in parts, and must get the ETag `expected`, cannot have this one."""
    found = _ETAG.fullmatch(etag)
    return found is not None and found[2] is not None and etag != expected


def is_checksum(headers: Mapping[str, str]) -> bool:
    """Whether the ETag beside these headers is made from the content."""
    if "x-amz-server-side-encryption-customer-algorithm" in headers:
        return False
    return not headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")


def _part_sizes(size: int, count: int) -> list[int]:
    """In which an object of `size` bytes may have been cut into `count` parts, the likeliest first."""
    least = -(-size // _MOST_PARTS)
    ours = max(16 * _MIB, -(-least // _MIB) * _MIB)  # what the files API cuts
    steps = dict.fromkeys([ours, *(mib * _MIB for mib in _USUAL)])
    fitting = [step for step in steps if -(-size // step) == count]
    return fitting[:1] if count == 1 else fitting
