"""`prichal app create`, `delete` and `templates`: apps that are made from templates, on the host or at a server."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import click

from controller.cli.completion import app_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.new import set_pairs
from controller.cli.output import Column, echo, print_message, show_view, table_of
from controller.cli.remote import Remote, remote_options, waiting_options
from controller.cli.session import config_option
from controller.cli.waiting import Persistence
from controller.client.platform.api import Document, Platform
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason

_OVER = ("done", "refused")
_LIMITS = ("cpus", "memory", "storage", "gpus")

COLUMNS: tuple[Column[Document], ...] = (
    Column("NAME", lambda each: str(each["name"])),
    Column("TITLE", lambda each: str(each.get("title", {}).get("en", "-"))),
    Column("VARIABLES", lambda each: _variables(each)),
    Column("SOURCE", lambda each: str(each.get("url") or "-"), is_wide=True),
    Column("PROBLEM", lambda each: str(each.get("problem") or "-"), is_wide=True),
)


def _variables(template: Document) -> str:
    return " ".join(f"{each['name']}={each['default']!r}" for each in template.get("variables", ())) or "-"


@click.command("templates")
@output_option
@remote_options
@config_option
def templates(remote: Remote, output: Format) -> int:
    """List the templates from which new apps are made.

    Those of the platform: built-in ones, and those that its administrators have added.
    """
    with remote.platform() as platform:
        found: list[Document] = platform.templates()["templates"]
    view = table_of(COLUMNS, found, output.is_wide)
    output.show(found, lambda: show_view((view,)), [str(each["name"]) for each in found])
    return Exit.OK


@click.command(
    epilog="\b\nExamples:\n"
    "  prichal app create pu-ivanov-pa-demo --template function --wait\n"
    "  prichal app create pu-ivanov-pa-shop --template server --set framework=gradio --memory 2Gi"
)
@click.argument("name")
@click.option(
    "--template", required=True, help="Template to begin from, as `prichal app templates` lists them."
)
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="Value of a variable.")
@click.option("--cpus", metavar="N", help="CPUs that the app may use.  [default: as the template says]")
@click.option("--memory", metavar="SIZE", help="Memory that it may use.")
@click.option("--storage", metavar="SIZE", help="Capacity of its boxes.")
@click.option("--gpus", metavar="N", help="GPUs that it may use.")
@waiting_options
def create(
    remote: Remote,
    name: str,
    template: str,
    given: tuple[str, ...],
    wait: bool,
    timeout: float,
    output: Format,
    **limits: Any,
) -> int:
    """Make an app from a template.

    The platform makes a repository with the files of the template and connects it as the app NAME. With --wait, the
    command returns when that is done.
    """
    asked = {key: limits[key] for key in _LIMITS if limits[key] is not None}
    wanted = {"name": name, "template": template, "values": set_pairs(given), "limits": asked}
    with remote.platform() as platform:
        order = _followed(remote, platform, platform.create_app(wanted), wait, timeout)
    output.show(order, lambda: echo(_told(order)), (name,))
    return _code(order)


@click.command()
@app_argument()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@waiting_options
def delete(remote: Remote, app: str, yes: bool, wait: bool, timeout: float, output: Format) -> int:
    """Delete an app, with what connects it.

    Its containers and runs are removed. The data of its boxes is kept (see: prichal box ls --kept), and so is its
    repository, for 30 days.
    """
    if not yes and not remote.session.dry_run:
        typed = click.prompt(f"Delete {app} with all containers and runs? Repeat its name", err=True)
        if typed.strip() != app:
            raise Stalled(Reason.NOT_CONFIRMED, f"to delete the app, its name must be repeated: {app}")
    with remote.platform() as platform:
        order = _followed(remote, platform, platform.delete_app(app), wait, timeout)
    output.show(order, lambda: echo(_told(order)), (app,))
    return _code(order)


def _followed(remote: Remote, platform: Platform, order: Document, wait: bool, timeout: float) -> Document:
    """Return the order when it is over, if that is to be waited for. Raises Transient `TimedOut`."""
    if remote.session.dry_run:
        return order
    deadline = time.monotonic() + timeout
    persistence = Persistence(deadline=deadline)
    while wait and order["state"] not in _OVER:
        if time.monotonic() >= deadline:
            raise Transient(Reason.TIMED_OUT, f"not done within {timeout:g} s; the work continues")
        platform.wait_for_change(min(0.5, timeout))
        order = persistence.ask(partial(platform.order, order["id"]))
    if order["state"] == "pending":
        print_message(f"Follow it with: prichal events {order['app']} -f")
    return order


def _told(order: Document) -> str:
    told = f"{order['app']}: {order['state']} {order['message']}".rstrip()
    return f"{told}\nClone it from {order['repository']}" if order.get("repository") else told


def _code(order: Document) -> int:
    return Exit.FAILED if order["state"] == "refused" else Exit.OK


commands = (create, delete, templates)
