"""`prichal run`: runs of pipelines of a platform from any machine, through its run API."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from controller.cli.exits import Exit
from controller.cli.output import say, show_json, show_table
from controller.cli.remote import Remote, remote_options
from controller.cli.run_view import LISTED, ending, listed, show_run, watch
from controller.cli.session import F, config_option, output_option
from controller.cli.submission import read_submission
from controller.domain.errors import Stalled
from controller.domain.run_addresses import PipelineAddress, RunAddress
from controller.domain.runs import RunState

if TYPE_CHECKING:
    from controller.adapters.runs_client import LogPiece, RunReport, RunsClient, StageEnd


@click.group()
def run() -> None:
    """Runs of pipelines, from any machine.

    A PIPELINE is APP/PATH, where PATH is that of its API, or APP/pipelines/NAME in the API of all pipelines of
    an app. A RUN is PIPELINE/ID, as start prints it. The URL of either is one, too. For show and logs a
    PIPELINE stands for your newest run of it.
    """


def _until_the_end(command: F) -> F:
    follow = click.option("--follow", is_flag=True, help="Show the logs until it is over.")
    wait = click.option("--wait", is_flag=True, help="Wait until it is over, showing its states.")
    return wait(follow(command))


@run.command()
@click.argument("pipeline")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="A path in your area, a number or a text; NAME:=JSON; NAME=@FILE for a file of this machine, see --upload.",
)
@click.option("--output", "outputs", multiple=True, metavar="NAME=GROUP", help="Where you want an output.")
@click.option("--upload", metavar="BOX/GROUP", help="Where files of this machine are put first.")
@click.option("--priority", type=click.IntRange(-10, 0), help="The lower, the more runs go first.")
@click.option("--webhook", metavar="URL", help="Told when the run is over.")
@click.option("--key", metavar="TEXT", help="The same key, the same run; by default a new one.")
@_until_the_end
@click.option(
    "-o",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people or for scripts.",
)
@remote_options
@config_option
def start(
    remote: Remote,
    pipeline: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    upload: str | None,
    priority: int | None,
    webhook: str | None,
    key: str | None,
    wait: bool,
    follow: bool,
    form: str,
) -> int:
    """Start a run.

    Prints its name. Exit code 0 with --wait or --follow only if it has SUCCEEDED.
    """
    _check_form(follow, form)
    place = remote.pipeline(pipeline)
    submission = read_submission(remote, place, inputs, outputs, upload)
    rest = {"priority": priority, "webhook": webhook}
    body = {**submission.document(), **{name: value for name, value in rest.items() if value is not None}}
    submission.upload()
    with remote.runs() as client:
        begun = client.start(place, body, key or str(uuid.uuid4()))
        return _attend(client, place.run(begun.id), begun, wait, follow, form)


@run.command()
@click.argument("run")
@_until_the_end
@output_option
@remote_options
@config_option
def retry(remote: Remote, run: str, wait: bool, follow: bool, output: str) -> int:
    """Repeat a run that has failed.

    A new run, which takes over the stages that had succeeded. Prints its name. Exit codes as of start."""
    _check_form(follow, output)
    before = _run(remote, run)
    with remote.runs() as client:
        begun = client.retry(before, str(uuid.uuid4()))
        return _attend(client, before.pipeline.run(begun.id), begun, wait, follow, output)


def _check_form(follow: bool, output: str) -> None:
    if follow and output == "json":
        raise click.UsageError("the logs are no JSON: give --wait instead of --follow")


def _attend(
    client: RunsClient, run: RunAddress, begun: RunReport, wait: bool, follow: bool, output: str
) -> int:
    """What is done with a run that was started: tell it, and stay with it if that is wanted."""
    if not wait and not follow:
        _tell(run, begun, output)
        return Exit.OK
    if output != "json":
        click.echo(str(run), err=follow)
    with _leaving_alone(f"prichal run show {run} --watch"):
        if follow:
            _follow_all(client, run)
            ended = client.find(run)
            say(f"{run}: {ending(ended)}")
        else:
            ended = watch(run, client.watch(run), beside=True)
    if output == "json":
        show_json(ended.document)
    return _exit(ended)


def _tell(run: RunAddress, report: RunReport, output: str) -> None:
    if output == "json":
        show_json(report.document)
    else:
        click.echo(str(run))


def _exit(ended: RunReport | StageEnd) -> int:
    return Exit.OK if ended.state is RunState.SUCCEEDED else Exit.FAILED


@contextmanager
def _leaving_alone(again: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say(f"\nThe run goes on. To come back: {again}")
        raise


# --- look -------------------------------------------------------------------------------------------------------


@run.command()
@click.argument("pipeline")
@click.option(
    "--state",
    type=click.Choice([state.value for state in RunState], case_sensitive=False),
    help="Only those.",
)
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many."
)
@output_option
@remote_options
@config_option
def ls(remote: Remote, pipeline: str, state: str | None, limit: int, output: str) -> int:
    """List your runs of a pipeline.

    Newest first. APP/pipelines lists those of all pipelines of the app."""
    place = remote.pipeline(pipeline)
    with remote.runs() as client:
        found = client.list(place, RunState(state) if state else None, limit)
    if output == "json":
        show_json({"runs": [report.document for _, report in found]})
    else:
        now = time.time()
        show_table(LISTED, [listed(address, report, now) for address, report in found])
    return Exit.OK


@run.command()
@click.argument("run")
@click.option("--watch", "watching", is_flag=True, help="Go on until it is over.")
@output_option
@remote_options
@config_option
def show(remote: Remote, run: str, watching: bool, output: str) -> int:
    """Show a run.

    With its stages, their attempts and its outputs; with --watch as it goes on: then the exit code is 0 only if it
    SUCCEEDED."""
    with remote.runs() as client:
        address = _run_or_newest(client, remote.run(run))
        if not watching:
            report = client.find(address)
            if output == "json":
                show_json(report.document)
            else:
                show_run(address, report, time.time())
            return Exit.OK
        with _leaving_alone(f"prichal run show {address} --watch"):
            ended = watch(address, client.watch(address), beside=output == "json")
    if output == "json":
        show_json(ended.document)
    return _exit(ended)


@run.command()
@click.argument("run")
@click.option("--stage", help="Of this stage alone, as it was written.")
@click.option("--attempt", type=click.IntRange(min=1), help="Of one attempt of the stage; else of all.")
@click.option(
    "-f", "--follow", "following", is_flag=True, help="Go on with what is written, until it is over."
)
@remote_options
@config_option
def logs(remote: Remote, run: str, stage: str | None, attempt: int | None, following: bool) -> int:
    """Show what the stages of a run have written.

    Those of several stages with the stage before each line. With -f exit code 0 only if the run, or the stage that was
    asked for, SUCCEEDED."""
    with remote.runs() as client:
        address = _run_or_newest(client, remote.run(run))
        report = client.find(address)
        stage = stage or (report.stages[0].name if len(report.stages) == 1 else None)
        if attempt is not None and stage is None:
            raise click.UsageError("of which stage? Give --stage NAME")
        if not following:
            _show_logs(client, address, report, stage, attempt)
            return Exit.OK
        with _leaving_alone(f"prichal run logs {address} -f"):
            if stage is None:
                _follow_all(client, address)
                return _exit(client.find(address))
            end = client.follow(address, stage, attempt, _write)
            well = end.exit_code == 0 and not end.reason if attempt else end.state is RunState.SUCCEEDED
            return Exit.OK if well else Exit.FAILED


def _show_logs(
    client: RunsClient, run: RunAddress, report: RunReport, stage: str | None, attempt: int | None
) -> None:
    if stage is not None:
        client.log(run, stage, attempt, _write_bytes)
        return
    for each in report.stages:
        lines = _Lines(f"{each.name:<{_width(report)}} | ".encode())
        client.log(run, each.name, None, lines.take)
        lines.end()


class _Lines:
    """Writes lines with a prefix, of pieces that end anywhere."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._is_within = False

    def take(self, piece: bytes) -> None:
        for line in piece.splitlines(keepends=True):
            _write_bytes(line if self._is_within else self._prefix + line)
            self._is_within = not line.endswith((b"\n", b"\r"))

    def end(self) -> None:
        if self._is_within:
            _write_bytes(b"\n")


def _follow_all(client: RunsClient, run: RunAddress) -> None:
    """With a prefix, unless there is only one stage."""
    from controller.adapters.runs_client.together import follow_all

    report = client.find(run)
    for stage, piece in follow_all(client, run):
        if len(report.stages) == 1:
            _write(piece)
            continue
        # Other stages may write in between: each piece has lines of its own.
        prefix = f"{stage:<{_width(report)}} | "
        click.echo("".join(f"{prefix}{line}\n" for line in piece.text.split("\n")), nl=False)


def _write_bytes(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def _write(piece: LogPiece) -> None:
    click.echo(piece.text, nl=piece.ended)


def _width(report: RunReport) -> int:
    return max(len(stage.name) for stage in report.stages)


# --- stop -------------------------------------------------------------------------------------------------------


@run.command()
@click.argument("run")
@click.option("--wait", is_flag=True, help="Wait until it has stopped.")
@output_option
@remote_options
@config_option
def cancel(remote: Remote, run: str, wait: bool, output: str) -> int:
    """Stop a run.

    One that is over stays as it is. Exit code 0 with --wait only if it was CANCELED."""
    address = _run(remote, run)
    with remote.runs() as client:
        report = client.cancel(address)
        if wait and not report.state.terminal:
            with _leaving_alone(f"prichal run show {address} --watch"):
                report = watch(address, client.watch(address), beside=True)
    if output == "json":
        show_json(report.document)
    else:
        click.echo(f"{address}: {report.state}")
    return Exit.OK if not wait or report.state is RunState.CANCELED else Exit.FAILED


# --- which ------------------------------------------------------------------------------------------------------


def _run(remote: Remote, text: str) -> RunAddress:
    found = remote.run(text)
    if isinstance(found, PipelineAddress):
        raise click.UsageError(f"{text} is no run: write {text}/ID; prichal run ls {text} lists them")
    return found


def _run_or_newest(client: RunsClient, place: RunAddress | PipelineAddress) -> RunAddress:
    if isinstance(place, RunAddress):
        return place
    newest = client.list(place, limit=1)
    if not newest:
        raise Stalled("RunNotFound", f"you have no run of {place} yet")
    return newest[0][0]


commands = (run,)
