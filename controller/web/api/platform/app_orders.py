"""Orders for new apps and for the deletion of apps, as forms and the API place them for a caller."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import Final

from flask import current_app

from controller.config import Settings
from controller.domain.apps.orders import AppOrder, OrderRecord, OrderState, is_order_id
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable, sentence
from controller.domain.people.quotas import Quota, name_problem, prefix_of, used, with_overrides
from controller.domain.people.roles import Act, Principal, Verdict, decide
from controller.domain.reasons import Reason
from controller.ports import Store
from controller.store.people import PeopleStore
from controller.templates.asking import NewApp, creation, deletion
from controller.web.api.platform.refusals import unknown_app
from controller.web.context import context, people_context, principal
from controller.web.dry_run import is_dry_run
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

_KINDS: Final = {
    Reason.PLATFORM_IN_GIT: ProblemKind.NOT_WRITABLE,
    Reason.ALREADY_CONNECTED: ProblemKind.APP_EXISTS,
    Reason.QUOTA_EXCEEDED: ProblemKind.QUOTA,
    Reason.NOT_CONFIRMED: ProblemKind.NOT_CONFIRMED,
}


def ask_creation(wanted: NewApp, id: str = "") -> AppOrder:
    """Place the order for a new app of the caller, as `id` if a form has chosen one: a form that is sent again leads to
    what it has placed before. Raises RequestRefused."""
    store, settings = context(current_app)
    people, who = people_context(current_app).store, principal()
    accounts = [account.name for account in people.accounts()] if not who.is_admin else []
    user = "" if who.is_admin else who.name
    if problem := name_problem(wanted.name, settings.apps.prefix, user, accounts):
        raise _refused(Stalled(Reason.NAME_INVALID, problem))
    try:
        if placed := _placed(store, id, wanted, who):
            return placed
        quota = quota_of(people, settings, who)
        is_free = is_order_id(id) and store.orders.get(id) is None
        order = creation(store, settings, wanted, id if is_free else secrets.token_hex(16), who.name, quota)
        if same := _same(store, order):
            return same
        _place(store, people, order, who.name)
    except (Stalled, Transient) as error:
        raise _refused(error) from error
    return order


def _placed(store: Store, id: str, wanted: NewApp, who: Principal) -> AppOrder | None:
    """Return what a form has placed that a person has sent again, by going back, say. If its app was deleted since
    then, they want another one."""
    record = store.orders.get(id) if is_order_id(id) else None
    if record is None or not who.name or (record.order.by, record.order.app) != (who.name, wanted.name):
        return None
    if record.state is OrderState.REFUSED or (
        record.state is OrderState.DONE and not _is_known(store, wanted.name)
    ):
        return None
    return record.order


def _is_known(store: Store, app: str) -> bool:
    """Return whether an app is declared, as one is as soon as it is made, or still has something to be removed."""
    known = (*(share.app for share in store.orders.shares()), *(status.app for status in store.apps.all()))
    return app in known


def _same(store: Store, order: AppOrder) -> AppOrder | None:
    """Return the same order of another form of this person, in a second tab, say, if it is not carried out yet."""
    for record in store.orders.unfinished():
        if order.by and replace(record.order, id=order.id) == order:
            return record.order
    return None


def ask_deletion(name: str, confirmed: str) -> AppOrder:
    """Place the order to delete an app. Raises RequestRefused."""
    store, settings = context(current_app)
    if all(status.app != name for status in store.apps.all()):
        raise RequestRefused(unknown_app(name))
    try:
        order = deletion(store, settings, name, confirmed, secrets.token_hex(16), principal().name)
        _place(store, people_context(current_app).store, order, "")
    except (Stalled, Transient) as error:
        raise _refused(error) from error
    return order


def _place(store: Store, people: PeopleStore, order: AppOrder, developer: str) -> None:
    """The promise comes first: an order without one would make an app without a developer."""
    if not is_dry_run():
        people.promise(order.id, developer, order.app, time.time())
    store.orders.ask(order)


def quota_of(people: PeopleStore, settings: Settings, who: Principal) -> Quota | None:
    """Return the quota of a caller; admins have none."""
    return None if who.is_admin else with_overrides(settings.apps.quota, people.quota(who.name))


def own_order(id: str) -> OrderRecord:
    """Return an order of the caller; admins see all. Raises RequestRefused."""
    store, _ = context(current_app)
    record = store.orders.get(id) if is_order_id(id) else None
    who = principal()
    if record is None or not (who.is_admin or (who.name and record.order.by == who.name)):
        extra = {"reason": str(Reason.UNKNOWN_ORDER)}
        raise RequestRefused(
            HttpProblem(ProblemKind.NOT_FOUND, Localizable("There is no order {id}.", id=id), extra=extra)
        )
    return record


def allowance_document(
    store: Store, settings: Settings, people: PeopleStore, who: Principal
) -> dict[str, object]:
    """What the caller may still make."""
    quota, present = quota_of(people, settings, who), used(store.orders.shares(), who.name)
    prefix = "" if who.is_admin else prefix_of(settings.apps.prefix, who.name)
    may = decide(who, Act.CREATE) is Verdict.ALLOWED and not settings.platform.url
    return {
        "mayCreate": may,
        "prefix": prefix,
        "quota": _quota(quota) if quota else None,
        "used": _quota(present) if who.name else None,
    }


def _quota(quota: Quota) -> dict[str, object]:
    return {
        "apps": quota.apps,
        "cpus": quota.cpus,
        "memory": quota.memory,
        "storage": quota.storage,
        "gpus": quota.gpus,
    }


def _refused(error: Stalled | Transient) -> RequestRefused:
    full = error.reason == Reason.QUEUE_FULL
    kind = ProblemKind.QUEUE_FULL if full else _KINDS.get(error.reason, ProblemKind.INVALID)
    extra = {"reason": str(error.reason)}
    return RequestRefused(
        HttpProblem(kind, sentence(error.message), retry_after=5 if full else 0, extra=extra)
    )
