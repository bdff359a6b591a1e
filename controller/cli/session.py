"""What every command needs: settings, the store, and options that many commands share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from controller.cli.output import print_message
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason

if TYPE_CHECKING:
    from controller.config import Settings
    from controller.ports import Store

HEARTBEAT_LIMIT = 15.0  # seconds; the daemon beats every second
F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Session:
    """The state shared by the commands. If `config` is None, `controller.config.load` searches for the file. With
    `dry_run` a command does what it does always, and what it writes is rolled back, or lies in a copy."""

    config: Path | None = None
    dry_run: bool = False

    def settings(self) -> Settings:
        from controller.config import load

        return load(self.config)

    @contextmanager
    def store(self, own: bool = False) -> Iterator[Store]:
        """Open the state, which must exist: if this command created it, its owner would be wrong. `own` opens
        it for writing, which only its owner or root may do; otherwise changes are requested from its owner.
        """
        path = self.settings().database
        if not path.exists():
            message = (
                f"there is no state at {path}: the platform has not run here yet. Start it with: prichal up"
                ", or name a server with: prichal login URL"
            )
            raise Stalled(Reason.STATE_MISSING, message)
        from controller.store import open_guest_store, open_store

        store = (open_store if own else open_guest_store)(path)
        try:
            with store.dry_run() if self.dry_run else nullcontext():
                yield store
        finally:
            store.close()


def is_running(store: Store) -> bool:
    beat = store.last_heartbeat()
    return beat is not None and time.time() - beat < HEARTBEAT_LIMIT


def config_option(command: F) -> F:
    """Add `--config`, which may stand before or after the name of the command."""

    def remember(context: click.Context, _: click.Parameter, value: Path | None) -> None:
        if value is not None:
            context.ensure_object(Session).config = value

    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        expose_value=False,
        callback=remember,
        help="Path of the configuration file.",
    )(command)


def dry_run_option(command: F) -> F:
    """Add `--dry-run`: what the command prints is what it would do."""

    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(Session).dry_run = True
            print_message(
                "This is a dry run: what follows is what the command would say. Nothing is changed."
            )

    return click.option(
        "--dry-run",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Check everything, say what would be done, and change nothing.",
    )(command)


def timeout_option(default: float, text: str) -> Callable[[F], F]:
    """Add `--timeout`, in seconds."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        default=default,
        show_default=True,
        help=text,
    )


def limit_option(default: int, what: str, least: int = 1) -> Callable[[F], F]:
    """Add `-n` to a command that shows `what`, the newest ones."""
    return click.option(
        "-n",
        "--limit",
        type=click.IntRange(min=least),
        metavar="N",
        default=default,
        show_default=True,
        help=f"Show at most N {what}, the newest ones.",
    )


def wait_options(command: F) -> F:
    wait = click.option("--wait", is_flag=True, help="Wait until it is done, and show the events meanwhile.")
    return wait(timeout_option(300.0, "Longest time to wait.")(command))


def host_user() -> str:
    """Return how what a command did on this host is written down: by the Unix user, also of one who used sudo."""
    import pwd  # which only the host of a platform needs to have

    return f"host:{os.environ.get('SUDO_USER') or pwd.getpwuid(os.getuid()).pw_name}"


with_session = click.make_pass_decorator(Session, ensure=True)
