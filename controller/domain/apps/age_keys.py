"""What may be known of the keys of age, by which files in Git are encrypted for an app or for the platform folder."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.domain.localizable import Localizable, joined
from controller.domain.names import PLATFORM, AppName

MAX_AGE_KEYS: Final = 5  # of an app
NAMED_FILES: Final = 10  # of those that are encrypted for the same keys, as they are kept
_TOLD: Final = 5  # apps in a refusal
RECIPIENT: Final = re.compile(r"age1[a-z0-9]{10,4000}|ssh-(?:ed25519|rsa) [A-Za-z0-9+/=]{10,2000}")


class KeyAction(StrEnum):
    """`ROTATE`: make another key, and keep the others for reading. `RETIRE`: delete all but the newest."""

    ROTATE = "rotate"
    RETIRE = "retire"


@dataclass(frozen=True)
class PublicAgeKey:
    """`by` is who asked for it, "" for the first one, which the daemon has made; `at` in Unix seconds."""

    recipient: str
    by: str
    at: float


@dataclass(frozen=True)
class EncryptedFiles:
    """Files of a commit in force that were encrypted for the same keys of the app, or of the app that a preview belongs
    to. `files` names the first ones of `number`."""

    recipients: tuple[str, ...]
    files: tuple[str, ...]
    number: int


def encrypted_files(found: Iterable[tuple[str, Collection[str]]]) -> tuple[EncryptedFiles, ...]:
    """Return files with their recipients as they are kept: few, however many files there are."""
    groups: dict[tuple[str, ...], set[str]] = {}
    for file, recipients in found:
        groups.setdefault(tuple(sorted(recipients)), set()).add(file)
    return tuple(
        EncryptedFiles(recipients, tuple(sorted(files)[:NAMED_FILES]), len(files))
        for recipients, files in sorted(groups.items())
    )


def retire_refusal(
    users: Collection[AppName],
    keys: Sequence[str],
    in_force: Iterable[tuple[AppName, tuple[EncryptedFiles, ...] | None]],
) -> str:
    """Return why all keys but the first may not be deleted: a commit in force has files that no other key decrypts, or
    it is not known which files one of the `users` has, the app and its previews (None). "" if there is no reason."""
    if len(keys) < 2:
        return ""
    told: list[str] = []
    for app, groups in in_force:
        if groups is None and app in users:
            return Localizable(
                "which files of {app} need its older age keys is not known before the daemon's next pass over it: "
                "wait for it, or delete them nevertheless with --force",
                app=app,
            )
        for group in groups or ():
            lost = [key for key in keys[1:] if key in group.recipients]
            if lost and keys[0] not in group.recipients:
                told.append(_needed(app, lost, group))
    if not told:
        return ""
    more = [Localizable("and {count} more", count=len(told) - _TOLD)] if len(told) > _TOLD else []
    return Localizable(
        "{needed}. Run sops updatekeys on each file, push, and retire the keys then; or delete them nevertheless "
        "with --force",
        needed=joined([*told[:_TOLD], *more]),
    )


def _needed(app: AppName, lost: Sequence[str], group: EncryptedFiles) -> str:
    files, rest = ", ".join(group.files), group.number - len(group.files)
    return Localizable(
        "{place} needs the age key {keys}: the newest one cannot decrypt {files}",
        place=Localizable("the platform folder")
        if app == PLATFORM
        else Localizable("the commit of {app} in force", app=app),
        keys=" or ".join(lost),
        files=Localizable("{files} and {rest} more", files=files, rest=rest) if rest else files,
    )


def sops_configuration(*recipients: str) -> str:
    """Return a `.sops.yaml` by which sops encrypts Secrets, and files of the folder `secrets/`, for these keys."""
    keys = ",".join(recipients)
    return (
        "creation_rules:\n"
        "  - path_regex: (^|/)secrets/\n"
        f"    age: {keys}\n"
        "  - path_regex: \\.ya?ml$\n"
        "    encrypted_regex: ^(data|stringData)$\n"
        f"    age: {keys}\n"
    )
