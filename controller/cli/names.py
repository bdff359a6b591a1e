"""Commands about the names of callers and the accounts they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from controller.cli.completion import app_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, date, echo, print_message, show_view, table_of
from controller.cli.session import Session, config_option, dry_run_option, with_session
from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.units import rfc3339

if TYPE_CHECKING:
    from controller.domain.routing.caller_names import ClaimedName


COLUMNS: tuple[Column[ClaimedName], ...] = (
    Column("APP", lambda each: each.app),
    Column("NAME", lambda each: each.name),
    Column("ACCOUNT", lambda each: each.description),
    Column("OWNER", lambda each: each.owner, is_wide=True),
    Column("SINCE", lambda each: date(each.since)),
)


@click.group(cls=Group)
@config_option
def name() -> None:
    """Show and release names of callers.

    Within an app, a name and its area of files belong to the account that first used it.
    """


@name.command("ls")
@app_argument(required=False)
@output_option
@config_option
@with_session
def list_names(session: Session, app: str | None, output: Format) -> int:
    """List the names of callers and the accounts that own them.

    Lists the names of APP, or of all apps.
    """
    from controller.store.names import CallerNameTable

    found = CallerNameTable(session.settings().names).all(AppName(app) if app else None)
    documents = [_document(each) for each in found]
    view = (table_of(COLUMNS, found, output.is_wide),) if found else ()
    output.show(documents, lambda: show_view(view), [f"{each.app} {each.name}" for each in found])
    if not found:
        print_message("No caller has signed in yet.")
    return Exit.OK


def _document(claimed: ClaimedName) -> dict[str, object]:
    since = rfc3339(claimed.since)
    return {"app": claimed.app, "name": claimed.name, "owner": claimed.owner, "since": since}


@name.command()
@app_argument()
@click.argument("name")
@output_option
@dry_run_option
@config_option
@with_session
def release(session: Session, app: str, name: str, output: Format) -> int:
    """Release a name, so that the next account that uses it owns it.

    The files in its area stay, and will belong to that account. The gateway forgets the previous owner within
    five minutes.
    """
    from controller.store.names import CallerNameTable
    from controller.store.sqlite import database_for

    path = session.settings().names
    with database_for(path, session.dry_run) as database:
        is_released = CallerNameTable(database).release(AppName(app), name)
    if not is_released:
        raise Stalled(Reason.UNKNOWN_NAME, f"no account owns {name!r} in {app}; see: prichal name ls {app}")
    output.show({"app": app, "name": name}, lambda: echo(f"{app}: {name} is released"), (f"{app} {name}",))
    return Exit.OK


commands: tuple[click.Command, ...] = (name,)
