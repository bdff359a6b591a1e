"""Signs people in: checks a password or a one-time link, and begins a session.

A sign-in takes three requests, like the code flow of OAuth 2.0, because our pages are sandboxed and browsers send no
cookie with their forms. The page sets a cookie and carries a value made from it. The form with the password gets a
ticket in a redirect, and the ticket begins the session of the browser whose cookie fits. So nobody signs somebody
else's browser in, and no cookie that was there before becomes a session.

Passwords are tried as often as `attempts` allows, and hashed one after the other in a bounded number of threads.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Final
from urllib.parse import urlsplit

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.people.accounts import SessionRecord, is_account_name
from controller.domain.people.openid import IssuerSession
from controller.domain.routing.passwords import hash_password
from controller.store.people import PeopleStore, SessionLimits, Ticket
from controller.web.auth.attempts import LoginAttempts, log_failure
from controller.web.auth.authenticate import Check, check_password
from controller.web.auth.people import LONGEST
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

CHECKS: Final = 3  # passwords that are hashed at once in one worker
HOME: Final = "/-/"
REALM: Final = "-"  # stands for the API in the limits and in lines of the log
_LINK: Final = "-link-"  # no account is called so
_MOST_NEXT: Final = 500
_MOST_AGENT: Final = 200
_MOST_NAME: Final = 64


@dataclass(frozen=True)
class BegunSession:
    """`secret` is the value of the cookie."""

    user: str
    id: str
    secret: str
    next: str


class SignInAttempt:
    """One attempt to sign in. What is said to be neither good nor bad does not count."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.is_good: bool | None = None


class SharedAttempts:
    """The attempts of people in one worker. Threads may share it."""

    def __init__(self) -> None:
        self._attempts = LoginAttempts(time.monotonic)
        self._lock = threading.Lock()

    @contextmanager
    def one(self, address: str, name: str, scheme: str = "person") -> Iterator[SignInAttempt]:
        """Yield an attempt. Raises RequestRefused if too many have failed."""
        with self._lock:
            wait = self._attempts.begin(address, REALM, name)
        if wait:
            detail = Localizable("Too many sign-ins from there have failed.")
            raise RequestRefused(HttpProblem(ProblemKind.ATTEMPTS, detail, retry_after=wait))
        attempt = SignInAttempt(name)
        try:
            yield attempt
        finally:
            with self._lock:
                if attempt.is_good:
                    self._attempts.succeeded(address, REALM, name)
                elif attempt.is_good is None:
                    self._attempts.give_back(address, REALM, name)
            if attempt.is_good is False:
                log_failure(address, scheme, attempt.user, REALM)


class SignIn:
    """Threads may share it."""

    def __init__(
        self,
        people: PeopleStore,
        limits: SessionLimits,
        check: Check = check_password,
        passwords: bool = True,
    ) -> None:
        self._people = people
        self._limits = limits
        self._matches = check
        self._passwords = passwords
        self.attempts = SharedAttempts()
        self._checks = threading.BoundedSemaphore(CHECKS)
        self._nobody = _hash_of_nobody()

    def by_password(self, address: str, name: str, password: str) -> str | None:
        """Return the name if the password is right, and people may sign in with one. Raises RequestRefused."""

        def check() -> str | None:
            known = self._people.hash_of(name) if self._passwords and is_account_name(name) else ""
            return name if self._matches(known or self._nobody, password) and known else None

        return self._tried(address, name[:_MOST_NAME], check)

    def by_link(self, address: str, code: str, password: str) -> str | None:
        """Set the password of whom the one-time link is for, and return their name. Raises RequestRefused."""

        def use() -> str | None:
            now = time.time()
            if len(code) > LONGEST or not self._passwords or self._people.link_user(code, now) is None:
                return None
            return self._people.use_link(code, hash_password(password), now)

        return self._tried(address, _LINK, use)

    def link_user(self, code: str) -> str | None:
        return self._people.link_user(code, time.time()) if 0 < len(code) <= LONGEST else None

    def ticket(self, user: str, form: str, next: str) -> str:
        secret = secrets.token_urlsafe(32)
        try:
            self._people.put_ticket(secret, Ticket(user, form, local_path(next)), time.time())
        except Stalled as error:
            raise RequestRefused(_busy()) from error
        return secret

    def finish(self, ticket: str, cookie: str, address: str, agent: str, former: str) -> BegunSession | None:
        """Begin a session if the browser is the one that the form was given to. `former` is the cookie of an earlier
        session in it, which ends."""
        found = self._people.take_ticket(ticket, time.time()) if len(ticket) <= LONGEST else None
        if found is None or not cookie or not hmac.compare_digest(form_of(cookie), found.form):
            return None
        return self.begin(found.user, found.next, address, agent, former)

    def begin(
        self,
        user: str,
        next: str,
        address: str,
        agent: str,
        former: str,
        issuer: str = "",
        id_token: str = "",
        origin: IssuerSession | None = None,
    ) -> BegunSession | None:
        """Begin a session of a person who has proved who they are. Return None if it comes from one at an issuer that
        has ended meanwhile."""
        if former:
            self._people.end_cookie(former)
        now = time.time()
        begun = BegunSession(user, secrets.token_hex(6), secrets.token_urlsafe(32), next)
        record = SessionRecord(begun.id, user, now, now, address, agent[:_MOST_AGENT], issuer)
        has_begun = self._people.begin_session(begun.secret, record, self._limits, id_token, origin)
        return begun if has_begun else None

    def _tried(self, address: str, name: str, check: Callable[[], str | None]) -> str | None:
        with self.attempts.one(address, name) as attempt:
            if not self._checks.acquire(blocking=False):
                raise RequestRefused(_busy())
            try:
                found = check()
            finally:
                self._checks.release()
            attempt.is_good = found is not None
        return found


def form_of(cookie: str) -> str:
    """Return what the form carries for the browser with this cookie."""
    return hmac.new(cookie.encode("utf-8", "replace"), b"sign in", "sha256").hexdigest()


def local_path(text: str, and_login: bool = False) -> str:
    """Return where to go after signing in: a path below `/-/`, as no other server can be reached by one.
    `and_login`: the page for signing in counts, too."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return HOME
    is_plain = text.isascii() and text.isprintable() and " " not in text and "\\" not in text
    steps = parts.path.split("/")
    is_ours = text.startswith(HOME) and not parts.scheme and not parts.netloc and len(text) <= _MOST_NEXT
    has_odd_step = "" in steps[1:-1] or "." in steps or ".." in steps or "%" in parts.path
    is_begin = parts.path in ("/-/login", "/-/logout") and not (and_login and parts.path == "/-/login")
    is_begin = is_begin or parts.path.startswith("/-/login/")
    if not is_plain or not is_ours or has_odd_step or is_begin:
        return HOME
    return text


@cache
def _hash_of_nobody() -> str:
    """Return what is checked for unknown accounts and those without a password: they have to take as long as others."""
    return hash_password(secrets.token_hex(16))


def _busy() -> HttpProblem:
    return HttpProblem(ProblemKind.OVERLOADED, Localizable("Too many people sign in at once."), retry_after=1)
