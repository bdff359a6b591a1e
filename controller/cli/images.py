"""`prichal image`: what the platform keeps on the engine, what becomes of it, and its removal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, date, print_message, show_view, since, table_of
from controller.cli.remote import Remote, remote_options
from controller.cli.session import config_option, dry_run_option, timeout_option
from controller.client.platform.api import IMAGES_TIMEOUT, Document
from controller.domain.units import about_size, parse_rfc3339

Row = dict[str, Any]

_IMAGE: tuple[Column[Row], ...] = (
    Column("APP", lambda each: each["app"] or "-"),
    Column("KIND", lambda each: str(each["kind"])),
    Column("IMAGE", lambda each: (each["id"] or "-").removeprefix("sha256:")[:12]),
    Column("SIZE", lambda each: about_size(each["size"])),
)
_NAME: Column[Row] = Column("NAME", lambda each: each["name"] or "-", is_wide=True)
COLUMNS: tuple[Column[Row], ...] = (
    *_IMAGE,
    Column("AGE", lambda each: since(parse_rfc3339(each["created"])) if each["created"] else "-"),
    Column("CONTAINERS", lambda each: str(each["containers"])),
    Column("REMOVED", lambda each: date(parse_rfc3339(each["due"])) if each["due"] else each["removal"]),
    _NAME,
)
VERDICTS: tuple[Column[Row], ...] = (
    *_IMAGE,
    Column("REMOVED", lambda each: "yes" if each["removed"] else "no"),
    Column("WHY", lambda each: str(each["removal"])),
    _NAME,
)


@click.group(cls=Group)
@config_option
def image() -> None:
    """Show and remove images that the platform keeps."""


@image.command(epilog="\b\nExamples:\n  prichal image ls\n  prichal image ls --app demo -o wide")
@click.option("--app", help="Only those of this app.")
@timeout_option(IMAGES_TIMEOUT, "Longest time to wait for the daemon.")
@output_option
@remote_options
@config_option
def ls(remote: Remote, app: str | None, timeout: float, output: Format) -> int:
    """List images and caches on the engine, and what becomes of them.

    These are images that were built or pulled for apps, what unfinished builds have left, and the cache of BuildKit. A
    layer that several images share counts in the size of each. The daemon lists them.
    """
    with remote.platform() as platform:
        document = platform.images(app, timeout)
    found: list[Row] = document["images"]
    view = (table_of(COLUMNS, found, output.is_wide),) if found else ()
    output.show(found, lambda: show_view(view), [_name(each) for each in found])
    if not found:
        print_message("The platform keeps no image.")
    _tell_left_out(document)
    return Exit.OK


@image.command(epilog="\b\nExamples:\n  prichal image prune --dry-run\n  prichal image prune --yes")
@click.option("--app", help="Only those of this app.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@timeout_option(IMAGES_TIMEOUT, "Longest time to wait for the daemon.")
@output_option
@dry_run_option
@remote_options
@config_option
def prune(remote: Remote, app: str | None, yes: bool, timeout: float, output: Format) -> int:
    """Remove images on the engine that nothing needs any more.

    These are what builds that have ended have left, and images of apps that are gone. Images in use, those that an app
    may need for its version in force or for a rollback, and what a build under way may have made are kept. The daemon
    decides and removes.
    """
    is_dry = remote.session.dry_run
    # A dry run shows the list, which the daemon makes: it is asked for in earnest, and removes nothing.
    remote = replace(remote, session=replace(remote.session, dry_run=False))
    with remote.platform() as platform:
        document = platform.images(app, timeout)
        leaving = document["removed"]
        if leaving and not is_dry:
            if not yes:
                size = about_size(document["removedSize"])
                click.confirm(f"Remove {leaving} images of {size}?", abort=True, err=True)
            document = platform.prune_images(app, timeout)
    found: list[Row] = document["images"]
    view = (table_of(VERDICTS, found, output.is_wide),) if found else ()
    output.show(found, lambda: show_view(view), [_name(each) for each in found if each["removed"]])
    if not leaving:
        print_message("There is no image that nothing needs.")
    _tell_left_out(document)
    return Exit.OK


def _tell_left_out(document: Document) -> None:
    if document["leftOut"]:
        print_message(f"{document['leftOut']} more images are not shown; --app NAME shows those of one app.")


def _name(each: Row) -> str:
    return str(each["name"] or each["id"])


commands: tuple[click.Command, ...] = (image,)
