"""Files that Secrets name: dotenv, JSON, YAML or anything else, in plain or encrypted. The end of the name says which,
as for sops itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from controller.sops.errors import SopsError
from controller.sops.keys import FileKeys
from controller.sops.metadata import KEY
from controller.sops.tree import is_encrypted, open_documents
from controller.yaml_documents import MAX_DEPTH, Node, dump, parse

MAX_FILE: Final = 2**20  # bytes
MAX_NODES: Final = 20_000
_PREFIX: Final = f"{KEY}_"
_BINARY_KEY: Final = "data"
_NEVER: Final = re.compile("(?!)")


class FileFormat(StrEnum):
    DOTENV = "dotenv"
    JSON = "json"
    YAML = "yaml"
    BINARY = "binary"


_ENDINGS: Final[Mapping[str, FileFormat]] = {
    ".env": FileFormat.DOTENV,
    ".json": FileFormat.JSON,
    ".yaml": FileFormat.YAML,
    ".yml": FileFormat.YAML,
}


def format_of(path: str) -> FileFormat:
    return next((found for ending, found in _ENDINGS.items() if path.endswith(ending)), FileFormat.BINARY)


@dataclass(frozen=True)
class OpenedFile:
    """The content of a file. `text` is the whole, `fields` its top-level fields if it has such. `was_encrypted`: no
    value of it lies in plain. `is_decrypted`: values are placeholders otherwise. `recipients` are those keys of ours,
    public, for which it was encrypted."""

    format: FileFormat
    text: str
    fields: tuple[tuple[str, Node], ...]
    was_encrypted: bool
    is_decrypted: bool = True
    recipients: tuple[str, ...] = ()


def open_file(path: str, content: bytes, keys: FileKeys | None) -> OpenedFile:
    """Return a file, decrypted if it is encrypted. Raises SopsError."""
    if path.endswith(".ini"):
        raise SopsError(
            "INI files are not supported: use dotenv (.env), JSON, YAML, or a binary file of another name"
        )
    if len(content) > MAX_FILE:
        raise SopsError(f"is larger than {MAX_FILE // 2**20} MiB, which no environment of a container takes")
    text, format = _text(content), format_of(path)
    documents = _documents(path, text, format)
    if not is_encrypted(documents):
        root = documents[0] if len(documents) == 1 else None
        return OpenedFile(format, text, _fields(root) if format is not FileFormat.BINARY else (), False)
    opened = open_documents(documents, keys)
    root = opened.documents[0] if len(opened.documents) == 1 else None
    fields = _fields(root)
    hidden = sum(map(len, opened.encrypted)) + sum(
        child.value in ("", None) for child in _leaves(opened.documents)
    )
    is_all = hidden == sum(1 for _ in _leaves(opened.documents))
    whole = _written(format, opened.documents, fields)
    shown = fields if format is not FileFormat.BINARY else ()
    return OpenedFile(format, whole, shown, is_all, opened.is_decrypted, opened.recipients)


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SopsError("is not UTF-8 text; store a binary file in Base64", line=line) from None


def _fields(root: Node | None) -> tuple[tuple[str, Node], ...]:
    if root is None or not isinstance(root.value, dict):
        return ()
    return tuple((str(name), child) for name, child in root.children.items())


def _leaves(nodes: Iterable[Node]) -> Iterable[Node]:
    for node in nodes:
        if isinstance(node.value, dict | list):
            yield from _leaves(node.children.values())
        else:
            yield node


def _documents(path: str, text: str, format: FileFormat) -> tuple[Node, ...]:
    match format:
        case FileFormat.DOTENV:
            return (_dotenv(text),)
        case FileFormat.JSON:
            return (_json(text),)
        case FileFormat.YAML:
            parsed = parse(path, text.encode())
            if parsed.problems:
                first = parsed.problems[0]
                raise SopsError(first.message, line=first.line)
            return parsed.documents
        case FileFormat.BINARY:
            if not text.lstrip().startswith("{") or f'"{KEY}"' not in text:
                return ()
            try:
                return (_json(text),)
            except SopsError:  # it only looks like JSON
                return ()


def _written(format: FileFormat, documents: tuple[Node, ...], fields: tuple[tuple[str, Node], ...]) -> str:
    """Return the decrypted file as text."""
    match format:
        case FileFormat.DOTENV:
            return "".join(
                f"{name}={str(node.value).replace(chr(10), chr(92) + 'n')}\n" for name, node in fields
            )
        case FileFormat.JSON:
            return json.dumps(documents[0].value, indent="\t", ensure_ascii=False) + "\n"
        case FileFormat.YAML:
            return "---\n".join(dump(document.value, _NEVER) for document in documents)
        case FileFormat.BINARY:
            found = dict(fields).get(_BINARY_KEY)
            if found is None or not isinstance(found.value, str):
                raise SopsError("has no data: encrypt the file again with sops", (_BINARY_KEY,))
            return found.value


# --- dotenv ---------------------------------------------------------------------------------------------------------


def _dotenv(text: str) -> Node:
    """Return lines KEY=value as sops takes them: nothing is unquoted, only `\\n` is a line end. Its metadata are lines,
    too, and become the field `sops`."""
    children: dict[str | int, Node] = {}
    keys: dict[str, tuple[int, int]] = {}
    metadata: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip("\r") or line.startswith("#"):
            continue
        name, sign, value = line.partition("=")
        if not sign or not name:
            raise SopsError("the line is not KEY=value", line=number)
        if name in keys or name in metadata:
            raise SopsError(f"the key {name[:80]!r} is there twice: remove one", line=number)
        if len(keys) + len(metadata) >= MAX_NODES:
            raise SopsError(f"holds more than {MAX_NODES} values", line=number)
        value = value.replace("\\n", "\n")
        if name.startswith(_PREFIX):
            metadata[name.removeprefix(_PREFIX)] = value
        else:
            children[name], keys[name] = Node(value, number, len(name) + 2), (number, 1)
    if metadata:
        children[KEY] = _node(_nested(metadata), 1)
    return Node({str(name): child.value for name, child in children.items()}, 1, 1, children, keys)


def _nested(flat: Mapping[str, str]) -> dict[str, Any]:
    """Return metadata from names such as `age__list_0__map_enc`."""
    nested: dict[str, Any] = {name: value for name, value in flat.items() if "__" not in name}
    groups: dict[str, dict[str, dict[str, str]]] = {}
    for name, value in flat.items():
        kind, sign, rest = name.partition("__list_")
        index, inner, field = rest.partition("__map_")
        if sign and inner:
            groups.setdefault(kind, {}).setdefault(index, {})[field] = value
        elif "__" in name:
            nested[name] = value
    for kind, entries in groups.items():
        nested[kind] = [entries[index] for index in sorted(entries, key=lambda text: (len(text), text))]
    return nested


# --- JSON -----------------------------------------------------------------------------------------------------------


class _Number(str):
    """The text of a number."""


def _json(text: str) -> Node:
    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise SopsError(f"the key {twice[:80]!r} is there twice: remove one")
        return found

    def constant(name: str) -> Any:
        raise SopsError(f"is not valid JSON: {name}")

    try:
        raw = json.loads(
            text, object_pairs_hook=fields, parse_int=_Number, parse_float=_Number, parse_constant=constant
        )
    except json.JSONDecodeError as error:
        raise SopsError(f"is not valid JSON: {error.msg}", line=error.lineno) from None
    except RecursionError:
        raise SopsError(f"is nested deeper than {MAX_DEPTH} levels") from None
    return _node(raw, 1)


def _node(raw: Any, depth: int) -> Node:
    """Return a value of JSON without positions."""
    if depth > MAX_DEPTH:
        raise SopsError(f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(raw, dict):
        children: dict[str | int, Node] = {name: _node(value, depth + 1) for name, value in raw.items()}
        return Node({str(name): child.value for name, child in children.items()}, 0, 0, children)
    if isinstance(raw, list):
        items = [_node(value, depth + 1) for value in raw]
        return Node([item.value for item in items], 0, 0, dict(enumerate(items)))
    if isinstance(raw, _Number):
        return Node(_number(raw), 0, 0, plain=str(raw))
    if raw is None or isinstance(raw, bool):
        return Node(raw, 0, 0, plain={None: "null", True: "true", False: "false"}[raw])
    return Node(raw, 0, 0)


def _number(text: str) -> int | float:
    if text.lstrip("-").isdigit() and len(text) <= 30:
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        raise SopsError("holds a number that is too large")
    return value
