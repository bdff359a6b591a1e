"""Commands about apps: how they are, what happened, and what a person may ask for."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from controller.cli.documents import request_document, state_word
from controller.cli.exits import GOOD_OUTCOMES, Exit
from controller.cli.output import event_line, say, show_json, show_table
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
from controller.domain.conditions import Conditions, ConditionType, find, is_ready
from controller.domain.errors import Stalled
from controller.domain.names import PLATFORM, AppName
from controller.domain.spec import Kind

if TYPE_CHECKING:
    from controller.domain.status import AppStatus, Event
    from controller.ports import Store


@click.command()
@click.argument("app", required=False)
@click.option("--check", is_flag=True, help="Exit code 1 if something is neither ready nor suspended.")
@output_option
@config_option
@with_session
def status(session: Session, app: str | None, check: bool, output: str) -> int:
    """How the apps are, or one APP."""
    with session.store() as store:
        chosen = (store.apps.status(known_app(store, app)),) if app else store.apps.all()
        running = is_running(store)
        runs = _runs(store, chosen[0].app) if app else {}
        if output == "json":
            show_json(_detail(store, chosen[0]) if app else _overview(chosen, running))
    if output != "json" and app:
        _show_app(chosen[0], runs)
    elif output != "json":
        _show_apps(chosen)
    if not running:
        say("The daemon does not run: this is how things were. Start it with: prichal daemon")
    return Exit.OK if not check or all(_fine(s) for s in chosen) else Exit.FAILED


def _fine(status: AppStatus) -> bool:
    return state_word(status) in ("Ready", "Suspended")


def _detail(store: Store, status: AppStatus) -> dict[str, object]:
    from controller.web.platform.documents import app_document

    runs = _runs(store, status.app)
    routes, services = store.routes.of(status.app), store.routes.services(status.app)
    document = app_document(status, routes, services, store.requests.queued(status.app), runs)
    return {"state": state_word(status), **document}


def _runs(store: Store, app: AppName) -> dict[str, Any]:
    from controller.web.platform.documents import runs_document

    return runs_document(store.runs.counts(app), store.runs.last_ended(app))


def _overview(statuses: tuple[AppStatus, ...], running: bool) -> dict[str, object]:
    """The platform folder is reconciled like an app, and is none."""
    from controller.web.platform.documents import summary_document

    documents = {s.app: {"state": state_word(s), **summary_document(s)} for s in statuses}
    return {"daemon": running, "platform": documents.pop(PLATFORM, None), "apps": list(documents.values())}


def _show_apps(statuses: tuple[AppStatus, ...]) -> None:
    if not statuses:
        say("No app is connected yet. Connect one with: prichal connect URL")
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


def _show_app(status: AppStatus, runs: dict[str, Any]) -> None:
    click.echo(f"{status.app}: {state_word(status)}")
    click.echo(f"  repository  {status.repository or '-'}")
    click.echo(f"  applied     {status.applied_revision or '-'}")
    if status.attempted_revision != status.applied_revision:
        click.echo(f"  attempted   {status.attempted_revision}")
    if runs["queued"] or runs["active"] or runs["last"]:
        click.echo(f"  runs        {runs['queued']} queued, {runs['active']} active{_last(runs['last'])}")
    for condition in status.conditions:
        lines = condition.message.splitlines() or [""]
        click.echo(
            f"  {condition.type}={condition.status} {condition.reason} ({_age(condition.since)}): {lines[0]}"
        )
        for line in lines[1:]:
            click.echo(f"      {line}")
    if status.components or status.boxes:
        click.echo()
        rows = [_part_row(c.name, c.kind, c.conditions) for c in status.components]
        rows += [_part_row(box.name, Kind.DATA_BOX, box.conditions) for box in status.boxes]
        show_table(("COMPONENT", "KIND", "STATE", "MESSAGE"), rows)


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
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with what happens from now on.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=0), default=50, show_default=True, help="The newest so many."
)
@output_option
@config_option
@with_session
def events(session: Session, app: str | None, following: bool, limit: int, output: str) -> int:
    """What happened, to all or to one APP.

    As JSON: one event a line."""
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
    """An app that was disconnected is no longer known and still has a history."""
    return AppName(app) if store.events.list(AppName(app), limit=1) else known_app(store, app)


def _show_event(event: Event, chosen: AppName | None, output: str) -> None:
    if output == "json":
        from controller.web.platform.deliveries import event_document

        click.echo(json.dumps(event_document(event), ensure_ascii=False))
    else:
        click.echo(event_line(event) if chosen else f"{event.app}  {event_line(event)}")


@click.command()
@click.argument("app")
@wait_options
@output_option
@config_option
@with_session
def reconcile(session: Session, app: str, wait: bool, timeout: float, output: str) -> int:
    """Converge an app now.

    Earlier failures are forgiven. APP may be @platform: the platform folder."""
    with session.store() as store:
        return _ask(store, known_app(store, app), "manual", wait, timeout, output)


def _ask(store: Store, app: AppName, reason: str, wait: bool, timeout: float, output: str = "table") -> int:
    after = last_event(store, app)
    request = store.requests.enqueue(app, reason)
    found = wait_for(store, request, timeout, after) if wait else store.requests.get(request)
    if found is None:
        raise Stalled("UnknownRequest", f"request {request} is not known (any more)")
    if output == "json":
        show_json(request_document(found))
    elif wait:
        click.echo(f"{app}: {found.outcome}{f': {found.message}' if found.message else ''}")
    else:
        click.echo(f"{app}: asked for (request {request}); see: prichal events {app} -f")
    if not wait:
        if not is_running(store):
            say("The daemon does not run; the request is kept until it does.")
        return Exit.OK
    return Exit.OK if found.outcome in GOOD_OUTCOMES else Exit.FAILED


@click.command()
@click.argument("app")
@config_option
@with_session
def suspend(session: Session, app: str) -> int:
    """Leave an app as it is until `resume`.

    What runs goes on running, and nothing is healed."""
    with session.store() as store:
        name = known_app(store, app)
        with store.transaction():
            store.apps.set_suspended(name, True)
            store.requests.enqueue(name, "manual")
    click.echo(f"{name}: suspended; go on with: prichal resume {name}")
    return Exit.OK


@click.command()
@click.argument("app")
@wait_options
@config_option
@with_session
def resume(session: Session, app: str, wait: bool, timeout: float) -> int:
    """End a suspension."""
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
    """Confirm a removal of everything.

    Where one commit would remove all of APP, nothing is removed before this."""
    with session.store() as store:
        name = known_app(store, app)
        found = store.apps.status(name)
        # A platform folder that is no Git repository has no revision: any word will do, and it is good for one time.
        revision = found.attempted_revision or ("confirmed" if name == PLATFORM else "")
        if not revision:
            raise Stalled("NothingPending", f"{name} has no revision yet that could be approved")
        store.apps.approve(name, revision)
        return _ask(store, name, "manual", wait, timeout)


commands = (status, events, reconcile, suspend, resume, approve)
