"""New apps from templates, and the deletion of apps: `POST /-/apps`, `DELETE /-/apps/<name>` and what comes of them.

The daemon makes the app, and the one who has asked for it becomes its developer: `controller.web.auth.promises` keeps
both together.
"""

from __future__ import annotations

import time

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.apps.orders import AppOrder, OrderRecord
from controller.templates.asking import NewApp, templates
from controller.web.api.platform.admission import note
from controller.web.api.platform.app_orders import allowance_document, ask_creation, ask_deletion, own_order
from controller.web.api.platform.calling import invalid
from controller.web.api.platform.order_documents import order_document, template_document
from controller.web.bodies import read_json, require_json
from controller.web.context import context, people_context, principal, query
from controller.web.pages.new_app import order_page
from controller.web.pages.rendering import wants_page
from controller.web.pages.templates import templates_page

new_apps = Blueprint("new_apps", __name__)

_BODY = (
    '{"name": "pu-ivanov-pa-demo", "template": "function", "values": {"path": "api"}, "limits": {"cpus": 1}}'
)


@new_apps.get("/-/templates")
def list_templates() -> ResponseReturnValue:
    """Templates, and what the caller may make of them; a page for people."""
    if wants_page():
        return templates_page()
    store, settings = context(current_app)
    who = principal()
    found = [template_document(each, who.is_admin) for each in templates(store, settings)]
    return {
        "templates": found,
        "you": allowance_document(store, settings, people_context(current_app).store, who),
    }


@new_apps.post("/-/apps")
def create_app() -> ResponseReturnValue:
    order = ask_creation(_wanted())
    note(order.app, f"from the template {order.template}")
    return placed(order)


@new_apps.delete("/-/apps/<name>")
def delete_app(name: str) -> ResponseReturnValue:
    order = ask_deletion(name, query().text("confirm") or "")
    note(order.app)
    return placed(order)


@new_apps.get("/-/orders/<id>")
def show_order(id: str) -> ResponseReturnValue:
    """A document for programs, a page for people."""
    record = own_order(id)
    if wants_page():
        return order_page(record)
    return order_document(record, context(current_app).settings)


def placed(order: AppOrder) -> ResponseReturnValue:
    store, settings = context(current_app)
    record = store.orders.get(order.id) or OrderRecord(order, time.time())
    return order_document(record, settings), 202, {"Location": f"/-/orders/{order.id}"}


# --- what is asked for ------------------------------------------------------------------------------------------


def _wanted() -> NewApp:
    require_json(request.mimetype, f"Send JSON such as {_BODY}.")
    asked = read_json(request.get_data(cache=False))
    if not isinstance(asked, dict) or not {"name", "template"} <= set(asked) <= {
        "name",
        "template",
        "values",
        "limits",
    }:
        raise invalid(f"The body must be a mapping such as {_BODY}.")
    values, limits = asked.get("values", {}), asked.get("limits", {})
    texts = isinstance(asked["name"], str) and isinstance(asked["template"], str)
    if not texts or not isinstance(values, dict) or not isinstance(limits, dict):
        raise invalid(f"The body must be a mapping such as {_BODY}.")
    for name, value in values.items():
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise invalid(f"The value of {name[:40]} must be a text or a whole number.")
    for name, limit in limits.items():
        if not isinstance(limit, str | int | float) or isinstance(limit, bool):
            raise invalid(f"The limit {name[:40]} must be a number or a size.")
    return NewApp(
        asked["name"], asked["template"], {name: str(value) for name, value in values.items()}, limits
    )
