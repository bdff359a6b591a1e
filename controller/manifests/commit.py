"""The documents of one commit as checks see them, and what a check is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller.config import DefaultLimits
from controller.domain.apps.spec import ComponentKind, PlatformAppSpec
from controller.domain.errors import ManifestProblem
from controller.manifests.components import spec_of
from controller.manifests.reader import ManifestDocument
from controller.yaml_documents import Path


@dataclass(frozen=True)
class CheckedCommit:
    """The documents of a commit and what they may refer to. Where the platform's side is not known (checking a folder
    by itself), what refers to it becomes a note instead of a problem."""

    documents: tuple[ManifestDocument, ...]
    declared: Mapping[ComponentKind, frozenset[str]]
    app: PlatformAppSpec
    platform_known: bool
    limits: DefaultLimits

    def of(self, kind: ComponentKind) -> tuple[ManifestDocument, ...]:
        return tuple(document for document in self.documents if document.kind is kind)


Check = Callable[[CheckedCommit], Iterator[ManifestProblem]]


def containers(document: ManifestDocument) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The parts of a document that describe a container, with their paths."""
    if document.kind is ComponentKind.ML_COMPONENT:
        yield ("spec",), spec_of(document)
    elif document.kind is ComponentKind.EXPERIMENT_PIPELINE:
        for i, stage in enumerate(spec_of(document)["stages"]):
            yield ("spec", "stages", i), stage
