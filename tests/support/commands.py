"""Walks the tree of commands of `prichal`, and finds calls of them in texts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click

from controller.cli.main import prichal


def every_command(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


COMMANDS = dict(every_command(prichal))


def calls(line: str) -> Iterator[tuple[str, ...]]:
    """The arguments of each call of `prichal` in a line of shell; `repo=$(prichal …)` is one."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] | None = None
    for token in (*lexer, ";"):
        if set(token) <= set("();<>|&"):
            if words and words[0][0].isalpha():
                yield tuple(words)
            words = None
        elif token in ("prichal", "$prichal"):
            words = []
        elif words is not None and token != "…":
            words.append(token)


def resolve(words: list[str]) -> tuple[click.Command, click.Context]:
    """The command that the words begin with, which are taken off."""
    command: click.Command = prichal
    context = click.Context(command, info_name="prichal")
    while isinstance(command, click.Group) and words:
        while words and words[0] == "--config":
            del words[:2]
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name!r}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    return command, context
