"""Keys of age (https://age-encryption.org), by which files in Git are encrypted for an app or for the platform folder,
and what else it takes to read files of SOPS: AES-GCM, and the regular expressions of Go. The only importer of the
library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import pyrage
import re2
from pyrage import x25519

from controller.domain.secret import Secret
from controller.encryption import decrypt_gcm
from controller.sops.keys import CannotDecrypt

_MEMORY: Final = 2**20  # bytes of a compiled regular expression
_LONGEST: Final = 1000  # characters of one


@dataclass(frozen=True)
class AgeKey:
    """`recipient` is the public key, for which others encrypt."""

    recipient: str
    identity: Secret = field(repr=False, compare=False)


def new_key() -> AgeKey:
    identity = x25519.Identity.generate()
    return AgeKey(str(identity.to_public()), Secret(str(identity)))


@dataclass(frozen=True)
class AgeKeys:
    """The keys of an app, or of the platform folder, the newest first: `controller.sops.FileKeys`."""

    owner: str
    keys: tuple[AgeKey, ...] = ()
    problem: str = ""

    @property
    def recipients(self) -> tuple[str, ...]:
        return tuple(key.recipient for key in self.keys)

    def data_key(self, recipient: str, armored: str) -> bytes:
        """Raises CannotDecrypt. Only the key of this recipient is tried."""
        for key in self.keys:
            if key.recipient == recipient:
                return _decrypted(armored, key.identity)
        raise CannotDecrypt

    def decrypt(self, key: bytes, iv: bytes, data: bytes, place: bytes) -> bytes:
        """Raises CannotDecrypt."""
        try:
            return decrypt_gcm(key, iv, data, place)
        except ValueError:
            raise CannotDecrypt from None

    def matcher(self, pattern: str) -> Callable[[str], bool]:
        """RE2 takes linear time for any expression. Raises ValueError."""
        if len(pattern) > _LONGEST:
            raise ValueError(f"it has more than {_LONGEST} characters")
        found = _compiled(pattern)
        return lambda text: found.search(text.encode()) is not None


def _decrypted(armored: str, identity: Secret) -> bytes:
    try:
        return bytes(pyrage.decrypt(armored.encode(), [x25519.Identity.from_str(identity.reveal())]))
    except (pyrage.DecryptError, pyrage.IdentityError, ValueError):
        raise CannotDecrypt from None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error:
        raise ValueError("RE2 does not take it") from None
