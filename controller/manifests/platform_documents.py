"""The valid documents of the platform folder, as its checks and the specification take them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.domain.apps.spec import ComponentKind, SecretSpec
from controller.manifests.reader import ManifestDocument


@dataclass(frozen=True)
class LoadedPlatform:
    """The valid documents of the platform folder, and its Secrets by name and app, None for those of the platform.
    `declared` has the names of all documents, also of those with a problem; `allowed_paths` are folders of this host.
    """

    documents: tuple[ManifestDocument, ...]
    secrets: Mapping[tuple[str, str | None], SecretSpec | None]  # None: there, but wrong
    declared: Mapping[ComponentKind, frozenset[str]]
    allowed_paths: tuple[str, ...]

    def of(self, kind: ComponentKind) -> tuple[ManifestDocument, ...]:
        return tuple(document for document in self.documents if document.kind is kind)

    def known_secrets(self, scopes: Iterable[str | None]) -> set[str]:
        wanted = set(scopes)
        return {name for name, scope in self.secrets if scope in wanted}

    def secret(self, name: str, scopes: Iterable[str | None]) -> SecretSpec | None:
        return next((s for scope in scopes if (s := self.secrets.get((name, scope)))), None)
