"""Accounts and roles of people, for administrators: as JSON for programs, as a page for people.

A password is never chosen for somebody: an account begins with a one-time link, which is shown once. Administrators do
not remove their own account or role here, so that one of them is always left.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable, sentence
from controller.domain.names import AppName, is_dns_label
from controller.domain.people.accounts import Account
from controller.domain.people.documents import account_document, role_document
from controller.domain.people.roles import ALL, Grant, Role, is_app_pattern
from controller.domain.reasons import Reason
from controller.store.first_admin import login_url
from controller.store.people import LINK, PeopleStore
from controller.web.api.platform.admission import FORM, note
from controller.web.api.platform.calling import invalid
from controller.web.bodies import read_json, require_json
from controller.web.context import context, people_context, principal
from controller.web.pages.flashes import Flash, redirect_saying
from controller.web.pages.rendering import page, wants_page
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

users = Blueprint("users", __name__)

PLACE: Final = "/-/users"


@users.get(PLACE)
def list_users() -> ResponseReturnValue:
    store = _store()
    accounts, grants = store.accounts(), store.grants(time.time())
    if wants_page():
        return _page(store)
    return {"users": [account_document(each, _roles(each, grants)) for each in accounts]}


@users.post(PLACE)
def add_user() -> ResponseReturnValue:
    """The one-time link is in this answer and never again."""
    asked, store = _asked("name", "admin"), _store()
    name = _text(asked, "name")
    is_admin = asked.get("admin") in (True, "1")
    _do(lambda: store.add(name, time.time()))
    if is_admin:
        store.grant(Grant(name, Role.ADMIN))
    note(name, "admin" if is_admin else "")
    return _linked(store, name, 201)


@users.post(f"{PLACE}/<id>/link")
def new_link(id: str) -> ResponseReturnValue:
    store = _store()
    note(id, "one-time link")
    return _linked(store, id, 200)


@users.post(f"{PLACE}/<id>/remove")
def remove_user(id: str) -> ResponseReturnValue:
    if id == principal().name:
        raise invalid(Localizable("Nobody removes their own account: ask another administrator."))
    store = _store()
    _do(lambda: store.remove(id))
    note(id)
    return redirect_saying(PLACE, Flash.USER_REMOVED) if _is_form() else {"removed": id}


@users.post(f"{PLACE}/<id>/roles")
def give_role(id: str) -> ResponseReturnValue:
    store, grant = _store(), _grant(id)
    _do(lambda: store.grant(grant))
    note(id, _words(grant))
    return redirect_saying(PLACE, Flash.ROLE_GIVEN) if _is_form() else {"user": id, **role_document(grant)}


@users.post(f"{PLACE}/<id>/roles/revoke")
def take_role(id: str) -> ResponseReturnValue:
    store, grant = _store(), _grant(id)
    if id == principal().name and grant.role is Role.ADMIN:
        raise invalid(Localizable("Nobody takes this role from themselves: ask another administrator."))
    if not store.take_back(grant):
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, _not_given(store, grant)))
    note(id, _words(grant))
    return redirect_saying(PLACE, Flash.ROLE_TAKEN) if _is_form() else {"user": id, **role_document(grant)}


def _linked(store: PeopleStore, name: str, status: int) -> ResponseReturnValue:
    """Make a one-time link and show it."""
    code = secrets.token_urlsafe(32)
    _do(lambda: store.put_link(name, code, time.time() + LINK))
    link = login_url(context(current_app).settings, code)
    return _page(store, name, link) if _is_form() else ({"name": name, "link": link}, status)


def _page(store: PeopleStore, name: str = "", link: str = "") -> Response:
    grants = store.grants(time.time())
    rows = [(account, _roles(account, grants)) for account in store.accounts()]
    return page("users.html", rows=rows, roles=list(Role), name=name, link=link, own=principal().name)


def _roles(account: Account, grants: tuple[Grant, ...]) -> list[Grant]:
    return [grant for grant in grants if grant.user == account.name]


def _grant(id: str) -> Grant:
    """Return the role that the body names. Raises RequestRefused."""
    asked = _asked("role", "app")
    word, app = _text(asked, "role"), str(asked.get("app") or ALL)
    if word not in list(Role):
        raise invalid(Localizable("role must be one of {names}.", names=", ".join(Role)))
    if app != ALL and not is_dns_label(app) and not is_app_pattern(app):
        raise invalid(
            Localizable(
                "{app!r} cannot be the name of an app, or the beginning of names such as pu-lab-*.", app=app
            )
        )
    return Grant(id, Role(word), AppName(app))


def _asked(*names: str) -> dict[str, Any]:
    """Return the fields of the form, or of the JSON body. Raises RequestRefused."""
    if _is_form():
        return {name: request.form[name] for name in names if name in request.form}
    require_json(request.mimetype, f"Send JSON with {' and '.join(names)}.")
    found = read_json(request.get_data(cache=False))
    if not isinstance(found, dict) or not set(found) <= set(names):
        raise invalid(f"The body must be a mapping with {' and '.join(names)}.")
    return found


def _text(asked: dict[str, Any], name: str) -> str:
    found = asked.get(name, "")
    if not isinstance(found, str) or not 0 < len(found) <= 100:
        raise invalid(Localizable("{name} must be a text of 1 to 100 characters.", name=name))
    return found


def _do(change: Any) -> None:
    """Make a change of the accounts, and say what is wrong with it. Raises RequestRefused."""
    try:
        change()
    except Stalled as error:
        kind = ProblemKind.NOT_FOUND if error.reason is Reason.UNKNOWN_USER else ProblemKind.INVALID
        raise RequestRefused(HttpProblem(kind, sentence(error.message))) from error


def _not_given(store: PeopleStore, grant: Grant) -> Localizable:
    """Say that an account has no such role, and where a role is taken away that a group gives."""
    groups = [
        each.group
        for each in store.grants(time.time(), grant.user)
        if each.group and (each.role, each.app) == (grant.role, grant.app)
    ]
    if not groups:
        return Localizable("{user} is not {role}.", user=grant.user, role=_words(grant))
    return Localizable(
        "{user} is not {role} by the account, but by the group {groups}: take them out of it, or change people.oidc.",
        user=grant.user,
        role=_words(grant),
        groups=", ".join(groups),
    )


def _words(grant: Grant) -> str:
    return f"{grant.role} of {grant.app}" if grant.app else grant.role.value


def _is_form() -> bool:
    return request.mimetype == FORM


def _store() -> PeopleStore:
    return people_context(current_app).store
