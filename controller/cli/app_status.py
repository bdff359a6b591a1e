"""`prichal app ls` and `status`: the state of apps, for people and for scripts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from controller.cli.completion import app_argument
from controller.cli.documents import state_word
from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.live import redraw
from controller.cli.output import Column, Table, View, print_message, show_view, table_of
from controller.cli.session import Session, config_option, is_running, known_app, with_session
from controller.cli.waiting import looks
from controller.domain.apps.conditions import Conditions, ConditionType, find, is_ready
from controller.domain.apps.spec import ComponentKind
from controller.domain.names import PLATFORM, AppName
from controller.domain.units import parse_rfc3339

if TYPE_CHECKING:
    from controller.domain.apps.status import AppStatus
    from controller.domain.apps.usage import Usage
    from controller.ports import Store

NO_APP = "No app is connected yet. Connect one with: prichal connect URL"
NOT_RUNNING = (
    "The daemon does not run, so this is the last known status. Start the daemon with: prichal daemon"
)


@dataclass(frozen=True)
class StatusReport:
    """The status of some apps at one moment. `text` says the same as `document`, for people."""

    document: object
    text: View
    apps: tuple[AppStatus, ...]
    running: bool

    @property
    def names(self) -> list[str]:
        return [status.app for status in self.apps]

    @property
    def is_fine(self) -> bool:
        return all(state_word(status) in ("Ready", "Suspended") for status in self.apps)

    @property
    def hints(self) -> tuple[str, ...]:
        return (*(() if self.apps else (NO_APP,)), *(() if self.running else (NOT_RUNNING,)))

    @property
    def with_hints(self) -> View:
        return (*self.text, *(("", *self.hints) if self.hints else ()))

    def show(self, output: Format) -> None:
        output.show(self.document, lambda: show_view(self.text), self.names)
        for hint in self.hints:
            print_message(hint)


@click.command(epilog="\b\nExamples:\n  prichal app ls\n  prichal app ls -o name")
@output_option
@config_option
@with_session
def ls(session: Session, output: Format) -> int:
    """List all apps with their status."""
    with session.store() as store:
        apps = tuple(status for status in store.apps.all() if status.app != PLATFORM)
        running = is_running(store)
    StatusReport(_summaries(apps), _list(apps, output.is_wide), apps, running).show(output)
    return Exit.OK


@click.command(
    epilog="\b\nExamples:\n"
    "  prichal status\n"
    "  prichal status demo --watch\n"
    "  prichal status demo -o jsonpath=.appliedRevision"
)
@app_argument(required=False)
@click.option("--check", is_flag=True, help="Exit with code 1 if an app is neither ready nor suspended.")
@click.option("--watch", "watching", is_flag=True, help="Show the status again whenever it changes.")
@output_option
@config_option
@with_session
def status(session: Session, app: str | None, check: bool, watching: bool, output: Format) -> int:
    """Show the status of all apps, or of one.

    With --watch, Ctrl-C ends the command.
    """
    if check and watching:
        raise click.UsageError(
            "--watch never ends, so it has no exit code: give only one of --check and --watch"
        )
    with session.store() as store:
        if watching:
            _watch(store, app, output)
        report = _look(store, app, output.is_wide)
    report.show(output)
    return Exit.OK if not check or report.is_fine else Exit.FAILED


def _watch(store: Store, app: str | None, output: Format) -> None:
    """Show the status whenever it changes, until the command is interrupted."""
    reports = looks(store, lambda: _look(store, app, output.is_wide))
    if output.is_for_people:
        redraw(report.with_hints for report in reports)
    last: object = None
    for report in reports:
        if report.document != last:
            output.show_next(report.document, lambda: None, report.names)
        last = report.document


def _look(store: Store, app: str | None, wide: bool) -> StatusReport:
    running = is_running(store)
    if app is None:
        found = store.apps.all()
        return StatusReport(_overview(found, running), _list(found, wide), found, running)
    status = store.apps.status(known_app(store, app))
    runs, uses = _runs(store, status.app), store.usage(status.app)
    text = tuple(_detail_lines(status, runs, uses, wide))
    return StatusReport(_detail(store, status, runs, uses), text, (status,), running)


# --- documents --------------------------------------------------------------------------------------------------


def _detail(
    store: Store, status: AppStatus, runs: dict[str, Any], uses: tuple[Usage, ...]
) -> dict[str, object]:
    from controller.web.api.platform.documents import app_document

    routes, services = store.routes.of(status.app), store.routes.services(status.app)
    document = app_document(status, routes, services, store.requests.queued(status.app), runs, uses)
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


# --- for people -------------------------------------------------------------------------------------------------

COLUMNS: tuple[Column[AppStatus], ...] = (
    Column("APP", lambda s: s.app),
    Column("STATE", state_word),
    Column("REVISION", lambda s: s.applied_revision[:12] or "-"),
    Column("ATTEMPTED", lambda s: s.attempted_revision[:12] or "-", is_wide=True),
    Column("REPOSITORY", lambda s: s.repository or "-", is_wide=True),
    Column("COMPONENTS", lambda s: _count(s)),
    Column("SINCE", lambda s: _ready(s)[0]),
    Column("MESSAGE", lambda s: _ready(s)[1]),
)


def _list(statuses: tuple[AppStatus, ...], wide: bool) -> View:
    return (table_of(COLUMNS, statuses, wide),) if statuses else ()


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


def _detail_lines(
    status: AppStatus, runs: dict[str, Any], uses: tuple[Usage, ...], wide: bool
) -> Iterator[str | Table]:
    yield f"{status.app}: {state_word(status)}"
    yield f"  repository  {status.repository or '-'}"
    yield f"  applied     {status.applied_revision or '-'}"
    if status.attempted_revision != status.applied_revision:
        yield f"  attempted   {status.attempted_revision}"
    if runs["queued"] or runs["active"] or runs["last"]:
        yield f"  runs        {runs['queued']} queued, {runs['active']} active{_last(runs['last'])}"
    for condition in status.conditions:
        first, *rest = condition.message.splitlines() or [""]
        yield f"  {condition.type}={condition.status} {condition.reason} ({_age(condition.since)}): {first}"
        yield from (f"      {line}" for line in rest)
    if status.components or status.boxes:
        yield ""
        yield table_of(PART_COLUMNS, _parts(status), wide)
    if uses:
        yield ""
        yield table_of(USAGE_COLUMNS, uses, wide)


@dataclass(frozen=True)
class AppPart:
    """A component or box of an app."""

    name: str
    kind: str
    conditions: Conditions
    image: str = ""
    fingerprint: str = ""

    @property
    def state(self) -> str:
        ready = find(self.conditions, ConditionType.READY)
        return "Ready" if is_ready(self.conditions) else (ready.reason if ready else "Unknown")

    @property
    def message(self) -> str:
        ready = find(self.conditions, ConditionType.READY)
        return ready.message if ready else ""


PART_COLUMNS: tuple[Column[AppPart], ...] = (
    Column("COMPONENT", lambda part: part.name),
    Column("KIND", lambda part: part.kind),
    Column("STATE", lambda part: part.state),
    Column("VERSION", lambda part: part.fingerprint or "-", is_wide=True),
    Column("IMAGE", lambda part: part.image or "-", is_wide=True),
    Column("MESSAGE", lambda part: part.message),
)


def _parts(status: AppStatus) -> list[AppPart]:
    components = [
        AppPart(c.name, c.kind, c.conditions, c.image or "", c.fingerprint or "") for c in status.components
    ]
    return components + [AppPart(box.name, ComponentKind.DATA_BOX, box.conditions) for box in status.boxes]


USAGE_COLUMNS: tuple[Column[Usage], ...] = (
    Column("RESOURCE", lambda usage: usage.resource),
    Column("USED", lambda usage: usage.told(usage.used)),
    Column("BOUND", lambda usage: usage.told(usage.bound)),
    Column("SHARE", lambda usage: _share(usage)),
)


def _share(usage: Usage) -> str:
    share = f"{100 * usage.used / usage.bound:.0f} %" if usage.bound else "-"
    return share + (", nearly full" if usage.is_nearly_full else "")


def _last(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    reason = f" {run['reason']}" if run["reason"] else ""
    return f"; last: {run['pipeline']} {run['state']}{reason} ({_age(parse_rfc3339(run['ended']))} ago)"
