"""The platform folder becomes a PlatformSpec, or the list of everything that is wrong with it.

The daemon calls `load_platform` for each new state of the folder (or Git repository) that the config names.
Pure except for the files of this host that Secrets name, which are read through one function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from controller.config import Settings
from controller.domain.apps.age_keys import encrypted_files
from controller.domain.apps.spec import ComponentKind, PlatformSpec, SecretSpec
from controller.domain.errors import ManifestInvalid, ManifestProblem
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.secret import scrub
from controller.manifests import components
from controller.manifests.checks import duplicates
from controller.manifests.encrypted import decrypted_values, misplaced, names_files
from controller.manifests.platform_checks import CHECKS
from controller.manifests.platform_documents import LoadedPlatform
from controller.manifests.platform_spec import build_spec
from controller.manifests.reader import SUFFIXES, ManifestDocument, in_order, read
from controller.manifests.schema import check, with_defaults
from controller.manifests.secret_files import ReadFile, content_of, read_host_file
from controller.ports import SourceFile
from controller.sops import FileKeys
from controller.yaml_documents import parse

_SYSTEM_KINDS = (
    ComponentKind.SECRET,
    ComponentKind.REPOSITORY,
    ComponentKind.PLATFORM_APP,
    ComponentKind.NOTIFICATION,
)
#: How problems of the reader begin that a complete file does not have.
_CUT_OFF = (Localizable("is not valid YAML"), Localizable("is not UTF-8"))


def load_platform(
    files: Iterable[SourceFile],
    settings: Settings,
    read_file: ReadFile = read_host_file,
    keys: FileKeys | None = None,
) -> PlatformSpec:
    """Return the repositories, apps and Secrets that `files` declare. Repositories on this host must lie
    below a folder that `settings` allow. `read_file` returns a file of this host or raises OSError; `keys` decrypt, and
    without them placeholders stand for encrypted values. Raises ManifestInvalid with all problems."""
    spec, problems = examine_platform(files, settings, read_file, keys)
    if problems:
        raise ManifestInvalid(problems)
    return spec


def examine_platform(
    files: Iterable[SourceFile],
    settings: Settings,
    read_file: ReadFile = read_host_file,
    keys: FileKeys | None = None,
) -> tuple[PlatformSpec, tuple[ManifestProblem, ...]]:
    """Return what is declared validly, and all problems."""
    files = tuple(files)
    reading = read(files, keys)
    truncated = (problem for file in files for problem in _truncated(file))
    problems = [*reading.problems, *duplicates(reading.documents), *truncated]
    valid: list[ManifestDocument] = []
    for document in reading.documents:
        own_problems = [*check(document), *_placement(document), *misplaced(document)]
        problems += own_problems
        if not own_problems:
            valid.append(with_defaults(document))
    platform = LoadedPlatform(
        documents=tuple(valid),
        secrets=_secrets(reading.documents, valid, read_file, problems),
        declared={
            kind: frozenset(d.name for d in reading.documents if d.kind is kind) for kind in ComponentKind
        },
        allowed_paths=tuple(str(path) for path in (*settings.git.allowed_paths, settings.repositories)),
    )
    for rule in CHECKS:
        problems += rule(platform)
    hidden = tuple({value for document in reading.documents for value in decrypted_values(document)})
    shown = in_order(replace(each, message=scrub(each.message, hidden)) for each in problems)
    spec = build_spec(platform, reading.warnings, settings.limits)
    return replace(spec, encrypted=encrypted_files(reading.encrypted)), shown


def _secrets(
    documents: Iterable[ManifestDocument],
    valid: Iterable[ManifestDocument],
    read_file: ReadFile,
    problems: list[ManifestProblem],
) -> dict[tuple[str, str | None], SecretSpec | None]:
    """Return the Secrets by name and app, None for one that is declared but wrong, so that manifests that name it are
    not reported, too. Adds to `problems`."""
    secrets: dict[tuple[str, str | None], SecretSpec | None] = {
        (document.name, _scope(document)): None
        for document in documents
        if document.kind is ComponentKind.SECRET
    }
    for document in valid:
        if document.kind is ComponentKind.SECRET:
            secrets[document.name, _scope(document)] = _secret(document, read_file, problems)
    return secrets


def _scope(document: ManifestDocument) -> str | None:
    """Return the app that a Secret is for; None for one of the platform."""
    namespace = document.get("metadata", "namespace")
    return namespace if isinstance(namespace, str) else None


def _placement(document: ManifestDocument) -> Iterator[ManifestProblem]:
    """Report what has no place in the platform folder, or in this namespace."""
    if document.kind not in _SYSTEM_KINDS:
        message = Localizable(
            "{kind} belongs into the repository of its module, not into the platform folder",
            kind=document.kind,
        )
        yield document.problem(["kind"], message)
    if document.kind is ComponentKind.SECRET and names_files(document):
        field = "envs" if document.get("envs") is not None else "fromFiles"
        message = Localizable(
            "only Secrets in the repository of a module have it: name files of this host with 'files'"
        )
        yield document.problem([field], message)
    namespace = _scope(document)
    if document.kind is ComponentKind.REPOSITORY and namespace is not None:
        yield document.problem(
            ["metadata", "namespace"], Localizable("a Repository belongs to no app: remove it")
        )
    if document.kind is ComponentKind.NOTIFICATION and namespace is not None:
        message = Localizable(
            "a Notification of the platform folder belongs to no app: name apps under spec.apps"
        )
        yield document.problem(["metadata", "namespace"], message)
    if document.kind is ComponentKind.PLATFORM_APP and namespace not in (None, document.name):
        message = Localizable(
            "must be the app's own name, {document!r}, or be left out", document=document.name
        )
        yield document.problem(["metadata", "namespace"], message)


def _truncated(file: SourceFile) -> Iterator[ManifestProblem]:
    """Report files without a manifest. In a module's repository they belong to other tools; here such a file is a
    truncated manifest, and must not disconnect what it declared."""
    if not file.path.endswith(SUFFIXES):
        return
    if not file.content.strip(b"\0 \t\r\n"):
        yield ManifestProblem(
            file.path, 0, 0, "", Localizable("is empty: write what it is to declare, or remove it")
        )
        return
    for problem in parse(file.path, file.content).problems:
        if problem.message.startswith(_CUT_OFF):  # tags and other features that only other tools use
            yield problem


def _secret(
    document: ManifestDocument, read_file: ReadFile, problems: list[ManifestProblem]
) -> SecretSpec | None:
    """Return the Secret with the content of its files; None, and a problem more, if one cannot be read."""
    files = document.get("files")
    contents: dict[str, str] = {}
    for key, path in (files if isinstance(files, dict) else {}).items():
        try:
            contents[key] = content_of(read_file(str(path)))
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            problems.append(
                document.problem(
                    ["files", key], Localizable("cannot read {path}: {reason}", path=path, reason=reason)
                )
            )
    if isinstance(files, dict) and len(contents) < len(files):
        return None
    scope = _scope(document)
    return components.secret(document, AppName(scope) if scope else None, contents)
