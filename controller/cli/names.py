"""Commands about the names of callers and the accounts they belong to."""

from __future__ import annotations

import click

from controller.cli.exits import Exit
from controller.cli.groups import Group
from controller.cli.output import date, echo, print_message, show_json, show_table
from controller.cli.session import Session, config_option, output_option, with_session
from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.store.names import CallerNameTable


@click.group(cls=Group)
@config_option
def name() -> None:
    """Show and release names of callers.

    Within an app, a name and its area of files belong to the account that first used it.
    """


@name.command("ls")
@click.argument("app", required=False)
@output_option
@config_option
@with_session
def list_names(session: Session, app: str | None, output: str) -> int:
    """Show which account owns which name.

    Shows the names of APP, or of all apps.
    """
    found = CallerNameTable(session.settings().names).all(AppName(app) if app else None)
    if output == "json":
        fields = ("app", "name", "owner", "since")
        show_json([{field: getattr(each, field) for field in fields} for each in found])
        return Exit.OK
    if not found:
        print_message("No caller has signed in yet.")
        return Exit.OK
    rows = [(each.app, each.name, each.description, date(each.since)) for each in found]
    show_table(("APP", "NAME", "ACCOUNT", "SINCE"), rows)
    return Exit.OK


@name.command()
@click.argument("app")
@click.argument("name")
@config_option
@with_session
def release(session: Session, app: str, name: str) -> int:
    """Release a name, so that the next account that uses it owns it.

    The files in its area stay, and will belong to that account. The gateway forgets the previous owner within
    five minutes.
    """
    if not CallerNameTable(session.settings().names).release(AppName(app), name):
        raise Stalled("UnknownName", f"no account owns {name!r} in {app}; see: prichal name ls {app}")
    echo(f"{app}: {name} is released")
    return Exit.OK


commands: tuple[click.Command, ...] = (name,)
