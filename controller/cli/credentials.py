"""Commands about what programs and people sign in with: the admin API's token, hashes of passwords."""

from __future__ import annotations

import sys

import click

from controller.cli.exits import Exit
from controller.cli.groups import Group
from controller.cli.output import echo, print_message
from controller.cli.session import Session, config_option, with_session
from controller.domain.secret import Secret


@click.group(cls=Group)
@config_option
def password() -> None:
    """Hash passwords for APIs."""


@password.command("hash")
@config_option
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


@click.command("show")
@config_option
@with_session
def show_token(session: Session) -> int:
    """Print the token of the admin API.

    Programs send it as `Authorization: Bearer …`. The web process creates it at its first start, unless
    `web.adminTokenFile` is set; only its own user and root may read it.
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


commands = (password,)
