"""Commands about apps: show their status and events, and request a reconciliation, a suspension or an
approval.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from controller.cli.documents import request_document, state_word
from controller.cli.exits import GOOD_OUTCOMES, Exit
from controller.cli.output import echo, event_line, print_message, show_json, show_table
from controller.cli.session import (
    Session,
    config_option,
    is_running,
    known_app,
    output_option,
    wait_options,
    with_session,
)
from controller.cli.waiting import follow, last_event, wait_for
from controller.domain.apps.conditions import Conditions, ConditionType, find, is_ready
from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import Stalled
from controller.domain.names import PLATFORM, AppName

if TYPE_CHECKING:
    from controller.domain.apps.status import AppStatus, Event
    from controller.domain.apps.usage import Usage
    from controller.ports import Store


@click.command()
@click.argument("app", required=False)
@click.option("--check", is_flag=True, help="Exit with code 1 if an app is neither ready nor suspended.")
@output_option
@config_option
@with_session
def status(session: Session, app: str | None, check: bool, output: str) -> int:
    """Show the status of all apps, or of one."""
    with session.store() as store:
        chosen = (store.apps.status(known_app(store, app)),) if app else store.apps.all()
        running = is_running(store)
        runs = _runs(store, chosen[0].app) if app else {}
        uses = store.usage(chosen[0].app) if app else ()
        if output == "json":
            show_json(_detail(store, chosen[0]) if app else _overview(chosen, running))
    if output != "json" and app:
        _show_app(chosen[0], runs, uses)
    elif output != "json":
        _show_apps(chosen)
    if not running:
        print_message(
            "The daemon does not run, so this is the last known status. Start the daemon with: prichal daemon"
        )
    return Exit.OK if not check or all(_fine(s) for s in chosen) else Exit.FAILED


def _fine(status: AppStatus) -> bool:
    return state_word(status) in ("Ready", "Suspended")


def _detail(store: Store, status: AppStatus) -> dict[str, object]:
    from controller.web.api.platform.documents import app_document

    runs = _runs(store, status.app)
    routes, services = store.routes.of(status.app), store.routes.services(status.app)
    queued, uses = store.requests.queued(status.app), store.usage(status.app)
    document = app_document(status, routes, services, queued, runs, uses)
    return {"state": state_word(status), **document}


def _runs(store: Store, app: AppName) -> dict[str, Any]:
    from controller.web.api.platform.documents import runs_document

    return runs_document(store.runs.counts(app), store.runs.last_ended(app))


def _overview(statuses: tuple[AppStatus, ...], running: bool) -> dict[str, object]:
    """Return the platform folder under its own key: it is reconciled like an app but is not one."""
    from controller.web.api.platform.documents import summary_document

    documents = {s.app: {"state": state_word(s), **summary_document(s)} for s in statuses}
    return {"daemon": running, "platform": documents.pop(PLATFORM, None), "apps": list(documents.values())}


def _show_apps(statuses: tuple[AppStatus, ...]) -> None:
    if not statuses:
        print_message("No app is connected yet. Connect one with: prichal connect URL")
        return
    show_table(
        ("APP", "STATE", "REVISION", "COMPONENTS", "SINCE", "MESSAGE"),
        [(s.app, state_word(s), s.applied_revision[:12] or "-", _count(s), *_ready(s)) for s in statuses],
    )


def _count(status: AppStatus) -> str:
    parts = [c.conditions for c in status.components] + [box.conditions for box in status.boxes]
    return f"{sum(map(is_ready, parts))}/{len(parts)}"


def _ready(status: AppStatus) -> tuple[str, str]:
    ready = find(status.conditions, ConditionType.READY)
    return (_age(ready.since), ready.message.splitlines()[0] if ready.message else "") if ready else ("-", "")


def _age(since: float) -> str:
    seconds = max(0, int(time.time() - since))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _show_app(status: AppStatus, runs: dict[str, Any], uses: tuple[Usage, ...]) -> None:
    echo(f"{status.app}: {state_word(status)}")
    echo(f"  repository  {status.repository or '-'}")
    echo(f"  applied     {status.applied_revision or '-'}")
    if status.attempted_revision != status.applied_revision:
        echo(f"  attempted   {status.attempted_revision}")
    if runs["queued"] or runs["active"] or runs["last"]:
        echo(f"  runs        {runs['queued']} queued, {runs['active']} active{_last(runs['last'])}")
    for condition in status.conditions:
        lines = condition.message.splitlines() or [""]
        echo(
            f"  {condition.type}={condition.status} {condition.reason} ({_age(condition.since)}): {lines[0]}"
        )
        for line in lines[1:]:
            echo(f"      {line}")
    if status.components or status.boxes:
        echo()
        rows = [_part_row(c.name, c.kind, c.conditions) for c in status.components]
        rows += [_part_row(box.name, ComponentKind.DATA_BOX, box.conditions) for box in status.boxes]
        show_table(("COMPONENT", "KIND", "STATE", "MESSAGE"), rows)
    if uses:
        echo()
        show_table(("RESOURCE", "USED", "BOUND", "SHARE"), [_usage_row(each) for each in uses])


def _usage_row(usage: Usage) -> tuple[str, str, str, str]:
    share = f"{100 * usage.used / usage.bound:.0f} %" if usage.bound else "-"
    warning = ", nearly full" if usage.is_nearly_full else ""
    return usage.resource, usage.told(usage.used), usage.told(usage.bound), share + warning


def _last(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    reason = f" {run['reason']}" if run["reason"] else ""
    return f"; last: {run['pipeline']} {run['state']}{reason} ({_age(run['ended'])} ago)"


def _part_row(name: str, kind: str, conditions: Conditions) -> tuple[str, str, str, str]:
    ready = find(conditions, ConditionType.READY)
    word = "Ready" if is_ready(conditions) else (ready.reason if ready else "Unknown")
    return (name, kind, word, ready.message if ready else "")


@click.command()
@click.argument("app", required=False)
@click.option("-f", "--follow", "following", is_flag=True, help="Keep streaming new events.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Show at most N events, the newest ones.",
)
@output_option
@config_option
@with_session
def events(session: Session, app: str | None, following: bool, limit: int, output: str) -> int:
    """Show events of all apps, or of one.

    With -o json, each line is one event.
    """
    with session.store() as store:
        chosen = _app_of_events(store, app) if app else None
        after = last_event(store, chosen)
        for event in store.events.list(chosen, limit=limit) if limit else ():
            _show_event(event, chosen, output)
        if not following:
            return Exit.OK
        for batch in follow(store, chosen, after):
            for event in batch:
                _show_event(event, chosen, output)
    return Exit.OK


def _app_of_events(store: Store, app: str) -> AppName:
    """Return the name of a known app, or of a disconnected one that still has events."""
    return AppName(app) if store.events.list(AppName(app), limit=1) else known_app(store, app)


def _show_event(event: Event, chosen: AppName | None, output: str) -> None:
    if output == "json":
        from controller.web.api.platform.deliveries import event_document

        show_json(event_document(event), indent=None)
    else:
        echo(event_line(event) if chosen else f"{event.app}  {event_line(event)}")


@click.command()
@click.argument("app")
@wait_options
@output_option
@config_option
@with_session
def reconcile(session: Session, app: str, wait: bool, timeout: float, output: str) -> int:
    """Reconcile an app now.

    Earlier failures no longer delay it. Use @platform as APP for the platform folder.
    """
    with session.store() as store:
        return _ask(store, known_app(store, app), "manual", wait, timeout, output)


def _ask(store: Store, app: AppName, reason: str, wait: bool, timeout: float, output: str = "table") -> int:
    after = last_event(store, app)
    request = store.requests.enqueue(app, reason)
    found = wait_for(store, request, timeout, after) if wait else store.requests.get(request)
    if found is None:
        raise Stalled("UnknownRequest", f"request {request} does not exist, or is over and was deleted")
    if output == "json":
        show_json(request_document(found))
    elif wait:
        echo(f"{app}: {found.outcome}{f': {found.message}' if found.message else ''}")
    else:
        echo(f"{app}: requested (request {request}); follow it with: prichal events {app} -f")
    if not wait:
        if not is_running(store):
            print_message(
                "The daemon does not run; it handles the request once you start it with: prichal daemon"
            )
        return Exit.OK
    return Exit.OK if found.outcome in GOOD_OUTCOMES else Exit.FAILED


@click.command()
@click.argument("app")
@config_option
@with_session
def suspend(session: Session, app: str) -> int:
    """Stop reconciling an app until it is resumed.

    Running containers keep running; failures are not repaired.
    """
    with session.store() as store:
        name = known_app(store, app)
        with store.transaction():
            store.apps.set_suspended(name, True)
            store.requests.enqueue(name, "manual")
    echo(f"{name}: suspended; resume it with: prichal resume {name}")
    return Exit.OK


@click.command()
@click.argument("app")
@wait_options
@config_option
@with_session
def resume(session: Session, app: str, wait: bool, timeout: float) -> int:
    """Resume a suspended app."""
    with session.store() as store:
        name = known_app(store, app)
        store.apps.set_suspended(name, False)
        return _ask(store, name, "manual", wait, timeout)


@click.command()
@click.argument("app")
@wait_options
@config_option
@with_session
def approve(session: Session, app: str, wait: bool, timeout: float) -> int:
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
                "NothingPending", f"{name} has no revision to approve yet; see: prichal status {name}"
            )
        store.apps.approve(name, revision)
        return _ask(store, name, "manual", wait, timeout)


commands = (status, events, reconcile, suspend, resume, approve)
