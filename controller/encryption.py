"""Encryption of Secrets that people set: at rest with a key of this instance, and on the way to the daemon for its
public key. Both are the library's own constructions; this is the only module that imports it.

All keys follow from the key of the instance, so that one file has to be kept (docs/adr/0025-secrets-by-their-owner.md).
"""

from __future__ import annotations

import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from controller.domain.apps.owned_secrets import CannotOpen

KEY: Final = 32  # bytes of the instance's key, and of those that follow from it
_ID: Final = 8  # bytes
_NONCE: Final = 12
_FINGERPRINT: Final = 16  # hexadecimal digits
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SecretKeys:
    """What follows from one key of an instance: `controller.ports.SecretCipher`."""

    def __init__(self, instance_key: bytes) -> None:
        self._instance_key = instance_key
        self._aead = AESGCM(self._derived(b"secrets at rest"))
        self._fingerprints = self._derived(b"fingerprints of secrets")
        self._private = X25519PrivateKey.from_private_bytes(self._derived(b"changes of secrets"))
        self.id = self._derived(b"name of the key")[:_ID]
        self.public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def seal(self, content: bytes, place: bytes) -> bytes:
        """Encrypt for storage. It can be opened at the same place only."""
        nonce = os.urandom(_NONCE)
        return self.id + nonce + self._aead.encrypt(nonce, content, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Raises CannotOpen."""
        if sealed[:_ID] != self.id:
            raise CannotOpen(is_foreign=True)
        nonce, rest = sealed[_ID : _ID + _NONCE], sealed[_ID + _NONCE :]
        try:
            return self._aead.decrypt(nonce, rest, place)
        except (InvalidTag, ValueError):
            raise CannotOpen(is_foreign=False) from None

    def open_received(self, sealed: bytes, place: bytes) -> bytes:
        """Open what `seal_for` has sealed for the public key. Raises CannotOpen; nothing tells a wrong key from
        damage there."""
        try:
            return _SUITE.decrypt(sealed, self._private, info=place)
        except (InvalidTag, ValueError, TypeError):
            raise CannotOpen(is_foreign=True) from None

    def fingerprint(self, content: bytes, place: bytes) -> str:
        """Return a digest by which people see whether a value has changed. Without the key nobody can try values."""
        digest = hmac.digest(self._fingerprints, len(place).to_bytes(4) + place + content, "sha256")
        return digest.hex()[:_FINGERPRINT]

    def _derived(self, purpose: bytes) -> bytes:
        return HKDF(SHA256(), KEY, salt=None, info=b"prichal 1 " + purpose).derive(self._instance_key)


def seal_for(public: bytes, content: bytes, place: bytes) -> bytes:
    """Encrypt for the holder of the private key, who opens it for the same place only. Raises ValueError if the public
    key is none."""
    return _SUITE.encrypt(content, X25519PublicKey.from_public_bytes(public), info=place)


def decrypt_gcm(key: bytes, nonce: bytes, data: bytes, place: bytes) -> bytes:
    """Return what others have encrypted with AES-256-GCM; `data` ends with the tag. Raises ValueError."""
    try:
        return AESGCM(key).decrypt(nonce, data, place)
    except (InvalidTag, ValueError, OverflowError):
        raise ValueError("the key is another one, or the text was changed") from None
