"""Is this the right SSH server? A host key against the lines of a `known_hosts` file. Pure.

Format: "SSH_KNOWN_HOSTS FILE FORMAT" in sshd(8): patterns with `*` and `?`, negation, `[host]:port`, hashed names
(`|1|salt|HMAC-SHA1`), `@revoked`. Certificate authorities (`@cert-authority`) are passed over, libssh2 knows none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True)
class HostKey:
    """A public key in SSH's wire format (RFC 4253, 6.6); it begins with the length and name of its type."""

    blob: bytes

    @property
    def type(self) -> str:
        return self.blob[4 : 4 + int.from_bytes(self.blob[:4], "big")].decode("ascii", "replace")

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.type} {base64.b64encode(self.blob).decode()}"


class Verdict(Enum):
    KNOWN = auto()
    UNKNOWN = auto()
    MISMATCH = auto()  # another key of that type is known for the host
    REVOKED = auto()


@dataclass(frozen=True)
class Entry:
    patterns: str
    key: HostKey
    revoked: bool = False

    def __str__(self) -> str:
        return f"{self.patterns} {self.key}"


def host_name(host: str, port: int | None) -> str:
    """How known_hosts calls a server."""
    return host if port in (None, 22) else f"[{host}]:{port}"


def trusted(entries: tuple[Entry, ...], name: str) -> tuple[HostKey, ...]:
    """The keys that `name` (as of `host_name`) may show."""
    ours = (entry for entry in entries if _matches(entry.patterns, name.lower()))
    return tuple(entry.key for entry in ours if not entry.revoked)


def judge(entries: tuple[Entry, ...], name: str, key: HostKey) -> Verdict:
    """`name` as of `host_name`."""
    if any(e.revoked and e.key == key and _matches(e.patterns, name.lower()) for e in entries):
        return Verdict.REVOKED
    keys = trusted(entries, name)
    if key in keys:
        return Verdict.KNOWN
    return Verdict.MISMATCH if any(other.type == key.type for other in keys) else Verdict.UNKNOWN


def parse(text: str) -> tuple[Entry, ...]:
    """Lines that make no sense are passed over, as ssh does: they can only make us trust less."""
    return tuple(_entries(text))


def _entries(text: str) -> Iterator[Entry]:
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
            yield Entry(words[0], key, revoked)


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        return _matches_hash(patterns, name)
    negated = [p[1:] for p in patterns.split(",") if p.startswith("!")]
    wanted = [p for p in patterns.split(",") if not p.startswith("!")]
    return any(_fits(p, name) for p in wanted) and not any(_fits(p, name) for p in negated)


def _fits(pattern: str, name: str) -> bool:
    # Not fnmatch: there the brackets of `[host]:port` would be a set of characters.
    expression = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name) is not None


def _matches_hash(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in hashed.split("|")[2:4])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)
