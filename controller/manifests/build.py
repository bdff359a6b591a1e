"""A commit's manifests become an AppSpec, or the list of everything that is wrong with them.

The reconciler calls `load_app` for each new commit before it touches anything; `prichal validate` calls `examine`
for a folder. Pure: files in, values out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.config import DefaultLimits
from controller.domain.errors import ManifestInvalid, Problem
from controller.domain.spec import AppSpec, Kind, PlatformAppSpec
from controller.manifests import components
from controller.manifests.checks import CHECKS, Commit, identity, outside_references, warnings
from controller.manifests.reader import Document, in_order, read
from controller.manifests.schema import check
from controller.ports import SourceFile


@dataclass(frozen=True)
class Examination:
    """`notes` are problems only if the platform's side lacks what they name, which was not known here."""

    commit: Commit
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    notes: tuple[Problem, ...] = ()


def load_app(
    files: Iterable[SourceFile],
    app: PlatformAppSpec,
    known_secrets: frozenset[str] | None,
    limits: DefaultLimits,
) -> AppSpec:
    """The desired state that `files` declare for `app`. `known_secrets` are the names of the Secrets that the
    platform keeps for the app (None: not known here, take references to them as given), `limits` fill in what
    manifests leave out. ManifestInvalid with all problems."""
    found = examine(files, app, known_secrets, limits)
    if found.problems:
        raise ManifestInvalid(found.problems)
    commit = found.commit
    return AppSpec(
        app=app.name,
        ml_components=tuple(components.ml_component(d, limits) for d in _named(commit, Kind.ML_COMPONENT)),
        pipelines=tuple(components.pipeline(d, limits) for d in _named(commit, Kind.EXPERIMENT_PIPELINE)),
        apis=tuple(components.api(d) for d in _named(commit, Kind.API_COMPONENT)),
        boxes=tuple(components.box(d) for d in _named(commit, Kind.DATA_BOX)),
        secrets=tuple(components.secret(d, app.name) for d in _named(commit, Kind.SECRET)),
        warnings=found.warnings,
    )


def examine(
    files: Iterable[SourceFile],
    app: PlatformAppSpec,
    known_secrets: frozenset[str] | None,
    limits: DefaultLimits,
) -> Examination:
    """Everything that can be said about a commit's manifests. `known_secrets` None: the platform's side (Secrets,
    package registries) is not known."""
    reading = read(files)
    problems = [*reading.problems, *identity(reading.documents, app)]
    sound: list[Document] = []
    for document in reading.documents:
        found = [*check(document), *_host_files(document)]
        problems += found
        if not found:
            sound.append(document)
    commit = Commit(tuple(sound), _declared(reading.documents), app, known_secrets, limits)
    for rule in CHECKS:
        problems += rule(commit)
    outside = tuple(outside_references(commit))
    return Examination(
        commit=commit,
        problems=in_order([*problems, *(outside if known_secrets is not None else ())]),
        warnings=(*reading.warnings, *warnings(commit)),
        notes=outside if known_secrets is None else (),
    )


def _host_files(document: Document) -> Iterable[Problem]:
    if document.kind is Kind.SECRET and document.get("files") is not None:
        message = "a module may not read files of the host: only Secrets of the platform folder have 'files'"
        yield document.problem(["files"], message)


def _declared(documents: Iterable[Document]) -> dict[Kind, frozenset[str]]:
    names: dict[Kind, set[str]] = {kind: set() for kind in Kind}
    for document in documents:
        names[document.kind].add(document.name)
    return {kind: frozenset(found - {""}) for kind, found in names.items()}


def _named(commit: Commit, kind: Kind) -> list[Document]:
    return sorted(commit.of(kind), key=lambda document: document.name)
