"""Verifies SSH servers: compares a host key with the lines of a `known_hosts` file. Pure.

Format: "SSH_KNOWN_HOSTS FILE FORMAT" in sshd(8): patterns with `*` and `?`, negation, `[host]:port`, hashed
names (`|1|salt|HMAC-SHA1`), `@revoked`. Certificate authorities (`@cert-authority`) are skipped, as libssh2
does not support them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from controller.domain.text import matches_glob


@dataclass(frozen=True)
class HostKey:
    """A public key in SSH's wire format (RFC 4253, 6.6); it begins with the length and name of its type."""

    blob: bytes

    @property
    def type(self) -> str:
        return self.blob[4 : 4 + int.from_bytes(self.blob[:4], "big")].decode("ascii", "replace")

    @property
    def fingerprint(self) -> str:
        """The fingerprint as printed by `ssh-keygen -l`."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.type} {base64.b64encode(self.blob).decode()}"


class HostKeyCheck(Enum):
    KNOWN = auto()
    UNKNOWN = auto()
    MISMATCH = auto()  # another key of that type is known for the host
    REVOKED = auto()


@dataclass(frozen=True)
class KnownHostsLine:
    patterns: str
    key: HostKey
    revoked: bool = False

    def __str__(self) -> str:
        return f"{self.patterns} {self.key}"


def host_name(host: str, port: int | None) -> str:
    """Return the name of a server in known_hosts."""
    return host if port in (None, 22) else f"[{host}]:{port}"


def trusted(entries: tuple[KnownHostsLine, ...], name: str) -> tuple[HostKey, ...]:
    """Return the keys that `name` (as of `host_name`) may show."""
    ours = (entry for entry in entries if _matches(entry.patterns, name.lower()))
    return tuple(entry.key for entry in ours if not entry.revoked)


def judge(entries: tuple[KnownHostsLine, ...], name: str, key: HostKey) -> HostKeyCheck:
    """Judge a key; `name` is as of `host_name`."""
    if any(e.revoked and e.key == key and _matches(e.patterns, name.lower()) for e in entries):
        return HostKeyCheck.REVOKED
    keys = trusted(entries, name)
    if key in keys:
        return HostKeyCheck.KNOWN
    return HostKeyCheck.MISMATCH if any(other.type == key.type for other in keys) else HostKeyCheck.UNKNOWN


def parse(text: str) -> tuple[KnownHostsLine, ...]:
    """Parse entries. Invalid lines are skipped, as by ssh: they can only reduce trust."""
    return tuple(_entries(text))


def _entries(text: str) -> Iterator[KnownHostsLine]:
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#") or words[0] == "@cert-authority":
            continue
        revoked = words[0] == "@revoked"
        if len(words := words[1:] if revoked else words) < 3:
            continue
        try:
            key = HostKey(base64.b64decode(words[2], validate=True))
        except binascii.Error:
            continue
        if key.type == words[1]:
            yield KnownHostsLine(words[0], key, revoked)


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        return _matches_hash(patterns, name)
    negated = [p[1:] for p in patterns.split(",") if p.startswith("!")]
    wanted = [p for p in patterns.split(",") if not p.startswith("!")]
    return any(_fits(p, name) for p in wanted) and not any(_fits(p, name) for p in negated)


def _fits(pattern: str, name: str) -> bool:
    # Not fnmatch: it would read the brackets of `[host]:port` as a set of characters.
    return matches_glob(pattern.lower(), name)


def _matches_hash(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in hashed.split("|")[2:4])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)
