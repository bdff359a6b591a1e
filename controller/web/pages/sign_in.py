"""The page where people sign in, with a password or with a one-time link, and the end of a session."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from flask import Blueprint, Response, current_app, render_template, request
from flask.typing import ResponseReturnValue

from controller.domain.people.accounts import password_problem
from controller.store.first_admin import forget_first_login
from controller.web.api.platform.admission import FORM, note, record_act
from controller.web.auth.admin import is_read
from controller.web.auth.people import LOGIN, SESSION, is_form_post
from controller.web.auth.sign_in import BegunSession, form_of, local_path
from controller.web.context import context, people_context, principal, visitor
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

sign_in = Blueprint("sign_in", __name__)

#: Forms are sent to this host alone, and the page has an origin of its own, like all below `/-/`.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "sandbox allow-forms"
)
LOGIN_LIFETIME = 3600  # seconds that a page with a form for signing in is good
_FORM_VALUE = re.compile(r"[0-9a-f]{64}")

_ELSEWHERE = "The sign-in did not begin in this browser, or its page was too old. Please sign in again."
_WRONG = "The name or the password is wrong."
_USED = (
    "This link was used already, or is too old. Ask an administrator for a new one: prichal user passwd NAME"
)
_PLAIN = "Signing in needs HTTPS, or a tunnel to localhost: over plain HTTP others on the way could read the password."


def page_response(template: str, values: Mapping[str, object], status: int = 200) -> Response:
    page = Response(render_template(template, **values), status, content_type="text/html; charset=utf-8")
    page.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return page


@sign_in.get("/-/login")
def login() -> ResponseReturnValue:
    callers = people_context(current_app).callers
    if not callers.is_private(visitor()):
        return page_response("login.html", {"problem": _PLAIN, "closed": True}, 403)
    if not is_read(visitor()):  # a script of a module could send the form that it read here
        raise RequestRefused(HttpProblem(ProblemKind.NOT_ALLOWED, "Open this page in a window of its own."))
    ticket = request.args.get("ticket", "")
    if ticket and request.method == "GET":
        return _finish(ticket)
    code, next = request.args.get("code", ""), local_path(request.args.get("next", ""))
    user = people_context(current_app).sign_in.link_user(code) if code else None
    if code and user is None:
        return _form_page(403, _USED, next=next)
    return _form_page(next=next, code=code, user=user or "")


@sign_in.post("/-/login")
def check() -> ResponseReturnValue:
    """The browser goes on to the page above, with a ticket."""
    people = people_context(current_app)
    if request.mimetype != FORM or not is_form_post(visitor()) or not people.callers.is_private(visitor()):
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, f"Send the form of /-/login. {_PLAIN}"))
    form = request.form.get("form", "")
    next, code = local_path(request.form.get("next", "")), request.form.get("code", "")
    if not _FORM_VALUE.fullmatch(form):
        return _form_page(403, _ELSEWHERE, next=next)
    try:
        found = _by_link(form, code, next) if code else _by_password(form, next)
    except RequestRefused as refused:
        wait = refused.problem.retry_after
        page = _again(form, refused.problem.code, f"{refused.problem.detail} Try again in {wait} s.", next)
        page.headers["Retry-After"] = str(wait)
        return page
    return found


@sign_in.post("/-/logout")
def logout() -> ResponseReturnValue:
    people, who = people_context(current_app), principal()
    note(f"session {who.session}")
    people.store.end_session(who.session, who.name)
    response = _redirected("/-/login")
    _set_cookie(response, SESSION, "", 0)
    return response


def _by_password(form: str, next: str) -> Response:
    people = people_context(current_app)
    name, password = request.form.get("name", ""), request.form.get("password", "")
    user = people.sign_in.by_password(people.callers.address(visitor()), name, password)
    if user is None:
        return _again(form, 403, _WRONG, next)
    return _to_ticket(user, form, next)


def _by_link(form: str, code: str, next: str) -> Response:
    people = people_context(current_app)
    user = people.sign_in.link_user(code)
    if user is None:
        return _again(form, 403, _USED, next)
    password = request.form.get("password", "")
    problem = password_problem(password, user)
    if not problem and password != request.form.get("again", ""):
        problem = "the two passwords differ"
    if problem:
        return _again(form, 422, f"{problem[0].upper()}{problem[1:]}.", next, code=code, user=user)
    user = people.sign_in.by_link(people.callers.address(visitor()), code, password)
    if user is None:
        return _again(form, 403, _USED, next)
    forget_first_login(context(current_app).settings, code)
    record_act(user, "one-time link", "password set")
    return _to_ticket(user, form, next)


def _to_ticket(user: str, form: str, next: str) -> Response:
    ticket = people_context(current_app).sign_in.ticket(user, form, next)
    return _redirected(f"/-/login?ticket={ticket}")


def _finish(ticket: str) -> Response:
    people, caller = people_context(current_app), visitor()
    callers = people.callers
    begun = people.sign_in.finish(
        ticket,
        callers.cookie(caller, LOGIN),
        callers.address(caller),
        caller.headers.get("user-agent", ""),
        callers.cookie(caller, SESSION),
    )
    if begun is None:
        return _form_page(403, _ELSEWHERE)
    record_act(begun.user, f"session {begun.id}", "login")
    response = _redirected(begun.next)
    _set_session(response, begun)
    return response


def _set_session(response: Response, begun: BegunSession) -> None:
    _set_cookie(response, SESSION, begun.secret, int(people_context(current_app).callers.limits.lifetime))
    _set_cookie(response, LOGIN, "", 0)


def _set_cookie(response: Response, name: str, value: str, lifetime: int) -> None:
    callers, caller = people_context(current_app).callers, visitor()
    response.set_cookie(
        callers.cookie_name(caller, name),
        value,
        max_age=lifetime,
        path="/" if callers.is_https(caller) else "/-/",  # the prefix of the name asks for "/"
        secure=callers.is_https(caller),
        httponly=True,
        samesite="Lax",
    )


def _form_page(
    status: int = 200, problem: str = "", next: str = "/-/", code: str = "", user: str = ""
) -> Response:
    """The page with a form for this browser, which gets a cookie for it."""
    people, caller = people_context(current_app), visitor()
    cookie = people.callers.cookie(caller, LOGIN)
    response = _again(
        form_of(cookie or (cookie := secrets.token_urlsafe(32))), status, problem, next, code, user
    )
    _set_cookie(response, LOGIN, cookie, LOGIN_LIFETIME)
    return response


def _again(form: str, status: int, problem: str, next: str, code: str = "", user: str = "") -> Response:
    """The page with the form that was sent."""
    values = {"form": form, "problem": problem, "next": next, "code": code, "user": user}
    return page_response("login.html", values, status)


def _redirected(place: str) -> Response:
    response = Response(status=303, content_type="text/plain; charset=utf-8")
    response.headers["Location"] = place
    return response
