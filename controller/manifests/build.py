"""A commit's manifests become an AppSpec, or the list of everything that is wrong with them.

The reconciler calls `load_app` for each new commit before it changes anything; `prichal validate` calls `examine`
for a folder. Pure: files in, values out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from controller.config import DefaultLimits
from controller.domain.apps.age_keys import EncryptedFiles, encrypted_files
from controller.domain.apps.policies import NO_POLICIES, Policies
from controller.domain.apps.spec import AppSpec, ComponentKind, PlatformAppSpec
from controller.domain.errors import ManifestInvalid, ManifestProblem
from controller.domain.localizable import Localizable
from controller.domain.secret import scrub
from controller.manifests import components
from controller.manifests.check_warnings import warnings
from controller.manifests.checks import CHECKS, identity, package_registries, unset_secrets
from controller.manifests.commit import CheckedCommit
from controller.manifests.encrypted import (
    NO_ACCESS,
    FileAccess,
    decrypted_values,
    misplaced,
    undecrypted,
    with_contents,
)
from controller.manifests.policies import policy_problems
from controller.manifests.reader import ManifestDocument, in_order, read
from controller.manifests.schema import check, with_defaults
from controller.ports import SourceFile
from controller.yaml_documents import UNUSABLE


@dataclass(frozen=True)
class ExaminedApp:
    """`notes` are problems only if the platform folder lacks what they name, which is not known here. `encrypted` are
    the files that were decrypted, with the keys for which they are encrypted."""

    commit: CheckedCommit
    problems: tuple[ManifestProblem, ...]
    warnings: tuple[str, ...]
    notes: tuple[ManifestProblem, ...] = ()
    encrypted: tuple[EncryptedFiles, ...] = ()


def load_app(
    files: Iterable[SourceFile],
    app: PlatformAppSpec,
    platform_known: bool,
    limits: DefaultLimits,
    access: FileAccess = NO_ACCESS,
    policies: Policies = NO_POLICIES,
) -> AppSpec:
    """Return the desired state that `files` declare for `app`. `platform_known`: whether `app` is what
    the platform declares, so that what it does not name is missing; `limits` has the defaults; `access` decrypts, and
    reads what Secrets name; `policies` are the operator's. Raises ManifestInvalid with all problems. What needs a
    Secret that nobody has set yet waits."""
    found = examine(files, app, platform_known, limits, access, policies)
    if found.problems:
        raise ManifestInvalid(found.problems)
    commit = found.commit
    return AppSpec(
        app=app.name,
        ml_components=tuple(
            components.ml_component(d, limits) for d in _named(commit, ComponentKind.ML_COMPONENT)
        ),
        pipelines=tuple(
            components.pipeline(d, limits) for d in _named(commit, ComponentKind.EXPERIMENT_PIPELINE)
        ),
        apis=tuple(components.api(d) for d in _named(commit, ComponentKind.API_COMPONENT)),
        boxes=tuple(components.box(d) for d in _named(commit, ComponentKind.DATA_BOX)),
        secrets=tuple(components.secret(d, app.name) for d in _named(commit, ComponentKind.SECRET)),
        notifications=tuple(components.notification(d) for d in _named(commit, ComponentKind.NOTIFICATION)),
        warnings=found.warnings,
        encrypted=found.encrypted,
    )


def examine(
    files: Iterable[SourceFile],
    app: PlatformAppSpec,
    platform_known: bool,
    limits: DefaultLimits,
    access: FileAccess = NO_ACCESS,
    policies: Policies = NO_POLICIES,
) -> ExaminedApp:
    """Check and build a commit's manifests. No text of the answer quotes a value that was encrypted."""
    reading = read(files, access.keys)
    problems = [*reading.problems, *identity(reading.documents, app)]
    sound: list[ManifestDocument] = []
    # The replacement of such a text is not a name that somebody has chosen, so no other problem is reported for it.
    unusable = {(p.file, p.line, p.column) for p in reading.problems if p.message == UNUSABLE}
    odd = {file for file, _, _ in unusable}
    for document in reading.documents:
        found = [*check(document), *_host_files(document), *misplaced(document)]
        problems += (p for p in found if (p.file, p.line, p.column) not in unusable)
        if not found and document.file not in odd:
            document = with_contents(document, access, found)
            problems += found
            sound.append(with_defaults(document))
    commit = CheckedCommit(tuple(sound), _declared(reading.documents), app, platform_known, limits)
    for rule in CHECKS:
        problems += rule(commit)
    problems += policy_problems(commit, policies)
    outside = tuple(package_registries(commit))
    told = (note for document in sound for note in undecrypted(document))
    notes = (*unset_secrets(commit), *outside, *told)
    hidden = tuple(
        {value for document in (*reading.documents, *sound) for value in decrypted_values(document)}
    )
    problems += outside if platform_known else ()
    return ExaminedApp(
        commit=commit,
        problems=in_order(replace(each, message=scrub(each.message, hidden)) for each in problems),
        warnings=tuple(scrub(text, hidden) for text in (*reading.warnings, *warnings(commit))),
        notes=() if platform_known else notes,
        encrypted=encrypted_files((*reading.encrypted, *(e for d in sound for e in d.encrypted_files))),
    )


def _host_files(document: ManifestDocument) -> Iterable[ManifestProblem]:
    if document.kind is ComponentKind.SECRET and document.get("files") is not None:
        message = Localizable(
            "a module may not read files of the host: only Secrets of the platform folder have 'files'"
        )
        yield document.problem(["files"], message)


def _declared(documents: Iterable[ManifestDocument]) -> dict[ComponentKind, frozenset[str]]:
    names: dict[ComponentKind, set[str]] = {kind: set() for kind in ComponentKind}
    for document in documents:
        names[document.kind].add(document.name)
    return {kind: frozenset(found - {""}) for kind, found in names.items()}


def _named(commit: CheckedCommit, kind: ComponentKind) -> list[ManifestDocument]:
    return sorted(commit.of(kind), key=lambda document: document.name)
