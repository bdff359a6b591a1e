"""The grammar of the command line: nouns, then verbs. A noun is a group whose verbs are listed in the order of
their use. Spellings of the last release still work, and say what to write instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

import click

from controller.cli.output import print_message

#: Words after `prichal` as they were spelled, and what they are now. The longest match counts.
#: They work for one release, and neither help nor completion shows them.
RENAMED: dict[tuple[str, ...], tuple[str, ...]] = {
    ("admin-token",): ("token", "show"),
    ("boxes",): ("box", "ls"),
    ("boxes", "adopt"): ("box", "adopt"),
    ("boxes", "delete"): ("box", "delete"),
    ("files",): ("file",),
    ("files", "cp"): ("file", "cp"),
    ("files", "get"): ("file", "get"),
    ("files", "ls"): ("file", "ls"),
    ("files", "put"): ("file", "put"),
    ("files", "rm"): ("file", "rm"),
    ("hash-password",): ("password", "hash"),
    ("names",): ("name",),
    ("names", "list"): ("name", "ls"),
    ("names", "release"): ("name", "release"),
    ("repo", "list"): ("repo", "ls"),
    ("run", "show"): ("run", "status"),
}


class RenamedOption(click.Command):
    """A command with an option that is spelled `new` now. `is_old` tells the values of the old one from those
    of another option that has its name now.
    """

    def __init__(
        self, *arguments: Any, old: str, new: str, is_old: Callable[[str], bool], **attributes: Any
    ) -> None:
        super().__init__(*arguments, **attributes)
        self._old, self._new, self._is_old = old, new, is_old

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spelled = list(self._spelled_now(args))
        if spelled != args and not ctx.resilient_parsing:
            print_message(f"`{self._old}` is deprecated here: write `{self._new}`")
        return super().parse_args(ctx, spelled)

    def _spelled_now(self, args: list[str]) -> Iterator[str]:
        for word, following in zip(args, [*args[1:], ""], strict=False):
            option, sign, value = word.partition("=")
            if option == self._old and self._is_old(value if sign else following):
                yield f"{self._new}{sign}{value}"
            else:
                yield word


class Group(click.Group):
    """A group with a useful error for unknown commands, and with its verbs in the order of their use."""

    def __init__(self, *arguments: Any, verbs: tuple[str, ...] = (), **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        last = len(self._verbs)
        return sorted(self.commands, key=lambda n: self._verbs.index(n) if n in self._verbs else last)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            near = get_close_matches(name, self.list_commands(ctx), n=1)
            advice = f"; did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"there is no command {name!r}{advice}")
        return super().resolve_command(ctx, args)


def current_spelling(words: list[str], is_quiet: bool = False) -> list[str]:
    """Return the words after `prichal` as they are spelled now; say so if they were spelled as before."""
    for length in (2, 1):
        now = RENAMED.get(tuple(words[:length]))
        if now is not None and len(words) >= length:
            if not is_quiet:
                before, after = " ".join(words[:length]), " ".join(now)
                print_message(f"`prichal {before}` is deprecated: write `prichal {after}`")
            return [*now, *words[length:]]
    return words
