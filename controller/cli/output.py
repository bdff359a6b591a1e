"""What commands print. For people: tables and colours on a terminal, through rich. Into a pipe: plain columns that
are never wrapped or cut, without paying for rich's import. For scripts: JSON. `NO_COLOR` is respected by rich."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from controller.domain.status import Event

_STYLES = {
    "Ready": "green",
    "Applied": "green",
    "ok": "green",
    "Reconciling": "cyan",
    "Suspended": "yellow",
    "Degraded": "yellow",
    "Warning": "yellow",
    "NotReady": "red",
    "Stalled": "red",
    "Failed": "red",
    "problem": "red",
    "RUNNING": "cyan",
    "STARTING": "cyan",
    "CANCELING": "yellow",
    "CANCELED": "yellow",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "ERROR": "red",
}


def show_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Words with a meaning (Ready, Degraded …) are coloured on a terminal."""
    rows = [tuple(row) for row in rows]
    if not sys.stdout.isatty():
        for line in columns([tuple(headers), *rows]):
            click.echo(line)
        return
    console().print(coloured_table(headers, rows))


def coloured_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Left-aligned columns, two blanks apart; the last one is as wide as it needs to be. One row, one line."""
    rows = [tuple(" ".join(cell.split()) for cell in row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def say(text: str) -> None:
    """To people, beside the result: on stderr, so that a pipe gets the result alone."""
    click.echo(text, err=True)


def complain(reason: str, message: str) -> None:
    click.echo(click.style(f"error ({reason}): ", fg="red") + message, err=True)


def console(file: IO[str] | None = None) -> Console:
    from rich.console import Console

    return Console(file=file, highlight=False, markup=False)


def event_line(event: Event) -> str:
    """`14:02:11 classify Started prichal.demo.classify.1a2b3c4d.0`: one event, one line but for its own newlines."""
    who = f"{event.component} " if event.component else ""
    mark = "! " if event.type.value == "Warning" else ""
    return f"{clock(event.at)} {mark}{who}{event.reason}: {event.message}"


def clock(at: float) -> str:
    """Of here, `14:02:11`."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def date(at: float | None) -> str:
    """Of here, `2026-01-31 14:02:11`."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
