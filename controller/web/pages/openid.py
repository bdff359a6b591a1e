"""The buttons of the sign-in page that lead to an issuer of OpenID Connect, and the way back. Whatever goes wrong,
people get the sign-in page again, which says what it was.
"""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, g, request
from flask.typing import ResponseReturnValue

from controller.config import OpenIdIssuer
from controller.domain.localizable import Localizable
from controller.domain.people.accounts import NAME_RULE
from controller.domain.text import printable
from controller.web.api.platform.admission import record_act
from controller.web.auth.admin import is_read, origin_of
from controller.web.auth.openid_sign_in import (
    FinishedSignIn,
    OpenIdRefused,
    OpenIdSignIn,
    SignInRefusal,
    base_of,
)
from controller.web.auth.people import LOGIN, SESSION
from controller.web.auth.sign_in import SignInAttempt, form_of, local_path
from controller.web.context import client_info, context, people_context
from controller.web.pages.languages import N_
from controller.web.pages.rendering import words
from controller.web.pages.sign_in import (
    ELSEWHERE,
    LOGIN_LIFETIME,
    form_page,
    redirected,
    set_cookie,
    signed_in,
    try_later,
)
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

openid = Blueprint("openid", __name__)

ATTEMPT: Final = "openid"  # in lines of the log about failed sign-ins
_AGAIN: Final = "again"  # in the query: the browser was sent to this address already
_BROWSER: Final = 12  # characters that tell browsers apart in the limits
_SHOWN: Final = 100  # characters of a name

#: `{title}` is the issuer, `{name}` what it calls the person, `{rule}` how names of accounts look.
_TEXTS: Final = {
    SignInRefusal.ELSEWHERE: ELSEWHERE,
    SignInRefusal.DENIED: N_("{title} did not sign you in."),
    SignInRefusal.UNVERIFIED: N_(
        "What {title} says about you cannot be verified. Please sign in again; if it happens again, tell an "
        "administrator: the log of the web process has the reason."
    ),
    SignInRefusal.UNREACHABLE: N_(
        "{title} does not answer, or not as it should. Please try again later; the log of the web process has the "
        "reason."
    ),
    SignInRefusal.BUSY: N_("Too many people sign in with {title} at once. Please try again in a moment."),
    SignInRefusal.NAME_TAKEN: N_(
        "The name {name} belongs to somebody else's account here. An administrator can release it: prichal user "
        "release {name}"
    ),
    SignInRefusal.NAME_LOCAL: N_("The name {name} belongs to an account that signs in with a password here."),
    SignInRefusal.NAME_INVALID: N_(
        "{title} calls you {name}, which cannot be the name of an account: {rule}."
    ),
    SignInRefusal.NO_GROUP: N_("Your account at {title} is in no group that may sign in here."),
    SignInRefusal.FULL: N_("There are too many accounts here. Tell an administrator."),
    SignInRefusal.ENDED: N_(
        "{title} says that your session there has ended meanwhile. Please sign in again."
    ),
}


@openid.get("/-/login/oidc/<issuer>")
def begin(issuer: str) -> ResponseReturnValue:
    """The browser goes on to the issuer, with a cookie of ours to which the answer is bound."""
    chosen = _chosen(issuer)
    next = local_path(request.args.get("next", ""))
    if elsewhere := _registered_address(issuer, next):
        return redirected(elsewhere)
    callers, caller = people_context(current_app).callers, client_info()
    cookie = callers.cookie(caller, LOGIN) or secrets.token_urlsafe(32)
    if request.method != "GET":
        return Response(status=204)
    try:
        place = chosen.begin(cookie, next)
    except OpenIdRefused as refused:
        return _refused(refused, chosen.issuer, next)
    response = redirected(place)
    set_cookie(response, LOGIN, cookie, LOGIN_LIFETIME)
    return response


@openid.get("/-/login/oidc/<issuer>/callback")
def callback(issuer: str) -> ResponseReturnValue:
    chosen, people, caller = _chosen(issuer), people_context(current_app), client_info()
    if request.method != "GET":
        return Response(status=204)
    cookie = people.callers.cookie(caller, LOGIN)
    key = f"{issuer} {form_of(cookie)[:_BROWSER]}"
    try:
        with people.sign_in.attempts.one(people.callers.address(caller), key, ATTEMPT) as attempt:
            finished = _finish(chosen, cookie, attempt)
    except OpenIdRefused as refused:
        return _refused(refused, chosen.issuer)
    except RequestRefused as refused:
        page = form_page(refused.problem.code, try_later(refused.problem))
        page.headers["Retry-After"] = str(refused.problem.retry_after)
        return page
    return _begun(chosen, finished)


@openid.post("/-/login/oidc/<issuer>/logout")
def end_sessions(issuer: str) -> ResponseReturnValue:
    """The issuer itself tells that sessions there have ended (OpenID Connect Back-Channel Logout 1.0). Its token proves
    that it is the one; nothing else of the request counts."""
    chosen = _issuer(issuer)
    try:
        ended = chosen.end_sessions(request.form.get("logout_token", ""))
    except OpenIdRefused as refused:
        code = 400 if refused.refusal is SignInRefusal.UNVERIFIED else refused.refusal.status
        detail = "The logout token is not accepted; the log of the web process has the reason."
        raise RequestRefused(HttpProblem(ProblemKind.HTTP, detail, status=code)) from refused
    for each in ended:
        record_act(each.user, ATTEMPT, "logout", f"session {each.id}", f"by {chosen.issuer.name}")
    done = Response(status=200, content_type="text/plain; charset=utf-8")
    done.headers["Cache-Control"] = "no-store"
    return done


def _finish(chosen: OpenIdSignIn, cookie: str, attempt: SignInAttempt) -> FinishedSignIn:
    """Raises OpenIdRefused."""
    try:
        found = chosen.finish(cookie, request.args.to_dict())
    except OpenIdRefused as refused:
        attempt.user = refused.name
        attempt.is_good = False if refused.refusal.counts else None
        raise
    attempt.is_good = True
    return found


def _begun(chosen: OpenIdSignIn, finished: FinishedSignIn) -> Response:
    people, caller, name = people_context(current_app), client_info(), finished.person.name
    begun = people.sign_in.begin(
        name,
        finished.next,
        people.callers.address(caller),
        caller.headers.get("user-agent", ""),
        people.callers.cookie(caller, SESSION),
        chosen.issuer.name,
        finished.id_token,
        finished.origin,
    )
    if begun is None:
        return _refused(OpenIdRefused(SignInRefusal.ENDED, name, name), chosen.issuer)
    via = f"session {begun.id}"
    if finished.person.is_new:
        record_act(name, via, "user add", name, f"by {chosen.issuer.name}")
    gained = [f"+{each.role} {each.app}".strip() for each in finished.person.gained]
    lost = [f"-{each.role} {each.app}".strip() for each in finished.person.lost]
    if gained or lost:
        record_act(name, via, "roles by groups", name, ", ".join([*gained, *lost]))
    record_act(name, via, "login", "", f"by {chosen.issuer.name}")
    return signed_in(begun)


def _refused(refused: OpenIdRefused, issuer: OpenIdIssuer, next: str = "/-/") -> Response:
    """The sign-in page with what went wrong. What was refused to somebody whom the issuer knows is in the audit."""
    name = printable(refused.name)[:_SHOWN]
    if refused.who:
        detail = " ".join(filter(None, (name, refused.refusal.word)))
        record_act(refused.who, ATTEMPT, "login refused", "", detail)
    about = {"title": issuer.title or issuer.name, "name": name, "rule": words().told(NAME_RULE)}
    g.place = "/-/login?" + urlencode({"next": next})  # not this address, which has the issuer's answer
    text = words().text(_TEXTS[refused.refusal]).format(**about)
    return form_page(refused.refusal.status, text, next=next)


def _chosen(name: str) -> OpenIdSignIn:
    """Return the sign-in with an issuer, for a window. Raises RequestRefused."""
    found, people = _issuer(name), people_context(current_app)
    if not is_read(client_info()) or not people.callers.is_private(client_info()):
        detail = Localizable("Open this address in a window of its own, over HTTPS or on this host.")
        raise RequestRefused(HttpProblem(ProblemKind.NOT_ALLOWED, detail))
    return found


def _issuer(name: str) -> OpenIdSignIn:
    """Raises RequestRefused."""
    found = people_context(current_app).issuers.get(name)
    if found is None:
        detail = Localizable("No issuer is called {name}.", name=name)
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, detail))
    return found


def _registered_address(name: str, next: str) -> str:
    """Return the same place at the address that is registered with the issuer, where it sends people back to: only
    there the browser has the cookie then. Empty if the browser is there, or was sent there before."""
    web = context(current_app).settings.web
    origin = origin_of(client_info(), web)
    here = f"{origin.scheme.decode('latin-1')}://{origin.host.decode('latin-1')}"
    if here == base_of(web) or _AGAIN in request.args:
        return ""
    return f"{base_of(web)}/-/login/oidc/{name}?" + urlencode({"next": next, _AGAIN: 1})
