"""The entry point `prichal`: the group of commands, and how errors become one line and an exit code."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import TracebackType

import click

from controller import __version__
from controller.cli.exits import Exit, exit_of
from controller.cli.output import echo, print_error
from controller.cli.session import Session, config_option
from controller.domain.errors import ControllerError
from controller.domain.text import printable

#: The modules of the commands. Only the module of the called command is loaded, for a quick start.
COMMAND_MODULES = {
    "serve": ("up", "daemon", "web", "serve-local", "run-local"),
    "connect": ("connect", "repo"),
    "apps": ("status", "events", "reconcile", "suspend", "resume", "approve"),
    "boxes": ("boxes",),
    "files": ("files",),
    "runs": ("run",),
    "names": ("names",),
    "inspect": ("validate", "plan", "logs", "doctor", "config", "hash-password", "admin-token"),
}


class Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in COMMAND_MODULES.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = next((module for module, names in COMMAND_MODULES.items() if cmd_name in names), None)
        if module is None:
            return None
        commands: tuple[click.Command, ...] = import_module(f"controller.cli.{module}").commands
        return next(command for command in commands if command.name == cmd_name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="prichal")
@config_option
@click.pass_context
def prichal(context: click.Context) -> None:
    """GitOps for machine-learning modules on one host: push manifests, get an HTTP service."""
    context.ensure_object(Session)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Expected errors are shown in one line, bugs with their
    traceback.
    """
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # A terminal that is not UTF-8 gets escapes instead of a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = _show_bug
    try:
        result = prichal.main(arguments, prog_name="prichal", standalone_mode=False)
    except click.ClickException as error:
        vars(error).update(message=printable(error.message))  # the message quotes arguments and responses
        error.show()
        return error.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except ControllerError as error:
        print_error(error.reason, error.message)
        return exit_of(error)
    except BrokenPipeError:  # `prichal events | head`
        sys.stderr.close()
        return Exit.OK
    except PermissionError as error:
        print_error("PermissionDenied", f"{error.filename}: run this as the daemon's user or as root")
        return Exit.FAILED
    return result if isinstance(result, int) else Exit.OK


def _show_bug(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Print the traceback as printable characters: an error may quote text from anyone."""
    echo("".join(traceback.format_exception(kind, error, where)), err=True, nl=False)
