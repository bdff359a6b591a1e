"""Registries of images: what their tags point to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controller.domain.apps.spec import Registry, SecretSpec


@dataclass(frozen=True)
class RemoteImage:
    """What a tag points to in a registry. `platforms` are those of an index, as `linux/amd64`; None if they are not
    known."""

    digest: str
    platforms: frozenset[str] | None


class ImageRegistry(Protocol):
    """Registries of images, asked by name. `registries` are those of the app, with their credentials. Raises Stalled
    `RegistryDenied`, `RegistryCredentials`, `RegistryUntrusted`, `RegistryAddressRefused`, `RegistryAnswerInvalid`,
    `ImageNotFound`; Transient `RegistryUnreachable`, `RegistryLimited`."""

    def tags(
        self, name: str, registries: tuple[tuple[Registry, SecretSpec | None], ...]
    ) -> tuple[str, ...]: ...

    def image(
        self,
        name: str,
        tag: str,
        registries: tuple[tuple[Registry, SecretSpec | None], ...],
        known: str = "",
    ) -> RemoteImage:
        """Return what the tag points to. For the digest `known`, platforms are not looked up."""
