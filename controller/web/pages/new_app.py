"""Pages with which a person makes an app: the choice of a template, its form, and the page that follows the order until
the app answers, with the commands that replace its code; and the page that asks before an app is deleted.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from flask import Blueprint, Response, current_app, redirect, request
from flask.typing import ResponseReturnValue

from controller.config import Settings
from controller.domain.apps.orders import OrderKind, OrderRecord, OrderState, is_order_id
from controller.domain.apps.status import AppStatus
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.people.roles import Principal
from controller.domain.templates import Template
from controller.domain.units import render_size
from controller.ports import Store
from controller.templates.asking import NewApp, templates
from controller.web.api.platform.admission import note
from controller.web.api.platform.app_orders import allowance_document, ask_creation, ask_deletion
from controller.web.api.platform.refusals import unknown_app
from controller.web.context import context, people_context, principal
from controller.web.pages.branch_previews import OpenApi, apis_of
from controller.web.pages.languages import Language
from controller.web.pages.live import live_page
from controller.web.pages.problem_words import meaning_of
from controller.web.pages.rendering import page, render
from controller.web.pages.words import STATES, AppState, Told, state_of, told_of
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.query import QueryParameters

new_app_pages = Blueprint("new_app_pages", __name__)

LIMITS: Final = ("cpus", "memory", "storage", "gpus")


@new_app_pages.get("/-/new")
def choose_template() -> ResponseReturnValue:
    store, settings = context(current_app)
    found = [each.template for each in templates(store, settings) if each.template is not None]
    return page("new/choose.html", templates=found, you=_allowance(), in_git=bool(settings.platform.url))


@new_app_pages.get("/-/new/<template>")
def fill_in(template: str) -> ResponseReturnValue:
    return _form(_known(template), {})


@new_app_pages.post("/-/new/<template>")
def make_app(template: str) -> ResponseReturnValue:
    """A form that is refused comes back with what was filled in, and says why."""
    found, given = _known(template), dict(request.form.items())
    values = {each.name: given.get(f"value-{each.name}", each.default) for each in found.variables}
    limits = {
        name: given[f"limit-{name}"].strip() for name in LIMITS if given.get(f"limit-{name}", "").strip()
    }
    try:
        order = ask_creation(
            NewApp(given.get("name", ""), found.name, values, limits), given.get("order", "")
        )
    except RequestRefused as refused:
        return _form(found, given, refused.problem)
    note(order.app, f"from the template {order.template}")
    return redirect(f"/-/orders/{order.id}", 303)


@new_app_pages.get("/-/apps/<name>/delete")
def ask_before(name: str) -> ResponseReturnValue:
    store, settings = context(current_app)
    if all(status.app != name for status in store.apps.all()):
        raise RequestRefused(unknown_app(name))
    return page("new/delete.html", name=name, problem="", meaning="", in_git=bool(settings.platform.url))


@new_app_pages.post("/-/apps/<name>/delete")
def delete(name: str) -> ResponseReturnValue:
    try:
        order = ask_deletion(name, request.form.get("confirm", ""))
    except RequestRefused as refused:
        if refused.problem.kind is ProblemKind.NOT_FOUND:
            raise
        in_git = bool(context(current_app).settings.platform.url)
        return page(
            "new/delete.html",
            refused.problem.code,
            name=name,
            problem=refused.problem.detail,
            meaning=meaning_of(refused.problem),
            in_git=in_git,
        )
    return redirect(f"/-/orders/{order.id}", 303)


def order_page(record: OrderRecord) -> Response:
    """The page for the present request."""
    _, settings = context(current_app)
    app, path = record.order.app, f"/-/orders/{record.order.id}"
    made = record.order.kind is OrderKind.CREATE
    return live_page(
        "new/order.html",
        OrderLive(record.order.id),
        scope=path,
        app=app,
        is_made=made,
        clone=clone_address(settings, app),
    )


def clone_address(settings: Settings, app: str) -> str:
    """Return where the repository of a new app is cloned from: over SSH, people fill in user and host."""
    return settings.clone_url(app) or f"ssh://USER@HOST{settings.repositories / f'{app}.git'}"


@dataclass(frozen=True)
class OrderShown:
    record: OrderRecord
    status: AppStatus | None
    apis: tuple[OpenApi, ...]


@dataclass(frozen=True)
class OrderLive:
    id: str

    @classmethod
    def of(cls, store: Store, who: Principal, names: Mapping[str, str], asked: QueryParameters) -> OrderLive:
        """Raises RequestRefused for an order of somebody else."""
        record = store.orders.get(names["id"]) if is_order_id(names["id"]) else None
        if record is None or not (who.is_admin or (who.name and record.order.by == who.name)):
            raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, Localizable("There is no such order.")))
        return cls(names["id"])

    def read(self, store: Store) -> OrderShown | None:
        record = store.orders.get(self.id)
        if record is None:
            return None
        app = AppName(record.order.app)
        status = next((each for each in store.apps.all() if each.app == app), None)
        return OrderShown(record, status, tuple(apis_of(store.routes.of(app), store.routes.services(app))))

    def fragments(self, found: Any, language: Language) -> Mapping[str, str]:
        return {"order": render("new/progress.html", language, {"shown": found, **_progress(found)})}


def _progress(found: OrderShown | None) -> dict[str, object]:
    if found is None:
        return {"state": "gone", "told": Told(), "app_state": STATES[AppState.NEW]}
    record, status = found.record, found.status
    is_made = record.order.kind is OrderKind.CREATE and record.state is OrderState.DONE
    app_state = state_of(status) if status is not None else AppState.NEW
    told = Told.about(record.reason, record.message) if record.state is OrderState.REFUSED else Told()
    if is_made and status is not None:
        told = told_of(status.conditions)
    state = str(record.state)
    if is_made:
        state = "answers" if app_state is AppState.READY else "starting"
    if record.order.kind is OrderKind.DELETE and record.state is OrderState.DONE:
        state = "deleted" if status is None else "removing"
    return {"state": state, "told": told, "app_state": STATES[app_state]}


def _form(template: Template, given: Mapping[str, str], problem: HttpProblem | None = None) -> Response:
    limits = {
        "cpus": f"{template.limits.cpus:g}" if template.limits.cpus is not None else "",
        "memory": render_size(template.limits.memory) if template.limits.memory is not None else "",
        "storage": render_size(template.limits.storage) if template.limits.storage is not None else "",
        "gpus": str(template.limits.gpus or 0),
    }
    return page(
        "new/form.html",
        problem.code if problem else 200,
        chosen=template,
        action=f"/-/new/{quote(template.name)}",
        name=given.get("name", ""),
        values={each.name: given.get(f"value-{each.name}", each.default) for each in template.variables},
        limits={key: given.get(f"limit-{key}", value) for key, value in limits.items()},
        you=_allowance(),
        order=secrets.token_hex(16),
        problem=problem.detail if problem else "",
        meaning=meaning_of(problem) if problem else "",
    )


def _allowance() -> dict[str, object]:
    store, settings = context(current_app)
    return allowance_document(store, settings, people_context(current_app).store, principal())


def _known(name: str) -> Template:
    store, settings = context(current_app)
    for record in templates(store, settings):
        if record.name == name and record.template is not None:
            return record.template
    raise RequestRefused(
        HttpProblem(ProblemKind.NOT_FOUND, Localizable("There is no template {name}.", name=name))
    )
