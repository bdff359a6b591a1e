"""Commands that only read: check manifests, the machine and the configuration."""

from __future__ import annotations

from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli.exits import Exit
from controller.cli.formats import Format, nameless_output_option, output_option
from controller.cli.groups import Group
from controller.cli.output import Column, print_message, show_view, table_of
from controller.cli.session import Session, config_option, with_session

if TYPE_CHECKING:
    from controller.daemon.doctor import Check
    from controller.manifests.validate import ValidationResult


CHECK_COLUMNS: tuple[Column[Check], ...] = (
    Column("CHECK", lambda check: check.name),
    Column("RESULT", lambda check: "ok" if check.ok else "problem"),
    Column("FOUND", lambda check: check.detail),
)


@click.command(epilog="\b\nExamples:\n  prichal validate manifests/\n  prichal validate . -o json")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("--app", help="Name of the app.  [default: as in the manifests]")
@nameless_output_option
@config_option
@with_session
def validate(session: Session, folder: Path, app: str | None, output: Format) -> int:
    """Check the manifests in a folder.

    FOLDER is that of a module or a platform folder. All problems are listed with their positions; the exit
    code is 3 if there are any. Nothing is deployed; neither the engine nor the daemon is needed.
    """
    from controller.manifests.validate import validate_folder

    verdict = validate_folder(folder, app, session.settings())
    problems, notes = verdict.problems, verdict.notes
    found = {"valid": not problems, "kind": verdict.kind, "documents": verdict.documents}
    document = {**found, "problems": [asdict(problem) for problem in problems], "notes": list(notes)}
    output.show(document, lambda: show_view(tuple(map(str, problems))))
    if output.is_for_people:
        _sum_up(verdict)
    return Exit.INVALID if problems else Exit.OK


def _sum_up(verdict: ValidationResult) -> None:
    for note in verdict.notes:
        print_message(f"note: {note}")
    count = len(verdict.problems)
    good = f"{verdict.documents} documents, no problems"
    print_message(f"{count} problem{'s' if count != 1 else ''}" if count else good)


@click.command()
@output_option
@config_option
@with_session
def doctor(session: Session, output: Format) -> int:
    """Check this machine and say what to do.

    Checks the engine, Git, state, permissions and processes. The exit code is 1 if there is a problem.
    """
    from controller.daemon.doctor import doctor as examine

    checks = examine(session.settings())
    documents = [{"name": c.name, "ok": c.ok, "detail": c.detail, "advice": c.advice} for c in checks]
    view = (table_of(CHECK_COLUMNS, checks, output.is_wide),)
    output.show(documents, lambda: show_view(view), [check.name for check in checks])
    if output.is_for_people:
        for check in checks:
            if not check.ok:
                print_message(f"{check.name}: {check.advice}")
    return Exit.OK if all(check.ok for check in checks) else Exit.FAILED


@click.group(cls=Group)
@config_option
def config() -> None:
    """Show the configuration."""


@config.command()
@output_option
@config_option
@with_session
def show(session: Session, output: Format) -> int:
    """Show the settings in force, with secrets hidden.

    Defaults are filled in; durations are in seconds, sizes in bytes.
    """
    from controller.config.options import OPTIONS, field_of

    settings = session.settings()
    shown = {key: _shown(attrgetter(field_of(key))(settings)) for key in OPTIONS}
    lines = tuple(f"{key} = {'' if value is None else value}" for key, value in shown.items())
    output.show(shown, lambda: show_view(lines), shown)
    return Exit.OK


def _shown(value: object) -> object:
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


commands = (validate, doctor, config)
