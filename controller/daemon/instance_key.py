"""The key of this instance, a file of the daemon alone: fingerprints, accounts of the storage and the encryption of
Secrets follow from it. It belongs in the backup.

`rotate` replaces it. The new key waits in a file beside the old one while all Secrets are encrypted again in one
transaction, which also publishes the new public key; so the state says which of both files is right (`settle`).
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import closing, suppress
from pathlib import Path

from controller.atomic import flush, replace_file
from controller.config import Settings
from controller.daemon.lock import only_one
from controller.encryption import KEY, SecretKeys
from controller.ports import Secrets
from controller.store import open_store
from controller.store.owners import as_owner_of

log = logging.getLogger(__name__)


def key_file(private: Path) -> Path:
    return private / "instance.key"


def instance_key(private: Path) -> bytes:
    """Return 32 random bytes, created once. Without them every fingerprint would change and no Secret be readable."""
    path = key_file(private)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        replace_file(path, secrets.token_bytes(KEY), durable=True)
        return path.read_bytes()


def present_key(private: Path) -> bytes:
    """Return the key, or b"" before the first start: none is made."""
    try:
        return key_file(private).read_bytes()
    except FileNotFoundError:
        return b""


def rotate(settings: Settings) -> int:
    """Replace the key while no daemon runs; return how many values of Secrets were encrypted again. Raises Stalled
    `AlreadyRunning` or `SecretUnreadable`, and then changes nothing."""
    private = settings.private
    with (
        as_owner_of(private),
        only_one(private),
    ):  # root leaves nothing that the daemon's user cannot read
        store = open_store(settings.database)
        try:
            settle(private, store.secrets)
            store.secrets.unlock(SecretKeys(instance_key(private)))
            store.changed()  # changes that wait are sealed for the old key
            key = secrets.token_bytes(KEY)
            replace_file(_next_file(private), key, durable=True)
            try:
                return store.secrets.rekey(SecretKeys(key))
            finally:
                settle(private, store.secrets)
        finally:
            store.close()


def try_rotation(settings: Settings) -> int:
    """Return how many values `rotate` would encrypt again, and change nothing. Raises as it does."""
    private = settings.private
    with (
        as_owner_of(private),
        only_one(private),
        closing(open_store(settings.database)) as store,
        store.dry_run(),
    ):
        store.secrets.unlock(SecretKeys(_settled_key(private, store.secrets)))
        store.changed()
        return store.secrets.reencrypt(SecretKeys(secrets.token_bytes(KEY)))


def settle(private: Path, values: Secrets) -> None:
    """Finish a rotation that was interrupted, or forget it if it had changed nothing yet."""
    following = _next_file(private)
    try:
        key = following.read_bytes()
    except FileNotFoundError:
        return
    if _is_in_use(key, values):
        os.replace(following, key_file(private))
        log.info("the key of this instance was replaced")
    else:
        following.unlink()
    flush(private)


def _settled_key(private: Path, values: Secrets) -> bytes:
    """Return the key that there is after `settle`, or one like it, and change nothing."""
    with suppress(FileNotFoundError):
        if _is_in_use(key := _next_file(private).read_bytes(), values):
            return key
    return present_key(private) or secrets.token_bytes(KEY)


def _is_in_use(key: bytes, values: Secrets) -> bool:
    return len(key) == KEY and SecretKeys(key).public == values.public_key


def _next_file(private: Path) -> Path:
    return private / "instance.key.next"
