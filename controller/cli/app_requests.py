"""`prichal app reconcile`, `suspend`, `resume`, `rollback` and `approve`: requests that the daemon handles."""

from __future__ import annotations

import re
from collections.abc import Callable

import click

from controller.cli.completion import app_argument
from controller.cli.exits import GOOD_OUTCOMES, Exit
from controller.cli.formats import Format, output_option
from controller.cli.output import echo, print_message
from controller.cli.remote import Remote, remote_options, waiting_options
from controller.cli.session import config_option, dry_run_option
from controller.cli.waiting import last_event, wait_for
from controller.client.platform.api import AppRequest, Document, Platform


def _commit(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the id of a commit. An unset variable of a script must not stand for any commit."""
    if value is not None and not re.fullmatch("[0-9a-f]{7,64}", value):
        raise click.BadParameter(f"{value!r} is not the id of a commit: give 7 hexadecimal digits or more")
    return value


@click.command(
    epilog="\b\nExamples:\n  prichal reconcile demo --wait\n  prichal reconcile @platform\n"
    '  prichal reconcile demo --wait --revision "$(git rev-parse HEAD)"'
)
@app_argument()
@click.option(
    "--revision",
    metavar="COMMIT",
    callback=_commit,
    help="With --wait: fail if another commit was applied. For the pipeline that pushed COMMIT.",
)
@waiting_options
def reconcile(
    remote: Remote, app: str, revision: str | None, wait: bool, timeout: float, output: Format
) -> int:
    """Reconcile an app now.

    Earlier failures no longer delay it. Use @platform as APP for the platform folder.
    """
    if revision and not wait:
        raise click.UsageError("--revision needs --wait")

    def ask(platform: Platform) -> Document:
        return platform.request(app, AppRequest.RECONCILE)

    return _follow(remote, app, ask, wait, timeout, output, revision or "")


def _ask(remote: Remote, app: str, what: AppRequest, wait: bool, timeout: float, output: Format) -> int:
    return _follow(remote, app, lambda platform: platform.request(app, what), wait, timeout, output)


def _follow(
    remote: Remote,
    app: str,
    ask: Callable[[Platform], Document],
    wait: bool,
    timeout: float,
    output: Format,
    revision: str = "",
) -> int:
    """Ask for a pass, and with `wait` return how it ended: well only if it applied a commit that begins with
    `revision`.
    """
    dry_run = remote.session.dry_run
    wait = wait and not dry_run
    with remote.platform() as platform:
        after = last_event(platform, app) if wait else 0
        found = ask(platform)
        if wait:
            found = {**found, **wait_for(platform, found, timeout, after)}
            text = f"{app}: {found['outcome']}{f': {message}' if (message := found['message']) else ''}"
        else:
            text = f"{app}: requested (request {found['id']}); follow it with: prichal events {app} -f"
        if rollback := found.get("rollback"):
            text = f"{app}: back to {rollback['revision'][:12]}, from {rollback['replaced'][:12] or 'nothing'}\n{text}"
        output.show(found, lambda: echo(text), (app,))
        if not wait and not dry_run and platform.apps()["daemon"] is False:
            print_message(
                "The daemon does not run; it handles the request once you start it with: prichal daemon"
            )
    if not wait:
        return Exit.OK
    if not found["revision"].startswith(revision):
        print_message(f"{app} is at another commit: {found['revision'][:12] or 'none'}, not {revision[:12]}")
        return Exit.FAILED
    return Exit.OK if found["outcome"] in GOOD_OUTCOMES else Exit.FAILED


@click.command()
@app_argument()
@output_option
@dry_run_option
@remote_options
@config_option
def suspend(remote: Remote, app: str, output: Format) -> int:
    """Stop reconciling an app until it is resumed.

    Running containers keep running; failures are not repaired.
    """
    with remote.platform() as platform:
        found = platform.request(app, AppRequest.SUSPEND)
    text = f"{app}: suspended; resume it with: prichal resume {app}"
    output.show(found, lambda: echo(text), (app,))
    return Exit.OK


@click.command()
@app_argument()
@waiting_options
def resume(remote: Remote, app: str, wait: bool, timeout: float, output: Format) -> int:
    """Let a suspended or rolled back app go on.

    It follows Git again.
    """
    return _ask(remote, app, AppRequest.RESUME, wait, timeout, output)


@click.command(
    epilog="\b\nExamples:\n  prichal rollback demo --wait\n  prichal rollback demo --to 1f0c9a2e --wait"
)
@app_argument()
@click.option(
    "--to",
    "revision",
    metavar="REVISION",
    help="The revision, by its first characters or as the number of an entry of the history.  "
    "[default: the newest one before the present commit that was ready]",
)
@waiting_options
def rollback(
    remote: Remote, app: str, revision: str | None, wait: bool, timeout: float, output: Format
) -> int:
    """Go back to an earlier revision of an app.

    No call is lost, and nothing is built as long as its images are kept. The revision is held until the next commit,
    or until you resume APP.
    """
    return _follow(remote, app, lambda platform: platform.roll_back(app, revision), wait, timeout, output)


@click.command()
@app_argument()
@waiting_options
def approve(remote: Remote, app: str, wait: bool, timeout: float, output: Format) -> int:
    """Approve a commit that waits.

    A commit that would remove all components of APP is applied only after that, and so is each new commit if the
    PlatformApp says so (`deploy.approval`), or outside of its deploy windows. `prichal plan APP` shows what it changes.
    """
    return _ask(remote, app, AppRequest.APPROVE, wait, timeout, output)
