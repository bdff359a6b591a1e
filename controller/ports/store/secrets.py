"""Secrets that people have set, and the keys that decrypt files in Git."""

from __future__ import annotations

from typing import Protocol

from controller.domain.apps.age_keys import PublicAgeKey
from controller.domain.apps.owned_secrets import ChangeRecord, OwnedKey, OwnedSecrets, SecretChange
from controller.domain.names import AppName
from controller.ports.encryption import SecretCipher
from controller.sops.keys import FileKeys


class Secrets(Protocol):
    """Secrets that people have set. Values are written by the daemon alone, from changes that others seal for it."""

    def listed(self, app: AppName) -> tuple[OwnedKey, ...]:
        """Return what may be known of the values of an app, sorted by Secret and key."""

    def ask(self, change: SecretChange) -> None:
        """Seal a change for the daemon, which applies it once. Stalled `SecretRefused` if nobody may ask for it;
        Transient `QueueFull`, or `StateMissing` before the daemon's first start."""

    def changes(self, app: AppName) -> tuple[ChangeRecord, ...]:
        """Return the changes that wait, then the newest that were taken, newest first."""

    def change(self, app: AppName, id: str) -> ChangeRecord | None: ...

    @property
    def public_key(self) -> bytes:
        """Return the key that changes are sealed for; empty before the daemon's first start."""

    def unlock(self, keys: SecretCipher) -> None:
        """Give the daemon the keys of the values. Changes are applied from then on."""

    def foreign(self, keys: SecretCipher) -> str:
        """Return what to do about values that other keys have encrypted; "" if there are none."""

    def of(self, app: AppName) -> OwnedSecrets:
        """Return the Secrets of an app with their values; none before `unlock`."""

    def forget(self, app: AppName) -> None:
        """Delete the Secrets of an app, and what became of changes of them."""

    def reencrypt(self, keys: SecretCipher) -> int:
        """Do what `rekey` does, in the caller's transaction, and go on with the keys of before. For dry runs."""

    def rekey(self, keys: SecretCipher) -> int:
        """Encrypt all values with other keys, in one transaction; return how many. Raises Stalled `SecretUnreadable`
        if one cannot be read."""


class AgeKeyStore(Protocol):
    """Keys of age, for which files in Git are encrypted: each app has its own, and the platform folder another."""

    def listed(self, app: AppName) -> tuple[PublicAgeKey, ...]:
        """Return the public keys, the newest first."""

    def of(self, app: AppName) -> FileKeys:
        """Return the keys that decrypt the app's files, for the daemon alone."""

    def retire_refusal(self, app: AppName) -> str:
        """Return why the older keys may not be deleted: a commit in force needs one. "" if they may."""

    def ensure(self, app: AppName) -> None:
        """Make the first key of an app. Idempotent; does nothing before the daemon has its own keys."""
