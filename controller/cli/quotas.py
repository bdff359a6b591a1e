"""`prichal user quota`: how many apps a person may make, and what these may use together."""

from __future__ import annotations

import click

from controller.cli.exits import Exit
from controller.cli.formats import Format, output_option
from controller.cli.output import Column, show_view, table_of
from controller.cli.people_database import open_people, record_act
from controller.cli.session import Session, config_option, dry_run_option, with_session
from controller.domain.people.quotas import RESOURCES, Quota, with_overrides
from controller.domain.units import parse_size, render_size


class Size(click.ParamType[int]):
    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a size such as 512Mi, 8Gi or 20G", param, ctx)


@click.command(
    "quota",
    epilog="\b\nExamples:\n  prichal user quota ivanov\n  prichal user quota ivanov --apps 10 --gpus 1",
)
@click.argument("name")
@click.option("--apps", type=click.IntRange(0, 10_000), metavar="N", help="How many apps.")
@click.option("--cpus", type=click.FloatRange(0, 100_000), metavar="N", help="CPUs of all of them.")
@click.option("--memory", type=Size(), metavar="SIZE", help="Memory of all of them.")
@click.option("--storage", type=Size(), metavar="SIZE", help="Capacity of their boxes.")
@click.option("--gpus", type=click.IntRange(0, 10_000), metavar="N", help="GPUs of all of them.")
@click.option("--reset", is_flag=True, help="Go back to the quota of the configuration.")
@output_option
@dry_run_option
@config_option
@with_session
def quota(
    session: Session,
    name: str,
    apps: int | None,
    cpus: float | None,
    memory: int | None,
    storage: int | None,
    gpus: int | None,
    reset: bool,
    output: Format,
) -> int:
    """Show or change how much the apps of a person may use.

    Apps that are there already keep running when the quota becomes smaller.
    """

    settings = session.settings()
    given = {"apps": apps, "cpus": cpus, "memory": memory, "storage": storage, "gpus": gpus}
    changes: dict[str, float | None] = {key: value for key, value in given.items() if value is not None}
    if reset and changes:
        raise click.UsageError("give --reset, or numbers")
    if reset:
        changes = dict.fromkeys(RESOURCES)
    with open_people(settings, session.dry_run) as people:
        if changes:
            people.set_quota(name, changes)
            record_act(people, "user quota", name, "reset" if reset else _words(changes))
        people.require(name)
        own = people.quota(name)
    _show(with_overrides(settings.apps.quota, own), _used(session, name), own, output)
    return Exit.OK


def _words(changes: dict[str, float | None]) -> str:
    return ", ".join(f"{key} {_shown(key, value or 0)}" for key, value in changes.items())


def _used(session: Session, name: str) -> Quota | None:
    """Return what the person's apps use; None where the platform has not run yet."""
    from controller.domain.errors import ControllerError
    from controller.domain.people.quotas import used

    try:
        with session.store() as store:
            return used(store.orders.shares(), name)
    except ControllerError:
        return None


def _show(most: Quota, present: Quota | None, own: dict[str, float], output: Format) -> None:
    columns: tuple[Column[str], ...] = (
        Column("RESOURCE", lambda key: key),
        Column("USED", lambda key: _shown(key, getattr(present, key)) if present else "-"),
        Column("QUOTA", lambda key: _shown(key, getattr(most, key))),
        Column("SET", lambda key: "for this person" if key in own else "by the configuration"),
    )
    document = {
        "quota": {key: getattr(most, key) for key in RESOURCES},
        "used": {key: getattr(present, key) for key in RESOURCES} if present else None,
        "own": sorted(own),
    }
    output.show(document, lambda: show_view((table_of(columns, list(RESOURCES), output.is_wide),)), RESOURCES)


def _shown(key: str, value: float) -> str:
    return render_size(int(value)) if key in ("memory", "storage") else f"{value:g}"
