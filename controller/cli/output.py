"""What commands print. A terminal gets tables and colours from rich. A pipe gets plain columns, which are
never wrapped or cut and need no import of rich. Scripts get JSON or YAML. rich respects `NO_COLOR`.

All output passes through the functions here, which keep only printable characters of what comes from Git,
containers and callers. A test checks that commands use nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Generic, TypeVar

import click

from controller.domain.apps.status import EventType
from controller.domain.text import UNPRINTABLE, printable, shown
from controller.domain.units import parse_rfc3339

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    from controller.domain.reasons import Reason

T = TypeVar("T")

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


def echo(text: str = "", err: bool = False, nl: bool = True, file: IO[str] | None = None) -> None:
    click.echo(shown(text), err=err, nl=nl, file=file)


def write(text: str) -> None:
    """Write a piece of a container's log at once; see `Shown`."""
    echo(text, nl=False)
    sys.stdout.flush()


def write_bytes(data: bytes) -> None:
    """Write to a file or pipe, never to a terminal."""
    assert not sys.stdout.isatty()
    sys.stdout.buffer.write(data)


def label(text: str) -> Text:
    """Return text that rich can draw."""
    from rich.text import Text

    return Text(printable(text))


def show_json(value: object, indent: int | None = 2) -> None:
    """Print JSON. Characters that a terminal obeys, such as C1 controls, and invisible ones are escaped, which means
    the same to programs.
    """
    click.echo(_escaped(json.dumps(value, indent=indent, ensure_ascii=False), _for_json))


def show_yaml(value: object) -> None:
    """Print a YAML document with the same content as `show_json`, escaped in the same way."""
    from controller.yaml_documents import dump

    click.echo(_escaped(dump(plain(value), quoted=UNPRINTABLE), _for_yaml), nl=False)


def plain(value: object) -> object:
    """Return what a program reads from the JSON: lists for tuples, texts for enums."""
    return json.loads(json.dumps(value))


def show_value(value: object) -> None:
    """Print one value of a result in a line: a text as it is, anything else as JSON."""
    if isinstance(value, str):
        echo(value)
    else:
        show_json(value, indent=None)


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    """Escape what JSON and YAML leave as it is. Such characters occur only within strings."""
    return UNPRINTABLE.sub(lambda found: escape(found[0]), text)


def _for_json(char: str) -> str:
    return json.dumps(char).strip('"')


def _for_yaml(char: str) -> str:
    code = ord(char)
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table; `is_wide` ones are shown with `-o wide` alone."""

    header: str
    cell: Callable[[T], str]
    is_wide: bool = False


@dataclass(frozen=True)
class Table:
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


#: What people see of a result: lines and tables.
View = tuple[str | Table, ...]


def table_of(columns: Sequence[Column[T]], records: Iterable[T], wide: bool) -> Table:
    shown = [column for column in columns if wide or not column.is_wide]
    rows = (tuple(column.cell(record) for column in shown) for record in records)
    return Table(tuple(column.header for column in shown), tuple(rows))


def show_view(view: View) -> None:
    for part in view:
        if isinstance(part, Table):
            show_table(part.headers, part.rows)
        else:
            echo(part)


def show_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. On a terminal, words with a meaning (Ready, Degraded …) are coloured."""
    rows = [tuple(row) for row in rows]
    if not sys.stdout.isatty():
        for line in print_columns([tuple(headers), *rows]):
            echo(line)
        return
    console().print(coloured_table(headers, rows))


def coloured_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(*headers, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(printable(cell), style=_STYLES.get(cell, "")) for cell in row))
    return table


def print_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return left-aligned columns with two spaces between them. Each row is one line; the last column is not
    padded.
    """
    rows = [tuple(" ".join(cell.split()) for cell in row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def print_message(text: str) -> None:
    """Print a message for people on standard error, so that a pipe gets only the result."""
    echo(text, err=True)


def print_error(reason: Reason, message: str) -> None:
    click.echo(click.style(f"error ({printable(reason)}): ", fg="red") + printable(message), err=True)


def console(file: IO[str] | None = None) -> Console:
    from rich.console import Console

    return Console(file=file, highlight=False, markup=False)


def event_line(event: dict[str, Any]) -> str:
    """Return `14:02:11 classify Started prichal.demo.classify.1a2b3c4d.0` for the document of an event. Newlines in
    the message are kept.
    """
    who = f"{event['component']} " if event.get("component") else ""
    mark = "! " if event["type"] == EventType.WARNING else ""
    return f"{clock(parse_rfc3339(event['at']))} {mark}{who}{event['reason']}: {event['message']}"


def clock(at: float) -> str:
    """Return the local time, `14:02:11`."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def date(at: float | None) -> str:
    """Return the local date and time, `2026-01-31 14:02:11`."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def since(at: float) -> str:
    """Return how long ago a moment was: `3d`."""
    seconds = max(0, int(time.time() - at))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def until(moment: str) -> str:
    """Return in what time a moment is: `in 3d`."""
    seconds = parse_rfc3339(moment) - time.time() if moment else 0.0
    return f"in {since(time.time() - seconds)}" if seconds > 0 else "now"
