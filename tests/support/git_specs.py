"""Builds the values that `Sources` takes."""

from __future__ import annotations

from dataclasses import dataclass

from controller.domain.apps.spec import GitRef, RefKind, RepositorySpec, SecretSpec
from controller.domain.names import RepositoryName
from controller.domain.secret import Secret
from tests.support.specs import make


def repository(
    url: str, ref: str = "main", kind: RefKind = RefKind.BRANCH, name: str = "demo", **more: str
) -> RepositorySpec:
    return make(RepositorySpec, RepositoryName(name), url, GitRef(kind, ref), **more)


def secret(**values: str) -> SecretSpec:
    return SecretSpec("credentials", tuple((key, Secret(value)) for key, value in values.items()))


@dataclass(frozen=True)
class Access:
    """How one repository is reached over one transport."""

    url: str
    credentials: SecretSpec | None = None
