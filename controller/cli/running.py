"""The long-running commands: the daemon, the web process, both, and one component without the platform."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.exits import Exit
from controller.cli.session import Session, config_option, with_session


@click.command()
@config_option
@with_session
def up(session: Session) -> int:
    """Run daemon and web process together."""
    from controller.daemon.run import up
    from controller.logs import configure

    settings = session.settings()
    configure(settings.log_level, settings.log_format)
    return up(settings)


@click.command()
@config_option
@with_session
def daemon(session: Session) -> int:
    """Run the daemon.

    It owns Docker and Git, and converges the apps."""
    from controller.daemon.run import run
    from controller.logs import configure

    settings = session.settings()
    configure(settings.log_level, settings.log_format)
    return run(settings)


@click.command()
@config_option
@with_session
def web(session: Session) -> int:
    """Run the web process.

    Gateway, webhooks, status; it has neither Docker nor Git rights."""
    from controller.adapters.objects import S3Objects
    from controller.logs import configure
    from controller.web.server import run

    settings = session.settings()
    configure(settings.log_level, settings.log_format)
    run(settings, S3Objects.of)
    return Exit.OK


@click.command("serve-local")
@click.argument("image")
@click.argument("manifest", type=click.Path(exists=True, path_type=Path))
@click.option("--component", help="Which MLComponent, if the manifest has several.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8002, show_default=True, help="0: any free one."
)
@click.option(
    "--files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder in place of a box: FILE inputs are read from it, FILE outputs written to it.",
)
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="What the model box would hold.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Further variables, e.g. those of a Secret.")
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

    One MLComponent of MANIFEST, a file or folder, from IMAGE. Only Docker is needed. The address is shown,
    the log goes to the terminal, Ctrl-C stops and removes the container.
    """
    from controller.daemon.serve_local import Local, serve_local

    pairs = []
    for text in env:
        name, sign, value = text.partition("=")
        if not name or not sign:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--env")
        pairs.append((name, value))
    chosen = Local(image, manifest, component, port, files, model, tuple(pairs))
    return serve_local(session.settings(), chosen)


commands = (up, daemon, web, serve_local)
