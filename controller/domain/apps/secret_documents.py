"""Documents about Secrets that people set, the same over HTTP and from commands. No value is in them."""

from __future__ import annotations

from collections.abc import Iterable

from controller.domain.apps.age_keys import PublicAgeKey
from controller.domain.apps.owned_secrets import ChangeRecord, OwnedKey
from controller.domain.apps.secret_uses import SecretUse
from controller.domain.units import rfc3339

Document = dict[str, object]


def secrets_document(
    app: str,
    keys: Iterable[OwnedKey],
    changes: Iterable[ChangeRecord],
    uses: Iterable[SecretUse],
    age_keys: Iterable[PublicAgeKey] = (),
) -> Document:
    """`needed` are those that manifests name and nobody has set; `ageKeys` are public."""
    found: dict[str, list[Document]] = {}
    for key in keys:
        found.setdefault(key.secret, []).append(key_document(key))
    secrets = [{"name": name, "keys": each} for name, each in found.items()]
    needed = [
        {"name": use.name, "usedBy": list(use.users)}
        for use in uses
        if not use.declared and use.name not in found
    ]
    return {
        "app": app,
        "secrets": secrets,
        "needed": needed,
        "changes": [change_document(change) for change in changes],
        "ageKeys": [
            {"recipient": key.recipient, "by": key.by or None, "at": rfc3339(key.at)} for key in age_keys
        ],
    }


def key_document(key: OwnedKey) -> Document:
    return {"name": key.key, "fingerprint": key.fingerprint, "by": key.by, "set": rfc3339(key.at)}


def change_document(change: ChangeRecord) -> Document:
    """`secret` and `by` are null while the change waits, and `request` unless it has asked for a pass."""
    return {
        "id": change.id,
        "state": change.state.value,
        "at": rfc3339(change.at),
        "secret": change.secret or None,
        "by": change.by or None,
        "message": change.message or None,
        "request": change.request or None,
    }
