"""Parses the pages of the documentation: fenced blocks, links, headings, inline code."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block, without the indentation of the list that it stands in. `line` is that of its fence."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page for people: at the root, in docs/ and beside the examples."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's fenced blocks in these languages, in order; all of them if none is named."""
    text = page.read_text(encoding="utf-8")
    found = (
        Block(page, text.count("\n", 0, m.start()) + 1, m["language"], textwrap.dedent(m["text"]))
        for m in _FENCE.finditer(text)
    )
    return [block for block in found if not languages or block.language in languages]


def section(page: Path, heading: str) -> list[Block]:
    """The blocks between this heading and the next one of its level or above."""
    text = page.read_text(encoding="utf-8")
    level = heading.split(" ")[0]
    begin = text.index(f"\n{heading}\n") + 1
    after = re.search(rf"^#{{1,{len(level)}}} ", text[begin + len(level) :], re.MULTILINE)
    end = begin + len(level) + after.start() if after else len(text)
    first, last = (text.count("\n", 0, place) + 1 for place in (begin, end))
    return [block for block in blocks(page) if first < block.line < last]


def prose(page: Path) -> str:
    """The page without its fenced blocks, which are left as empty lines."""
    return _FENCE.sub(lambda m: "\n" * m[0].count("\n"), page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    return _INLINE.findall(prose(page))


def links(page: Path) -> Iterator[tuple[str, str]]:
    """File and anchor of each relative link; the file is "" for one within the page."""
    for target in _LINK.findall(_INLINE.sub("", prose(page))):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            yield file, anchor


def anchors(page: Path) -> set[str]:
    """What headings are called in links, as forges make it: lower case, no punctuation, hyphens for blanks."""
    headings = _HEADING.findall(prose(page))
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
