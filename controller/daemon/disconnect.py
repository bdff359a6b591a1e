"""Disconnecting an app: the files of its system components leave the platform folder.

Called by `prichal repo disconnect`, in two steps, so that people are asked in between. Only whole files are
removed, and only if what stays in the folder is valid without them; documents are never edited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from controller.config import Settings
from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.manifests import load_platform
from controller.manifests.reader import ManifestDocument, read
from controller.manifests.validate import read_folder

#: The fields of a Repository or PlatformApp that name a Secret.
_NAMES_SECRET = frozenset(("credentials", "secret", "signers"))


@dataclass(frozen=True)
class Removal:
    """The files of an app. Secrets come last: a document that names one must not outlive it. `is_last`: no
    app and no repository stays connected.
    """

    app: str
    repository: str
    files: tuple[Path, ...]
    is_last: bool

    def carry_out(self) -> None:
        for file in self.files:
            file.unlink(missing_ok=True)


def plan_removal(settings: Settings, app: str) -> Removal:
    """Return what is to be removed. Raises Stalled `UnknownApp`, `PlatformFolderMissing`, `PlatformInGit` or
    `SharedFile`, and ManifestInvalid with all problems that the folder would have without the files.
    """
    folder = _folder(settings, app)
    files = tuple(read_folder(folder))
    documents = read(files).documents
    declared = {d.name: d for d in documents if d.kind is ComponentKind.PLATFORM_APP}
    if app not in declared:
        raise _unknown(app, declared, folder)
    repository = str(declared[app].get("spec", "repository"))
    leaving = _leaving(documents, app, repository)
    names = {document.file for document in leaving}
    shared = [d for d in documents if d.file in names and d not in leaving]
    if shared:
        others = ", ".join(sorted({f"{d.kind} {d.name}" for d in shared}))
        message = (
            f"{folder / shared[0].file} also declares {others}: remove the documents of {app} from it by hand"
        )
        raise Stalled(Reason.SHARED_FILE, message)
    load_platform([file for file in files if file.path not in names], settings)
    staying = {d.kind for d in documents if d not in leaving}
    is_last = not staying & {ComponentKind.PLATFORM_APP, ComponentKind.REPOSITORY}
    secret_last = sorted(names, key=lambda name: (_has_only_secrets(leaving, name), name))
    return Removal(app, repository, tuple(folder / name for name in secret_last), is_last)


def _folder(settings: Settings, app: str) -> Path:
    if settings.platform.url:
        advice = f"remove the documents of {app} there"
        message = f"the platform folder is the Git repository {settings.platform.url}: {advice}"
        raise Stalled(Reason.PLATFORM_IN_GIT, message)
    folder = Path(settings.platform.path)
    if not folder.is_dir():
        message = f"the platform folder {folder} does not exist; set platform.path in the configuration"
        raise Stalled(Reason.PLATFORM_FOLDER_MISSING, message)
    return folder


def _unknown(app: str, declared: Iterable[str], folder: Path) -> Stalled:
    near = get_close_matches(app, declared, n=1)
    hint = f"Did you mean {near[0]}?" if near else "List all with: prichal app ls"
    return Stalled(Reason.UNKNOWN_APP, f"no file in {folder} connects an app {app!r}. {hint}")


def _leaving(
    documents: tuple[ManifestDocument, ...], app: str, repository: str
) -> tuple[ManifestDocument, ...]:
    """Return the documents that only this app needs: its PlatformApp, its Repository if no other app follows
    it, and the Secrets that only they name, or that are its own.
    """
    apps = [d for d in documents if d.kind is ComponentKind.PLATFORM_APP]
    repositories = [d for d in documents if d.kind is ComponentKind.REPOSITORY]
    leaving = [d for d in apps if d.name == app]
    if not any(d.get("spec", "repository") == repository for d in apps if d.name != app):
        leaving += [d for d in repositories if d.name == repository]
    staying = [d for d in (*apps, *repositories) if d not in leaving]
    only_here = _secrets_of(leaving) - _secrets_of(staying)
    for document in documents:
        if document.kind is ComponentKind.SECRET:
            owner = document.get("metadata", "namespace")
            if owner == app or (owner is None and document.name in only_here):
                leaving.append(document)
    return tuple(leaving)


def _secrets_of(documents: Iterable[ManifestDocument]) -> set[str]:
    return {name for document in documents for name in _secrets(document.node.value)}


def _secrets(value: object, key: str = "") -> Iterator[str]:
    """Yield the names of Secrets in a Repository or PlatformApp."""
    if isinstance(value, str) and key in _NAMES_SECRET:
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _secrets(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item)


def _has_only_secrets(documents: Iterable[ManifestDocument], file: str) -> bool:
    return all(d.kind is ComponentKind.SECRET for d in documents if d.file == file)
