"""Orders: that an app be made from a template, or deleted. The web process and operators place them, the daemon carries
them out step by step and writes down how far it came. Pure.

An order is carried out at most once, under the id that the one who placed it has drawn. What may be made is decided by
`refusal`, when its turn comes: of two orders for one name the first wins, and the other one's author is told.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from controller.domain.apps.branch_previews import with_share_of_previews
from controller.domain.apps.spec import Limits, PlatformSpec
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName, is_dns_label
from controller.domain.people.quotas import AppShare, Quota, quota_problems, used
from controller.domain.reasons import Reason

MOST_WAITING: Final = 100  # orders that the daemon has not finished
KEEP: Final = 1000  # orders that are remembered
_ID = re.compile(r"[0-9a-f]{32}")


class OrderKind(StrEnum):
    CREATE = "create"
    DELETE = "delete"


class OrderState(StrEnum):
    PENDING = "pending"  # the daemon has not begun
    WORKING = "working"  # it has decided to, and goes on after a restart
    DONE = "done"
    REFUSED = "refused"  # and nothing of it is left

    @property
    def is_over(self) -> bool:
        return self in (OrderState.DONE, OrderState.REFUSED)


@dataclass(frozen=True)
class AppOrder:
    """`by` is the account of the person; "" for callers without one. A new app counts against their quota, which was
    `quota` when they asked: None if nothing bounds it."""

    id: str
    kind: OrderKind
    app: AppName
    by: str = ""
    template: str = ""
    values: tuple[tuple[str, str], ...] = ()
    limits: Limits | None = None
    quota: Quota | None = None


@dataclass(frozen=True)
class OrderRecord:
    """An order with what became of it. `files` are those of the platform folder that a deletion removes, in this
    order; `repository` is the hosted repository that is made, or set aside."""

    order: AppOrder
    created: float
    state: OrderState = OrderState.PENDING
    reason: Reason = Reason.NONE
    message: str = ""
    ended: float = 0.0
    files: tuple[str, ...] = ()
    repository: str = ""
    leaves_none: bool = False  # of a deletion: no app stays connected

    def ended_as(self, state: OrderState, at: float, reason: Reason, message: str) -> OrderRecord:
        return replace(self, state=state, ended=at, reason=reason, message=message)


def is_order_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True)
class PresentApps:
    """What is there when a new app is decided about: apps that are connected or still have containers, hosted and
    connected repositories, apps whose kept data nobody has deleted, and shares of people."""

    apps: Collection[str]
    repositories: Collection[str]
    kept: Collection[str]
    shares: Iterable[AppShare]


def refusal(order: AppOrder, present: PresentApps) -> tuple[Reason, str] | None:
    """Return why a new app is not made; None if it is."""
    name = order.app
    if not is_dns_label(name):
        return Reason.NAME_INVALID, Localizable(
            "{name!r} cannot be the name of an app: use a-z, 0-9 and hyphens", name=name[:80]
        )
    if name in present.apps:
        return Reason.ALREADY_CONNECTED, Localizable(
            "there is an app {name} already: choose another name", name=name
        )
    if name in present.repositories:
        message = Localizable(
            "there is a repository {name} already: choose another name, or connect it (prichal repo create)",
            name=name,
        )
        return Reason.ALREADY_CONNECTED, message
    if name in present.kept:
        message = Localizable(
            "data of an earlier app {name} is kept: choose another name, or ask an admin (prichal box ls --kept)",
            name=name,
        )
        return Reason.DATA_KEPT, message
    if order.quota is not None and order.limits is not None:
        problems = quota_problems(order.quota, used(present.shares, order.by), order.limits)
        if problems:
            return Reason.QUOTA_EXCEEDED, Localizable(
                "{by} may not have this much: {problems}", by=order.by, problems=joined(problems)
            )
    return None


def shares_of(spec: PlatformSpec) -> tuple[AppShare, ...]:
    """Return the apps that people have made, with what each may use."""
    return tuple(AppShare(app.name, app.owner, with_share_of_previews(app)) for app in spec.apps if app.owner)
