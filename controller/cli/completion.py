"""Completion in the shell: `prichal completion SHELL`, and the names that arguments are completed with.

Names are read from the state on this host. Where there is none, or this user may not read it, nothing is
offered: a completion never fails and never waits for a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from controller.cli.exits import Exit
from controller.cli.output import echo
from controller.cli.session import Session, config_option
from controller.domain.errors import ControllerError
from controller.domain.names import PLATFORM, AppName
from controller.domain.routing.routes import ServiceKind
from controller.domain.storage.box import BoxState

if TYPE_CHECKING:
    from controller.ports import Store

F = TypeVar("F", bound=Callable[..., Any])
Names = Callable[["Store", click.Context], Iterable[str]]


def completed(names: Names) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what click calls to complete a word: the names that begin like it."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        session = context.find_object(Session) or Session()
        try:
            with session.store() as store:
                found = sorted(set(names(store, context)))
        except (ControllerError, OSError, KeyError):  # there is no such state, or no app yet
            return []
        return [name for name in found if name.startswith(incomplete)]

    return complete


def _apps(store: Store, context: click.Context) -> Iterator[str]:
    return (status.app for status in store.apps.all() if status.app != PLATFORM)


def _components(store: Store, context: click.Context) -> Iterator[str]:
    status = store.apps.status(AppName(context.params["app"]))
    return (component.name for component in status.components)


def _boxes(store: Store, context: click.Context) -> Iterator[str]:
    return (f"{r.app}/{r.box}" for r in store.boxes.all() if r.state is BoxState.BOUND)


def _kept_buckets(store: Store, context: click.Context) -> Iterator[str]:
    return (record.bucket for record in store.boxes.all() if record.state is BoxState.KEPT)


def _pipelines(store: Store, context: click.Context) -> Iterator[str]:
    services = store.routes.services()
    return (f"{s.app}/{s.api.path}" for s in services if s.kind is ServiceKind.PIPELINE)


def _groups(store: Store, context: click.Context) -> Iterator[str]:
    return (f"{r.app}:{r.box}/" for r in store.boxes.all() if r.state is BoxState.BOUND)


def _argument(name: str, names: Names, **options: Any) -> Callable[[F], F]:
    return click.argument(name, shell_complete=completed(names), **options)


def app_argument(required: bool = True) -> Callable[[F], F]:
    return _argument("app", _apps, required=required)


def component_argument(required: bool = True) -> Callable[[F], F]:
    """Stands below `app_argument`: the components of that app are offered."""
    return _argument("component", _components, required=required)


def _previews(store: Store, context: click.Context) -> Iterator[str]:
    return (preview.app for preview in store.branches.previews())


bucket_argument = _argument("bucket", _kept_buckets)
preview_argument = _argument("preview", _previews)
box_argument = _argument("target", _boxes, metavar="APP/BOX")
pipeline_argument = _argument("pipeline", _pipelines)
run_argument = _argument("run", _pipelines)
address_argument = _argument("address", _groups)


@click.command(
    epilog="\b\nExamples:\n"
    '  eval "$(prichal completion bash)"       in ~/.bashrc\n'
    '  eval "$(prichal completion zsh)"        in ~/.zshrc\n'
    "  prichal completion fish | source        in ~/.config/fish/config.fish"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@config_option
def completion(shell: str) -> int:
    """Print the script that completes commands in a shell.

    It completes commands and options, and the names of apps, components, pipelines and boxes of the platform
    on this host.
    """
    from click.shell_completion import get_completion_class

    program = click.get_current_context().find_root()
    kind = get_completion_class(shell)
    assert kind is not None, "click completes in all of the choices"
    echo(kind(program.command, {}, "prichal", "_PRICHAL_COMPLETE").source(), nl=False)
    return Exit.OK


commands = (completion,)
