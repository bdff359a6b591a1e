"""Keys of age (https://age-encryption.org), by which files in Git are encrypted for an app or for the platform folder,
backups are streams for it, and what else it takes to read files of SOPS: AES-GCM, and the regular expressions of Go.
The only importer of the library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import pyrage
import re2
from pyrage import ssh, x25519

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


# --- streams ----------------------------------------------------------------------------------------------------


class AgeFailed(Exception):
    """A stream was not encrypted or decrypted. `is_key` is True if none of the keys is for it."""

    def __init__(self, message: str, is_key: bool = False) -> None:
        super().__init__(message)
        self.is_key = is_key


def _recipient(text: str) -> object:
    return ssh.Recipient.from_str(text) if text.startswith("ssh-") else x25519.Recipient.from_str(text)


def encrypt_stream(reader: object, writer: object, recipients: Iterable[str]) -> None:
    """Encrypt what `reader` yields until its end. Memory stays bounded. Raises AgeFailed, and OSError of `writer`."""
    try:
        pyrage.encrypt_io(reader, writer, [_recipient(text) for text in recipients])
    except (pyrage.EncryptError, pyrage.RecipientError, ValueError) as error:
        raise AgeFailed(str(error)) from None


def read_identities(content: str) -> tuple[Secret, ...]:
    """Return the private keys in a file as `age-keygen` writes it, or the one in a file of OpenSSH. Raises
    AgeFailed."""
    if content.startswith("-----BEGIN"):
        found: tuple[Secret, ...] = (Secret(content),)
    else:
        lines = (line.strip() for line in content.splitlines())
        found = tuple(Secret(line) for line in lines if line and not line.startswith("#"))
    for each in found:
        _identity(each)
    if not found:
        raise AgeFailed("it has no key")
    return found


def _identity(secret: Secret) -> object:
    text = secret.reveal()
    try:
        if text.startswith("-----BEGIN"):
            return ssh.Identity.from_buffer(text.encode())
        return x25519.Identity.from_str(text)
    except (pyrage.IdentityError, ValueError):
        raise AgeFailed("it has a line that is not a private key of age") from None


def decrypt_stream(reader: object, writer: object, identities: Iterable[Secret]) -> None:
    """Decrypt a stream. Only what is authentic is written, in pieces; a stream that was cut is found at its end. Raises
    AgeFailed, and OSError of `writer`."""
    keys = [_identity(each) for each in identities]
    try:
        pyrage.decrypt_io(reader, writer, keys)
    except pyrage.DecryptError as error:
        raise AgeFailed(str(error), is_key="No matching keys" in str(error)) from None
