"""A run as people see it: at once, as lines while it changes, and as a table that is drawn anew on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from controller.cli.output import clock, coloured_table, console, date, show_table
from controller.domain.run_addresses import RunAddress
from controller.domain.runs import Attempt, StageRun, Transition, in_order
from controller.domain.units import about_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from controller.adapters.runs_client import RunReport

STAGE = ("STAGE", "STATE", "ATTEMPT", "PROGRESS", "TOOK", "REASON", "MESSAGE")
LISTED = ("RUN", "PIPELINE", "STATE", "REASON", "STARTED", "TOOK")


def listed(address: RunAddress, run: RunReport, now: float) -> tuple[str, ...]:
    """One row of a list."""
    return (
        str(address),
        run.pipeline,
        run.state.value,
        run.reason or "-",
        date(run.started),
        took(run.started, run.ended, now),
    )


def took(started: float | None, ended: float | None, now: float) -> str:
    """Until now, if it is not over."""
    return about_duration((ended or now) - started) if started else "-"


def stage_row(stage: StageRun, now: float) -> tuple[str, ...]:
    newest = stage.attempt
    return (
        stage.name,
        stage.state.value,
        str(newest.number) if newest else "-",
        stage.progress or "-",
        took(newest.started, newest.ended, now) if newest else "-",
        stage.reason or "-",
        stage.message,
    )


# --- at once ----------------------------------------------------------------------------------------------------


def show_run(address: RunAddress, run: RunReport, now: float) -> None:
    """With its stages, their attempts, and all that happened."""
    click.echo(f"{address}: {ending(run)}")
    for name, value in _facts(run, now):
        click.echo(f"  {name:<9} {value}")
    click.echo()
    show_table(STAGE, [stage_row(stage, now) for stage in run.stages])
    attempts = [_attempt_row(stage, attempt, now) for stage in run.stages for attempt in stage.attempts]
    if attempts:
        click.echo()
        show_table(("STAGE", "ATTEMPT", "STARTED", "TOOK", "EXIT", "REASON", "MESSAGE"), attempts)
    click.echo()
    for line in transitions(run):
        click.echo(line)


def ending(run: RunReport) -> str:
    """How it is: `FAILED (ExitCode): stage fit: …`."""
    reason = f" ({run.reason})" if run.reason else ""
    return f"{run.state}{reason}{f': {run.message}' if run.message else ''}"


def _facts(run: RunReport, now: float) -> Iterator[tuple[str, str]]:
    document = run.document
    yield "pipeline", run.pipeline
    yield "created", date(run.created)
    yield "started", date(run.started)
    yield "took", took(run.started, run.ended, now)
    if document.get("user"):
        yield "user", str(document["user"])
    if document.get("origin"):
        yield "cause", f"{document['cause']} of {document['origin']}"
    elif document.get("cause") == "schedule":
        yield "cause", "schedule"
    for given in document.get("inputs", ()):
        yield "input", f"{given['name']} = {_in_box(_text(given['data']), given.get('box', ''))}"
    for output in run.outputs:
        yield "output", f"{output.name} = {_in_box(output.data, output.box)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _in_box(text: str, box: str) -> str:
    return f"{text} (box {box})" if box else text


def _attempt_row(stage: StageRun, attempt: Attempt, now: float) -> tuple[str, ...]:
    return (
        stage.name,
        str(attempt.number),
        date(attempt.started),
        took(attempt.started, attempt.ended, now),
        "-" if attempt.exit_code is None else str(attempt.exit_code),
        attempt.reason or "-",
        attempt.message,
    )


# --- while it changes -------------------------------------------------------------------------------------------

#: How many transitions of the run and of each stage have been told.
Told = tuple[int, ...]


def transitions(run: RunReport, told: Told = ()) -> Iterator[str]:
    """A line for each that has not been told."""
    histories: list[tuple[str | None, tuple[Transition, ...]]] = [(None, run.history)]
    histories += ((stage.name, stage.history) for stage in run.stages)
    for place, step in in_order(histories, told or (0,) * len(histories)):
        yield transition_line(histories[place][0] or "", step)


def _told(run: RunReport) -> Told:
    return (len(run.history), *(len(stage.history) for stage in run.stages))


def transition_line(stage: str, step: Transition) -> str:
    """`14:02:11 fit FAILED ExitCode: …`; of the run itself without a stage."""
    who = f"{stage} " if stage else ""
    why = f" {step.reason}" if step.reason else ""
    return f"{clock(step.at)} {who}{step.state}{why}{f': {step.message}' if step.message else ''}"


def watch(address: RunAddress, reports: Iterable[RunReport], beside: bool = False) -> RunReport:
    """Show the run until it is over; how it ended. On a terminal a table that moves, elsewhere a line for each
    transition. `beside` the result: on standard error."""
    out = sys.stderr if beside else sys.stdout
    if out.isatty():
        return _draw(address, reports, beside)
    told: Told = ()
    last = None
    for last in reports:
        for line in transitions(last, told):
            click.echo(line, file=out)
        told = _told(last)
    return _seen(last)


def _draw(address: RunAddress, reports: Iterable[RunReport], beside: bool) -> RunReport:
    """The clock goes on between the reports: the table is drawn anew several times a second."""
    from rich.live import Live

    last: RunReport | None = None

    def picture() -> RenderableType:
        return _picture(address, last, time.time()) if last else str(address)

    out = console(sys.stderr if beside else None)
    with Live(get_renderable=picture, console=out, refresh_per_second=4) as live:
        for last in reports:  # noqa: B007 - `picture` shows it
            live.refresh()
    return _seen(last)


def _picture(address: RunAddress, run: RunReport, now: float) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    elapsed = took(run.started, run.ended, now)
    table = coloured_table(STAGE, [stage_row(stage, now) for stage in run.stages])
    return Group(Text(f"{address}  {ending(run)}  {elapsed}"), table)


def _seen(last: RunReport | None) -> RunReport:
    assert last is not None, "a run is reported at least once"
    return last
