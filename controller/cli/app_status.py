"""`prichal app ls` and `status`: the state of apps, for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from controller.cli.completion import app_argument
from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.live import redraw
from controller.cli.output import Column, Table, View, print_message, show_view, since, table_of, until
from controller.cli.remote import Remote, remote_options
from controller.cli.session import config_option
from controller.cli.waiting import looks
from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.spec import ComponentKind
from controller.domain.apps.usage import Usage
from controller.domain.names import AppName
from controller.domain.units import about_size, parse_rfc3339

if TYPE_CHECKING:
    from controller.client.platform import Document, Platform

NO_APP = "No app is connected yet. Connect one with: prichal connect URL"
NOT_RUNNING = (
    "The daemon does not run, so this is the last known status. Start the daemon with: prichal daemon"
)


@dataclass(frozen=True)
class StatusReport:
    """The status of some apps at one moment. `text` says the same as `document`, for people."""

    document: object
    text: View
    apps: tuple[Document, ...]
    running: bool

    @property
    def names(self) -> list[str]:
        return [str(app["app"]) for app in self.apps]

    @property
    def is_fine(self) -> bool:
        return all(app.get("state") in ("Ready", "Suspended") for app in self.apps)

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
@remote_options
@config_option
def ls(remote: Remote, output: Format) -> int:
    """List all apps with their status."""
    with remote.platform() as platform:
        found = platform.apps()
    apps = tuple(found["apps"])
    StatusReport(found["apps"], _list(apps, output.is_wide), apps, _runs_daemon(found)).show(output)
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
@remote_options
@config_option
def status(remote: Remote, app: str | None, check: bool, watching: bool, output: Format) -> int:
    """Show the status of all apps, or of one.

    With --watch, Ctrl-C ends the command.
    """
    if check and watching:
        raise click.UsageError(
            "--watch never ends, so it has no exit code: give only one of --check and --watch"
        )
    with remote.platform() as platform:
        if watching:
            _watch(platform, app, output)
        report = _look(platform, app, output.is_wide)
    report.show(output)
    return Exit.OK if not check or report.is_fine else Exit.FAILED


def _watch(platform: Platform, app: str | None, output: Format) -> None:
    """Show the status whenever it changes, until the command is interrupted."""
    reports = looks(platform, lambda: _look(platform, app, output.is_wide))
    if output.is_for_people:
        redraw(report.with_hints for report in reports)
    last: object = None
    for report in reports:
        if report.document != last:
            output.show_next(report.document, lambda: None, report.names)
        last = report.document


def _look(platform: Platform, app: str | None, wide: bool) -> StatusReport:
    if app is None:
        found = platform.apps()
        listed = tuple(each for each in (found["platform"], *found["apps"]) if each)
        text = (*_list(listed, wide), *_gpus(found, wide))
        return StatusReport(found, text, listed, _runs_daemon(found))
    one = platform.app(app)
    return StatusReport(one, tuple(_detail_lines(one, wide)), (one,), _runs_daemon(one))


def _runs_daemon(document: Document) -> bool:
    """Return False if the daemon is known not to run."""
    return document.get("daemon") is not False


# --- for people -------------------------------------------------------------------------------------------------

COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("APP", lambda app: app["app"]),
    Column("STATE", lambda app: _text(app, "state", "Unknown")),
    Column("REVISION", lambda app: _text(app, "appliedRevision")[:12] or "-"),
    Column("ATTEMPTED", lambda app: _text(app, "attemptedRevision")[:12] or "-", is_wide=True),
    Column("REPOSITORY", lambda app: _text(app, "repository") or "-", is_wide=True),
    Column("COMPONENTS", lambda app: "{ready}/{all}".format_map(app["parts"]) if "parts" in app else "-"),
    Column("SINCE", lambda app: _ready(app)[0]),
    Column("MESSAGE", lambda app: _ready(app)[1]),
)


def _text(document: Document, name: str, default: str = "") -> str:
    """Return a text of a document; other releases may leave it out."""
    return str(document.get(name) or default)


#: Further columns where an app is a preview: each follows the app that it belongs to.
BRANCH_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("PREVIEW OF", lambda app: _text(app.get("preview") or {}, "app") or "-"),
    Column("BRANCH", lambda app: _text(app.get("preview") or {}, "branch") or "-"),
    Column("ENDS", lambda app: _ends(app.get("preview"))),
)


def _ends(preview: Document | None) -> str:
    if preview is None:
        return "-"
    return until(preview["ends"]) if preview.get("ends") else "never"


def _list(apps: tuple[Document, ...], wide: bool) -> View:
    has_previews = any(app.get("preview") for app in apps)
    columns = (*COLUMNS[:2], *BRANCH_COLUMNS, *COLUMNS[2:]) if has_previews else COLUMNS
    return (table_of(columns, apps, wide),) if apps else ()


def _ready(part: Document) -> tuple[str, str]:
    """Return the age and the first line of the condition Ready."""
    ready = _condition(part)
    if ready is None:
        return "-", ""
    return _age(ready), next(iter(_text(ready, "message").splitlines()), "")


def _condition(part: Document) -> Document | None:
    found: list[Document] = part.get("conditions", [])
    return next((each for each in found if each["type"] == ConditionType.READY), None)


def _age(condition: Document) -> str:
    return since(parse_rfc3339(_text(condition, "since")))


def _detail_lines(app: Document, wide: bool) -> Iterator[str | Table]:
    yield f"{app['app']}: {_text(app, 'state', 'Unknown')}"
    yield f"  repository  {_text(app, 'repository') or '-'}"
    if preview := app.get("preview"):
        yield f"  preview of  {preview['app']}, branch {preview['branch']}, ends: {_ends(preview)}"
    if clone := _text(app, "cloneUrl"):
        yield f"  clone URL   {clone}"
    yield f"  applied     {_text(app, 'appliedRevision') or '-'}"
    if app.get("attemptedRevision") != app.get("appliedRevision"):
        yield f"  attempted   {_text(app, 'attemptedRevision')}"
    yield from _runs(app.get("runs") or {})
    for condition in app["conditions"]:
        first, *rest = _text(condition, "message").splitlines() or [""]
        state = f"{condition['type']}={condition['status']} {condition['reason']}"
        yield f"  {state} ({_age(condition)}): {first}"
        yield from (f"      {line}" for line in rest)
    parts = _parts(app)
    if parts:
        yield ""
        yield table_of(PART_COLUMNS, parts, wide)
    if followed := app.get("followed"):
        yield ""
        yield table_of(FOLLOWED_COLUMNS, followed, wide)
    if uses := app.get("uses"):
        name = AppName(app["app"])
        found = [Usage(name, each["resource"], each["used"], each["bound"]) for each in uses]
        yield ""
        yield table_of(USAGE_COLUMNS, found, wide)
    yield from _gpus(app, wide)
    yield from _previews(app, wide)
    yield from _links(app)


def _previews(app: Document, wide: bool) -> Iterator[str | Table]:
    if app.get("previews") or app.get("leftOut"):
        from controller.cli.previews import preview_view

        yield ""
        yield from preview_view(app, wide)


def _links(app: Document) -> Iterator[str]:
    """What to open and what to call."""
    from controller.domain.routing.app_links import link_lines

    if links := app.get("links"):
        yield ""
        yield "open and call:"
        yield from (f"  {line}" for line in link_lines(links))


def _runs(runs: Document) -> Iterator[str]:
    if any(runs.get(name) for name in ("queued", "active", "last")):
        yield f"  runs        {runs['queued']} queued, {runs['active']} active{_last(runs['last'])}"


PART_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("COMPONENT", lambda part: part["name"]),
    Column("KIND", lambda part: _text(part, "kind", ComponentKind.DATA_BOX)),
    Column("STATE", lambda part: _state(part)),
    Column("VERSION", lambda part: _text(part, "fingerprint") or "-", is_wide=True),
    Column("IMAGE", lambda part: _text(part, "image") or "-", is_wide=True),
    Column("MESSAGE", lambda part: _text(_condition(part) or {}, "message")),
)


FOLLOWED_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("FOLLOWS", lambda each: each["subject"]),
    Column("RULE", lambda each: _text(each, "rule")),
    Column("NEWEST", lambda each: _tagged(_text(each, "image")) or "-"),
    Column("DIGEST", lambda each: _text(each, "image").partition("@")[2] or "-", is_wide=True),
    Column("ASKED", lambda each: since(parse_rfc3339(each["asked"])) if each["asked"] else "-"),
    Column("NEXT", lambda each: until(each["next"])),
    Column("WHY", lambda each: _text(each, "problem") or _rejected(each) or _text(each, "why")),
)


def _tagged(image: str) -> str:
    """Return an image with its tag and the beginning of its digest."""
    name, _, digest = image.partition("@")
    return f"{name.rpartition('/')[2]} ({digest[7:19]})" if image else ""


def _rejected(each: dict[str, Any]) -> str:
    same = each["rejected"] and each["rejected"] == each["image"]
    return "it was rolled back: waits for another image" if same else ""


def _parts(app: Document) -> list[dict[str, Any]]:
    return [*app.get("components", ()), *app.get("boxes", ())]


def _state(part: Document) -> str:
    return "Ready" if part["ready"] else _text(_condition(part) or {}, "reason", "Unknown")


USAGE_COLUMNS: tuple[Column[Usage], ...] = (
    Column("RESOURCE", lambda usage: usage.resource),
    Column("USED", lambda usage: usage.told(usage.used)),
    Column("BOUND", lambda usage: usage.told(usage.bound)),
    Column("SHARE", lambda usage: _share(usage)),
)


def _share(usage: Usage) -> str:
    share = f"{100 * usage.used / usage.bound:.0f} %" if usage.bound else "-"
    return share + (", nearly full" if usage.is_nearly_full else "")


GPU_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("GPU", lambda gpu: gpu["id"]),
    Column("NAME", lambda gpu: _text(gpu, "name") or "-"),
    Column("MEMORY", lambda gpu: _memory(gpu)),
    Column("USE", lambda gpu: f"{gpu['utilization']:.0%}" if gpu["utilization"] is not None else "unknown"),
    Column("HELD BY", lambda gpu: ", ".join(_holders(gpu)) or "-"),
    Column("PROBLEM", lambda gpu: _text(gpu, "problem") or "-"),
)


def _gpus(document: Document, wide: bool) -> Iterator[str | Table]:
    if gpus := document.get("gpus"):
        yield ""
        yield table_of(GPU_COLUMNS, gpus, wide)


def _memory(gpu: dict[str, Any]) -> str:
    used, total = gpu["memoryUsed"], gpu["memoryTotal"]
    return (
        f"{about_size(used)} of {about_size(total)}" if used is not None and total is not None else "unknown"
    )


def _holders(gpu: dict[str, Any]) -> Iterator[str]:
    for holder in gpu["holders"]:
        yield f"{holder['app']}/{holder.get('component') or holder['stage']}"
    if others := gpu["otherHolders"]:
        yield f"{others} of other apps"


def _last(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    reason = f" {run['reason']}" if run["reason"] else ""
    return f"; last: {run['pipeline']} {run['state']}{reason} ({since(parse_rfc3339(run['ended']))} ago)"
