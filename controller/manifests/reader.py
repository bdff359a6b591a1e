"""From the files of a commit to its documents: which of them are ours, of what kind, under what name.

The first step of `load_app` and `load_platform`; looks no further into a document than apiVersion, kind and name.
Files that cannot hold a document of ours are not even parsed: a repository may be full of other YAML, templates
included, which is none of our business and would only cost time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from controller.documents import Node, Path, parse
from controller.domain.errors import Problem
from controller.domain.spec import Kind
from controller.ports import SourceFile

API_VERSION = "unified-platform.cs.hse.ru/v1"
SUFFIXES = (".yaml", ".yml")
MAX_TOTAL = 2 * 2**20  # bytes of all files that hold manifests
MAX_DOCUMENTS = 1000
MAX_PROBLEMS = 500

_GROUP = API_VERSION.partition("/")[0]
#: Kinds that nobody else uses: a document of such a kind with another apiVersion is probably a slip.
_DISTINCTIVE = frozenset(Kind) - {Kind.SECRET, Kind.REPOSITORY}
_OURS = re.compile(
    "|".join([re.escape(_GROUP), rf"\bkind\b\W{{0,5}}(?:{'|'.join(sorted(Kind))})\b"]).encode("ascii")
)


@dataclass(frozen=True)
class Document:
    """One document of ours. `name` is "" where the manifest has none that could be one."""

    file: str
    kind: Kind
    name: str
    node: Node

    def problem(self, path: Path, message: str) -> Problem:
        line, column = self.node.place(path)
        return Problem(self.file, line, column, render_path(path), message)

    def get(self, *path: str | int) -> object:
        """The value at `path`, None where there is none."""
        node = self.node
        for step in path:
            child = node.children.get(step)
            if child is None:
                return None
            node = child
        return node.value

    def warning(self, path: Path, message: str) -> str:
        return str(self.problem(path, message))


@dataclass(frozen=True)
class Reading:
    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


def render_path(path: Path) -> str:
    """`spec.stages[0].env`, and `stringData["a.b"]` for keys that would be misread."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[\w@-]+", step):
            text += f".{step}"
        else:
            text += f'["{step}"]'
    return text.removeprefix(".")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing if no known word is near."""
    by_lower = {str(name).lower(): str(name) for name in known}
    match = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.65)
    return f"; did you mean {by_lower[match[0]]!r}?" if match else ""


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once, by file and place. Beyond `MAX_PROBLEMS` they are only counted: they end up in the status,
    and whoever made so many made one mistake many times."""
    found = sorted(set(problems))
    if len(found) <= MAX_PROBLEMS:
        return tuple(found)
    last = found[MAX_PROBLEMS - 1]
    rest = f"and {len(found) - MAX_PROBLEMS} more problems after this one"
    return (*found[:MAX_PROBLEMS], Problem(last.file, last.line, last.column + 1, "", rest))


def read(files: Iterable[SourceFile]) -> Reading:
    """Documents in the order of the files, with everything that is wrong before their content is looked at."""
    documents: list[Document] = []
    problems: list[Problem] = []
    warnings: list[str] = []
    total = 0
    for file in files:
        if not file.path.endswith(SUFFIXES) or not _may_be_ours(file.content):
            continue
        total += len(file.content)
        if total > MAX_TOTAL or len(documents) > MAX_DOCUMENTS:
            limit = f"more than {MAX_TOTAL // 2**20} MiB or {MAX_DOCUMENTS} documents of manifests"
            problems.append(Problem(file.path, 0, 0, "", f"{limit}: point the PlatformApp's path to fewer"))
            break
        parsed = parse(file.path, file.content)
        problems.extend(parsed.problems)
        for node in parsed.documents:
            _sort(file.path, node, documents, problems, warnings)
    return Reading(tuple(documents), tuple(problems), tuple(warnings))


def _may_be_ours(content: bytes) -> bool:
    if content.startswith(
        (b"\xff\xfe", b"\xfe\xff")
    ):  # UTF-16, which the parser refuses with a better message
        content = content.replace(b"\0", b"")
    return _OURS.search(content) is not None


def _sort(
    file: str, node: Node, documents: list[Document], problems: list[Problem], warnings: list[str]
) -> None:
    """Put one document where it belongs: ours, wrong, suspicious or none of our business."""
    if not isinstance(node.value, dict):
        return
    version, kind = node.value.get("apiVersion"), node.value.get("kind")
    if version != API_VERSION:
        if _suspicious(version, kind):
            message = f"passed over, although its kind is {kind}: should it be {API_VERSION}?"
            warnings.append(str(Problem(file, *node.place(["apiVersion"]), "apiVersion", message)))
        return
    if not isinstance(kind, str) or kind not in set(Kind):
        said = f"{kind!r} is no kind of ours{nearest(str(kind), Kind)}" if kind else "is missing"
        message = f"{said}; kinds are {', '.join(Kind)}"
        problems.append(Problem(file, *node.place(["kind"]), "kind", message))
        return
    metadata = node.value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    documents.append(Document(file, Kind(kind), name if isinstance(name, str) else "", node))


def _suspicious(version: object, kind: object) -> bool:
    if not isinstance(kind, str) or kind not in set(Kind):
        return False
    return version is None or kind in _DISTINCTIVE or str(version).partition("/")[0] == _GROUP
