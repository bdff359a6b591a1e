"""Looking without acting: manifests, plans, logs, the machine, the configuration; and the hash of a password."""

from __future__ import annotations

import sys
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

import click

from controller.cli.documents import plan_document
from controller.cli.exits import Exit
from controller.cli.output import say, show_json, show_table
from controller.cli.session import Session, config_option, known_app, output_option, with_session
from controller.domain.names import ComponentName


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("--app", help="Name of the app; by default what the manifests say.")
@output_option
@config_option
@with_session
def validate(session: Session, folder: Path, app: str | None, output: str) -> int:
    """Check the manifests in a folder.

    A module's, or a platform folder's. All problems are listed, each with its place; exit code 3 if there are any.
    Nothing is deployed, and neither Docker nor the daemon is needed.
    """
    from controller.manifests.validate import validate_folder

    verdict = validate_folder(folder, app, session.settings())
    problems, notes = verdict.problems, verdict.notes
    if output == "json":
        found = {"valid": not problems, "kind": verdict.kind, "documents": verdict.documents}
        show_json({**found, "problems": [asdict(problem) for problem in problems], "notes": list(notes)})
        return Exit.INVALID if problems else Exit.OK
    for problem in problems:
        click.echo(str(problem))
    for note in notes:
        say(f"note: {note}")
    count = len(problems)
    say(
        f"{count} problem{'s' if count != 1 else ''}"
        if count
        else f"{verdict.documents} documents, no problem"
    )
    return Exit.INVALID if count else Exit.OK


@click.command()
@click.argument("app")
@output_option
@config_option
@with_session
def plan(session: Session, app: str, output: str) -> int:
    """Show what would be done, and why.

    Fetches the repository, changes nothing else."""
    from controller.daemon.inspect import plan as make

    with session.store() as store:
        name = known_app(store, app)
    found = make(session.settings(), name)
    if output == "json":
        show_json(plan_document(found))
    else:
        click.echo(found.render())
    return Exit.OK


@click.command()
@click.argument("app")
@click.argument("component", required=False)
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with what is written from now on.")
@click.option(
    "-n", "--tail", type=click.IntRange(min=0), default=100, show_default=True, help="The last so many lines."
)
@config_option
@with_session
def logs(session: Session, app: str, component: str | None, following: bool, tail: int) -> int:
    """Show what a container has written.

    The newest one of APP, or of its COMPONENT."""
    from controller.daemon.inspect import logs as read

    with session.store() as store:
        name = known_app(store, app)
    chosen = ComponentName(component) if component else None
    for chunk in read(session.settings(), name, chosen, tail, following):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return Exit.OK


@click.command()
@output_option
@config_option
@with_session
def doctor(session: Session, output: str) -> int:
    """Check this machine and say what to do.

    Docker, Git, state, permissions, processes. Exit code 1 if something is wrong."""
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
                say(f"{check.name}: {check.advice}")
    return Exit.OK if all(check.ok for check in checks) else Exit.FAILED


@click.command("hash-password")
def hash_password() -> int:
    """Hash a password for a Secret.

    It is asked for without echo, or read from the first line of standard input."""
    from controller.domain.passwords import hash_password as make

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise click.UsageError("an empty password is no password")
    click.echo(make(password))
    return Exit.OK


@click.group()
def config() -> None:
    """The configuration."""


@config.command()
@output_option
@config_option
@with_session
def show(session: Session, output: str) -> int:
    """The settings in force, secrets hidden.

    Defaults are filled in; durations are in seconds, sizes in bytes.
    """
    from controller.config.options import OPTIONS, field_of

    settings = session.settings()
    shown = {key: _shown(attrgetter(field_of(key))(settings)) for key in OPTIONS}
    if output == "json":
        show_json(shown)
    else:
        for key, value in shown.items():
            click.echo(f"{key} = {'' if value is None else value}")
    return Exit.OK


def _shown(value: object) -> object:
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


commands = (validate, plan, logs, doctor, hash_password, config)
