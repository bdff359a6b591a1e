"""Texts are plain English: no word of the table below is in the code, the documentation or the tests' docstrings.

docs/style.md says how texts are written. The table grows: clean a word everywhere, then add it here."""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.pages import ROOT

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

#: What is refused, as a regular expression of whole words, and what to write instead.
WORDS = {
    r"anew": "again",
    r"as it is told": "as it is given",
    r"at hand": "available, buffered",
    r"at the most": "at most",
    r"befall|befalls": "happen to",
    r"by and by": "gradually",
    r"(?:for|in|of) whatever": "for any, in any, or name it",
    r"for want of": "without",
    r"go on running|goes on running": "keep running",
    r"he|him|his|himself": "they, or name the role",
    r"(?!there\b)\w+\s+(?:is|are)\s+no\b(?!\s+longer)": "is not a",
    r"mend|mends|mended": "fix, repair",
    r"nobody knows": "it is unknown",
    r"puts aside": "set aside",
    r"(?:tell|tells|told)\s+of": "report",
    r"to be had": "available",
    r"unasked": "unexpectedly",
    r"whoever": "the one who, everybody who, or name it",
}
#: The same for Russian texts, as beginnings of words: one thing has one name in a language.
RUSSIAN = {"движк": "Docker", "движок": "Docker", "кеш": "кэш", "объём": "ёмкость", "объем": "ёмкость"}
#: Quotes what is refused.
QUOTES = {ROOT / "docs" / "style.md", Path(__file__)}

_REFUSED = re.compile("|".join(rf"\b(?:{word})\b" for word in WORDS), re.IGNORECASE)
_DOCSTRING = re.compile(r'^ *r?"""(.*?)"""', re.MULTILINE | re.DOTALL)
_UNRELEASED = re.compile(r"^## \[Unreleased\]$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def texts() -> Iterator[tuple[Path, int, str]]:
    """Yield a file, the number of lines before the text, and the text."""
    whole = [
        *ROOT.glob("controller/**/*.py"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("manifests-schema/*.json"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "config.example.yaml")),
    ]
    for path in whole:
        yield path, 0, path.read_text(encoding="utf-8")
    parts = [(path, _DOCSTRING) for path in ROOT.glob("tests/**/*.py")]
    for path, part in [*parts, (ROOT / "CHANGELOG.md", _UNRELEASED)]:
        text = path.read_text(encoding="utf-8")
        for match in part.finditer(text):
            yield path, text.count("\n", 0, match.start(1)), match[1]


def findings(path: Path, before: int, text: str) -> Iterator[str]:
    for match in _REFUSED.finditer(text):
        instead = next(use for word, use in WORDS.items() if re.fullmatch(word, match[0], re.IGNORECASE))
        line = before + text.count("\n", 0, match.start()) + 1
        yield f"{path.relative_to(ROOT)}:{line}: {match[0]!r}: write {instead}"


def test_no_text_has_a_word_that_is_refused() -> None:
    found = [
        one for path, before, text in texts() if path not in QUOTES for one in findings(path, before, text)
    ]
    assert found == []


def test_one_thing_has_one_name_in_russian() -> None:
    refused = re.compile("|".join(rf"\b{word}" for word in RUSSIAN), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: write {RUSSIAN[match[0].lower()]}: {line.strip()}"
        for path in (*ROOT.glob("controller/*/locale/ru/*.po"), *ROOT.glob("docs/ru/**/*.md"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (match := refused.search(line))
    ]
    assert found == []


def test_there_is_no_mistake_in_sentences_that_need_the_word() -> None:
    right = "There is no bucket. If there are\nno links, it is no longer served. Is no one there?"
    assert list(findings(ROOT / "README.md", 0, right)) == []
    assert len(list(findings(ROOT / "README.md", 0, "This is no key, and those are\nno names."))) == 2


def test_a_finding_names_its_line_and_what_to_write() -> None:
    file = ROOT / "README.md"
    assert list(findings(file, 10, "One\ntwo, and Whoever asks.")) == [
        "README.md:12: 'Whoever': write the one who, everybody who, or name it"
    ]
    assert list(findings(file, 0, "at_hand, then this")) == []


def test_no_two_classes_of_the_controller_have_one_name() -> None:
    names = Counter(
        node.name
        for path in ROOT.glob("controller/**/*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def definitions(node: ast.AST) -> Iterator[Definition]:
    """Yield what may have a docstring, without a look at expressions: there are a million nodes."""
    if isinstance(node, Definition):
        yield node
    for name in ("body", "orelse", "finalbody", "handlers"):
        for each in getattr(node, name, ()):
            yield from definitions(each)


def test_errors_that_docstrings_name_exist() -> None:
    known, named = set(dir(builtins)), set[tuple[str, str]]()
    for path in ROOT.glob("controller/**/*.py"):
        for node in definitions(ast.parse(path.read_text(encoding="utf-8"))):
            known |= {node.name} if isinstance(node, ast.ClassDef) else set()
            for name in re.findall(
                r"[Rr]aises\s+([A-Z][a-z]+(?:[A-Z][a-z]*)*)\b", ast.get_docstring(node) or ""
            ):
                named.add((path.relative_to(ROOT).as_posix(), name))
    assert len(named) > 50
    assert sorted((path, name) for path, name in named if name not in known) == []
