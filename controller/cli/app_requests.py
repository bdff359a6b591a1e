"""`prichal app reconcile`, `suspend`, `resume` and `approve`: requests that the daemon handles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from controller.cli.completion import app_argument
from controller.cli.documents import request_document
from controller.cli.exits import GOOD_OUTCOMES, Exit
from controller.cli.formats import Format, output_option
from controller.cli.output import echo, print_message
from controller.cli.session import (
    Session,
    config_option,
    is_running,
    known_app,
    wait_options,
    with_session,
)
from controller.cli.waiting import get_request, last_event, wait_for
from controller.domain.apps.requests import Trigger
from controller.domain.errors import Stalled
from controller.domain.names import PLATFORM, AppName
from controller.domain.reasons import Reason

if TYPE_CHECKING:
    from controller.ports import Store


@click.command(epilog="\b\nExamples:\n  prichal reconcile demo --wait\n  prichal reconcile @platform")
@app_argument()
@wait_options
@output_option
@config_option
@with_session
def reconcile(session: Session, app: str, wait: bool, timeout: float, output: Format) -> int:
    """Reconcile an app now.

    Earlier failures no longer delay it. Use @platform as APP for the platform folder.
    """
    with session.store() as store:
        return _ask(store, known_app(store, app), Trigger.MANUAL, wait, timeout, output)


def _ask(store: Store, app: AppName, trigger: Trigger, wait: bool, timeout: float, output: Format) -> int:
    after = last_event(store, app)
    request = store.requests.enqueue(app, trigger)
    found = wait_for(store, request, timeout, after) if wait else get_request(store, request)
    if wait:
        text = f"{app}: {found.outcome}{f': {found.message}' if found.message else ''}"
    else:
        text = f"{app}: requested (request {request}); follow it with: prichal events {app} -f"
    output.show(request_document(found), lambda: echo(text), (app,))
    if not wait:
        if not is_running(store):
            print_message(
                "The daemon does not run; it handles the request once you start it with: prichal daemon"
            )
        return Exit.OK
    return Exit.OK if found.outcome in GOOD_OUTCOMES else Exit.FAILED


@click.command()
@app_argument()
@output_option
@config_option
@with_session
def suspend(session: Session, app: str, output: Format) -> int:
    """Stop reconciling an app until it is resumed.

    Running containers keep running; failures are not repaired.
    """
    with session.store() as store:
        name = known_app(store, app)
        with store.transaction():
            store.apps.set_suspended(name, True)
            request = store.requests.enqueue(name, Trigger.MANUAL)
        found = get_request(store, request)
    text = f"{name}: suspended; resume it with: prichal resume {name}"
    output.show(request_document(found), lambda: echo(text), (name,))
    return Exit.OK


@click.command()
@app_argument()
@wait_options
@output_option
@config_option
@with_session
def resume(session: Session, app: str, wait: bool, timeout: float, output: Format) -> int:
    """Resume a suspended app."""
    with session.store() as store:
        name = known_app(store, app)
        store.apps.set_suspended(name, False)
        return _ask(store, name, Trigger.MANUAL, wait, timeout, output)


@click.command()
@app_argument()
@wait_options
@output_option
@config_option
@with_session
def approve(session: Session, app: str, wait: bool, timeout: float, output: Format) -> int:
    """Approve the removal of everything.

    If one commit would remove all components of APP, nothing is removed until you approve it.
    """
    with session.store() as store:
        name = known_app(store, app)
        found = store.apps.status(name)
        # A platform folder that is not a Git repository has no revision. Any word approves it, once.
        revision = found.attempted_revision or ("confirmed" if name == PLATFORM else "")
        if not revision:
            raise Stalled(
                Reason.NOTHING_PENDING, f"{name} has no revision to approve yet; see: prichal status {name}"
            )
        store.apps.approve(name, revision)
        return _ask(store, name, Trigger.MANUAL, wait, timeout, output)
