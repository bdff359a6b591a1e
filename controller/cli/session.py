"""What every command needs: settings, the store, an app by name, and options that many commands share."""

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
from controller.domain.reasons import Reason

if TYPE_CHECKING:
    from controller.config import Settings
    from controller.ports import Store

HEARTBEAT_LIMIT = 15.0  # seconds; the daemon beats every second
F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Session:
    """The state shared by the commands. If `config` is None, `controller.config.load` searches for the file."""

    config: Path | None = None

    def settings(self) -> Settings:
        from controller.config import load

        return load(self.config)

    @contextmanager
    def store(self, own: bool = False) -> Iterator[Store]:
        """Open the state, which must exist: if this command created it, its owner would be wrong. `own` opens
        it for writing, which only its owner or root may do; otherwise changes are requested from its owner.
        """
        from controller.store import open_guest_store, open_store

        path = self.settings().database
        if not path.exists():
            message = (
                f"there is no state at {path}: the platform has not run here yet. Start it with: prichal up"
            )
            raise Stalled(Reason.STATE_MISSING, message)
        store = (open_store if own else open_guest_store)(path)
        try:
            yield store
        finally:
            store.close()


def known_app(store: Store, name: str) -> AppName:
    """Return the name of a known app. Raises Stalled `UnknownApp` with the most similar name."""
    apps = [status.app for status in store.apps.all()]
    if name in apps or name == PLATFORM:
        return AppName(name)
    near = get_close_matches(name, apps, n=1)
    hint = f" Did you mean {near[0]}?" if near else " List all with: prichal status"
    raise Stalled(Reason.UNKNOWN_APP, f"there is no app {name!r}.{hint}")


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


def wait_options(command: F) -> F:
    timeout = click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        default=300.0,
        show_default=True,
        help="Longest time to wait.",
    )
    wait = click.option("--wait", is_flag=True, help="Wait until it is done, and show the events meanwhile.")
    return wait(timeout(command))


with_session = click.make_pass_decorator(Session, ensure=True)
