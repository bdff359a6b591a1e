"""Every text of the pages has a translation with the same placeholders, and numbers and times are written as in the
language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po

from controller.web.pages.languages import LOCALE, Language, wanted_language, wording
from controller.web.pages.problem_words import PROBLEMS

WEB = LOCALE.parent
KEYWORDS = {"_": None, "N_": None, "gettext": None, "ngettext": (1, 2)}
#: Messages, which are made in the whole of the program.
MESSAGES = {"Localizable": None, "Text": None}
_PLACEHOLDER = re.compile(r"%\([a-z_]+\)[sd]|%[sd]|\{[a-z_]*(?:!r)?\}")
PLURALS = {Language.RUSSIAN: 3}

Text = str | tuple[str, ...]


def texts() -> dict[Text, str]:
    """Each text of code and templates with one place where it stands."""
    found: dict[Text, str] = dict.fromkeys(PROBLEMS.values(), "problems.py")
    for path in sorted(WEB.rglob("*.py")):
        for line, message, *_ in extract_from_file("python", path, keywords=KEYWORDS):
            found.setdefault(_as_key(message), f"{path.relative_to(WEB)}:{line}")
    for path in sorted(WEB.parent.rglob("*.py")):
        for line, message, *_ in extract_from_file("python", path, keywords=MESSAGES):
            found.setdefault(_as_key(message), f"{path.relative_to(WEB.parent)}:{line}")
    options = {"trimmed": "true", "silent": "false"}
    for path in sorted((WEB / "templates").rglob("*.html")):
        found |= {
            _as_key(message): f"{path.relative_to(WEB)}:{line}"
            for line, message, *_ in extract_from_file(
                "jinja2.ext:babel_extract", path, KEYWORDS, options=options
            )
        }
    return found


def _as_key(message: object) -> Text:
    return tuple(message) if isinstance(message, list | tuple) else str(message)


def translations(language: Language) -> Iterator[tuple[Path, Text, Text]]:
    for path in sorted((LOCALE / language).glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale=str(language), abort_invalid=True):
                if message.id:
                    assert not message.fuzzy, f"{path.name}: {message.id} is marked as fuzzy"
                    yield path, _as_key(message.id), _as_key(message.string)


@pytest.mark.parametrize("language", PLURALS)
def test_every_text_is_translated_and_every_translation_is_used(language: Language) -> None:
    wanted, known = texts(), {key: text for _, key, text in translations(language)}
    missing = [
        f"{place}: {key!r}" for key, place in wanted.items() if not _is_whole(known.get(key, ""), language)
    ]
    assert missing == [], f"add them to a file in {LOCALE / language}"
    assert [key for key in known if key not in wanted] == [], "no text of this kind is left"


def _is_whole(text: Text, language: Language) -> bool:
    if isinstance(text, str):
        return bool(text)
    return len(text) == PLURALS[language] and all(text)


@pytest.mark.parametrize("language", PLURALS)
def test_a_text_is_translated_once_with_the_same_placeholders(language: Language) -> None:
    seen: set[Text] = set()
    for path, key, text in translations(language):
        assert key not in seen, f"{path.name}: {key!r} is in two files"
        seen.add(key)
        forms = text if isinstance(text, tuple) else (text,)
        # The form of a plural for one alone may leave the number out.
        wanted = set(_PLACEHOLDER.findall(key if isinstance(key, str) else key[-1]))
        assert all(set(_PLACEHOLDER.findall(form)) == wanted for form in forms), f"{path.name}: {key!r}"


def test_texts_of_tables_have_no_per_cent_sign() -> None:
    """A template would want to fill something in."""
    for path in WEB.rglob("*.py"):
        for _, message, *_ in extract_from_file("python", path, keywords={"N_": None}):
            assert "%" not in str(message), message


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "ru", "ru"),
        ("", "ru-RU,ru;q=0.9,en;q=0.8", "ru"),
        ("", "en;q=0.3, ru;q=0.7", "ru"),
        ("", "de, fr;q=0.9", "en"),
        ("", "de, ru;q=0.1", "ru"),
        ("", "ru;q=0, en;q=0.1", "en"),
        ("en", "ru", "en"),
        ("ru", "en", "ru"),
        ("xx", "ru", "ru"),
        ("../ru", "", "en"),
        ("", "ru;q=nonsense", "en"),
        ("", ";;,,;q=", "en"),
        ("", "x" * 100_000 + ",ru", "en"),
    ],
)
def test_the_language_of_the_switch_or_of_the_browser(chosen: str, accepted: str, language: str) -> None:
    assert wanted_language(chosen, accepted) == language


def test_numbers_sizes_and_durations() -> None:
    english, russian = wording(Language.ENGLISH), wording(Language.RUSSIAN)
    assert [english.size(size) for size in (0, 1023, 1536, 200 * 2**20, 3 * 2**50)] == [
        "0\xa0B",
        "1023\xa0B",
        "1.5\xa0KiB",
        "200\xa0MiB",
        "3072\xa0TiB",
    ]
    assert russian.size(1536) == "1,5\xa0КиБ"
    assert russian.number(12345.5) == "12\xa0345,5"
    assert [english.duration(each) for each in (0.25, 12.4, 180, 7200)] == [
        "0.2\xa0s",
        "12\xa0s",
        "3 min",
        "2 hr",
    ]
    assert russian.duration(180) == "3 мин"
    assert russian.duration(2.5) == "2,5\xa0с"


def test_moments_are_elements_that_a_browser_can_read() -> None:
    shown = wording(Language.RUSSIAN).ago(1_700_000_000.5)
    assert shown.startswith('<time datetime="2023-11-14T22:13:20.500Z" data-time="ago">14 нояб. 2023')
    assert wording(Language.ENGLISH).moment(0) == ""
    assert "2023" in wording(Language.ENGLISH).moment(1_700_000_000)
    for far, year in ((1e300, "9999"), (-1e300, "1970")):
        assert year in wording(Language.RUSSIAN).moment(far), "others have written it"


def test_plurals() -> None:
    shown = wording(Language.RUSSIAN).translations.ungettext
    one, many = "%(num)s repair not long ago", "%(num)s repairs not long ago"
    assert len({shown(one, many, number) for number in (1, 2, 5)}) == 3
