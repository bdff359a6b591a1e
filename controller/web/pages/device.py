"""Signing in of programs: `prichal login` begins it here, a person confirms it in a browser, and the program gets a
token. This is the device authorization grant of OAuth 2.0 (RFC 8628) with our names of fields; it also works where
the browser runs on another machine than the program.

The page tells who asks, and nothing is granted without the button on it: a link to it that somebody was sent grants
nothing by itself. The program proves by a secret that it is the one that began.
"""

from __future__ import annotations

import secrets
import time
from typing import Final

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.people.accounts import LABEL, Scope, TokenRecord
from controller.domain.people.tokens import USUAL_DAYS, new_token
from controller.domain.reasons import Reason
from controller.domain.units import rfc3339
from controller.store.device_logins import LIFETIME, DeviceLogin, DeviceLogins, Unanswered
from controller.web.api.platform.admission import FORM, note, record_act
from controller.web.auth.people import LONGEST
from controller.web.context import client_info, people_context, principal
from controller.web.pages.languages import N_
from controller.web.pages.rendering import page
from controller.web.pages.sign_in import PLAIN
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

device = Blueprint("device", __name__)

INTERVAL: Final = 2  # seconds between two questions of a program
#: Letters of codes: no vowels, so that none spells a word, and none that looks like another.
LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_UNKNOWN: Final = N_("This code is not known, or is too old. Begin again with: prichal login URL")
_ANSWERED: Final = N_("The code was answered already, or is too old.")
_TOLD: Final = {
    Unanswered.DENIED: "the person in the browser has declined",
    Unanswered.GONE: "nobody has confirmed it in time, or the token was given out before",
}


@device.post("/-/device")
def begin() -> ResponseReturnValue:
    """A program asks for a token: `label` says what it is, `scope` what it needs."""
    _require_private()
    label, scope = request.form.get("label", ""), request.form.get("scope", Scope.DEPLOY.value)
    if scope not in list(Scope) or len(label) > LABEL or not label.isprintable():
        detail = f"scope must be one of {', '.join(Scope)}, and label a text of at most {LABEL} characters."
        raise RequestRefused(HttpProblem(ProblemKind.INVALID, detail))
    secret, code = secrets.token_urlsafe(32), new_code()
    address = people_context(current_app).callers.address(client_info())
    try:
        _logins().begin(secret, code, DeviceLogin(label, Scope(scope), address), time.time())
    except Stalled as error:
        problem = HttpProblem(ProblemKind.ATTEMPTS, f"{error.message}.", retry_after=60)
        raise RequestRefused(problem) from error
    shown = f"{code[:4]}-{code[4:]}"
    path = f"/-/device?code={shown}"
    return {"secret": secret, "code": shown, "path": path, "expiresIn": int(LIFETIME), "interval": INTERVAL}


@device.post("/-/device/token")
def token() -> ResponseReturnValue:
    """Return the token once the person has agreed; 202 before they have answered."""
    _require_private()
    secret = request.form.get("secret", "")
    try:
        found = (
            _logins().take(secret, time.time(), _new_token) if 0 < len(secret) <= LONGEST else Unanswered.GONE
        )
    except Stalled as error:
        raise RequestRefused(_refusal(error.message)) from error
    if found is Unanswered.PENDING:
        return {"state": found.value, "interval": INTERVAL}, 202
    if isinstance(found, Unanswered):
        raise RequestRefused(_refusal(f"no token was given: {_TOLD[found]}"))
    made = found.token
    record_act(made.user, "device", "token add", f"token {made.id}", f"{made.scope} {made.label}".strip())
    expires = rfc3339(made.expires)
    return {"token": found.secret, "user": made.user, "scope": made.scope.value, "expires": expires}


@device.get("/-/device")
def ask() -> ResponseReturnValue:
    code = request.args.get("code", "")
    found = _logins().waiting(plain_code(code), time.time()) if code else None
    if found is None:
        return page(
            "device.html", 404 if code else 200, problem=_UNKNOWN if code else "", done="", login=None
        )
    return page("device.html", problem="", done="", login=found, code=code)


@device.post("/-/device/answer")
def answer() -> ResponseReturnValue:
    who = principal()
    if not who.name:
        detail = Localizable("A token belongs to a person, and you have no account.")
        raise RequestRefused(HttpProblem(ProblemKind.NOT_ALLOWED, detail))
    scope = request.form.get("scope", "")
    agreed = request.form.get("answer") == "allow"
    if request.mimetype != FORM or (agreed and scope not in list(Scope)):
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, Localizable("Send the form of /-/device.")))
    code = plain_code(request.form.get("code", ""))
    found = _logins().answer(code, who.name, Scope(scope) if agreed else None, time.time())
    if found is None:
        note("device", "too late")
        return page("device.html", 404, problem=_ANSWERED, done="", login=None)
    note("device", f"{'allowed ' + scope if agreed else 'declined'} {found.label}".strip())
    return page("device.html", problem="", done="allowed" if agreed else "declined", login=None)


def new_code() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(8))


def plain_code(text: str) -> str:
    """Return a code as it was made, however a person has typed it."""
    return "".join(letter for letter in text[:40].upper() if letter in LETTERS)[:8]


def _new_token(user: str, label: str, scope: Scope) -> tuple[str, TokenRecord]:
    return new_token(user, label, scope, USUAL_DAYS, time.time(), secrets.token_urlsafe(32))


def _logins() -> DeviceLogins:
    return DeviceLogins(people_context(current_app).store)


def _require_private() -> None:
    if not people_context(current_app).callers.is_private(client_info()):
        raise RequestRefused(HttpProblem(ProblemKind.NOT_ALLOWED, Localizable.made(PLAIN, {})))


def _refusal(told: str) -> HttpProblem:
    return HttpProblem(ProblemKind.NOT_ALLOWED, told, extra={"reason": Reason.LOGIN_REFUSED})
