"""`prichal validate DIR`: checks a folder as the daemon would, without a daemon, an engine or Git, and adds what
`sources` finds in the module's code, which otherwise the set-up of the component would report, and `smoke_files` in the
files of smoke tests.

Only these three modules of the package read folders; all others get files as arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from controller.config import Settings
from controller.domain.apps.spec import ComponentKind, undeclared_app
from controller.domain.errors import ManifestProblem
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.units import about_size
from controller.manifests.build import examine
from controller.manifests.encrypted import folder_access, undecrypted
from controller.manifests.platform import examine_platform
from controller.manifests.reader import API_VERSION, SUFFIXES, ManifestDocument, read
from controller.manifests.schema import with_defaults
from controller.manifests.smoke_files import smoke_problems
from controller.manifests.sources import code_problems
from controller.ports import SourceFile

_MAX_FILE = 16 * 2**20  # bytes of a file that is read, as of a commit


class FolderKind(StrEnum):
    MODULE = "module"
    PLATFORM = "platform"


@dataclass(frozen=True)
class ValidationResult:
    """`problems` keep the folder from being applied. `notes` do not: warnings, and names whose owner is not in the
    folder (Secrets and package registries of a module, which the platform's side holds)."""

    kind: FolderKind
    documents: int
    problems: tuple[ManifestProblem, ...]
    notes: tuple[str, ...] = ()


def validate_folder(
    folder: Path, app: str | None = None, settings: Settings | None = None
) -> ValidationResult:
    """`app` is the app's name; without it, the first `metadata.namespace` is used. A folder with a Repository
    or PlatformApp is a platform folder. Raises OSError if the folder cannot be read."""
    files = tuple(read_folder(folder))
    documents = read(files).documents
    chosen = settings or Settings()
    is_platform = _is_platform(documents)
    verdict = _platform(files, chosen) if is_platform else _module(folder, files, documents, app, chosen)
    if verdict.kind is FolderKind.MODULE and not verdict.problems:
        filled = [with_defaults(document) for document in documents]
        found = tuple(smoke_problems(folder, filled))
        problems = (
            *code_problems(folder, filled),
            *(one for one in found if isinstance(one, ManifestProblem)),
        )
        notes = (*verdict.notes, *(one for one in found if isinstance(one, str)))
        verdict = replace(verdict, problems=problems, notes=notes)
    if verdict.documents or verdict.problems:
        return verdict
    message = Localizable(
        "no manifest here: no *.yaml or *.yml below it has 'apiVersion: {api_version}'",
        api_version=API_VERSION,
    )
    return ValidationResult(
        verdict.kind, 0, (ManifestProblem(str(folder), 0, 0, "", message),), verdict.notes
    )


def read_folder(folder: Path) -> Iterator[SourceFile]:
    """Return the files that this folder would have in a commit, without hidden ones."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.suffix not in SUFFIXES or hidden or not path.is_file():
            continue
        if (size := path.stat().st_size) > _MAX_FILE:
            why = Localizable("has {size}, which no manifest has: it is passed over", size=about_size(size))
            yield SourceFile(relative.as_posix(), b"", passed_over=why)
        else:
            yield SourceFile(relative.as_posix(), path.read_bytes())


def _is_platform(documents: tuple[ManifestDocument, ...]) -> bool:
    kinds = {document.kind for document in documents}
    either = {ComponentKind.SECRET, ComponentKind.NOTIFICATION}
    return bool(kinds & {ComponentKind.REPOSITORY, ComponentKind.PLATFORM_APP}) or (
        bool(kinds) and kinds <= either
    )


def _platform(files: tuple[SourceFile, ...], settings: Settings) -> ValidationResult:
    spec, problems = examine_platform(files, settings)
    documents = read(files).documents
    told = (str(note) for document in documents for note in undecrypted(document))
    return ValidationResult(FolderKind.PLATFORM, len(documents), problems, (*spec.warnings, *told))


def _module(
    folder: Path,
    files: tuple[SourceFile, ...],
    documents: tuple[ManifestDocument, ...],
    app: str | None,
    settings: Settings,
) -> ValidationResult:
    named = (document.get("metadata", "namespace") for document in documents)
    name = AppName(app or next((n for n in named if isinstance(n, str)), "app"))
    found = examine(
        files, undeclared_app(name), False, settings.limits, folder_access(folder), settings.policies
    )
    notes = (*map(str, found.notes), *found.warnings)
    return ValidationResult(FolderKind.MODULE, len(documents), found.problems, notes)
