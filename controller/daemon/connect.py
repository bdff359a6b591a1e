"""Connecting a module: its system components as new files in the platform folder.

Called by `prichal connect` and `prichal repo create --connect`. Everything is validated together with what the folder
holds already, before anything is written; what is there is never overwritten, and a file appears complete or not at
all, since the daemon looks at the folder every other second.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller.config import Settings
from controller.domain.errors import Stalled
from controller.domain.names import DNS_LABEL
from controller.domain.secret import Secret
from controller.domain.spec import GitRef, HookProvider
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
}  # that YAML, or its past, reads as no text


@dataclass(frozen=True)
class Connection:
    """A module to be connected. `interval` as in the manifest (`60s`); the secrets' values are written down."""

    url: str
    repository: str
    app: str
    ref: GitRef
    path: str = "."
    interval: str | None = None
    credentials: tuple[tuple[str, Secret], ...] = ()
    hook: HookProvider | None = None
    hook_secret: Secret | None = None


@dataclass(frozen=True)
class Draft:
    """A file of the platform folder to be; `private` ones hold secrets."""

    name: str
    text: str
    private: bool = False


def connect(settings: Settings, connection: Connection) -> tuple[Path, ...]:
    """Write the files; their paths. Stalled `AlreadyConnected`, `PlatformFolderMissing`, `PlatformInGit`;
    ManifestInvalid with all problems of the folder as it would be."""
    source = settings.platform
    if source.url:
        advice = "put there what --print shows"
        raise Stalled("PlatformInGit", f"the platform folder is the Git repository {source.url}: {advice}")
    folder = Path(source.path)
    if not folder.is_dir():
        advice = "create it, or name another one under platform.path in the configuration"
        raise Stalled("PlatformFolderMissing", f"the platform folder {folder} is not there; {advice}")
    drafts = documents(connection)
    for draft in drafts:
        if (folder / draft.name).exists():
            raise _taken(folder / draft.name)
    files = (*read_folder(folder), *(SourceFile(draft.name, draft.text.encode()) for draft in drafts))
    load_platform(files, settings)
    return _write_all(folder, drafts)


def documents(connection: Connection) -> tuple[Draft, ...]:
    """The secrets first: what names them comes when they are there."""
    public = "---\n".join(_text(document) for document in (_repository(connection), _app(connection)))
    drafts = [Draft(f"{connection.app}.yaml", public)]
    secrets = [_text(document) for document in _secrets(connection)]
    if secrets:
        drafts.insert(0, Draft(f"{connection.app}.secret.yaml", "---\n".join(secrets), private=True))
    return tuple(drafts)


def app_name(url: str) -> str:
    """A DNS label made from the last part of a URL: `https://…/Team/My_Model.git` → `my-model`."""
    last = re.split(r"[/:]", url.rstrip("/"))[-1].removesuffix(".git").lower()
    name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:63].strip("-")
    if not DNS_LABEL.fullmatch(name):
        raise Stalled("NameInvalid", f"no name can be made from {url!r}; give one with --name")
    return name


def _repository(connection: Connection) -> Mapping[str, object]:
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


def _app(connection: Connection) -> Mapping[str, object]:
    return _document(
        "PlatformApp", connection.app, spec={"repository": connection.repository, "path": connection.path}
    )


def _secrets(connection: Connection) -> Iterator[Mapping[str, object]]:
    if connection.credentials:
        values = {key: value.reveal() for key, value in connection.credentials}
        yield _document("Secret", _credentials_name(connection), stringData=values)
    if connection.hook and connection.hook_secret:
        values = {"secret": connection.hook_secret.reveal()}
        yield _document("Secret", _hook_name(connection), stringData=values)


def _credentials_name(connection: Connection) -> str:
    return f"{connection.repository[:59]}-git"


def _hook_name(connection: Connection) -> str:
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
            yield f"{' ' * indent}{_scalar(key)}: {_scalar(str(item))}"


def _scalar(text: str) -> str:
    """A JSON string is a double-quoted YAML scalar."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


def _write_all(folder: Path, drafts: tuple[Draft, ...]) -> tuple[Path, ...]:
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


def _write(folder: Path, draft: Draft) -> None:
    """A link, unlike a rename, fails where a file of that name has come meanwhile. The folder's owner is who reads
    it: the daemon, also if root connects."""
    hidden = folder / f".{draft.name}.{os.getpid()}"
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
        "AlreadyConnected", f"{path} is there already: edit it, or connect under another name (--app)"
    )
