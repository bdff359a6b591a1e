"""The grammar of the command line: nouns with verbs, short forms, and spellings of the last release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from controller.cli.exits import Exit
from controller.cli.groups import RENAMED
from controller.cli.main import SECTIONS
from tests.support.commands import COMMANDS, calls, resolve
from tests.unit.cli.conftest import Machine

if TYPE_CHECKING:
    from controller.store import SqliteStore


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_summary_and_shows_its_help(machine: Machine, path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    summary = (command.help or "").partition("\n")[0]
    assert summary[:1].isupper(), "a sentence"
    assert summary.endswith("."), "a sentence"
    shown = machine.run(*path, "--help")
    assert (shown.code, shown.stderr) == (Exit.OK, "")
    assert shown.stdout.startswith(f"Usage: prichal {' '.join(path)} ")
    assert " ".join(summary.split()) in " ".join(shown.stdout.split())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_explained_by_a_phrase(path: tuple[str, ...]) -> None:
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            text = (parameter.help or "").partition("  [")[0]
            assert text[:1].isupper(), f"{parameter.opts}: {text!r}"
            assert text.endswith("."), f"{parameter.opts}: {text!r}"


@pytest.mark.parametrize("path", [path for path in COMMANDS if COMMANDS[path].epilog], ids=" ".join)
def test_examples_in_the_help_are_commands(path: tuple[str, ...]) -> None:
    typed = [words for line in (COMMANDS[path].epilog or "").splitlines() for words in calls(line)]
    assert typed
    for words in typed:
        rest = list(words)
        command, context = resolve(rest)
        assert command is COMMANDS[path]
        _, left, _ = command.make_parser(context).parse_args(rest)
        assert left == []


@pytest.mark.parametrize("name", ["status", "connect", "validate", "run-local", "serve-local", "completion"])
def test_the_main_commands_show_examples(name: str) -> None:
    assert "Examples:" in (COMMANDS[name,].epilog or "")


def test_nouns_are_groups_and_verbs_are_not() -> None:
    nouns = set(SECTIONS["Nouns"])
    assert {path[0] for path, command in COMMANDS.items() if isinstance(command, click.Group)} == nouns
    assert all(len(path) == 2 for path in COMMANDS if path[0] in nouns and len(path) > 1)


def test_verbs_are_listed_in_the_order_of_their_use() -> None:
    for noun in {path[0] for path in COMMANDS if path[-1] == "ls"}:
        assert next(path[1] for path in COMMANDS if path[0] == noun and len(path) > 1) == "ls"
    assert [path[1] for path in COMMANDS if path[0] == "run" and len(path) > 1][:3] == [
        "ls",
        "start",
        "status",
    ]


def test_short_forms_are_the_same_commands() -> None:
    by_noun = {
        "app": "Apps (short forms of `prichal app …`)",
        "repo": "Modules (short forms of `prichal repo …`)",
    }
    for noun, title in by_noun.items():
        for verb in SECTIONS[title]:
            assert COMMANDS[verb,] is COMMANDS[noun, verb]


def test_what_connects_also_disconnects() -> None:
    for *noun, verb in COMMANDS:
        if verb == "connect":
            assert (*noun, "disconnect") in COMMANDS


@pytest.mark.parametrize("old", RENAMED, ids=" ".join)
def test_an_old_spelling_works_and_names_the_new_one(machine: Machine, old: tuple[str, ...]) -> None:
    new = " ".join(RENAMED[old])
    found = machine.run(*old, "--help")
    assert found.code == Exit.OK
    assert found.stdout.startswith(f"Usage: prichal {new} ")
    assert found.stderr == f"`prichal {' '.join(old)}` is deprecated: write `prichal {new}`\n"


def test_old_spellings_are_hidden() -> None:
    assert not set(RENAMED) & set(COMMANDS)
    assert set(RENAMED.values()) <= set(COMMANDS)


OLD_OPTIONS = [
    (("run", "start"), ("demo/train", "--output", "report=g"), "outputs", ("report=g",)),
    (
        ("run", "start"),
        ("demo/train", "--output=report=g", "--output", "log=h"),
        "outputs",
        ("report=g", "log=h"),
    ),
    (("run-local",), (".", "--output", "somewhere"), "output_dir", Path("somewhere")),
    (("run-local",), (".", "--output=somewhere"), "output_dir", Path("somewhere")),
]


@pytest.mark.parametrize(("path", "arguments", "parameter", "value"), OLD_OPTIONS)
def test_an_old_option_works_and_names_the_new_one(
    path: tuple[str, ...],
    arguments: tuple[str, ...],
    parameter: str,
    value: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    context = COMMANDS[path].make_context(path[-1], list(arguments))
    assert context.params[parameter] == value
    new = "--output-group" if path == ("run", "start") else "--output-dir"
    assert capsys.readouterr().err == f"`--output` is deprecated here: write `{new}`\n"


@pytest.mark.parametrize("spelled", [("-o", "json"), ("--output", "json"), ("--output", "jsonpath=.state")])
def test_a_format_is_not_an_old_option(spelled: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    context = COMMANDS["run", "start"].make_context("start", ["demo/train", *spelled])
    assert context.params["output"].kind == spelled[1].partition("=")[0]
    assert capsys.readouterr().err == ""


def test_old_spellings_take_arguments_and_options(machine: Machine, store: SqliteStore) -> None:
    assert machine.run("boxes", "--kept").stderr.endswith("No data is kept beyond its box.\n")
    assert machine.run("--config", str(machine.config), "boxes", "-o", "json").stdout == "[]\n"
    assert machine.run("boxes", "delete", "nothing", "--yes").code == Exit.NOT_FOUND
    assert machine.run("names", "list", "-o", "json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("stauts",), ("no command 'stauts'", "did you mean 'status'?", "prichal --help")),
        (("xyz",), ("no command 'xyz'", "prichal --help")),
        (("app", "statsu"), ("no command 'statsu'", "did you mean 'status'?", "prichal app --help")),
        (("box", "remove"), ("no command 'remove'", "prichal box --help")),
        (("app", "status", "--chekc"), ("No such option", "--check")),
        (("app", "plan"), ("Missing argument 'APP'", "prichal app plan --help")),
        (("--chekc",), ("No such option", "prichal --help")),
    ],
    ids=str,
)
def test_wrong_usage_says_what_is_wrong_where_and_what_to_do(
    machine: Machine, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    found = machine.run(*arguments)
    assert found.code == Exit.USAGE
    assert [word for word in words if word not in found.stderr] == []
