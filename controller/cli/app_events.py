"""`prichal app events`, `logs` and `plan`: what has happened, and what would happen next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from controller.cli.completion import app_argument, component_argument
from controller.cli.documents import plan_document
from controller.cli.exits import Exit
from controller.cli.formats import Format, nameless_output_option
from controller.cli.output import date, echo, event_line, write
from controller.cli.session import Session, config_option, known_app, with_session
from controller.cli.waiting import follow, last_event
from controller.domain.names import AppName, ComponentName
from controller.domain.text import Shown

if TYPE_CHECKING:
    from controller.domain.apps.status import Event
    from controller.ports import Store


@click.command(epilog="\b\nExamples:\n  prichal events demo -f\n  prichal events -n 0 -f -o json")
@app_argument(required=False)
@click.option("-f", "--follow", "following", is_flag=True, help="Keep streaming new events.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    default=50,
    show_default=True,
    help="Show at most N events, the newest ones.",
)
@nameless_output_option
@config_option
@with_session
def events(session: Session, app: str | None, following: bool, limit: int, output: Format) -> int:
    """Show events of all apps, or of one.

    With -o json, each line is one event; with -o yaml, each event is a document.
    """
    with session.store() as store:
        chosen = _app_of_events(store, app) if app else None
        after = last_event(store, chosen)
        for event in store.events.list(chosen, limit=limit) if limit else ():
            _show_event(event, chosen, output)
        if not following:
            return Exit.OK
        for batch in follow(store, chosen, after):
            for event in batch:
                _show_event(event, chosen, output)
    return Exit.OK


def _app_of_events(store: Store, app: str) -> AppName:
    """Return the name of a known app, or of a disconnected one that still has events."""
    return AppName(app) if store.events.list(AppName(app), limit=1) else known_app(store, app)


def _show_event(event: Event, chosen: AppName | None, output: Format) -> None:
    from controller.web.api.platform.deliveries import event_document

    line = event_line(event)
    if output.is_wide:
        line = f"{date(event.at)} {event.revision[:12] or '-'} {line.partition(' ')[2]}"
    output.show_next(event_document(event), lambda: echo(line if chosen else f"{event.app}  {line}"))


@click.command()
@app_argument()
@nameless_output_option
@config_option
@with_session
def plan(session: Session, app: str, output: Format) -> int:
    """Show what would be done, and why.

    The repository is fetched; nothing else is changed.
    """
    from controller.daemon.inspection import plan as make

    with session.store() as store:
        name = known_app(store, app)
    found = make(session.settings(), name)
    output.show(plan_document(found), lambda: echo(found.render()))
    return Exit.OK


@click.command(epilog="\b\nExamples:\n  prichal logs demo\n  prichal logs demo namer -f -n 20")
@app_argument()
@component_argument(required=False)
@click.option("-f", "--follow", "following", is_flag=True, help="Keep streaming new output.")
@click.option(
    "-n",
    "--tail",
    type=click.IntRange(min=0),
    metavar="N",
    default=100,
    show_default=True,
    help="Show at most N lines, the last ones.",
)
@config_option
@with_session
def logs(session: Session, app: str, component: str | None, following: bool, tail: int) -> int:
    """Show the log of a container.

    It is the newest container of APP, or of its COMPONENT.
    """
    from controller.daemon.inspection import logs as read

    with session.store() as store:
        name = known_app(store, app)
    chosen = ComponentName(component) if component else None
    text = Shown()
    for chunk in read(session.settings(), name, chosen, tail, following):
        write(text.take(chunk))
    write(text.take(b"", last=True))
    return Exit.OK
