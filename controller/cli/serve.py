"""Long-running commands: the daemon, the web process, both, and one component or run without the platform."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli.exits import Exit
from controller.cli.groups import RenamedOption
from controller.cli.output import echo, print_message
from controller.cli.packages import import_unix
from controller.cli.session import Session, config_option, with_session

if TYPE_CHECKING:
    from controller.local.inputs import GivenInputs


@click.command()
@config_option
@with_session
def up(session: Session) -> int:
    """Run the daemon and the web process together."""
    import_unix()

    from controller.daemon.run import up
    from controller.daemon.wiring import prepare_folders
    from controller.logging_setup import configure
    from controller.store.first_admin import first_login_url, prepare_people

    settings = session.settings()
    configure(settings.log_level, settings.log_format)
    prepare_folders(settings)
    prepare_people(settings)
    with suppress(OSError):
        if url := first_login_url(settings):
            print_message(f"The first administrator chooses a password, within a day, at {url}")
    return up(settings)


@click.command()
@config_option
@with_session
def daemon(session: Session) -> int:
    """Run the daemon.

    The daemon uses the engine and Git, and reconciles the apps.
    """
    import_unix()

    from controller.daemon.run import run
    from controller.logging_setup import configure

    settings = session.settings()
    configure(settings.log_level, settings.log_format)
    return run(settings)


@click.command()
@config_option
@with_session
def web(session: Session) -> int:
    """Run the web process.

    It serves the gateway, webhooks and status, and has no access to the engine and Git.
    """
    import_unix()

    from controller.adapters.objects import S3Objects
    from controller.logging_setup import configure
    from controller.web.server import run

    settings = session.settings()
    configure(settings.log_level, settings.log_format)
    run(settings, S3Objects.of)
    return Exit.OK


@click.command("git-http")
@click.option("--user", metavar="NAME", help="Become this user, once the socket is there; needs root.")
@click.option("--socket-user", metavar="NAME", help="Make the socket for this user, with --user.")
@config_option
@with_session
def git_http(session: Session, user: str | None, socket_user: str | None) -> int:
    """Run the Git service.

    It lets the web process serve the repositories hosted here over HTTPS, and has no access to the engine and
    to secrets.
    """
    import_unix()

    from controller.daemon.git_http import ServiceUsers, run
    from controller.logging_setup import configure

    if (user is None) != (socket_user is None):
        raise click.UsageError("--user and --socket-user go together")
    settings = session.settings()
    configure(settings.log_level, settings.log_format)
    return run(settings, ServiceUsers(user, socket_user) if user and socket_user else None)


@click.command("serve-local", epilog="\b\nExamples:\n  prichal serve-local demo:1 manifests/ --files ./files")
@click.argument("image")
@click.argument("manifest", type=click.Path(exists=True, path_type=Path))
@click.option("--component", help="MLComponent to serve, if the manifest has several.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    default=8002,
    show_default=True,
    help="Port to serve on; 0 chooses a free one.",
)
@click.option(
    "--files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder used instead of a box, for FILE inputs and FILE outputs.",
)
@click.option(
    "--model",
    type=click.Path(exists=True, path_type=Path),
    help="File or folder used instead of the model box.",
)
@click.option(
    "--env", multiple=True, metavar="NAME=VALUE", help="Additional variables, e.g. those of a Secret."
)
@config_option
@with_session
def serve_local(
    session: Session,
    image: str,
    manifest: Path,
    component: str | None,
    port: int,
    files: Path | None,
    model: Path | None,
    env: tuple[str, ...],
) -> int:
    """Serve a component without the platform.

    Serves one MLComponent of MANIFEST, a file or folder, from IMAGE. Only Docker is needed. The address is
    printed and the log is shown; Ctrl-C stops and removes the container.
    """
    from controller.local.serve import LocalServeOptions, serve_local

    pairs = []
    for text in env:
        name, sign, value = text.partition("=")
        if not name or not sign:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--env")
        pairs.append((name, value))
    chosen = LocalServeOptions(image, manifest, component, port, files, model, tuple(pairs))
    return serve_local(session.settings(), chosen)


@click.command(
    "run-local",
    cls=RenamedOption,
    old="--output",
    new="--output-dir",
    is_old=lambda value: True,
    epilog="\b\nExamples:\n"
    "  prichal run-local manifests/ --input data=in.csv\n"
    "  prichal run-local manifests/train.yaml --input rate:=0.1 --output-dir results",
)
@click.argument("manifest", type=click.Path(exists=True, path_type=Path))
@click.option("--pipeline", help="ExperimentPipeline to run, if the manifest has several.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="VALUE is a file or folder if it exists, otherwise a text; NAME:=JSON for other values.",
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default="out",
    show_default=True,
    help="Folder for the outputs; each gets a subfolder.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME=FILE",
    help="A Secret, from a file with lines KEY=value; NAME/KEY=FILE for one key, whose value the file is.",
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that the `context` of a build is relative to.  [default: the Git checkout around MANIFEST]",
)
@click.option("--force", is_flag=True, help="Replace the outputs of an earlier run.")
@click.option(
    "--keep", is_flag=True, help="Keep inputs, outputs and logs of all attempts, and print where they are."
)
@config_option
@with_session
def run_local(
    session: Session,
    manifest: Path,
    pipeline: str | None,
    inputs: tuple[str, ...],
    output_dir: Path,
    secrets: tuple[str, ...],
    root: Path | None,
    force: bool,
    keep: bool,
) -> int:
    """Run a pipeline without the platform.

    Runs one ExperimentPipeline of MANIFEST, a file or folder, with the same containers, limits and retries as
    the platform. Only Docker is needed. The output of the stages goes to standard output; Ctrl-C cancels the
    run and removes its containers.
    """
    from controller.domain.runs.run import RunState
    from controller.local.run import LocalRunOptions
    from controller.local.run import run_local as run

    chosen = LocalRunOptions(
        manifest, output_dir, pipeline, _inputs(inputs), _secrets(secrets), root, force=force, keep=keep
    )
    state = run(session.settings(), chosen, out=echo, note=print_message)
    return {RunState.SUCCEEDED: Exit.OK, RunState.CANCELED: Exit.INTERRUPTED}.get(state, Exit.FAILED)


def _inputs(arguments: tuple[str, ...]) -> tuple[GivenInputs, ...]:
    from controller.local.inputs import GivenInputs

    try:
        return tuple(GivenInputs.parse(argument) for argument in arguments)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--input") from error


def _secrets(arguments: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    pairs = []
    for argument in arguments:
        name, _, file = argument.partition("=")
        if not all(name.split("/", 1)) or not Path(file).is_file():
            raise click.BadParameter(
                f"{argument!r} is not NAME=FILE or NAME/KEY=FILE, of a file that exists",
                param_hint="--secret",
            )
        pairs.append((name, Path(file)))
    return tuple(pairs)


commands = (up, daemon, web, git_http, serve_local, run_local)
