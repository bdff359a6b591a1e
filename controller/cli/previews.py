"""`prichal preview`: the previews of branches, and how long they stay."""

from __future__ import annotations

from typing import Any

import click

from controller.cli.completion import app_argument, preview_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, View, echo, print_message, show_view, since, table_of, until
from controller.cli.remote import Remote, remote_options
from controller.cli.session import config_option, dry_run_option
from controller.client.platform.api import Document, Platform
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.units import parse_rfc3339

Row = dict[str, Any]

COLUMNS: tuple[Column[Row], ...] = (
    Column("PREVIEW", lambda each: str(each["name"])),
    Column("APP", lambda each: str(each["app"])),
    Column("BRANCH", lambda each: str(each["branch"])),
    Column("COMMIT", lambda each: str(each["commit"])[:12]),
    Column("STATE", lambda each: str(each["state"])),
    Column("AGE", lambda each: since(parse_rfc3339(each["begun"]))),
    Column("ENDS", lambda each: until(each["ends"]) if each["ends"] else "never"),
    Column("OPEN", lambda each: str(each["open"] or "-")),
)


@click.group(cls=Group, verbs=("ls", "keep", "rm"))
@config_option
def preview() -> None:
    """Show previews of branches, keep and remove them."""


@preview.command("ls", epilog="\b\nExamples:\n  prichal preview ls\n  prichal preview ls demo -o name")
@app_argument(required=False)
@output_option
@remote_options
@config_option
def list_previews(remote: Remote, app: str | None, output: Format) -> int:
    """List the previews of an app, or of all apps.

    Branches that have none are told with the reason.
    """
    with remote.platform() as platform:
        found = platform.branch_previews(app)
    rows: list[Row] = found["previews"]
    output.show(found, lambda: show_view(preview_view(found, output.is_wide)), [str(r["name"]) for r in rows])
    if not rows:
        print_message("There is no preview: see docs/guide/git.md")
    return Exit.OK


def preview_view(found: Document, wide: bool) -> View:
    """Return what people see of the previews of apps."""
    table = (table_of(COLUMNS, found["previews"], wide),) if found["previews"] else ()
    left = (f"no preview of {each['app']}/{each['branch']}: {each['why']}" for each in found["leftOut"])
    return (*table, *left)


@preview.command(
    epilog="\b\nExamples:\n  prichal preview keep demo/feature/x\n"
    "  prichal preview keep demo-feature-x-9c6a5e00 --forever",
)
@preview_argument
@click.option("--forever", is_flag=True, help="Until its branch is gone.")
@output_option
@dry_run_option
@remote_options
@config_option
def keep(remote: Remote, preview: str, forever: bool, output: Format) -> int:
    """Let the time of a preview begin again.

    PREVIEW is its name, or APP/BRANCH. A preview whose time is over, or that was removed, comes back.
    """
    with remote.platform() as platform:
        app, name = _found(platform, preview)
        done = platform.keep_preview(app, name, forever)
    how = "stays until its branch is gone" if forever else "stays: its time begins again"
    output.show(done, lambda: echo(f"{done['name']} {how}"), (str(done["name"]),))
    return Exit.OK


@preview.command("rm", epilog="\b\nExamples:\n  prichal preview rm demo/feature/x")
@preview_argument
@output_option
@dry_run_option
@remote_options
@config_option
def remove(remote: Remote, preview: str, output: Format) -> int:
    """Remove a preview with its data.

    PREVIEW is its name, or APP/BRANCH. The next commit of its branch brings it back.
    """
    with remote.platform() as platform:
        app, name = _found(platform, preview)
        done = platform.remove_preview(app, name)
    told = f"{done['name']} is removed; the next commit of {done['branch']} brings it back"
    output.show(done, lambda: echo(told), (str(done["name"]),))
    return Exit.OK


def _found(platform: Platform, text: str) -> tuple[str, str]:
    """Return the app and the name of a preview that is written as its name, or as APP/BRANCH."""
    app, _, branch = text.partition("/")
    found = platform.branch_previews(app if branch else None)
    each: Document
    for each in (*found["previews"], *found["leftOut"]):
        if (each["branch"] == branch) if branch else (each["name"] == text):
            return str(each["app"]), str(each["name"])
    told = Localizable("there is no preview {name!r}; see: prichal preview ls", name=text[:80])
    raise Stalled(Reason.UNKNOWN_PREVIEW, told)


commands = (preview,)
