"""How people see a run: as a whole, as lines while it changes, and as a table that is redrawn on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from controller.cli.output import Column, clock, coloured_table, console, date, echo, label, show_table
from controller.domain.runs.addresses import RunAddress
from controller.domain.runs.run import Attempt, StageRun, Transition, in_order
from controller.domain.units import about_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from controller.client.runs import RunReport

STAGE = ("STAGE", "STATE", "ATTEMPT", "PROGRESS", "TOOK", "REASON", "MESSAGE")

#: The columns of a list of runs.
LISTED: tuple[Column[tuple[RunAddress, RunReport]], ...] = (
    Column("RUN", lambda listed: str(listed[0])),
    Column("PIPELINE", lambda listed: listed[1].pipeline),
    Column("STATE", lambda listed: listed[1].state.value),
    Column("REASON", lambda listed: listed[1].reason or "-"),
    Column("CREATED", lambda listed: date(listed[1].created), is_wide=True),
    Column("STARTED", lambda listed: date(listed[1].started)),
    Column("TOOK", lambda listed: took(listed[1].started, listed[1].ended, time.time())),
    Column("USER", lambda listed: str(listed[1].document.get("user") or "-"), is_wide=True),
)


def took(started: float | None, ended: float | None, now: float) -> str:
    """Return the duration up to now, or up to the end if it has ended."""
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
    """Show a run with its stages, their attempts, and its history."""
    echo(f"{address}: {ending(run)}")
    for name, value in _facts(run, now):
        echo(f"  {name:<9} {value}")
    echo()
    show_table(STAGE, [stage_row(stage, now) for stage in run.stages])
    attempts = [_attempt_row(stage, attempt, now) for stage in run.stages for attempt in stage.attempts]
    if attempts:
        echo()
        show_table(("STAGE", "ATTEMPT", "STARTED", "TOOK", "EXIT", "REASON", "MESSAGE"), attempts)
    echo()
    for line in transitions(run):
        echo(line)


def ending(run: RunReport) -> str:
    """Return the state with reason and message: `FAILED (ExitCode): stage fit: …`."""
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

#: The number of transitions of the run and of each stage that have been shown.
Told = tuple[int, ...]


def transitions(run: RunReport, told: Told = ()) -> Iterator[str]:
    """Yield a line for each transition that has not been shown."""
    histories: list[tuple[str | None, tuple[Transition, ...]]] = [(None, run.history)]
    histories += ((stage.name, stage.history) for stage in run.stages)
    for place, step in in_order(histories, told or (0,) * len(histories)):
        yield transition_line(histories[place][0] or "", step)


def _told(run: RunReport) -> Told:
    return (len(run.history), *(len(stage.history) for stage in run.stages))


def transition_line(stage: str, step: Transition) -> str:
    """Return `14:02:11 fit FAILED ExitCode: …`; transitions of the run itself have no stage."""
    who = f"{stage} " if stage else ""
    why = f" {step.reason}" if step.reason else ""
    return f"{clock(step.at)} {who}{step.state}{why}{f': {step.message}' if step.message else ''}"


def watch(address: RunAddress, reports: Iterable[RunReport], beside: bool = False) -> RunReport:
    """Show a run until it ends, and return its last report. A terminal shows a live table, anything else one
    line per transition. `beside` writes to standard error, beside the result.
    """
    out = sys.stderr if beside else sys.stdout
    if out.isatty():
        return _draw(address, reports, beside)
    told: Told = ()
    last = None
    for last in reports:
        for line in transitions(last, told):
            echo(line, file=out)
        told = _told(last)
    return _seen(last)


def _draw(address: RunAddress, reports: Iterable[RunReport], beside: bool) -> RunReport:
    """Draw the run several times a second, because its clock advances between the reports."""
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

    elapsed = took(run.started, run.ended, now)
    table = coloured_table(STAGE, [stage_row(stage, now) for stage in run.stages])
    return Group(label(f"{address}  {ending(run)}  {elapsed}"), table)


def _seen(last: RunReport | None) -> RunReport:
    assert last is not None, "a run is reported at least once"
    return last
