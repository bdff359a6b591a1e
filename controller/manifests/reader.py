"""Reads the documents of a commit, and finds ours with their kind and name.

The first step of `load_app` and `load_platform`; looks no further into a document than apiVersion, kind and
name. Files that cannot hold a document of ours are not even parsed: a repository may be full of other YAML,
templates included, which would only cost time. Only a document with our apiVersion can be invalid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import pairwise

from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ManifestProblem
from controller.domain.localizable import Localizable
from controller.ports import SourceFile
from controller.sops import FileKeys, OpenedDocuments, SopsError, is_encrypted, open_documents
from controller.sops.metadata import KEY as SOPS
from controller.sops.metadata import metadata_of
from controller.sops.values import encrypted_text
from controller.yaml_documents import Node, Parsed, Path, parse

API_VERSION = "unified-platform.cs.hse.ru/v1"
SUFFIXES = (".yaml", ".yml")
MAX_TOTAL = 2 * 2**20  # bytes of all files that hold manifests
MAX_DOCUMENTS = 1000
MAX_VALUES = 100_000  # of all files that are read, what aliases stand for included: some five seconds
MAX_FOREIGN = 40_000  # of them in files that only look as if they might be ours
MAX_PROBLEMS = 500

_GROUP = API_VERSION.partition("/")[0]
#: Kinds that no other tool uses: a document of such a kind with another apiVersion is probably a mistake.
_DISTINCTIVE = frozenset(ComponentKind) - {
    ComponentKind.SECRET,
    ComponentKind.REPOSITORY,
    ComponentKind.NOTIFICATION,
}
_KIND = re.compile(rf"\bkind\b\W{{0,5}}(?:{'|'.join(sorted(ComponentKind))})\b".encode("ascii"))
_SLIP = re.compile(rf"\bkind\b\W{{0,5}}(?:{'|'.join(sorted(_DISTINCTIVE))})\b".encode("ascii"))
_GROUP_NAMED = re.compile(re.escape(_GROUP).encode("ascii"))
_API_VERSION = re.compile(
    rf"""^( *)(?:---[ \t]+)?(\{{.*)?["']?apiVersion["']?[ \t]*:[ \t]*["']?{re.escape(_GROUP)}/""".encode(
        "ascii"
    ),
    re.MULTILINE,
)
#: A document whose apiVersion is encrypted, too.
_ENCRYPTED = re.compile(
    rb"""(?:^|[{,])[ \t]*["']?apiVersion["']?[ \t]*:[ \t]*["']?ENC\[AES256_GCM,""", re.MULTILINE
)
#: Where a document begins. In column 1 this is always a marker, within block texts, too.
_MARKER = re.compile(rb"^---(?=\s|$)", re.MULTILINE)
_FIRST_LINE = re.compile(rb"^(?!---)( *)([^\s#])", re.MULTILINE)


@dataclass(frozen=True)
class ManifestDocument:
    """A document of ours. `name` is "" if the manifest has no valid one. `encrypted` are the paths of values that were
    encrypted; if not `is_decrypted`, placeholders stand for them. `contents` has what a Secret takes from files of the
    repository, by key, `in_plain` names those files that are not encrypted, and `encrypted_files` has the others, with
    the keys of ours for which they are."""

    file: str
    kind: ComponentKind
    name: str
    node: Node
    encrypted: frozenset[tuple[str | int, ...]] = frozenset()
    is_decrypted: bool = True
    contents: Mapping[str, str] = field(default_factory=dict, repr=False)
    in_plain: tuple[str, ...] = ()
    encrypted_files: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def problem(self, path: Path, message: str) -> ManifestProblem:
        line, column = self.node.place(path)
        return ManifestProblem(self.file, line, column, render_path(path), message)

    def get(self, *path: str | int) -> object:
        """Return the value at `path`; None if there is none."""
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
class ReadDocuments:
    """`encrypted` are the files that were decrypted, with the keys of ours for which they are encrypted."""

    documents: tuple[ManifestDocument, ...]
    problems: tuple[ManifestProblem, ...]
    warnings: tuple[str, ...]
    encrypted: tuple[tuple[str, tuple[str, ...]], ...] = ()


def render_path(path: Path) -> str:
    """Return a path as text: `spec.stages[0].env`, and `stringData["a.b"]` for keys that would be ambiguous."""
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
    """Return `; did you mean 'x'?`, or nothing if no known word is similar."""
    by_lower = {str(name).lower(): str(name) for name in known}
    match = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.65)
    return Localizable("; did you mean {by_lower!r}?", by_lower=by_lower[match[0]]) if match else ""


def in_order(problems: Iterable[ManifestProblem]) -> tuple[ManifestProblem, ...]:
    """Return each problem once, by file and position. Beyond `MAX_PROBLEMS` they are only counted: they are shown
    in the status, and so many are usually one mistake made many times."""
    found = sorted(set(problems))
    if len(found) <= MAX_PROBLEMS:
        return tuple(found)
    last = found[MAX_PROBLEMS - 1]
    rest = Localizable("and {count} more problems after this one", count=len(found) - MAX_PROBLEMS)
    return (*found[:MAX_PROBLEMS], ManifestProblem(last.file, last.line, last.column + 1, "", rest))


def read(files: Iterable[SourceFile], keys: FileKeys | None = None) -> ReadDocuments:
    """Return the documents in the order of the files, and all problems that do not concern their content. `keys`
    decrypt files of sops; without them placeholders stand for encrypted values."""
    reading = _DocumentReader(keys)
    for file in files:
        if file.passed_over:
            reading.warnings.append(f"{file.path}: {file.passed_over}")
        if not file.path.endswith(SUFFIXES) or not may_be_ours(file.content):
            continue
        if not reading.take(file):
            break
    return reading.result()


@dataclass
class _DocumentReader:
    """What was read so far, and how much of the bounds for all files it takes."""

    keys: FileKeys | None
    documents: list[ManifestDocument] = field(default_factory=list)
    problems: list[ManifestProblem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    decrypted: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    total: int = 0  # bytes of files that name our API
    values: int = 0  # in them
    foreign: int = 0  # values in other files

    def take(self, file: SourceFile) -> bool:
        """Read one more file. Return False if that would exceed a bound."""
        ours = _GROUP_NAMED.search(file.content.replace(b"\0", b"")) is not None
        if not ours and self.foreign > MAX_FOREIGN:
            return True
        self.total += len(file.content) if ours else 0
        if self.total > MAX_TOTAL or len(self.documents) > MAX_DOCUMENTS or self.values > MAX_VALUES:
            self.problems.append(_too_much(file.path))
            return False
        parsed, is_whole = _parse_ours(file, self.warnings)
        if ours:
            self.values += parsed.values
        else:
            self._count_foreign(file.path, parsed.values)
        self.problems.extend(parsed.problems)
        opened = _opened(file.path, parsed, is_whole, self.keys, self.problems, self.warnings)
        if opened.recipients:
            self.decrypted.append((file.path, opened.recipients))
        for node, encrypted in zip(opened.documents, opened.encrypted, strict=True):
            found = _sorted(file.path, node, self.problems, self.warnings)
            if found is not None:
                is_decrypted = opened.is_decrypted or not encrypted
                self.documents.append(replace(found, encrypted=encrypted, is_decrypted=is_decrypted))
        return True

    def result(self) -> ReadDocuments:
        return ReadDocuments(
            tuple(self.documents), tuple(self.problems), tuple(self.warnings), tuple(self.decrypted)
        )

    def _count_foreign(self, path: str, values: int) -> None:
        self.foreign += values
        if self.foreign > MAX_FOREIGN:
            self.warnings.append(
                Localizable(
                    "{file_path}: files after it are passed over that do not name {api_version}",
                    file_path=path,
                    api_version=API_VERSION,
                )
            )


def _too_much(path: str) -> ManifestProblem:
    limit = Localizable(
        "more than {max_total} MiB, {max_documents} documents or {max_values} values of manifests",
        max_total=MAX_TOTAL // 2**20,
        max_documents=MAX_DOCUMENTS,
        max_values=MAX_VALUES,
    )
    message = Localizable("{limit}: point the PlatformApp's path to fewer", limit=limit)
    return ManifestProblem(path, 0, 0, "", message)


def _opened(
    file: str,
    parsed: Parsed,
    is_whole: bool,
    keys: FileKeys | None,
    problems: list[ManifestProblem],
    warnings: list[str],
) -> OpenedDocuments:
    """Return the documents of a file, decrypted if it is encrypted and has one of ours. A file that cannot be decrypted
    has none, and a problem."""
    nodes = parsed.documents
    as_they_are = OpenedDocuments(nodes, (frozenset(),) * len(nodes), True)
    if not is_encrypted(nodes):
        return as_they_are
    ours = [
        node for node in nodes if isinstance(node.value, dict) and node.value.get("apiVersion") == API_VERSION
    ]
    if ours and not any(SOPS in node.children for node in ours):
        return as_they_are  # somebody has put an encrypted document of another tool into the same file
    if not ours:
        versions = [node.value.get("apiVersion") for node in nodes if isinstance(node.value, dict)]
        if not any(isinstance(version, str) and encrypted_text(version) for version in versions):
            return as_they_are  # of another tool
        if not _is_for_us(nodes[0], keys):
            said = Localizable(
                "passed over: its apiVersion is encrypted, and not for a key that is known here"
            )
            advice = Localizable("encrypt Secrets with --encrypted-regex '^(data|stringData)$'")
            warnings.append(
                str(ManifestProblem(file, *nodes[0].place(["apiVersion"]), "", f"{said}; {advice}"))
            )
            return OpenedDocuments((), (), True)
    if not is_whole:
        said = Localizable(
            "cannot be decrypted: the MAC covers all documents, and not all of them can be read; split the file"
        )
        problems.append(ManifestProblem(file, *nodes[0].place([SOPS]), SOPS, said))
        return OpenedDocuments((), (), True)
    try:
        return open_documents(nodes, keys)
    except SopsError as error:
        place = nodes[error.document].place(error.path)
        problems.append(ManifestProblem(file, *place, render_path(error.path), error.message))
        return OpenedDocuments((), (), True)


def _is_for_us(node: Node, keys: FileKeys | None) -> bool:
    try:
        recipients = {recipient for recipient, _ in metadata_of(node.children[SOPS].value).recipients}
    except SopsError:
        return False
    return keys is not None and not recipients.isdisjoint(keys.recipients)


def _parse_ours(file: SourceFile, warnings: list[str]) -> tuple[Parsed, bool]:
    """Return all readable documents of the file, and the problems of those that are evidently ours: templates,
    tags and merge keys in a document of another tool are not problems of the commit, even in a file that we share
    with it. And whether these are all documents of the file."""
    parsed = parse(file.path, file.content)
    if not parsed.problems or (parsed.too_large and _GROUP_NAMED.search(file.content)):
        return parsed, not parsed.problems
    found: list[Node] = []
    problems: list[ManifestProblem] = []
    values, number = parsed.values, 0
    for begin, content in _documents(file.content):
        if not may_be_ours(content):
            continue
        alone = parse(file.path, content, begin)
        values, number = values + alone.values, number + 1
        if number > MAX_DOCUMENTS:
            problems.append(
                ManifestProblem(file.path, begin + 1, 1, "", Localizable("has too many documents: split it"))
            )
            break
        if not alone.problems or _is_ours(content):
            found.extend(alone.documents)
            problems.extend(alone.problems)
        elif _SLIP.search(content):
            said = Localizable("passed over: it cannot be read, and no apiVersion says that it is ours")
            warnings.append(f"{alone.problems[0]} ({said})")
    return Parsed(tuple(found), tuple(problems), values=values), False


def _documents(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each document with the number of lines before it."""
    if content.startswith(_UTF16):
        yield 0, content
        return
    starts = sorted({0, *(marker.start() for marker in _MARKER.finditer(content)), len(content)})
    line = 0
    for start, end in pairwise(starts):
        yield line, content[start:end]
        line += content.count(b"\n", start, end)


def _is_ours(content: bytes) -> bool:
    """Return True if a document that cannot be read names our apiVersion at its top: not in a comment, and not in
    a text that it only holds."""
    content = content.replace(b"\0", b"")  # of UTF-16
    first = _FIRST_LINE.search(content)
    if first is None:
        return False
    if first[2] in b"{\xef\xff\xfe":  # JSON, or behind a byte order mark
        return _GROUP_NAMED.search(content) is not None
    return any(len(found[1]) == len(first[1]) for found in _API_VERSION.finditer(content))


_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def may_be_ours(content: bytes) -> bool:
    """Return True if a file can hold a document of ours."""
    if content.startswith(_UTF16):  # which the parser refuses with a better message
        content = content.replace(b"\0", b"")
    found = (pattern.search(content) is not None for pattern in (_GROUP_NAMED, _KIND, _ENCRYPTED))
    return any(found)


def _sorted(
    file: str, node: Node, problems: list[ManifestProblem], warnings: list[str]
) -> ManifestDocument | None:
    """Classify a document as ours, which is returned, invalid, suspicious or foreign."""
    if not isinstance(node.value, dict):
        return None
    version, kind = node.value.get("apiVersion"), node.value.get("kind")
    if version != API_VERSION:
        if _suspicious(version, kind):
            message = Localizable(
                "passed over, although its kind is {kind}: should it be {api_version}?",
                kind=kind,
                api_version=API_VERSION,
            )
            warnings.append(str(ManifestProblem(file, *node.place(["apiVersion"]), "apiVersion", message)))
        return None
    if not isinstance(kind, str) or kind not in set(ComponentKind):
        said = (
            Localizable(
                "{kind} is not a kind of ours{nearest}",
                kind=repr(kind),
                nearest=nearest(str(kind), ComponentKind),
            )
            if kind
            else Localizable("is missing")
        )
        message = Localizable("{said}; kinds are {names}", said=said, names=", ".join(ComponentKind))
        problems.append(ManifestProblem(file, *node.place(["kind"]), "kind", message))
        return None
    metadata = node.value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return ManifestDocument(file, ComponentKind(kind), name if isinstance(name, str) else "", node)


def _suspicious(version: object, kind: object) -> bool:
    if not isinstance(kind, str) or kind not in set(ComponentKind):
        return False
    return version is None or kind in _DISTINCTIVE or str(version).partition("/")[0] == _GROUP
