"""A view that is drawn again on a terminal; anything else gets one view after another."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from controller.cli.output import Table, View, coloured_table, console, echo, label, show_view

if TYPE_CHECKING:
    from rich.console import RenderableType


def redraw(views: Iterable[View]) -> None:
    """Show each view that differs from the one before."""
    if not sys.stdout.isatty():
        _show_one_after_another(views)
        return
    from rich.live import Live

    with Live(console=console(), auto_refresh=False) as live:
        last: View | None = None
        for view in views:
            if view != last:
                live.update(_picture(view), refresh=True)
            last = view


def _show_one_after_another(views: Iterable[View]) -> None:
    last: View | None = None
    for view in views:
        if view != last:
            if last is not None:
                echo()
            show_view(view)
            sys.stdout.flush()
        last = view


def _picture(view: View) -> RenderableType:
    from rich.console import Group

    return Group(*(coloured_table(p.headers, p.rows) if isinstance(p, Table) else label(p) for p in view))
