"""Connecting a module: its system components become new files in the platform folder.

Called by `prichal connect` and `prichal repo create --connect`. Everything is validated together with the
present content of the folder before anything is written. Existing files are never overwritten, and a new file
appears completely or not at all, since the daemon looks at the folder every two seconds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from controller.config import Settings
from controller.domain.apps.spec import GitRef, HookProvider, Limits
from controller.domain.errors import Stalled
from controller.domain.names import DNS_LABEL
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.manifests import load_platform
from controller.manifests.validate import read_folder
from controller.ports import SourceFile

API_VERSION = "unified-platform.cs.hse.ru/v1"

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9./_-]*")
_WORDS = {
    "true",
    "false",
    "null",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
}  # words that YAML, now or formerly, does not read as text


@dataclass(frozen=True)
class ConnectOptions:
    """A module to connect. `interval` is written as in the manifest (`60s`); the values of secrets are
    written down.
    """

    url: str
    repository: str
    app: str
    ref: GitRef
    path: str = "."
    interval: str | None = None
    credentials: tuple[tuple[str, Secret], ...] = ()
    hook: HookProvider | None = None
    hook_secret: Secret | None = None
    owner: str = ""
    limits: Limits | None = None


@dataclass(frozen=True)
class NewManifest:
    """A new file of the platform folder; `private` ones contain secrets."""

    name: str
    text: str
    private: bool = False


def connect(
    settings: Settings, connection: ConnectOptions, resume: bool = False, dry_run: bool = False
) -> tuple[Path, ...]:
    """Write the files, or with `dry_run` only check everything, and return their paths. With `resume`, those that have
    just this content are fine: they were written before the process was killed. Raises Stalled `AlreadyConnected`,
    `PlatformFolderMissing` or
    `PlatformInGit`, and ManifestInvalid with all problems that the folder would have.
    """
    source = settings.platform
    if source.url:
        advice = "commit there what --print shows"
        raise Stalled(
            Reason.PLATFORM_IN_GIT, f"the platform folder is the Git repository {source.url}: {advice}"
        )
    folder = Path(source.path)
    if not folder.is_dir():
        advice = "create it, or set platform.path in the configuration to another folder"
        raise Stalled(
            Reason.PLATFORM_FOLDER_MISSING, f"the platform folder {folder} does not exist; {advice}"
        )
    drafts = documents(connection)
    missing = tuple(draft for draft in drafts if not _is_there(folder, draft, resume))
    files = (*read_folder(folder), *(SourceFile(draft.name, draft.text.encode()) for draft in missing))
    load_platform(files, settings)
    if not dry_run:
        _write_all(folder, missing)
    return tuple(folder / draft.name for draft in drafts)


def _is_there(folder: Path, draft: NewManifest, resume: bool) -> bool:
    path = folder / draft.name
    if not path.exists():
        return False
    if resume and path.is_file() and path.read_bytes() == draft.text.encode():
        return True
    raise _taken(path)


def withdraw(settings: Settings, connection: ConnectOptions) -> None:
    """Remove the Secrets of a connection that was not completed: files with just this content."""
    for draft in documents(connection):
        path = Path(settings.platform.path) / draft.name
        if draft.private and path.is_file() and path.read_bytes() == draft.text.encode():
            path.unlink()


def documents(connection: ConnectOptions) -> tuple[NewManifest, ...]:
    """Return the files to write, Secrets first: they must be there when the document that names them appears."""
    public = "---\n".join(_text(document) for document in (_repository(connection), _app(connection)))
    drafts = [NewManifest(f"{connection.app}.yaml", public)]
    secrets = [_text(document) for document in _secrets(connection)]
    if secrets:
        drafts.insert(0, NewManifest(f"{connection.app}.secret.yaml", "---\n".join(secrets), private=True))
    return tuple(drafts)


def app_name(url: str) -> str:
    """Return a DNS label made from the last part of a URL: `https://…/Team/My_Model.git` → `my-model`."""
    last = re.split(r"[/:]", url.rstrip("/"))[-1].removesuffix(".git").lower()
    name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:63].strip("-")
    if not DNS_LABEL.fullmatch(name):
        raise Stalled(Reason.NAME_INVALID, f"cannot derive a name from {url!r}; give one with --name")
    return name


def _repository(connection: ConnectOptions) -> Mapping[str, object]:
    spec: dict[str, object] = {
        "url": connection.url,
        "ref": {connection.ref.kind.value: connection.ref.value},
    }
    if connection.interval:
        spec["interval"] = connection.interval
    if connection.credentials:
        spec["credentials"] = _credentials_name(connection)
    if connection.hook:
        spec["webhook"] = {"provider": connection.hook.value, "secret": _hook_name(connection)}
    return _document("Repository", connection.repository, spec=spec)


def _app(connection: ConnectOptions) -> Mapping[str, object]:
    spec: dict[str, object] = {"repository": connection.repository, "path": connection.path}
    if connection.owner:
        spec["owner"] = connection.owner
    if connection.limits:
        spec["limits"] = {key: n for key, n in asdict(connection.limits).items() if n is not None}
    return _document("PlatformApp", connection.app, spec=spec)


def _secrets(connection: ConnectOptions) -> Iterator[Mapping[str, object]]:
    if connection.credentials:
        values = {key: value.reveal() for key, value in connection.credentials}
        yield _document("Secret", _credentials_name(connection), stringData=values)
    if connection.hook and connection.hook_secret:
        values = {"secret": connection.hook_secret.reveal()}
        yield _document("Secret", _hook_name(connection), stringData=values)


def _credentials_name(connection: ConnectOptions) -> str:
    return f"{connection.repository[:59]}-git"


def _hook_name(connection: ConnectOptions) -> str:
    return f"{connection.repository[:58]}-hook"


def _document(kind: str, name: str, **content: Mapping[str, object]) -> Mapping[str, object]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, **content}


def _text(document: Mapping[str, object]) -> str:
    return "\n".join(_lines(document, 0)) + "\n"


def _lines(value: Mapping[str, object], indent: int) -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield f"{' ' * indent}{_scalar(key)}:"
            yield from _lines(item, indent + 2)
        else:
            text = repr(item) if isinstance(item, int | float) else _scalar(str(item))
            yield f"{' ' * indent}{_scalar(key)}: {text}"


def _scalar(text: str) -> str:
    """Return a YAML scalar. A JSON string is a double-quoted YAML scalar."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


def _write_all(folder: Path, drafts: tuple[NewManifest, ...]) -> tuple[Path, ...]:
    written: list[Path] = []
    try:
        for draft in drafts:
            _write(folder, draft)
            written.append(folder / draft.name)
    except BaseException as error:
        for path in written:
            path.unlink()
        if isinstance(error, FileExistsError):
            raise _taken(folder / drafts[len(written)].name) from error
        raise
    return tuple(written)


def _write(folder: Path, draft: NewManifest) -> None:
    """Write a file. Unlike a rename, a link fails if a file of that name has appeared meanwhile. The file
    gets the owner of the folder, so that the daemon can read it even if root connects.
    """
    hidden = folder / f".{draft.name}.{os.getpid()}"
    hidden.unlink(missing_ok=True)  # left by a killed process with the same id
    descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(draft.text)
            file.flush()
            os.fsync(file.fileno())
            if os.geteuid() == 0:
                os.fchown(file.fileno(), folder.stat().st_uid, folder.stat().st_gid)
            os.fchmod(file.fileno(), 0o600 if draft.private else 0o640)
        os.link(hidden, folder / draft.name)
    finally:
        with suppress(FileNotFoundError):
            hidden.unlink()


def _taken(path: Path) -> Stalled:
    return Stalled(
        Reason.ALREADY_CONNECTED, f"{path} exists already: edit it, or connect under another name (--app)"
    )
