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
from controller.cli.groups import Group, current_spelling
from controller.cli.help_language import in_users_language
from controller.cli.output import echo, print_error
from controller.cli.packages import missing_package
from controller.cli.session import Session, config_option
from controller.domain.errors import ControllerError
from controller.domain.reasons import Reason
from controller.domain.text import printable

#: The commands as the help lists them.
SECTIONS = {
    "Apps (short forms of `prichal app …`)": (
        *("status", "events", "logs", "plan", "diff", "history"),
        *("reconcile", "suspend", "resume", "rollback", "approve"),
    ),
    "Modules (short forms of `prichal repo …`)": ("connect", "disconnect"),
    "Servers": ("login", "logout"),
    "Nouns": (
        *("app", "repo", "run", "file", "box", "image", "preview", "secret", "notify", "name", "key"),
        *("user", "role", "session", "token", "config", "password", "backup"),
    ),
    "Without the platform": ("new", "validate", "serve-local", "run-local"),
    "The platform": ("up", "daemon", "web", "git-http", "doctor", "audit", "completion"),
}
#: The modules of the commands. Only the module of the called command is loaded, for a quick start.
COMMAND_MODULES = {
    "apps": (
        "app",
        "status",
        "events",
        "logs",
        "plan",
        "diff",
        "history",
        "reconcile",
        "suspend",
        "resume",
        "rollback",
        "approve",
    ),
    "login": ("login", "logout"),
    "connect": ("repo", "connect", "disconnect"),
    "runs": ("run",),
    "files": ("file",),
    "boxes": ("box",),
    "images": ("image",),
    "backup": ("backup",),
    "previews": ("preview",),
    "names": ("name",),
    "secrets": ("secret", "key"),
    "notify": ("notify",),
    "people": ("user", "role", "session", "token", "audit"),
    "credentials": ("password",),
    "completion": ("completion",),
    "inspect": ("validate", "doctor", "config"),
    "new": ("new",),
    "serve": ("up", "daemon", "web", "git-http", "serve-local", "run-local"),
}


class Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = next((module for module, names in COMMAND_MODULES.items() if cmd_name in names), None)
        if module is None:
            return None
        commands: tuple[click.Command, ...] = import_module(f"controller.cli.{module}").commands
        return in_users_language(next(command for command in commands if command.name == cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, current_spelling(args, is_quiet=ctx.resilient_parsing))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, names in SECTIONS.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            limit = formatter.width - 6 - width
            rows = [(f"{name:<{width}}", c.get_short_help_str(limit)) for name, c in found if c]
            with formatter.section(title):
                formatter.write_dl(rows)


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
        result = in_users_language(prichal).main(arguments, prog_name="prichal", standalone_mode=False)
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
    except ModuleNotFoundError as error:
        if (found := missing_package(error)) is None:
            raise
        print_error(found.reason, found.message)
        return exit_of(found)
    except BrokenPipeError:  # `prichal events | head`
        sys.stderr.close()
        return Exit.OK
    except PermissionError as error:
        print_error(Reason.PERMISSION_DENIED, f"{error.filename}: run this as the daemon's user or as root")
        return Exit.FAILED
    return result if isinstance(result, int) else Exit.OK


def _show_bug(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Print the traceback as printable characters: an error may quote text from anyone."""
    echo("".join(traceback.format_exception(kind, error, where)), err=True, nl=False)
