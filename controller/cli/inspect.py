"""Commands that only read: check manifests, the machine and the configuration."""

from __future__ import annotations

from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

import click

from controller.cli.exits import Exit
from controller.cli.groups import Group
from controller.cli.output import echo, print_message, show_json, show_table
from controller.cli.session import Session, config_option, output_option, with_session


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("--app", help="Name of the app.  [default: as in the manifests]")
@output_option
@config_option
@with_session
def validate(session: Session, folder: Path, app: str | None, output: str) -> int:
    """Check the manifests in a folder.

    FOLDER is that of a module or a platform folder. All problems are listed with their positions; the exit
    code is 3 if there are any. Nothing is deployed; neither Docker nor the daemon is needed.
    """
    from controller.manifests.validate import validate_folder

    verdict = validate_folder(folder, app, session.settings())
    problems, notes = verdict.problems, verdict.notes
    if output == "json":
        found = {"valid": not problems, "kind": verdict.kind, "documents": verdict.documents}
        show_json({**found, "problems": [asdict(problem) for problem in problems], "notes": list(notes)})
        return Exit.INVALID if problems else Exit.OK
    for problem in problems:
        echo(str(problem))
    for note in notes:
        print_message(f"note: {note}")
    count = len(problems)
    print_message(
        f"{count} problem{'s' if count != 1 else ''}"
        if count
        else f"{verdict.documents} documents, no problems"
    )
    return Exit.INVALID if count else Exit.OK


@click.command()
@output_option
@config_option
@with_session
def doctor(session: Session, output: str) -> int:
    """Check this machine and say what to do.

    Checks Docker, Git, state, permissions and processes. The exit code is 1 if there is a problem.
    """
    from controller.daemon.doctor import doctor as examine

    checks = examine(session.settings())
    if output == "json":
        show_json([{"name": c.name, "ok": c.ok, "detail": c.detail, "advice": c.advice} for c in checks])
    else:
        show_table(
            ("CHECK", "RESULT", "FOUND"), [(c.name, "ok" if c.ok else "problem", c.detail) for c in checks]
        )
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
def show(session: Session, output: str) -> int:
    """Show the settings in force, with secrets hidden.

    Defaults are filled in; durations are in seconds, sizes in bytes.
    """
    from controller.config.options import OPTIONS, field_of

    settings = session.settings()
    shown = {key: _shown(attrgetter(field_of(key))(settings)) for key in OPTIONS}
    if output == "json":
        show_json(shown)
    else:
        for key, value in shown.items():
            echo(f"{key} = {'' if value is None else value}")
    return Exit.OK


def _shown(value: object) -> object:
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


commands = (validate, doctor, config)
