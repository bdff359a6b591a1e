"""What every command needs: settings, the store, an app by name; and the options that many commands share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from controller.domain.errors import Stalled
from controller.domain.names import PLATFORM, AppName

if TYPE_CHECKING:
    from controller.config import Settings
    from controller.ports import Store

HEARTBEAT_LIMIT = 15.0  # seconds; the daemon beats every second
F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Session:
    """`config` is None: where `controller.config.load` looks by itself."""

    config: Path | None = None

    def settings(self) -> Settings:
        from controller.config import load

        return load(self.config)

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The state, which must be there: a command that made it would make it with the wrong owner."""
        from controller.store import open_store

        path = self.settings().database
        if not path.exists():
            message = f"there is no state at {path}: nothing has run here yet. Start with: prichal up"
            raise Stalled("StateMissing", message)
        store = open_store(path)
        try:
            yield store
        finally:
            store.close()


def known_app(store: Store, name: str) -> AppName:
    """Stalled `UnknownApp` with the nearest name there is."""
    apps = [status.app for status in store.apps.all()]
    if name in apps or name == PLATFORM:
        return AppName(name)
    near = get_close_matches(name, apps, n=1)
    hint = f" Did you mean {near[0]}?" if near else " 'prichal status' lists them all."
    raise Stalled("UnknownApp", f"there is no app {name!r}.{hint}")


def is_running(store: Store) -> bool:
    beat = store.last_heartbeat()
    return beat is not None and time.time() - beat < HEARTBEAT_LIMIT


def config_option(command: F) -> F:
    """`--config` may stand before and after the command's name."""

    def remember(context: click.Context, _: click.Parameter, value: Path | None) -> None:
        if value is not None:
            context.ensure_object(Session).config = value

    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        expose_value=False,
        callback=remember,
        help="The configuration file.",
    )(command)


def output_option(command: F) -> F:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="For people or for scripts.",
    )(command)


def wait_options(command: F) -> F:
    timeout = click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=300.0,
        show_default=True,
        help="Seconds to wait at most.",
    )
    wait = click.option("--wait", is_flag=True, help="Wait until it is done, showing what happens meanwhile.")
    return wait(timeout(command))


with_session = click.make_pass_decorator(Session, ensure=True)
