"""The pages in docs/ru are translations: paragraph by paragraph, with the blocks, links and names of their originals.

So a command on a Russian page is one that a test types from the English page (`tests/unit/test_docs.py`), and a change
of an original that its translation does not follow fails here.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from controller.templates.builtin import builtin
from controller.web.pages.languages import Language, wording
from tests.support.pages import README, ROOT, blocks, inline_code, links, prose

RUSSIAN = ROOT / "docs" / "ru"
PAGES = sorted(RUSSIAN.glob("*.md"))
BOLD = re.compile(r"\*\*([^*]+)\*\*")
#: How the kinds of lines begin. Other lines are text.
LINES = re.compile(r"(?P<level>#+) |(?P<row>\|)|(?P<item>\s*-) |(?P<step>\s*\d+\.) |(?P<picture>!\[)")


def original(page: Path) -> Path:
    return README if page.name == "README.md" else ROOT / "docs" / "guide" / page.name


def outline(page: Path) -> list[str]:
    """The page's headings with their levels, rows, items, steps, pictures and paragraphs, in order."""
    found, before = [], ""
    for line in prose(page).splitlines():
        if match := LINES.match(line):
            kind = str(match.lastgroup)
            found.append(match["level"] or (f"{kind} of {line.count('|')}" if kind == "row" else kind))
        elif line and not before:
            found.append("paragraph")
        before = line
    return found


def targets(page: Path) -> set[Path]:
    """Where the page's links lead, pictures aside; a translation counts as its original."""
    found = {(page.parent / file).resolve() if file else page for file, _ in links(page)}
    return {original(path) if path.parent == RUSSIAN else path for path in found if path.suffix != ".png"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_the_paragraphs_of_its_original(page: Path) -> None:
    assert outline(page) == outline(original(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_the_blocks_of_its_original(page: Path) -> None:
    shown, expected = (
        [(block.language, block.text) for block in blocks(each)] for each in (page, original(page))
    )
    assert shown == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_the_links_and_names_of_its_original(page: Path) -> None:
    assert targets(page) == targets(original(page))
    assert Counter(inline_code(page)) == Counter(inline_code(original(page)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_both_languages_lead_to_each_other(page: Path) -> None:
    there = {(original(page).parent / file).resolve() for file, _ in links(original(page))}
    back = {(page.parent / file).resolve() for file, _ in links(page)}
    assert page in there
    assert original(page) in back


def test_the_cabinet_calls_things_what_the_pages_call_them() -> None:
    """`tests/integration/web/cabinet/test_guide.py` finds the words of the original on the pages."""
    page = RUSSIAN / "cabinet.md"
    titles = [loaded.template.title for loaded in builtin().values()]
    named = {title.en: title.ru for title in titles}
    russian = wording(Language.RUSSIAN)
    expected = [named.get(word) or russian.text(word) for word in BOLD.findall(prose(original(page)))]
    # A sentence may put the words of its paragraph in another order.
    assert Counter(BOLD.findall(prose(page))) == Counter(expected)
