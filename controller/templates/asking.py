"""What somebody who wants a new app asks for becomes an order, or the list of what is wrong with it: the same for the
web process and for commands on the host. The daemon decides again, by what is there when the order's turn comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final

from controller.config import Settings
from controller.domain.apps.orders import AppOrder, OrderKind
from controller.domain.apps.spec import Limits
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName, is_dns_label
from controller.domain.people.quotas import Quota, quota_problems, used
from controller.domain.reasons import Reason
from controller.domain.templates import Template, TemplateRecord, values_of, with_defaults
from controller.domain.units import parse_size
from controller.ports import Store
from controller.templates.builtin import builtin

LIMITS: Final = tuple(each.name for each in fields(Limits))
_SIZES: Final = frozenset({"memory", "storage"})
_MOST: Final = {"cpus": 1024.0, "gpus": 1024, "containers": 100_000}
#: What is in the way of every new app; checked before anything is asked for.
IN_GIT: Final = Localizable(
    "the platform folder is in a Git repository: make the files with `prichal new`, push them to a repository, and "
    "commit what `prichal connect --print` shows for it there"
)


@dataclass(frozen=True)
class NewApp:
    """What is wanted. `limits` are numbers, or texts such as 512Mi, by their names in manifests."""

    name: str
    template: str
    values: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, float | str] = field(default_factory=dict)


def templates(store: Store, settings: Settings) -> tuple[TemplateRecord, ...]:
    """Return the built-in templates and those that admins have added, with the defaults of this host."""
    defaults = settings.apps.defaults
    own = [TemplateRecord(name, loaded.template) for name, loaded in builtin().items()]
    added = [record for record in store.templates.all() if record.name not in builtin()]
    return tuple(
        replace(record, template=record.template and with_defaults(record.template, defaults))
        for record in (*own, *added)
    )


def usable(store: Store, settings: Settings, name: str) -> Template:
    """Return a template. Raises Stalled `UnknownTemplate`, `TemplateUnusable`."""
    known = {record.name: record for record in templates(store, settings)}
    record = known.get(name)
    if record is None:
        raise Stalled(
            Reason.UNKNOWN_TEMPLATE,
            Localizable(
                "there is no template {name!r}; there are: {names}", name=name[:80], names=", ".join(known)
            ),
        )
    if record.template is None:
        raise Stalled(
            Reason.TEMPLATE_UNUSABLE,
            Localizable("the template {name} cannot be used: {why}", name=name, why=record.problem),
        )
    return record.template


def creation(
    store: Store, settings: Settings, wanted: NewApp, id: str, by: str = "", quota: Quota | None = None
) -> AppOrder:
    """Return the order for a new app. Raises Stalled with what is wrong, and what would be right."""
    if settings.platform.url:
        raise Stalled(Reason.PLATFORM_IN_GIT, IN_GIT)
    if not is_dns_label(wanted.name):
        message = Localizable(
            "{name!r} cannot be the name of an app: use 1 to 63 of a-z, 0-9 and hyphens, beginning and ending with a "
            "letter or digit",
            name=wanted.name[:80],
        )
        raise Stalled(Reason.NAME_INVALID, message)
    if any(status.app == wanted.name for status in store.apps.all()):
        message = Localizable("there is an app {name} already: choose another name", name=wanted.name)
        raise Stalled(Reason.ALREADY_CONNECTED, message)
    template = usable(store, settings, wanted.template)
    values, problems = values_of(template, wanted.values)
    if problems:
        raise Stalled(Reason.TEMPLATE_VALUES, joined(problems))
    limits = share(settings, template, wanted.limits)
    over = quota_problems(quota, used(store.orders.shares(), by), limits) if quota else ()
    if over:
        raise Stalled(
            Reason.QUOTA_EXCEEDED, Localizable("your quota has no room for it: {over}", over=joined(over))
        )
    pairs = tuple(sorted(values.items()))
    return AppOrder(id, OrderKind.CREATE, AppName(wanted.name), by, template.name, pairs, limits, quota)


def deletion(store: Store, settings: Settings, app: str, confirmed: str, id: str, by: str = "") -> AppOrder:
    """Return the order to delete an app, which its name has to confirm. Raises Stalled."""
    if settings.platform.url:
        message = Localizable(
            "the platform folder is in a Git repository: remove the documents of {app} there", app=app
        )
        raise Stalled(Reason.PLATFORM_IN_GIT, message)
    if confirmed != app:
        message = Localizable("to delete the app, its name must be repeated: {app}", app=app)
        raise Stalled(Reason.NOT_CONFIRMED, message)
    if store.branches.preview(AppName(app)):
        message = Localizable(
            "{app} is a preview, which goes with its branch: remove it with `prichal preview rm {app}`",
            app=app,
        )
        raise Stalled(Reason.IS_PREVIEW, message)
    return AppOrder(id, OrderKind.DELETE, AppName(app), by)


def share(settings: Settings, template: Template, given: Mapping[str, float | str]) -> Limits:
    """Return the limits of a new app: what was given, else what the template proposes, else the host's defaults.
    Raises Stalled `LimitsInvalid`."""
    if unknown := [name for name in given if name not in LIMITS]:
        raise Stalled(
            Reason.LIMITS_INVALID,
            Localizable(
                "there is no limit {name!r}; there are {names}", name=unknown[0][:40], names=", ".join(LIMITS)
            ),
        )
    asked = {name: _limit(name, value) for name, value in given.items()}
    limits = settings.limits.of_app(
        Limits(
            cpus=asked.get("cpus", template.limits.cpus),
            memory=_whole(asked.get("memory", template.limits.memory)),
            storage=_whole(asked.get("storage", template.limits.storage)),
            containers=_whole(asked.get("containers", template.limits.containers)),
            gpus=_whole(asked.get("gpus", template.limits.gpus)),
        )
    )
    return replace(limits, gpus=limits.gpus or 0)


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _limit(name: str, value: float | str) -> float:
    try:
        number = float(parse_size(value) if name in _SIZES else value)
    except (ValueError, TypeError):
        number = -1.0
    is_whole = name == "cpus" or number == int(number)
    least = 0.01 if name == "cpus" else 0
    if not (least <= number <= _MOST.get(name, 2.0**62) and is_whole):
        example = "512Mi" if name in _SIZES else "1"
        message = Localizable(
            "{name} is {value!r}: give for example {example}",
            name=name,
            value=str(value)[:40],
            example=example,
        )
        raise Stalled(Reason.LIMITS_INVALID, message)
    return number
