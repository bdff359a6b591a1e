"""`prichal app events` and `logs`: what has happened."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from controller.cli.completion import app_argument, component_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, nameless_output_option
from controller.cli.output import date, echo, event_line, write
from controller.cli.remote import Remote, remote_options
from controller.cli.session import config_option, limit_option
from controller.cli.waiting import follow, last_event
from controller.client.platform.api import LogQuery
from controller.domain.text import Shown
from controller.domain.units import parse_duration, parse_rfc3339

if TYPE_CHECKING:
    from controller.client.platform import Document


@click.command(epilog="\b\nExamples:\n  prichal events demo -f\n  prichal events -n 0 -f -o json")
@app_argument(required=False)
@click.option("-f", "--follow", "following", is_flag=True, help="Keep streaming new events.")
@limit_option(50, "events", least=0)
@nameless_output_option
@remote_options
@config_option
def events(remote: Remote, app: str | None, following: bool, limit: int, output: Format) -> int:
    """Show events of all apps, or of one.

    With -o json, each line is one event; with -o yaml, each event is a document.
    """
    with remote.platform() as platform:
        after = last_event(platform, app)
        for event in platform.events(app, limit=limit) if limit else ():
            _show_event(event, app, output)
        if not following:
            return Exit.OK
        for event in follow(platform, app, after):
            _show_event(event, app, output)
    return Exit.OK


def _show_event(event: Document, chosen: str | None, output: Format) -> None:
    line = event_line(event)
    if output.is_wide:
        at, revision = parse_rfc3339(event["at"]), str(event.get("revision") or "")
        line = f"{date(at)} {revision[:12] or '-'} {line.partition(' ')[2]}"
    output.show_next(event, lambda: echo(line if chosen else f"{event['app']}  {line}"))


@click.command(
    epilog="\b\nExamples:\n"
    "  prichal logs demo\n"
    "  prichal logs demo namer -f -n 20\n"
    "  prichal logs demo --since 10m\n"
    "  prichal logs demo namer --previous\n"
    "  prichal logs demo --build -f"
)
@app_argument()
@component_argument(required=False)
@click.option("-f", "--follow", "following", is_flag=True, help="Keep streaming new output.")
@click.option("--since", metavar="TIME", help="Only newer lines: an age such as 10m, or a time (RFC 3339).")
@click.option("--previous", is_flag=True, help="The container, or build, before the newest one.")
@click.option("--build", is_flag=True, help="The newest build of an image of APP, also one under way.")
@click.option(
    "-n",
    "--tail",
    type=click.IntRange(min=0),
    metavar="N",
    help="Show at most N lines, the last ones.  [default: 100, all with --since]",
)
@remote_options
@config_option
def logs(
    remote: Remote,
    app: str,
    component: str | None,
    following: bool,
    since: str | None,
    previous: bool,
    build: bool,
    tail: int | None,
) -> int:
    """Show the log of a container, or of a build.

    It is the newest container of APP, or of its COMPONENT. Logs are kept past the end of containers and builds.
    """
    if previous and following:
        raise click.UsageError("nothing is added to a previous log: leave out -f")
    if build and component is not None:
        raise click.UsageError("components share builds: leave out COMPONENT, or --build")
    at = _time(since) if since else None
    query = LogQuery(component, previous, at, tail if tail is not None or since else 100, following, build)
    text = Shown()
    with remote.platform() as platform:
        for piece in platform.logs(app, query):
            write(text.take(piece))
    write(text.take(b"", last=True))
    return Exit.OK


def _time(text: str) -> float:
    """Return the time that a person has given, in Unix seconds."""
    try:
        if text[:4].isdigit() and "-" in text:
            return parse_rfc3339(text)
        return time.time() - parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(
            "write an age such as 10m, or a time such as 2026-01-31T12:00:00Z", param_hint="--since"
        ) from error
