"""`prichal validate DIR`: the verdict on a folder as the daemon would give it, without a daemon, Docker or Git.

Only this module of the package walks folders; everything else gets its files handed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from controller.config import Settings
from controller.domain.errors import Problem
from controller.domain.names import AppName, RepositoryName
from controller.domain.spec import Kind, PlatformAppSpec
from controller.manifests.build import examine
from controller.manifests.platform import examine_platform
from controller.manifests.reader import API_VERSION, SUFFIXES, Document, read
from controller.ports import SourceFile


class FolderKind(StrEnum):
    MODULE = "module"
    PLATFORM = "platform"


@dataclass(frozen=True)
class Verdict:
    """`problems` keep the folder from being applied. `notes` do not: warnings, and names whose owner is not in the
    folder (Secrets and package registries of a module, which the platform's side holds)."""

    kind: FolderKind
    documents: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


def validate_folder(folder: Path, app: str | None = None, settings: Settings | None = None) -> Verdict:
    """`app` is the app's name; without it the first `metadata.namespace` counts as such. A folder with a Repository
    or PlatformApp is the platform's. OSError if the folder cannot be read."""
    files = tuple(read_folder(folder))
    documents = read(files).documents
    chosen = settings or Settings()
    verdict = _platform(files, chosen) if _is_platform(documents) else _module(files, documents, app, chosen)
    if verdict.documents or verdict.problems:
        return verdict
    message = f"no manifest here: no *.yaml or *.yml below it has 'apiVersion: {API_VERSION}'"
    return Verdict(verdict.kind, 0, (Problem(str(folder), 0, 0, "", message),), verdict.notes)


def read_folder(folder: Path) -> Iterator[SourceFile]:
    """The files that the same folder would give as part of a commit: hidden ones are skipped."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.suffix in SUFFIXES and not hidden and path.is_file():
            yield SourceFile(relative.as_posix(), path.read_bytes())


def _is_platform(documents: tuple[Document, ...]) -> bool:
    kinds = {document.kind for document in documents}
    return bool(kinds & {Kind.REPOSITORY, Kind.PLATFORM_APP}) or kinds == {Kind.SECRET}


def _platform(files: tuple[SourceFile, ...], settings: Settings) -> Verdict:
    spec, problems = examine_platform(files, settings)
    return Verdict(FolderKind.PLATFORM, len(read(files).documents), problems, spec.warnings)


def _module(
    files: tuple[SourceFile, ...], documents: tuple[Document, ...], app: str | None, settings: Settings
) -> Verdict:
    named = (document.get("metadata", "namespace") for document in documents)
    name = AppName(app or next((n for n in named if isinstance(n, str)), "app"))
    found = examine(files, PlatformAppSpec(name, RepositoryName("")), None, settings.limits)
    notes = (*map(str, found.notes), *found.warnings)
    return Verdict(FolderKind.MODULE, len(documents), found.problems, notes)
