"""Checks of the Secrets that manifests of the platform folder name: they exist, have the keys that are needed, and
hold values that can be sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from controller.domain.apps.spec import ComponentKind, SecretSpec
from controller.domain.errors import ManifestProblem
from controller.domain.localizable import Localizable
from controller.manifests.platform_documents import LoadedPlatform
from controller.manifests.reader import ManifestDocument, nearest
from controller.yaml_documents import Path

_ONE_LINE = ("username", "password", "token", "secret")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Whose Secrets a kind may name besides those of the platform.
_OTHER_OWNERS: Mapping[ComponentKind, str] = {
    ComponentKind.REPOSITORY: Localizable(" or of an app that uses it"),
    ComponentKind.PLATFORM_APP: Localizable(" or of this app"),
}


def unknown_secret(
    document: ManifestDocument, path: Path, platform: LoadedPlatform, scopes: Sequence[str | None]
) -> Iterator[ManifestProblem]:
    """Report the Secret that `path` of the document names, if none of these apps has it. None stands for the
    platform."""
    name = document.get(*path)
    known = platform.known_secrets(scopes)
    if isinstance(name, str) and name not in known:
        owners = _OTHER_OWNERS.get(document.kind, "")
        message = Localizable(
            "there is no Secret {name!r} of the platform{owners}{nearest}",
            name=name,
            owners=owners,
            nearest=nearest(name, known),
        )
        yield document.problem(path, message)


def missing_keys(
    document: ManifestDocument,
    path: Path,
    secret: SecretSpec,
    alternatives: tuple[frozenset[str], ...],
    place: str,
) -> Iterator[ManifestProblem]:
    """Report a Secret that has all keys of none of these alternatives. `place` says what needs them."""
    keys = {key for key, value in secret.values if value.reveal().strip()}
    if not any(needed <= keys for needed in alternatives):
        options = " or ".join(" and ".join(sorted(needed)) for needed in alternatives)
        message = Localizable(
            "the Secret {secret!r} needs the keys {options} for {place}; it has {keys}",
            secret=secret.name,
            options=options,
            place=place,
            keys=list_keys(keys),
        )
        yield document.problem(path, message)


def unsendable_values(
    document: ManifestDocument, path: Path, secret: SecretSpec
) -> Iterator[ManifestProblem]:
    """Report values that no HTTP header, login or file of a program can hold."""
    for key, value in secret.values:
        if key in _ONE_LINE and _CONTROL.search(value.reveal()):
            message = Localizable(
                "{key} of the Secret {secret!r} holds a line break or another control character",
                key=key,
                secret=secret.name,
            )
            yield document.problem(
                path,
                Localizable("{message}, with which nobody can log in: correct the Secret", message=message),
            )
        elif "\0" in value.reveal():
            yield document.problem(
                path,
                Localizable(
                    "{key} of the Secret {secret!r} holds NUL: is it a binary file?",
                    key=key,
                    secret=secret.name,
                ),
            )


def list_keys(keys: Iterable[str]) -> str:
    return ", ".join(sorted(keys)) or "none"
