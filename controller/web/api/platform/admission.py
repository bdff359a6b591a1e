"""Admits requests below `/-/` by the table of rules, before any view runs, and writes down what people did.

`judge` is also the rule of the live endpoints, which answer on the event loop.
"""

from __future__ import annotations

import time
from contextlib import suppress
from urllib.parse import urlencode

from flask import Flask, Response, current_app, g, redirect, request
from flask.typing import ResponseReturnValue

from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.people.accounts import AuditEntry
from controller.domain.people.roles import Act, Principal, Verdict, decide
from controller.web.api.platform.refusals import unknown_app
from controller.web.auth import page_tokens
from controller.web.auth.admin import ClientInfo, log_refused
from controller.web.auth.audit import write_down
from controller.web.auth.people import Callers, is_window
from controller.web.auth.promises import settle
from controller.web.auth.rules import RouteRule, rule_of
from controller.web.context import client_info, context, people_context
from controller.web.dry_run import is_dry_run
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

FORM = "application/x-www-form-urlencoded"
FILE_FORM = "multipart/form-data"  # of forms in which people choose a file
_SIGN_IN = (
    "Send a token as a bearer token, sign in at /-/login, or call from this host (docs/reference/people.md)."
)
_CHALLENGE = 'Bearer realm="prichal", Basic realm="prichal"'


def admit_requests(app: Flask) -> None:
    app.before_request(_admit)
    app.after_request(_record)


def judge(principal: Principal | None, act: Act, app: str = "") -> None:
    """Raises RequestRefused if this caller may not do it."""
    if act.is_open:
        return
    if principal is None:
        raise RequestRefused(HttpProblem(ProblemKind.UNAUTHORIZED, _SIGN_IN, challenge=_CHALLENGE))
    match decide(principal, act, app):
        case Verdict.UNKNOWN:
            raise RequestRefused(unknown_app(app))
        case Verdict.FORBIDDEN:
            is_token = not principal.scope.covers(act.scope or principal.scope)
            whose = Localizable("this token") if is_token else Localizable("your role")
            who = principal.name or principal.via
            detail = Localizable(
                "You are known as {who}, but {whose} does not allow this.", who=who, whose=whose
            )
            raise RequestRefused(HttpProblem(ProblemKind.NOT_ALLOWED, detail))
        case Verdict.ALLOWED:
            return


def note(subject: str = "", detail: str = "") -> None:
    """Tell the audit what the present act is about."""
    g.told = (subject, detail)


def note_nothing() -> None:
    """Keep the present request out of the audit: it is a step of an act that is told as a whole."""
    g.told = None


def record_act(who: str, via: str, act: str, subject: str = "", detail: str = "") -> None:
    """Write down what a person did."""
    people = people_context(current_app)
    address = people.callers.address(client_info())
    write_down(people.store, AuditEntry(time.time(), who, via, act, subject, detail, address))


def _admit() -> ResponseReturnValue | None:
    rule = _present_rule()
    if rule is None:
        return None
    if not rule.act.is_open:
        with suppress(
            ControllerError
        ):  # nobody is somebody without that database; the admin token needs none
            settle(people_context(current_app).store, context(current_app).store, time.time())
    caller, who = client_info(), None
    if not rule.act.is_open:
        who = _caller(people_context(current_app).callers, caller, rule)
    g.principal = who
    if who is None and not rule.act.is_open:
        if is_window(caller):
            return redirect("/-/login?" + urlencode({"next": request.full_path.rstrip("?")}), 303)
        log_refused(caller, context(current_app).settings.web)
    judge(who, rule.act, (request.view_args or {}).get("name", ""))
    return None


def _present_rule() -> RouteRule | None:
    """Return the rule of the present route; None if no route fits, and for services, which the gateway has
    admitted."""
    route = request.url_rule.rule if request.url_rule is not None else ""
    if route != "/" and not route.startswith("/-/"):
        return None
    found = rule_of(request.method, route)
    if found is None:
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, "This route has no rule."))
    return found


def _caller(callers: Callers, caller: ClientInfo, rule: RouteRule) -> Principal | None:
    named = caller.headers.keys() & {"authorization", page_tokens.HEADER}
    is_form = request.mimetype in (FORM, FILE_FORM) and not named and bool(rule.told)
    return callers.by_form(caller, request.form.get("form", "")) if is_form else callers.identify(caller)


def _record(response: Response) -> Response:
    rule = rule_of(request.method, request.url_rule.rule) if request.url_rule is not None else None
    who: Principal | None = g.get("principal")
    if rule is not None and rule.told and who is not None and response.status_code < 400 and not is_dry_run():
        told = g.get("told", ((request.view_args or {}).get("name", ""), ""))
        if told is not None:
            record_act(who.name or who.via, who.via, rule.told, *told)
    return response
