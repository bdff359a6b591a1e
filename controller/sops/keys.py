"""The port by which files are decrypted: keys of age, AES-GCM and Go's regular expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class CannotDecrypt(Exception):
    """The key is another one, or the text was changed. Nothing tells the two apart."""


class FileKeys(Protocol):
    """The keys that may decrypt the files of one app, or of the platform folder. Hashable: equal ones decrypt the
    same."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """Return the public keys, the newest first."""

    @property
    def problem(self) -> str:
        """Return why the keys cannot be used; "" if they can."""

    @property
    def owner(self) -> str:
        """Return whose keys they are, as the command `prichal secret key` takes it."""

    def data_key(self, recipient: str, armored: str) -> bytes:
        """Return the key of a file that was encrypted for a recipient of ours. Raises CannotDecrypt."""

    def decrypt(self, key: bytes, iv: bytes, data: bytes, place: bytes) -> bytes:
        """Return what was encrypted with AES-256-GCM; `data` ends with the tag. Raises CannotDecrypt."""

    def matcher(self, pattern: str) -> Callable[[str], bool]:
        """Return a function that finds a regular expression of RE2 in a text. Raises ValueError."""
