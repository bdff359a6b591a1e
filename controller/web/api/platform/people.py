"""Sessions, API tokens and the audit: as JSON for programs, as pages for people. Everybody sees and ends their own
sessions and tokens; administrators those of all."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable, sentence
from controller.domain.people.accounts import LABEL, Scope, TokenRecord
from controller.domain.people.documents import audit_document, session_document, token_document
from controller.domain.people.tokens import LONGEST_DAYS, USUAL_DAYS, new_token
from controller.web.api.platform.admission import FORM, note
from controller.web.api.platform.calling import invalid
from controller.web.bodies import read_json, require_json
from controller.web.context import people_context, principal, query
from controller.web.pages.flashes import Flash, redirect_saying
from controller.web.pages.people_pages import audit_rows, session_rows, token_rows
from controller.web.pages.rendering import page, wants_page
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

people = Blueprint("people", __name__)

MOST_ACTS: Final = 1000
_BODY = '{"label": "laptop", "scope": "deploy", "days": 30}'


@people.get("/-/sessions")
def sessions() -> ResponseReturnValue:
    known, who, now = people_context(current_app), principal(), time.time()
    found = known.store.sessions(known.callers.limits, now, None if _is_about_all() else who.name)
    if not wants_page():
        return {"sessions": [{**session_document(each), "present": each.id == who.session} for each in found]}
    return page("sessions.html", rows=session_rows(found, who.session), is_all=query().flag("all"))


@people.post("/-/sessions/<id>/revoke")
def revoke_session(id: str) -> ResponseReturnValue:
    found = people_context(current_app).store.end_session(id, _only())
    if found is None:
        raise _missing(Localizable("There is no session {id}.", id=id))
    note(f"session {found.id}", f"of {found.user}")
    return redirect_saying("/-/sessions", Flash.SESSION_ENDED) if wants_page() else {"revoked": found.id}


@people.get("/-/tokens")
def tokens() -> ResponseReturnValue:
    found = people_context(current_app).store.tokens(None if _is_about_all() else principal().name)
    if not wants_page():
        return {"tokens": [token_document(each) for each in found]}
    return _tokens_page(found)


@people.post("/-/tokens")
def add_token() -> ResponseReturnValue:
    """The token itself is in this answer and never again."""
    who, store = principal(), people_context(current_app).store
    if not who.name:
        detail = Localizable(
            "A token belongs to a person, and you have no account. On the host: prichal token add USER"
        )
        raise RequestRefused(HttpProblem(ProblemKind.NOT_ALLOWED, detail))
    secret, token = _asked_token(who.name)
    try:
        store.add_token(secret, token)
    except Stalled as error:
        raise RequestRefused(HttpProblem(ProblemKind.INVALID, sentence(error.message))) from error
    note(f"token {token.id}", f"{token.scope} {token.label}".strip())
    if wants_page():
        return _tokens_page(store.tokens(who.name), secret)
    return {**token_document(token), "token": secret}, 201


@people.post("/-/tokens/<id>/revoke")
def revoke_token(id: str) -> ResponseReturnValue:
    found = people_context(current_app).store.revoke_token(id, _only())
    if found is None:
        raise _missing(Localizable("There is no token {id}.", id=id))
    note(f"token {found.id}", f"of {found.user}")
    return redirect_saying("/-/tokens", Flash.TOKEN_REVOKED) if wants_page() else {"revoked": found.id}


@people.get("/-/audit")
def audit() -> ResponseReturnValue:
    limit = min(query().number("limit", 100), MOST_ACTS)
    found = people_context(current_app).store.acts(limit, query().text("who") or None)
    if not wants_page():
        return {"acts": [audit_document(each) for each in found]}
    return page("audit.html", rows=audit_rows(found), who=query().text("who") or "")


def _asked_token(user: str) -> tuple[str, TokenRecord]:
    """Return the secret of a new token, and what is kept of it. Raises RequestRefused."""
    if request.mimetype == FORM:
        asked: Any = {name: request.form[name] for name in ("label", "scope", "days") if name in request.form}
        days = asked.get("days", str(USUAL_DAYS))
        asked["days"] = int(days) if days.isdecimal() and len(days) < 5 else 0
    else:
        require_json(request.mimetype, f"Send JSON such as {_BODY}.")
        asked = read_json(request.get_data(cache=False))
    if not isinstance(asked, dict) or not set(asked) <= {"label", "scope", "days"}:
        raise invalid(f"The body must be a mapping such as {_BODY}.")
    label, scope, days = asked.get("label", ""), asked.get("scope", "read"), asked.get("days", USUAL_DAYS)
    if not isinstance(label, str) or len(label) > LABEL or not label.isprintable():
        raise invalid(Localizable("label must be a text of at most {most} characters.", most=LABEL))
    if scope not in list(Scope):
        raise invalid(Localizable("scope must be one of {names}.", names=", ".join(Scope)))
    if type(days) is not int or not 1 <= days <= LONGEST_DAYS:
        raise invalid(Localizable("days must be a whole number from 1 to {most}.", most=LONGEST_DAYS))
    return new_token(user, label, Scope(scope), days, time.time(), secrets.token_urlsafe(32))


def _is_about_all() -> bool:
    """Callers without an account have nothing of their own. Raises RequestRefused."""
    who = principal()
    if not query().flag("all"):
        return not who.name
    if not who.is_admin:
        raise RequestRefused(
            HttpProblem(ProblemKind.NOT_ALLOWED, Localizable("Only administrators see those of others."))
        )
    return True


def _only() -> str | None:
    """Return whose sessions and tokens the caller may revoke; None for administrators."""
    return None if principal().is_admin else principal().name


def _tokens_page(found: tuple[TokenRecord, ...], secret: str = "") -> Response:
    return page(
        "tokens.html",
        rows=token_rows(found, time.time()),
        is_all=query().flag("all"),
        secret=secret,
        scopes=list(Scope),
        days=USUAL_DAYS,
        longest=LONGEST_DAYS,
    )


def _missing(detail: str) -> RequestRefused:
    return RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, detail))
