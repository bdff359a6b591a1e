"""YAML text as trees of values that know where they stand, for manifests and for the config; and back, for results
of commands.

ruamel.yaml parses; the tree is our own, because positions are needed for every key and value, and because
going from parser events straight to plain values takes half the time of its round-trip mode. The values are
those of JSON: YAML 1.2's core schema, text as keys, no tags but `!!str`, no duplicate or merge keys, no NaN.
Everything else becomes a Problem with its position; nothing is raised. Texts are never quoted in these
problems: they may be passwords.

Bounds keep a small hostile file from becoming a large job: size, depth, and the number of values with what aliases
stand for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Final, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.scanner import Scanner

from controller.domain.errors import ManifestProblem
from controller.domain.text import is_storable, paired, storable

MAX_SIZE: Final = 2**20  # bytes of a file
MAX_DEPTH: Final = 32
MAX_TAG: Final = 1024
MAX_VALUES: Final = 20_000  # of a file, what aliases stand for included; parsing them takes about a second
MAX_PROBLEMS: Final = 50  # of a file, then the rest is not read

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Path = Sequence[str | int]

#: The message for a text that is not valid Unicode.
UNUSABLE = "holds NUL or half of a character (\\ud83d alone), which no program can be given"
_NO_TAGS: Final = "tags (!…) are not allowed; text that begins with ! needs quotes"
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_EXACT: Final = 1e18  # whole numbers below it are ones, however they are written
_WORDS: Final[Mapping[str, Json]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its position; `line` and `column` count from 1. `children` are by key or index, `keys` are
    the positions of a mapping's keys. `refused`: the value could not be read and was reported; this is a
    replacement. `plain`: the text of a scalar without quotes and tag."""

    value: Json
    line: int
    column: int
    children: Mapping[str | int, Node] = field(default_factory=dict)
    keys: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    refused: bool = False
    plain: str | None = None

    def at(self, path: Path) -> Node:
        """Return the node at `path`, or the nearest existing one above it."""
        node = self
        for step in path:
            child = node.children.get(step)
            if child is None:
                return node
            node = child
        return node

    def place(self, path: Path) -> tuple[int, int]:
        """Return the line and column for `path`: those of its key, if it has one."""
        if path and isinstance(path[-1], str):
            parent = self.at(path[:-1])
            if path[-1] in parent.keys:
                return parent.keys[path[-1]]
        node = self.at(path)
        return node.line, node.column


@dataclass(frozen=True)
class Parsed:
    """The readable documents of a file, and its problems."""

    documents: tuple[Node, ...]
    problems: tuple[ManifestProblem, ...] = ()
    too_large: bool = False  # one of the bounds was met: nothing can be said of the rest
    values: int = 0  # how many there were to read, what aliases stand for included


class _UnreadableError(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


def parse(file: str, content: bytes, before: int = 0) -> Parsed:
    """Parse all documents of a YAML file, or of a part of it with so many lines `before`. `file` is only used to say
    where problems are."""
    if len(content) > MAX_SIZE:
        large = ManifestProblem(file, 0, 0, "", f"is larger than {MAX_SIZE // 2**20} MiB: split it")
        return Parsed((), (large,), too_large=True)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = before + content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        return Parsed((), (ManifestProblem(file, line, column, "", "is not UTF-8 text: save it as UTF-8"),))
    builder = _Builder(file, text, before)
    try:
        builder.build()
    except _UnreadableError as error:
        builder.problems.append(ManifestProblem(file, error.line, error.column, "", error.message))
    return Parsed(tuple(builder.documents), tuple(builder.problems), builder.full, builder.size)


class _Scanner(Scanner):
    def scan_tag(self) -> Any:
        """Scan a tag in linear time; the parser needs quadratic time."""
        token = super().scan_tag()
        if sum(len(part or "") for part in token.value) > MAX_TAG:
            raise MarkedYAMLError("a tag is too long", token.start_mark)
        return token


def _events(text: str, before: int) -> Iterator[Any]:
    """Yield the parser's events, with its errors in our words."""
    try:
        parser = YAML(typ="safe", pure=True)
        parser.Scanner = _Scanner
        yield from parser.parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = ", ".join(str(part) for part in (error.context, error.problem) if part)
        if "tag handle" in said:  # quotes the text
            said = _NO_TAGS
        raise _UnreadableError(
            f"is not valid YAML: {said}{_advice(text, line)}", before + line, column
        ) from error
    except YAMLError as error:
        position = getattr(error, "position", 0)
        line = before + text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        raise _UnreadableError("is not valid YAML: a control character", line, column) from error
    except (ValueError, OverflowError) as error:  # of int() and chr(), for a version or an escape
        raise _UnreadableError("is not valid YAML: a number in it is too large", before + 1, 1) from error


def _advice(text: str, line: int) -> str:
    lines = text.splitlines()
    indentation = re.match(r"\s*", lines[line - 1])[0] if 0 < line <= len(lines) else ""  # type: ignore[index]
    return "; indent with spaces, not with tabs" if "\t" in indentation else ""


@dataclass(frozen=True, slots=True)
class _Anchored:
    node: Node
    size: int
    height: int


class _Builder:
    """Turns one file's events into nodes; `documents` holds those that were complete before a fatal error."""

    def __init__(self, file: str, text: str, before: int) -> None:
        self.problems: list[ManifestProblem] = []
        self.documents: list[Node] = []
        self._file = file
        self._before = before
        self._events = _events(text, before)
        self._anchors: dict[str, _Anchored | None] = {}
        self.size = 0
        self.full = False

    def build(self) -> None:
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                self._anchors = {}
                self.documents.append(self._node(next(self._events), 1)[0])

    def _place(self, event: Any) -> tuple[int, int]:
        return event.start_mark.line + 1 + self._before, event.start_mark.column + 1

    def _problem(self, event: Any, message: str) -> None:
        line, column = self._place(event)
        self.problems.append(ManifestProblem(self._file, line, column, "", message))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _UnreadableError("has too many problems: the rest was not read", line, column)

    def _count(self, event: Any, values: int) -> None:
        self.size += values
        if self.size > MAX_VALUES:
            self.full = True
            message = f"holds more than {MAX_VALUES} values, what aliases stand for included: split it"
            raise _UnreadableError(message, *self._place(event))

    def _node(self, event: Any, depth: int) -> tuple[Node, int]:
        """Return the node that begins with `event`, and the height of the tree below it."""
        if depth > MAX_DEPTH:
            raise _UnreadableError(f"is nested deeper than {MAX_DEPTH} levels", *self._place(event))
        if isinstance(event, AliasEvent):
            return self._alias(event, depth)
        before = self.size
        self._count(event, 1)
        if event.anchor:
            self._anchors[event.anchor] = None
        node, height = self._fresh(event, depth)
        if event.anchor:
            self._anchors[event.anchor] = _Anchored(node, self.size - before, height)
        return node, height

    def _fresh(self, event: NodeEvent, depth: int) -> tuple[Node, int]:
        if isinstance(event, ScalarEvent):
            before = len(self.problems)
            value = self._scalar(event)
            plain = event.value if event.tag is None and event.implicit[0] else None
            return Node(value, *self._place(event), refused=len(self.problems) > before, plain=plain), 1
        tag = event.tag  # type: ignore[attr-defined]
        if tag not in (None, "!", f"{_TAG}map" if isinstance(event, MappingStartEvent) else f"{_TAG}seq"):
            self._problem(event, _NO_TAGS)
        return (
            self._mapping(event, depth)
            if isinstance(event, MappingStartEvent)
            else self._sequence(event, depth)
        )

    def _alias(self, event: AliasEvent, depth: int) -> tuple[Node, int]:
        anchored = self._anchors.get(event.anchor)
        if anchored is None:
            known = event.anchor in self._anchors
            message = (
                "an alias inside of what it stands for" if known else "an alias (*) without its anchor (&)"
            )
            raise _UnreadableError(f"{message}; text that begins with * needs quotes", *self._place(event))
        self._count(event, anchored.size)
        if depth + anchored.height - 1 > MAX_DEPTH:
            raise _UnreadableError(f"is nested deeper than {MAX_DEPTH} levels", *self._place(event))
        return anchored.node, anchored.height

    def _sequence(self, start: NodeEvent, depth: int) -> tuple[Node, int]:
        nodes: list[Node] = []
        highest = 0
        while not isinstance(event := next(self._events), SequenceEndEvent):
            node, height = self._node(event, depth + 1)
            nodes.append(node)
            highest = max(highest, height)
        children = cast("dict[str | int, Node]", dict(enumerate(nodes)))
        return Node([node.value for node in nodes], *self._place(start), children), highest + 1

    def _mapping(self, start: NodeEvent, depth: int) -> tuple[Node, int]:
        children: dict[str | int, Node] = {}
        keys: dict[str, tuple[int, int]] = {}
        highest = 0
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, keys, depth)
            node, height = self._node(next(self._events), depth + 1)
            highest = max(highest, height)
            if key is not None:
                keys[key] = self._place(event)
                children[key] = node
        value = {key: children[key].value for key in keys}
        return Node(value, *self._place(start), children, keys), highest + 1

    def _key(self, event: Any, seen: Mapping[str, tuple[int, int]], depth: int) -> str | None:
        """Return the key, which is always a text; None if it was refused, with a problem."""
        node, _ = self._node(event, depth + 1)
        key = storable(paired(event.value)) if isinstance(event, ScalarEvent) else node.value
        if not isinstance(key, str) or (key == "" and node.value is None):
            self._problem(event, "a key must be text")
            return None
        if key == "<<" and not getattr(event, "style", None):
            self._problem(event, "merge keys (<<) are not part of YAML 1.2: write the fields out")
            return None
        if key in seen:
            self._problem(event, f"the key {key!r} is there twice, first in line {seen[key][0]}: remove one")
            return None
        return key

    def _scalar(self, event: ScalarEvent) -> Json:
        text = self._text(event)
        if event.tag in (f"{_TAG}str", "!"):
            return text
        if event.tag is not None:
            self._problem(event, _NO_TAGS)
            return text
        return self._plain(event, text) if event.implicit[0] else text

    def _text(self, event: ScalarEvent) -> str:
        """Return the text with surrogate pairs joined: JSON, and so YAML, may spell characters beyond the
        first 65536 as two escapes."""
        text = paired(event.value)
        if is_storable(text):
            return text
        self._problem(event, UNUSABLE)
        return storable(text)

    def _plain(self, event: ScalarEvent, text: str) -> Json:
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _INT.fullmatch(text):
            if len(text) <= 30:
                return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        elif _FLOAT.fullmatch(text):
            if math.isfinite(number := float(text)):
                # Tools that use floats write whole numbers like this: 1.34217728e+08.
                return int(number) if number.is_integer() and abs(number) < _EXACT else number
        elif not _SPECIAL_FLOAT.fullmatch(text):
            return text
        self._problem(event, "is not a number that JSON could hold; text needs quotes")
        return 0


#: YAML 1.1 takes these for booleans, and many of its readers are in use.
_OLD_WORDS = re.compile("y|n|yes|no|on|off", re.IGNORECASE)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f]")


def dump(value: object, quoted: re.Pattern[str]) -> str:
    """Return a value of JSON as a YAML document in block style, mappings in their order. Texts that contain
    `quoted` become double-quoted scalars, in which any character may be escaped later.
    """

    def text_of(representer: SafeRepresenter, text: str) -> ScalarNode:
        style = "|" if "\n" in text else "'" if _OLD_WORDS.fullmatch(text) else None
        if quoted.search(text) or _CONTROLS.search(text):
            style = '"'
        return representer.represent_scalar(f"{_TAG}str", text, style=style)

    class Representer(SafeRepresenter):
        def ignore_aliases(self, data: Any) -> bool:
            return True  # what is twice in a document is written twice

    Representer.add_representer(str, text_of)
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.width = 2**31
    stream = StringIO()
    yaml.dump(value, stream)
    return stream.getvalue().removesuffix("...\n")
