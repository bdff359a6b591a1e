"""The page where people sign in, with a password or with a one-time link, and the end of a session."""

from __future__ import annotations

import re
import secrets

from flask import Blueprint, Response, current_app, g, request
from flask.typing import ResponseReturnValue

from controller.config import OpenIdIssuer
from controller.domain.localizable import Localizable, sentence
from controller.domain.people.accounts import password_problem
from controller.store.first_admin import forget_first_login
from controller.web.api.platform.admission import FORM, note, record_act
from controller.web.auth.admin import is_read
from controller.web.auth.openid_sign_in import base_of
from controller.web.auth.people import LOGIN, SESSION, is_form_post
from controller.web.auth.sign_in import BegunSession, form_of, local_path
from controller.web.context import client_info, context, people_context, principal
from controller.web.pages.languages import N_
from controller.web.pages.rendering import page, words
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

sign_in = Blueprint("sign_in", __name__)

LOGIN_LIFETIME = 3600  # seconds that a page with a form for signing in is good
_FORM_VALUE = re.compile(r"[0-9a-f]{64}")

ELSEWHERE = N_("The sign-in did not begin in this browser, or its page was too old. Please sign in again.")
_NO_PASSWORDS = N_("Here people sign in with the buttons below, without a password.")
_WRONG = N_("The name or the password is wrong.")
_USED = N_(
    "This link was used already, or is too old. Ask an administrator for a new one: prichal user passwd NAME"
)
PLAIN = N_(
    "Signing in needs HTTPS, or a tunnel to localhost: over plain HTTP others on the way could read the password."
)


@sign_in.get("/-/login")
def login() -> ResponseReturnValue:
    callers = people_context(current_app).callers
    if not callers.is_private(client_info()):
        return page("login.html", 403, problem=words().text(PLAIN), closed=True, code="", form="")
    if not is_read(client_info()):  # a script of a module could send the form that it read here
        raise RequestRefused(
            HttpProblem(ProblemKind.NOT_ALLOWED, Localizable("Open this page in a window of its own."))
        )
    ticket = request.args.get("ticket", "")
    if ticket and request.method == "GET":
        return _finish(ticket)
    code, next = request.args.get("code", ""), local_path(request.args.get("next", ""))
    user = people_context(current_app).sign_in.link_user(code) if code else None
    if code and user is None:
        return form_page(403, _USED, next=next)
    return form_page(next=next, code=code, user=user or "")


@sign_in.post("/-/login")
def check() -> ResponseReturnValue:
    """The browser goes on to the page above, with a ticket."""
    people = people_context(current_app)
    if (
        request.mimetype != FORM
        or not is_form_post(client_info())
        or not people.callers.is_private(client_info())
    ):
        raise RequestRefused(
            HttpProblem(
                ProblemKind.BAD_REQUEST,
                Localizable("Send the form of /-/login. {why}", why=Localizable.made(PLAIN, {})),
            )
        )
    form = request.form.get("form", "")
    next, code = local_path(request.form.get("next", "")), request.form.get("code", "")
    if not _FORM_VALUE.fullmatch(form):
        return form_page(403, ELSEWHERE, next=next)
    if not context(current_app).settings.sign_in.passwords:
        return _again(form, 403, _NO_PASSWORDS, next)
    try:
        found = _by_link(form, code, next) if code else _by_password(form, next)
    except RequestRefused as refused:
        again = _again(form, refused.problem.code, try_later(refused.problem), next)
        again.headers["Retry-After"] = str(refused.problem.retry_after)
        return again
    return found


@sign_in.post("/-/logout")
def logout() -> ResponseReturnValue:
    people, who = people_context(current_app), principal()
    note(f"session {who.session}")
    issuer, id_token = people.store.sign_out_hint(who.session)
    people.store.end_session(who.session, who.name)
    there = people.issuers.get(issuer)
    place = (
        there.sign_out_url(id_token, f"{base_of(context(current_app).settings.web)}/-/login") if there else ""
    )
    response = _signed_out(there.issuer, place) if there and place else redirected("/-/login")
    set_cookie(response, SESSION, "", 0)
    return response


def _signed_out(issuer: OpenIdIssuer, place: str) -> Response:
    """The page after a session that began at an issuer, where the person is signed in still. It has a link there: the
    policy of our pages lets no form lead to another server, directly or by a redirect."""
    g.place = "/-/login"  # in the links to other languages
    return page("signed_out.html", title=issuer.title or issuer.name, place=place)


def _by_password(form: str, next: str) -> Response:
    people = people_context(current_app)
    name, password = request.form.get("name", ""), request.form.get("password", "")
    user = people.sign_in.by_password(people.callers.address(client_info()), name, password)
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
        problem = Localizable("the two passwords differ")
    if problem:
        return _again(form, 422, sentence(problem), next, code=code, user=user)
    user = people.sign_in.by_link(people.callers.address(client_info()), code, password)
    if user is None:
        return _again(form, 403, _USED, next)
    forget_first_login(context(current_app).settings, code)
    record_act(user, "one-time link", "password set")
    return _to_ticket(user, form, next)


def _to_ticket(user: str, form: str, next: str) -> Response:
    ticket = people_context(current_app).sign_in.ticket(user, form, next)
    return redirected(f"/-/login?ticket={ticket}")


def _finish(ticket: str) -> Response:
    people, caller = people_context(current_app), client_info()
    callers = people.callers
    begun = people.sign_in.finish(
        ticket,
        callers.cookie(caller, LOGIN),
        callers.address(caller),
        caller.headers.get("user-agent", ""),
        callers.cookie(caller, SESSION),
    )
    if begun is None:
        return form_page(403, ELSEWHERE)
    record_act(begun.user, f"session {begun.id}", "login")
    return signed_in(begun)


def signed_in(begun: BegunSession) -> Response:
    """Return the response that gives the browser its session. With the cookie that bound the sign-in to it, whatever
    was made from that one is used up."""
    response = redirected(begun.next)
    set_cookie(response, SESSION, begun.secret, int(people_context(current_app).callers.limits.lifetime))
    set_cookie(response, LOGIN, "", 0)
    return response


def set_cookie(response: Response, name: str, value: str, lifetime: int) -> None:
    callers, caller = people_context(current_app).callers, client_info()
    response.set_cookie(
        callers.cookie_name(caller, name),
        value,
        max_age=lifetime,
        path="/" if callers.is_https(caller) else "/-/",  # the prefix of the name asks for "/"
        secure=callers.is_https(caller),
        httponly=True,
        samesite="Lax",
    )


def form_page(
    status: int = 200, problem: str = "", next: str = "/-/", code: str = "", user: str = ""
) -> Response:
    """The page with a form for this browser, which gets a cookie for it."""
    people, caller = people_context(current_app), client_info()
    cookie = people.callers.cookie(caller, LOGIN)
    response = _again(
        form_of(cookie or (cookie := secrets.token_urlsafe(32))), status, problem, next, code, user
    )
    set_cookie(response, LOGIN, cookie, LOGIN_LIFETIME)
    return response


def _again(form: str, status: int, problem: str, next: str, code: str = "", user: str = "") -> Response:
    """The page with the form that was sent."""
    allowed = context(current_app).settings.sign_in
    values = {"form": form, "problem": words().told(problem), "next": next, "code": code, "user": user}
    ways = {"passwords": allowed.passwords, "issuers": () if code else allowed.oidc}
    return page("login.html", status, closed=False, **values, **ways)


def try_later(problem: HttpProblem) -> str:
    """Return what is wrong, with the seconds to wait."""
    return Localizable("{why} Try again in {wait} s.", why=problem.detail, wait=problem.retry_after)


def redirected(place: str) -> Response:
    response = Response(status=303, content_type="text/plain; charset=utf-8")
    response.headers["Location"] = place
    return response
