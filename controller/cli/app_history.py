"""`prichal app history`, `diff` and `plan`: what was applied to an app, what differed, and what would be done next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from controller.cli.completion import app_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, nameless_output_option
from controller.cli.output import Column, date, echo, print_message, show_view, table_of
from controller.cli.remote import Remote, remote_options
from controller.cli.session import config_option, limit_option, timeout_option
from controller.client.platform.api import PLAN_TIMEOUT
from controller.domain.units import about_duration, parse_rfc3339

if TYPE_CHECKING:
    from controller.client.platform import Document


def _asked_by(entry: dict[str, Any]) -> str:
    """Return what has asked for it, and who, if that is known."""
    person = entry.get("by")
    return ", ".join(entry["triggers"]) + (f" ({person})" if person else "")


def _images(entry: dict[str, Any]) -> str:
    """Return the images that were followed."""
    found = entry.get("images") or {}
    return ", ".join(f"{subject} {image.partition('@')[0]}" for subject, image in found.items())


COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("ID", lambda each: str(each["id"])),
    Column("REVISION", lambda each: str(each["revision"])[:12] or "-"),
    Column("IMAGES", lambda each: _images(each) or "-", is_wide=True),
    Column("WHEN", lambda each: date(parse_rfc3339(each["begun"]))),
    Column("TOOK", lambda each: about_duration(float(each["seconds"]))),
    Column("OUTCOME", lambda each: str(each["outcome"])),
    Column("BY", _asked_by),
    Column("AUTHOR", lambda each: str(each["author"]) or "-", is_wide=True),
    Column("SUBJECT", lambda each: str(each["subject"])),
)


@click.command(epilog="\b\nExamples:\n  prichal history demo\n  prichal history demo -n 5 -o json")
@app_argument()
@limit_option(20, "entries")
@nameless_output_option
@remote_options
@config_option
def history(remote: Remote, app: str, limit: int, output: Format) -> int:
    """Show what was applied to an app.

    Each entry is a pass that changed something or met a new commit: what asked for it, how long it took and how
    it ended. With -o json also its plan.
    """
    with remote.platform() as platform:
        found = platform.history(app, limit)
    entries = found["history"]
    view = (table_of(COLUMNS, entries, output.is_wide),) if entries else ()
    output.show(found, lambda: show_view(view))
    if not entries:
        print_message(f"Nothing was applied to {app} yet.")
    return Exit.OK


@click.command(epilog="\b\nExamples:\n  prichal plan demo\n  prichal plan demo -o json")
@app_argument()
@timeout_option(PLAN_TIMEOUT, "Longest time to wait.")
@nameless_output_option
@remote_options
@config_option
def plan(remote: Remote, app: str, timeout: float, output: Format) -> int:
    """Show what would be done, and why.

    The daemon fetches the repository and compares it with what runs; nothing is changed. See it before a change is
    carried out: suspend the app, push, and resume it.
    """
    with remote.platform() as platform:
        found = platform.plan(app, timeout)
    output.show(found, lambda: _show_plan(found))
    return Exit.OK


@click.command(epilog="\b\nExamples:\n  prichal diff demo\n  prichal diff demo 1f0c9a2e 7d1c60a0")
@app_argument()
@click.argument("begin", metavar="FROM", required=False)
@click.argument("end", metavar="TO", required=False)
@nameless_output_option
@remote_options
@config_option
def diff(remote: Remote, app: str, begin: str | None, end: str | None, output: Format) -> int:
    """Show what differs between two revisions of an app.

    That is the text of its manifests, without values of Secrets, and what the platform did for the second one. A
    revision is written by its first characters, or as the number of an entry of the history. Without TO it is the
    newest one that was applied. Without both, what the next pass would change is shown: the newest commit against
    what was applied, and the plan.
    """
    with remote.platform() as platform:
        found = platform.plan(app) if begin is None else platform.diff(app, begin, end)
    output.show(found, lambda: _show_next(found) if begin is None else _show(found))
    return Exit.OK


def _show_plan(found: Document) -> None:
    for warning in found["warnings"]:
        print_message(f"warning: {warning}")
    echo(found["text"])


def _show_next(found: Document) -> None:
    _show_manifests(found)
    _show_plan(found)


def _show(found: Document) -> None:
    _show_manifests(found)
    echo(found["plan"] or "the platform had nothing to do")


def _show_manifests(found: Document) -> None:
    text = found["manifests"]
    echo("the manifests were too large to be kept" if text is None else text or "the manifests are the same")
    echo()


commands = (history, diff, plan)
