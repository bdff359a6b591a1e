"""Encrypted manifests, and the files of the repository that Secrets name with `envs` and `fromFiles`.

Only Secrets may have encrypted values: those of other kinds are shown in plans, the history and the state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as HostPath
from typing import Final

from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ManifestProblem, Stalled
from controller.domain.localizable import Localizable
from controller.domain.secret import Secret
from controller.domain.units import about_size
from controller.manifests.reader import ManifestDocument
from controller.manifests.smoke_files import FileMissing, find_file
from controller.sops import FileFormat, FileKeys, OpenedFile, SopsError, open_file
from controller.sops.files import MAX_FILE
from controller.sops.values import mac_bytes
from controller.yaml_documents import Node

_KEY: Final = re.compile(r"[^\s\x00-\x1f\x7f]{1,253}")
MAX_ENVS: Final = 1000  # keys of one file

ReadFile = Callable[[str], bytes]


@dataclass(frozen=True)
class FileAccess:
    """What reading a commit's Secrets takes. `keys` decrypt its files; without them values are placeholders. `read`
    returns a file of the repository, and raises Stalled, FileMissing or OSError."""

    keys: FileKeys | None = None
    read: ReadFile | None = None


NO_ACCESS: Final = FileAccess()


def folder_access(folder: HostPath) -> FileAccess:
    """Return access to the files of a folder on this machine, and of the repository around it, without keys."""

    def read(path: str) -> bytes:
        file = find_file(folder, path)
        if (size := file.stat().st_size) > MAX_FILE:
            raise OSError(
                0,
                Localizable(
                    "it has {size}, and at most {max_file} are allowed",
                    size=about_size(size),
                    max_file=about_size(MAX_FILE),
                ),
            )
        return file.read_bytes()

    return FileAccess(read=read)


def misplaced(document: ManifestDocument) -> Iterator[ManifestProblem]:
    """Report the first encrypted value of a document of another kind than Secret."""
    if document.kind is ComponentKind.SECRET or not document.encrypted:
        return
    path = min(document.encrypted, key=document.node.place)
    message = Localizable(
        "is encrypted, and values of a {kind} are shown in plans and the history: put it into a "
        "Secret, and encrypt with --encrypted-regex '^(data|stringData)$'",
        kind=document.kind,
    )
    yield document.problem(path, message)


def with_contents(
    document: ManifestDocument, access: FileAccess, problems: list[ManifestProblem]
) -> ManifestDocument:
    """Return a Secret with the content of the files that it names."""
    if document.kind is not ComponentKind.SECRET or access.read is None or not names_files(document):
        return document
    contents: dict[str, str] = {}
    in_plain: list[str] = []
    encrypted: list[tuple[str, tuple[str, ...]]] = []
    is_decrypted = document.is_decrypted
    for place, path in _named_files(document):
        try:
            opened = open_file(path, access.read(path), access.keys)
            values = {str(place[1]): opened.text} if place[0] == "fromFiles" else _envs(opened)
        except (SopsError, FileMissing, Stalled, OSError, ValueError) as error:
            problems.append(document.problem(place, _told(path, error)))
            continue
        is_decrypted = is_decrypted and opened.is_decrypted
        in_plain += [] if opened.was_encrypted else [path]
        encrypted += [(path, opened.recipients)] if opened.recipients else []
        contents.update(values)
    return replace(
        document,
        contents=contents,
        in_plain=tuple(in_plain),
        is_decrypted=is_decrypted,
        encrypted_files=tuple(encrypted),
    )


def names_files(document: ManifestDocument) -> bool:
    return document.get("envs") is not None or document.get("fromFiles") is not None


def plain_parts(document: ManifestDocument) -> tuple[str, ...]:
    """Return the keys and files of a Secret whose values lie in the repository as plain text."""
    fields = [(field, document.get(field)) for field in ("stringData", "data")]
    keys = [
        key
        for field, values in fields
        for key, value in (values if isinstance(values, dict) else {}).items()
        if value != "" and (field, key) not in document.encrypted
    ]
    return (*keys, *document.in_plain)


def decrypted_values(document: ManifestDocument) -> Iterator[Secret]:
    """Return what must not appear in a message about the document."""
    if document.is_decrypted:
        hidden = (path for path in document.encrypted if path[0] not in ("apiVersion", "kind"))
        yield from (Secret(str(document.get(*path))) for path in hidden)
        yield from map(Secret, document.contents.values())


def undecrypted(document: ManifestDocument) -> Iterator[ManifestProblem]:
    """Say what was not checked."""
    if not document.is_decrypted:
        message = Localizable("its encrypted values were not checked: only the daemon has the key")
        yield document.problem(["kind"], message)


def _named_files(document: ManifestDocument) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the files in the order in which later ones win."""
    envs, files = document.get("envs"), document.get("fromFiles")
    for i, path in enumerate(envs if isinstance(envs, list) else ()):
        yield ("envs", i), str(path)
    for key, path in (files if isinstance(files, dict) else {}).items():
        yield ("fromFiles", key), str(path)


def _envs(opened: OpenedFile) -> Mapping[str, str]:
    """Return the keys of a file with their values. Raises SopsError."""
    if opened.format is FileFormat.BINARY:
        raise SopsError(
            Localizable("is not a list of keys with values: it must end with .env, .json, .yaml or .yml")
        )
    if (
        not opened.fields
        and opened.text.strip() not in ("", "{}", "null")
        and opened.format is not FileFormat.DOTENV
    ):
        raise SopsError(Localizable("must be one mapping of keys to texts"))
    if len(opened.fields) > MAX_ENVS:
        raise SopsError(Localizable("has more than {max_envs} keys", max_envs=MAX_ENVS))
    return {key: _env(key, value, opened) for key, value in opened.fields}


def _env(key: str, node: Node, opened: OpenedFile) -> str:
    if not _KEY.fullmatch(key):
        raise SopsError(Localizable("holds a key with blanks or control characters"), line=node.line)
    value = node.value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SopsError(Localizable("must be text or a number"), (key,), line=node.line)
    if not isinstance(value, str):
        return mac_bytes(value).decode()  # as sops would write it
    return value.rstrip("\r") if opened.format is FileFormat.DOTENV else value


def _told(path: str, error: Exception) -> str:
    match error:
        case SopsError():
            place = f"{path}:{error.line}" if error.line else path
            field = ".".join(map(str, error.path))
            return f"{place}: {f'{field}: ' if field else ''}{error.message}"
        case Stalled():
            return error.message
        case OSError():
            return Localizable("cannot read {path}: {strerror}", path=path, strerror=error.strerror or error)
        case FileMissing():
            return Localizable("{error} in this repository", error=error)
        case _:
            return f"{path}: {error}"
