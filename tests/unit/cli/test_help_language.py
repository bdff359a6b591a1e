"""Every text of the help has a Russian translation, and no other, and the help is in the language of the user."""

from __future__ import annotations

import re

import click
import pytest
from babel.messages.pofile import read_po

from controller.cli.help_language import LANGUAGES, LOCALE, catalog, saying, translated
from controller.cli.main import SECTIONS, prichal
from tests.support.commands import COMMANDS
from tests.unit.cli.conftest import run_here

#: What click writes itself. A new word of a later click is found by `test_no_command_shows_words_of_click`.
OF_CLICK = {"Usage:", "Options", "Commands", "Show this message and exit.", "default:", "required"}
CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)
COMMAND_LINES = {" ".join(path): path for path in [(), *COMMANDS]}


@pytest.fixture
def russian(monkeypatch: pytest.MonkeyPatch) -> None:
    speak(monkeypatch, LC_ALL="ru_RU.UTF-8")


def speak(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.setenv(name, variables.get(name, ""))


def texts() -> set[str]:
    """The texts of all commands: what a translation of them asks for."""
    asked: set[str] = set()

    def remember(text: str) -> str:
        asked.add(text)
        return text

    for command in (prichal, *COMMANDS.values()):
        translated(command, remember)
    return asked | OF_CLICK | set(SECTIONS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated_and_every_translation_is_used(language: str) -> None:
    known = {id: text for id, text in catalog(language).items() if id}
    wanted = texts()
    assert sorted(wanted - {id for id, text in known.items() if text}) == [], (
        f"add them to {LOCALE / language}/help.po"
    )
    assert sorted(known.keys() - wanted) == [], "no text of this kind is left"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_catalog_is_read_as_gettext_reads_it(language: str) -> None:
    path = LOCALE / language / "help.po"
    with path.open("rb") as file:
        messages = [m for m in read_po(file, locale=language, abort_invalid=True) if m.id]
    assert {id: text for id, text in catalog(language).items() if id} == {m.id: m.string for m in messages}
    assert path.read_text().count("\nmsgid ") == len(messages) + 1, "a text is there twice"
    assert [m.id for m in messages if m.fuzzy] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_the_same_in_a_translation(language: str) -> None:
    """Options, variables, code between backticks and arguments."""
    names = re.compile(r"`[^`]+`|\$\w+|(?<!\S)--[a-z-]+|\b[A-Z]{3,}\b")
    for id, text in catalog(language).items():
        left_out = set(names.findall(id)) - set(names.findall(text))
        assert left_out <= {"GPU", "CPU"}, id


@pytest.mark.usefixtures("russian")
@pytest.mark.parametrize("line", COMMAND_LINES)
def test_no_command_shows_words_of_click(line: str) -> None:
    """Each line of the help that begins a text is Russian, apart from examples of commands."""
    shown = run_here(*COMMAND_LINES[line], "--help").stdout
    assert shown.startswith("Использование: prichal")
    about, _, rest = shown.partition("\nПараметры:\n")
    for paragraph in about.split("\n\n")[1:]:
        assert CYRILLIC.search(paragraph), paragraph
    options = re.split(r"\n(?=  -)", f"\n{rest.partition(chr(10) * 2)[0]}")[1:]
    assert options
    for option in options:
        assert CYRILLIC.search(option), option
        assert not re.search(r"\[(?!\$)[a-z ]+[:\]]", option.replace("[по умолчанию:", "")), option


@pytest.mark.parametrize(
    ("variables", "is_russian"),
    [
        ({}, False),
        ({"LANG": "ru_RU.UTF-8"}, True),
        ({"LANG": "ru"}, True),
        ({"LANG": "ru_RU.UTF-8", "LC_MESSAGES": "en_GB.UTF-8"}, False),
        ({"LANG": "C.UTF-8", "LC_MESSAGES": "ru_UA.UTF-8"}, True),
        ({"LC_MESSAGES": "ru_RU.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "C", "LC_ALL": "ru_RU.UTF-8"}, True),
        ({"LANG": "../ru"}, False),
        ({"LANG": "rumantsch"}, False),
        ({"LANG": "de_DE.UTF-8"}, False),
    ],
)
def test_the_language_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], is_russian: bool
) -> None:
    speak(monkeypatch, **variables)
    assert bool(CYRILLIC.search(run_here("status", "--help").stdout)) is is_russian


def test_commands_themselves_stay_english(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are shared by all that runs in this process."""
    speak(monkeypatch, LANG="ru_RU.UTF-8")
    run_here("--help")
    speak(monkeypatch)
    assert not CYRILLIC.search(run_here("--help").stdout)


@pytest.mark.usefixtures("russian")
def test_errors_are_english() -> None:
    """People search for them, and programs read them."""
    for arguments in (["run", "start"], ["nonsense"], ["run", "nonsense"], ["status", "--nonsense"]):
        told = run_here(*arguments)
        assert told.code == 2
        assert not CYRILLIC.search(told.stdout + told.stderr)


def test_lines_after_a_mark_are_texts_and_commands_among_them_are_not() -> None:
    command = click.Command(
        "x", help="One\ntext.\n\n\b\nExamples:\n  prichal x\n\nAnother.", epilog="An end."
    )
    shown = translated(command, str.upper)
    assert shown.help == "ONE TEXT.\n\n\b\nEXAMPLES:\n  prichal x\n\nANOTHER."
    assert shown.epilog == "AN END."
    assert saying("ru")("A text that is not known.") == "A text that is not known."
