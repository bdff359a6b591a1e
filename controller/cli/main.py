"""The entry point `prichal`: the group of commands, and how errors become a line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from controller import __version__
from controller.cli.exits import Exit, exit_of
from controller.cli.output import complain
from controller.cli.session import Session, config_option
from controller.domain.errors import ControllerError

#: Where the commands are: only the room of the one that is called is loaded, for a quick start.
ROOMS = {
    "running": ("up", "daemon", "web", "serve-local", "run-local"),
    "connecting": ("connect", "repo"),
    "apps": ("status", "events", "reconcile", "suspend", "resume", "approve"),
    "boxes": ("boxes",),
    "files": ("files",),
    "runs": ("run",),
    "looking": ("validate", "plan", "logs", "doctor", "config", "hash-password"),
}


class Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in ROOMS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        room = next((room for room, names in ROOMS.items() if cmd_name in names), None)
        if room is None:
            return None
        commands: tuple[click.Command, ...] = import_module(f"controller.cli.{room}").commands
        return next(command for command in commands if command.name == cmd_name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="prichal")
@config_option
@click.pass_context
def prichal(context: click.Context) -> None:
    """GitOps for machine-learning modules on one host: push manifests, get an HTTP service."""
    context.ensure_object(Session)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. Bugs are shown with their traceback, everything expected in one line."""
    try:
        result = prichal.main(arguments, prog_name="prichal", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except ControllerError as error:
        complain(error.reason, error.message)
        return exit_of(error)
    except BrokenPipeError:  # `prichal events | head`
        sys.stderr.close()
        return Exit.OK
    except PermissionError as error:
        complain("PermissionDenied", f"{error.filename}: run this as the daemon's user or as root")
        return Exit.FAILED
    return result if isinstance(result, int) else Exit.OK
