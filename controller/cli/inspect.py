"""Commands that only read: check manifests, show plans, logs, the configuration and the machine; hash a
password.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

import click

from controller.cli.documents import plan_document
from controller.cli.exits import Exit
from controller.cli.output import echo, print_message, show_json, show_table, write
from controller.cli.session import Session, config_option, known_app, output_option, with_session
from controller.domain.names import ComponentName
from controller.domain.secret import Secret
from controller.domain.text import Shown


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
@click.argument("app")
@output_option
@config_option
@with_session
def plan(session: Session, app: str, output: str) -> int:
    """Show what would be done, and why.

    The repository is fetched; nothing else is changed.
    """
    from controller.daemon.inspection import plan as make

    with session.store() as store:
        name = known_app(store, app)
    found = make(session.settings(), name)
    if output == "json":
        show_json(plan_document(found))
    else:
        echo(found.render())
    return Exit.OK


@click.command()
@click.argument("app")
@click.argument("component", required=False)
@click.option("-f", "--follow", "following", is_flag=True, help="Keep streaming new output.")
@click.option(
    "-n",
    "--tail",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Show at most N lines, the last ones.",
)
@config_option
@with_session
def logs(session: Session, app: str, component: str | None, following: bool, tail: int) -> int:
    """Show the log of a container.

    It is the newest container of APP, or of its COMPONENT.
    """
    from controller.daemon.inspection import logs as read

    with session.store() as store:
        name = known_app(store, app)
    chosen = ComponentName(component) if component else None
    text = Shown()
    for chunk in read(session.settings(), name, chosen, tail, following):
        write(text.take(chunk))
    write(text.take(b"", last=True))
    return Exit.OK


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


@click.command("hash-password")
def hash_password() -> int:
    """Hash a password for a Secret.

    The password is asked for without echo, or read from the first line of standard input.
    """
    from controller.domain.routing.passwords import hash_password as make

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise click.UsageError("the password must not be empty")
    echo(make(password))
    return Exit.OK


@click.command("admin-token")
@config_option
@with_session
def admin_token(session: Session) -> int:
    """Print the token of the admin API.

    Programs send it as `Authorization: Bearer …`; in a browser it is the password, with any user name. The
    web process creates it at its first start, unless `web.adminTokenFile` is set; only its own user and root
    may read it.
    """
    settings = session.settings()
    token = settings.web.admin_token
    if token is None:
        try:
            token = Secret(settings.admin_token_file.read_text().strip())
        except OSError as error:
            print_message(
                f"cannot read {settings.admin_token_file}: {error.strerror}; start the platform, or run this as root"
            )
            return Exit.FAILED
    if not token:
        print_message("cannot read the file named by web.adminTokenFile: run this as its owner or as root")
        return Exit.FAILED
    echo(token.reveal())
    return Exit.OK


@click.group()
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


commands = (validate, plan, logs, doctor, hash_password, admin_token, config)
