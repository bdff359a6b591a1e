"""Encryption with the key of this instance."""

from __future__ import annotations

from typing import Protocol


class SecretCipher(Protocol):
    """What follows from the key of this instance. `place` is bound to what is sealed."""

    id: bytes  # of the key, and the beginning of all that is sealed with it
    public: bytes  # for which others seal

    def seal(self, content: bytes, place: bytes) -> bytes: ...

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Raises CannotOpen."""

    def open_received(self, sealed: bytes, place: bytes) -> bytes:
        """Open what was sealed for the public key. Raises CannotOpen."""

    def fingerprint(self, content: bytes, place: bytes) -> str: ...
