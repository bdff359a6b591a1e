"""`prichal image`: what the platform keeps on the engine of this host, what becomes of it, and its removal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, date, print_message, show_view, table_of
from controller.cli.session import Session, config_option, dry_run_option, with_session
from controller.domain.units import about_duration, about_size, rfc3339

if TYPE_CHECKING:
    from controller.domain.apps.kept_images import ImageVerdict, KeptImage

COLUMNS: tuple[Column[KeptImage], ...] = (
    Column("APP", lambda each: each.app or "-"),
    Column("KIND", lambda each: each.kind.value),
    Column("IMAGE", lambda each: each.id.removeprefix("sha256:")[:12] or "-"),
    Column("SIZE", lambda each: about_size(each.size)),
    Column("AGE", lambda each: about_duration(max(0.0, time.time() - each.created)) if each.created else "-"),
    Column("CONTAINERS", lambda each: str(each.containers)),
    Column("REMOVED", lambda each: date(each.due) if each.due else each.fate),
    Column("NAME", lambda each: each.name or "-", is_wide=True),
)
VERDICTS: tuple[Column[ImageVerdict], ...] = (
    Column("APP", lambda each: each.image.app or "-"),
    Column("KIND", lambda each: each.image.kind.value),
    Column("IMAGE", lambda each: each.image.id.removeprefix("sha256:")[:12] or "-"),
    Column("SIZE", lambda each: about_size(each.image.size)),
    Column("REMOVED", lambda each: "yes" if each.removed else "no"),
    Column("WHY", lambda each: each.why),
    Column("NAME", lambda each: each.image.name or "-", is_wide=True),
)


@click.group(cls=Group)
@config_option
def image() -> None:
    """Show and remove images that the platform keeps."""


@image.command(epilog="\b\nExamples:\n  prichal image ls\n  prichal image ls --app demo -o wide")
@click.option("--app", help="Only those of this app.")
@output_option
@config_option
@with_session
def ls(session: Session, app: str | None, output: Format) -> int:
    """List images and caches on the engine, and what becomes of them.

    These are images that were built or pulled for apps, what unfinished builds have left, and the cache of BuildKit. A
    layer that several images share counts in the size of each.
    """
    from controller.daemon.images import images

    found = [each for each in images(session.settings()) if app in (None, each.app)]
    documents = [_document(each) for each in found]
    view = (table_of(COLUMNS, found, output.is_wide),) if found else ()
    output.show(documents, lambda: show_view(view), [each.name or each.id for each in found])
    if not found:
        print_message("The platform keeps no image.")
    return Exit.OK


@image.command(epilog="\b\nExamples:\n  prichal image prune --dry-run\n  prichal image prune --yes")
@click.option("--app", help="Only those of this app.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@output_option
@dry_run_option
@config_option
@with_session
def prune(session: Session, app: str | None, yes: bool, output: Format) -> int:
    """Remove images on the engine that nothing needs any more.

    These are what builds that have ended have left, and images of apps that are gone. Images in use, those that an app
    may need for its version in force or for a rollback, and what a build under way may have made are kept.
    """
    from controller.daemon.images import images, prune
    from controller.domain.apps.kept_images import verdicts

    settings = session.settings()
    with session.store() as store:
        apps = {status.app for status in store.apps.all()}
    judged = verdicts(images(settings), apps, time.time(), settings.docker.build_timeout)
    judged = tuple(each for each in judged if app in (None, each.image.app))
    leaving = [each for each in judged if each.removed]
    if leaving and not yes and not session.dry_run:
        size = about_size(sum(each.image.size for each in leaving))
        click.confirm(f"Remove {len(leaving)} images of {size}?", abort=True, err=True)
    if leaving and not session.dry_run:
        prune(settings, leaving)
    documents = [{**_document(each.image), "removed": each.removed, "removal": each.why} for each in judged]
    view = (table_of(VERDICTS, judged, output.is_wide),) if judged else ()
    output.show(documents, lambda: show_view(view), [each.image.name or each.image.id for each in leaving])
    if not leaving:
        print_message("There is no image that nothing needs.")
    return Exit.OK


def _document(each: KeptImage) -> dict[str, object]:
    return {
        "app": each.app or None,
        "kind": each.kind.value,
        "id": each.id or None,
        "name": each.name or None,
        "size": each.size,
        "created": rfc3339(each.created or None),
        "containers": each.containers,
        "due": rfc3339(each.due),
        "removal": each.fate,
    }


commands: tuple[click.Command, ...] = (image,)
