"""The help in the language of the user: Russian if LC_ALL, LC_MESSAGES or LANG say so, English otherwise.

Texts are English where the commands are declared; `locale/<language>/help.po` translates them, paragraph by paragraph.
`main` shows translated copies of the commands, so a command that runs in English pays nothing for it. Results, messages
and errors are English in every language: programs and searches read them.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable, Iterable
from copy import copy
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import click

LOCALE: Final = Path(__file__).parent / "locale"
LANGUAGES: Final = ("ru",)
_ENTRY = re.compile(r'^msgid((?:\s*".*"\n)+)msgstr((?:\s*".*"\n)+)', re.MULTILINE)
#: What click adds to the help of an option.
_ADDED = re.compile(r"  \[[^\[\]]+\]$")

Say = Callable[[str], str]
C = TypeVar("C", bound=click.Command)


def in_users_language(command: C) -> C:
    """Return the command itself, or a copy with a translated help."""
    language = _users_language()
    return translated(command, saying(language)) if language in LANGUAGES else command


def _users_language() -> str:
    set_first = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return re.split("[_.@]", set_first)[0]


def saying(language: str) -> Say:
    """Return the function that translates one text; what has no translation stays as it is."""
    known = catalog(language)
    return lambda text: known.get(text, text)


@cache
def catalog(language: str) -> dict[str, str]:
    """Read the translations without Babel, which `pip install prichal` does not install."""
    text = (LOCALE / language / "help.po").read_text(encoding="utf-8")
    return {_unquoted(id): _unquoted(string) for id, string in _ENTRY.findall(text)}


def _unquoted(lines: str) -> str:
    return "".join(json.loads(line) for line in re.findall('".*"', lines))


def translated(command: C, say: Say) -> C:
    """Return a copy of a command, with its options and the commands below it, whose help `say` has translated."""
    found = copy(command)
    found.help, found.short_help, found.epilog = (
        text and _text(text, say) for text in (command.help, command.short_help, command.epilog)
    )
    found.params = [_param(each, say) for each in command.params]
    found.context_class = _context_class(say)
    if isinstance(found, click.Group):
        found.commands = {name: translated(each, say) for name, each in found.commands.items()}
    return found


def _param(param: click.Parameter, say: Say) -> click.Parameter:
    found = copy(param)
    if isinstance(found, click.Option) and found.help:
        found.help = _text(found.help, say)
    return found


def _text(text: str, say: Say) -> str:
    return "\n\n".join(_paragraph(each, say) for each in inspect.cleandoc(text).split("\n\n"))


def _paragraph(text: str, say: Say) -> str:
    """The lines of a paragraph are one text. After `\\b` each line is, and those that are indented are commands."""
    if not text.startswith("\b"):
        return say(" ".join(text.split()))
    return "\n".join(line if line.startswith(("\b", " ")) else say(line) for line in text.splitlines())


def _context_class(say: Say) -> type[click.Context]:
    """Return the class of contexts whose help, unlike their errors, has click's own words in the language."""

    class Formatter(click.HelpFormatter):
        def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
            super().write_usage(prog, args, prefix or f"{say('Usage:')} ")

        def write_heading(self, heading: str) -> None:
            super().write_heading(say(heading))

        def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
            super().write_dl([(name, _described(text, say)) for name, text in rows], col_max, col_spacing)

    class Context(click.Context):
        def get_help(self) -> str:
            self.formatter_class = Formatter
            return super().get_help()

    return Context


def _described(text: str, say: Say) -> str:
    """The help of an option, of which click has written the option `--help` and what is in brackets at the end."""
    words = ("default:", "required")
    said = re.compile("|".join(words))
    return _ADDED.sub(lambda added: said.sub(lambda word: say(word[0]), added[0]), say(text))
