"""Checksums as clients of S3 send them, counted bit by bit by their definitions where the standard library has none."""

from __future__ import annotations

import base64
import hashlib
import zlib

CHECKSUMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
#: Reflected polynomials of the two.
_POLYNOMIALS = {"crc32c": (0x82F63B78, 32), "crc64nvme": (0x9A6C9329AC4BC9B5, 64)}


def checksum(name: str, content: bytes) -> str:
    """In Base64."""
    if name in ("sha1", "sha256"):
        found = hashlib.new(name, content).digest()
    elif name == "crc32":
        found = zlib.crc32(content).to_bytes(4, "big")
    else:
        found = _crc(name, content)
    return base64.b64encode(found).decode()


def _crc(name: str, content: bytes) -> bytes:
    polynomial, bits = _POLYNOMIALS[name]
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        table.append(value)
    every = (1 << bits) - 1
    crc = every
    for byte in content:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return (crc ^ every).to_bytes(bits // 8, "big")
