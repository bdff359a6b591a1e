"""`prichal app ls` and `status`: the state of apps, for people and for scripts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from controller.cli.documents import state_word
from controller.cli.exits import Exit
from controller.cli.output import echo, print_message, show_json, show_table
from controller.cli.session import (
    Session,
    config_option,
    is_running,
    known_app,
    output_option,
    with_session,
)
from controller.domain.apps.conditions import Conditions, ConditionType, find, is_ready
from controller.domain.apps.spec import ComponentKind
from controller.domain.names import PLATFORM, AppName

if TYPE_CHECKING:
    from controller.domain.apps.status import AppStatus
    from controller.domain.apps.usage import Usage
    from controller.ports import Store


@click.command()
@output_option
@config_option
@with_session
def ls(session: Session, output: str) -> int:
    """List all apps with their status."""
    with session.store() as store:
        apps = tuple(status for status in store.apps.all() if status.app != PLATFORM)
        running = is_running(store)
    if output == "json":
        show_json(_summaries(apps))
    else:
        _show_apps(apps)
    _warn_unless(running)
    return Exit.OK


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
    _warn_unless(running)
    return Exit.OK if not check or all(_fine(s) for s in chosen) else Exit.FAILED


def _warn_unless(running: bool) -> None:
    if not running:
        print_message(
            "The daemon does not run, so this is the last known status. Start the daemon with: prichal daemon"
        )


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
    platform = _summaries(tuple(s for s in statuses if s.app == PLATFORM))
    apps = _summaries(tuple(s for s in statuses if s.app != PLATFORM))
    return {"daemon": running, "platform": platform[0] if platform else None, "apps": apps}


def _summaries(statuses: tuple[AppStatus, ...]) -> list[dict[str, object]]:
    from controller.web.api.platform.documents import summary_document

    return [{"state": state_word(s), **summary_document(s)} for s in statuses]


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
