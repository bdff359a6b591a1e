"""`prichal run`: start and follow runs of a platform's pipelines from any machine, through its run API."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import click

from controller.cli.completion import pipeline_argument, run_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.groups import Group, RenamedOption
from controller.cli.output import echo, print_message, show_view, table_of, write, write_bytes
from controller.cli.remote import Remote, remote_options
from controller.cli.run_view import LISTED, ending, show_run, watch
from controller.cli.session import F, config_option, limit_option
from controller.cli.submission import read_submission
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.runs.addresses import PipelineAddress, RunAddress
from controller.domain.runs.run import RunState
from controller.domain.text import Shown

if TYPE_CHECKING:
    from controller.client.runs import LogPiece, RunReport, RunsClient, StageEnd


@click.group(cls=Group, verbs=("ls", "start", "status", "logs", "cancel", "retry"))
@config_option
def run() -> None:
    """Start, follow and cancel runs of pipelines, from any machine.

    A PIPELINE is APP/PATH, where PATH is the path of its API, or APP/pipelines/NAME in the API of all
    pipelines of an app. A RUN is PIPELINE/ID, as printed by start. The URL of a pipeline or run works, too.
    With show and logs, a PIPELINE stands for your newest run of it.
    """


def _is_output_group(value: str) -> bool:
    """Tell NAME=GROUP, which `--output` took before, from a format of the output."""
    return "=" in value and not value.startswith("jsonpath=")


def _until_the_end(command: F) -> F:
    follow = click.option("--follow", is_flag=True, help="Show the logs until the run ends.")
    wait = click.option("--wait", is_flag=True, help="Wait until the run ends, showing its states.")
    return wait(follow(command))


@run.command(
    cls=RenamedOption,
    old="--output",
    new="--output-group",
    is_old=_is_output_group,
    epilog="\b\nExamples:\n"
    "  prichal run start demo/train --input data=tables/in.csv --wait\n"
    "  prichal run start demo/train --input data=@in.csv --upload data/tables --follow",
)
@pipeline_argument
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="A path in your area, a number or a text; NAME:=JSON; NAME=@FILE for a local file, see --upload.",
)
@click.option(
    "--output-group",
    "outputs",
    multiple=True,
    metavar="NAME=GROUP",
    help="Group to store an output in.  [default: runs/ID/NAME/]",
)
@click.option("--upload", metavar="BOX/GROUP", help="Group to upload local files to before the start.")
@click.option(
    "--priority",
    type=click.IntRange(-10, 0),
    metavar="N",
    help="From -10 to 0; lower values yield to other runs.",
)
@click.option("--webhook", metavar="URL", help="URL to call when the run ends.")
@click.option(
    "--key", metavar="TEXT", help="Idempotency key: the same key gives the same run.  [default: random]"
)
@_until_the_end
@output_option
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
    output: Format,
) -> int:
    """Start a run.

    Prints the name of the run. With --wait or --follow, the exit code is 0 only if the run has SUCCEEDED.
    """
    _check_format(follow, output)
    place = remote.pipeline(pipeline)
    submission = read_submission(remote, place, inputs, outputs, upload)
    rest = {"priority": priority, "webhook": webhook}
    body = {**submission.document(), **{name: value for name, value in rest.items() if value is not None}}
    submission.upload()
    with remote.runs() as client:
        begun = client.start(place, body, key or str(uuid.uuid4()))
        return _attend(client, place.run(begun.id), begun, wait, follow, output)


@run.command()
@run_argument
@_until_the_end
@output_option
@remote_options
@config_option
def retry(remote: Remote, run: str, wait: bool, follow: bool, output: Format) -> int:
    """Repeat a failed run.

    This starts a new run, which reuses the stages that succeeded, and prints its name. Exit codes are those
    of start.
    """
    _check_format(follow, output)
    before = _run(remote, run)
    with remote.runs() as client:
        begun = client.retry(before, str(uuid.uuid4()))
        return _attend(client, before.pipeline.run(begun.id), begun, wait, follow, output)


def _check_format(follow: bool, output: Format) -> None:
    if follow and not output.is_for_people:
        raise click.UsageError("--follow shows logs, which have no other format: use --wait with -o")


def _attend(
    client: RunsClient, run: RunAddress, begun: RunReport, wait: bool, follow: bool, output: Format
) -> int:
    """Print a run that was started and, if asked to, wait for its end or follow its logs."""
    if not wait and not follow:
        _tell(run, begun, output)
        return Exit.OK
    if output.is_for_people:
        echo(str(run), err=follow)
    with _leaving_alone(f"prichal run status {run} --watch"):
        if follow:
            _follow_all(client, run)
            ended = client.find(run)
            print_message(f"{run}: {ending(ended)}")
        else:
            ended = watch(run, client.watch(run), beside=True)
    if not output.is_for_people:
        _tell(run, ended, output)
    return _exit(ended)


def _tell(run: RunAddress, report: RunReport, output: Format) -> None:
    output.show(report.document, lambda: echo(str(run)), (str(run),))


def _exit(ended: RunReport | StageEnd) -> int:
    return Exit.OK if ended.state is RunState.SUCCEEDED else Exit.FAILED


@contextmanager
def _leaving_alone(again: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print_message(f"\nThe run continues. See it again with: {again}")
        raise


# --- look -------------------------------------------------------------------------------------------------------


@run.command()
@pipeline_argument
@click.option(
    "--state",
    type=click.Choice([state.value for state in RunState], case_sensitive=False),
    help="Show only runs in this state.",
)
@limit_option(20, "runs")
@output_option
@remote_options
@config_option
def ls(remote: Remote, pipeline: str, state: str | None, limit: int, output: Format) -> int:
    """List your runs of a pipeline.

    The newest run is listed first. APP/pipelines lists runs of all pipelines of the app.
    """
    place = remote.pipeline(pipeline)
    with remote.runs() as client:
        found = client.list(place, RunState(state) if state else None, limit)
    document = {"runs": [report.document for _, report in found]}
    view = (table_of(LISTED, found, output.is_wide),)
    output.show(document, lambda: show_view(view), [str(address) for address, _ in found])
    return Exit.OK


@run.command()
@run_argument
@click.option("--watch", "watching", is_flag=True, help="Keep showing changes until the run ends.")
@output_option
@remote_options
@config_option
def status(remote: Remote, run: str, watching: bool, output: Format) -> int:
    """Show the status of a run.

    Shows its stages, their attempts and its outputs. With --watch, changes are shown until the run ends, and
    the exit code is 0 only if it has SUCCEEDED.
    """
    with remote.runs() as client:
        address = _run_or_newest(client, remote.run(run))
        if not watching:
            report = client.find(address)
            people = partial(show_run, address, report, time.time())
            output.show(report.document, people, (str(address),))
            return Exit.OK
        with _leaving_alone(f"prichal run status {address} --watch"):
            ended = watch(address, client.watch(address), beside=not output.is_for_people)
    if not output.is_for_people:
        _tell(address, ended, output)
    return _exit(ended)


@run.command()
@run_argument
@click.option("--stage", help="Show only this stage, unchanged.")
@click.option(
    "--attempt", type=click.IntRange(min=1), metavar="N", help="Show only this attempt of the stage."
)
@click.option(
    "-f", "--follow", "following", is_flag=True, help="Keep streaming new output until the run ends."
)
@remote_options
@config_option
def logs(remote: Remote, run: str, stage: str | None, attempt: int | None, following: bool) -> int:
    """Show the logs of the stages of a run.

    If there are several stages, each line starts with the name of its stage. With -f, the exit code is 0 only
    if the run, or the chosen stage, has SUCCEEDED.
    """
    with remote.runs() as client:
        address = _run_or_newest(client, remote.run(run))
        report = client.find(address)
        stage = stage or (report.stages[0].name if len(report.stages) == 1 else None)
        if attempt is not None and stage is None:
            raise click.UsageError("--attempt needs a stage: add --stage NAME")
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
        if not sys.stdout.isatty():  # in a file or pipe a log is data: unchanged bytes
            client.log(run, stage, attempt, write_bytes)
            return
        text = Shown()
        client.log(run, stage, attempt, lambda piece: write(text.take(piece)))
        write(text.take(b"", last=True))
        return
    for each in report.stages:
        lines = _Lines(f"{each.name:<{_width(report)}} | ")
        client.log(run, each.name, None, lines.take)
        lines.end()


class _Lines:
    """Write pieces of text, which may end anywhere, as lines with a prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._text = Shown()
        self._is_within = False

    def take(self, piece: bytes, last: bool = False) -> None:
        for line in self._text.take(piece, last).splitlines(keepends=True):
            write(line if self._is_within else self._prefix + line)
            self._is_within = not line.endswith(("\n", "\r"))

    def end(self) -> None:
        self.take(b"", last=True)
        if self._is_within:
            write("\n")


def _follow_all(client: RunsClient, run: RunAddress) -> None:
    """Follow all stages, with their names before the lines if there are several."""
    from controller.client.runs.multiplex import follow_all

    report = client.find(run)
    for stage, piece in follow_all(client, run):
        if len(report.stages) == 1:
            _write(piece)
            continue
        # Other stages may write in between, so each piece becomes whole lines.
        prefix = f"{stage:<{_width(report)}} | "
        echo("".join(f"{prefix}{line}\n" for line in piece.text.split("\n")), nl=False)


def _write(piece: LogPiece) -> None:
    echo(piece.text, nl=piece.ended)


def _width(report: RunReport) -> int:
    return max(len(stage.name) for stage in report.stages)


# --- stop -------------------------------------------------------------------------------------------------------


@run.command()
@run_argument
@click.option("--wait", is_flag=True, help="Wait until the run has stopped.")
@output_option
@remote_options
@config_option
def cancel(remote: Remote, run: str, wait: bool, output: Format) -> int:
    """Cancel a run.

    A run that is over stays as it is. With --wait, the exit code is 0 only if the run was CANCELED.
    """
    address = _run(remote, run)
    with remote.runs() as client:
        report = client.cancel(address)
        if wait and not report.state.terminal:
            with _leaving_alone(f"prichal run status {address} --watch"):
                report = watch(address, client.watch(address), beside=True)
    output.show(report.document, lambda: echo(f"{address}: {report.state}"), (str(address),))
    return Exit.OK if not wait or report.state is RunState.CANCELED else Exit.FAILED


# --- which ------------------------------------------------------------------------------------------------------


def _run(remote: Remote, text: str) -> RunAddress:
    found = remote.run(text)
    if isinstance(found, PipelineAddress):
        raise click.UsageError(
            f"{text} is a pipeline, not a run: write {text}/ID; list its runs with: prichal run ls {text}"
        )
    return found


def _run_or_newest(client: RunsClient, place: RunAddress | PipelineAddress) -> RunAddress:
    if isinstance(place, RunAddress):
        return place
    newest = client.list(place, limit=1)
    if not newest:
        raise Stalled(Reason.RUN_NOT_FOUND, f"you have no run of {place} yet")
    return newest[0][0]


commands = (run,)
