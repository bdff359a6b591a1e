"""`prichal notify`: who is told when something is wrong, and whether messages arrive."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import click

from controller.cli.completion import app_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, echo, print_message, show_view, table_of
from controller.cli.remote import Remote, remote_options
from controller.cli.session import config_option, dry_run_option, timeout_option
from controller.cli.waiting import Persistence
from controller.client.platform.api import Document, Platform
from controller.domain.errors import Stalled, Transient
from controller.domain.names import PLATFORM
from controller.domain.reasons import Reason

Row = dict[str, Any]

_LOOK = 0.5  # seconds between two looks at what became of a test
_DELIVERED = "delivered"
_COLUMNS: tuple[Column[Row], ...] = (
    Column("NAME", lambda each: each["name"]),
    Column("BY", lambda each: each["channel"]),
    Column("TO", lambda each: " ".join(each["to"]) or f"Secret {each['secret']}", is_wide=True),
    Column("SEVERITY", lambda each: each["severity"]),
    Column("PROBLEMS", lambda each: str(len(each["problems"]))),
    Column("DELIVERED", lambda each: each["delivered"] or "-"),
    Column("LAST", lambda each: _told(each["deliveries"][-1]) if each["deliveries"] else "-"),
)


@click.group(cls=Group)
@config_option
def notify() -> None:
    """Show who is told when something is wrong, and test it."""


@notify.command("ls")
@app_argument(required=False)
@output_option
@remote_options
@config_option
def list_notifications(remote: Remote, app: str | None, output: Format) -> int:
    """List the Notifications of an app, or without APP those of the platform.

    PROBLEMS is how many the receivers know about, LAST what became of the last message.
    """
    whose = app or PLATFORM
    with remote.platform() as platform:
        document = platform.notifications(whose)
    found: list[Row] = document["notifications"]
    view = (table_of(_COLUMNS, found, output.is_wide),) if found else ()
    output.show(document, lambda: show_view(view), [str(each["name"]) for each in found])
    if not found:
        print_message(f"There is no Notification of {whose}: see docs/guide/notifications.md")
    return Exit.OK


@notify.command(
    "test",
    epilog="\b\nExamples:\n  prichal notify test\n  prichal notify test demo team",
)
@app_argument(required=False)
@click.argument("name", required=False)
@timeout_option(60.0, "Longest time to wait for the receiver.")
@output_option
@dry_run_option
@remote_options
@config_option
def test(remote: Remote, app: str | None, name: str | None, timeout: float, output: Format) -> int:
    """Send a test message, and tell whether it arrives.

    To the receiver of the Notification NAME of an app, or of all its Notifications; without APP to those of the
    platform. It is sent once.
    """
    whose = app or PLATFORM
    with remote.platform() as platform:
        names = [name] if name else [str(e["name"]) for e in platform.notifications(whose)["notifications"]]
        if not names:
            told = f"there is no Notification of {whose}"
            raise Stalled(Reason.UNKNOWN_NOTIFICATION, told)
        asked = {each: str(platform.test_notification(whose, each)["message"]) for each in names}
        if remote.session.dry_run:
            rows = [{"name": each, "state": "asked", "problem": ""} for each in names]
            output.show(rows, lambda: echo("\n".join(f"{each}: asked for" for each in names)), names)
            return Exit.OK
        outcomes = _outcomes(platform, whose, asked, time.monotonic() + timeout)
    if late := sorted(asked.keys() - outcomes.keys()):
        told = f"nothing is known of the test of {', '.join(late)} after {timeout:g} s: does the daemon run?"
        raise Transient(Reason.TIMED_OUT, told)
    rows = [{"name": e, "state": outcomes[e]["state"], "problem": outcomes[e]["problem"]} for e in names]
    output.show(rows, lambda: echo("\n".join(f"{row['name']}: {_told(row)}" for row in rows)), names)
    return Exit.OK if all(row["state"] == _DELIVERED for row in rows) else Exit.FAILED


def _outcomes(platform: Platform, app: str, asked: dict[str, str], deadline: float) -> dict[str, Document]:
    """Return what became of the messages, by the name of the Notification."""
    found: dict[str, Document] = {}
    persistence = Persistence(deadline=deadline)
    while True:
        for each in persistence.ask(partial(platform.notifications, app))["notifications"]:
            name = str(each["name"])
            for delivery in each["deliveries"]:
                if delivery["message"] == asked.get(name):
                    found[name] = delivery
        left = deadline - time.monotonic()
        if found.keys() >= asked.keys() or left <= 0:
            return found
        platform.wait_for_change(min(left, _LOOK))


def _told(delivery: Document) -> str:
    state = str(delivery["state"])
    return f"{state}: {delivery['problem']}" if delivery["problem"] else state


commands = (notify,)
