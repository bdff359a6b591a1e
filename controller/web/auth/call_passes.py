"""Passes by which a page of ours calls an API on behalf of the person in front of it: *try it*.

A pass is good for some minutes, for one API, and as long as the session that it was made for; what the person may call
is judged by their roles at each call. It is sent as `X-Prichal-Pass` with `Origin: null`: pages of the platform are
sandboxed, and pages of modules have no pass. The gateway takes it off, as it does with other credentials, so a
component never sees one (docs/security.md).

Its caller's name is `person:NAME`. No other credential has names that begin so, see domain/routing/caller_names.py.
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from controller.config import WebSettings
from controller.domain.localizable import Localizable
from controller.domain.people.roles import Act, Principal, Verdict, administrator, decide
from controller.domain.routing.caller_names import name_of_person
from controller.domain.routing.routes import Api
from controller.store.people import PeopleStore, SessionLimits
from controller.web.auth.authenticate import AuthenticatedCaller
from controller.web.gateway.cors import EXPOSED, CorsPolicy, CorsRequest
from controller.web.gateway.headers import Header, combined
from controller.web.gateway.router import PublishedApi
from controller.web.problems import HttpProblem, ProblemKind

HEADER: Final = b"x-prichal-pass"
ORIGIN: Final = b"null"
LIFETIME: Final = 600.0  # seconds
LONGEST: Final = 1000  # characters
#: Holders without a session: of the admin token.
ADMIN: Final = "@admin"

_REFUSED: Final = Localizable(
    "This page's pass for the API is not good here, or not any more: load the page again."
)
_FORBIDDEN: Final = Localizable("Your role does not allow to call this API. Developers of the app may.")

#: What a page of ours may read of an answer, whatever the API says about other pages.
SHARED: Final = CorsPolicy(
    origins=frozenset((ORIGIN,)),
    any=False,
    max_age=b"600",
    always=((b"vary", b"Origin"),),
    allowed=((b"access-control-expose-headers", ", ".join(EXPOSED).encode()),),
)
#: Header fields by which browsers tell servers about the page; a server could refuse the platform's as foreign.
_OF_PAGE: Final = (b"origin: ", b"referer: ", b"sec-fetch-")


@dataclass(frozen=True)
class CallPass:
    """`holder` is the id of a session, or ADMIN; `api` is `<app>/<path>`; `expires` in Unix seconds."""

    holder: str
    api: str
    expires: int

    def signed(self, key: str) -> str:
        """`key` is the holder's."""
        text = f"{self.holder}.{self.expires}.{urlsafe_b64encode(self.api.encode()).decode().rstrip('=')}"
        return f"{text}.{_signature(key, text)}"


def read_pass(text: str) -> CallPass | None:
    """Return what the pass says; `CallPasses` checks it."""
    parts = text.split(".")
    if len(text) > LONGEST or not text.isascii() or len(parts) != 4:
        return None
    holder, expires, api, _ = parts
    if not (expires.isdecimal() and len(expires) < 15):
        return None
    try:
        return CallPass(holder, urlsafe_b64decode(api + "=" * (-len(api) % 4)).decode(), int(expires))
    except ValueError:
        return None


def may_call(principal: Principal, app: str, api: Api) -> bool:
    """Developers of the app and admins may call all of its APIs, others who see it those that are open to all."""
    act = Act.SEE if api.open_to_all else Act.STEER
    return decide(principal, act, app) is Verdict.ALLOWED


class CallPasses:
    """Makes and checks passes. Threads may share it; a check reads the database of people."""

    def __init__(
        self, people: PeopleStore, settings: WebSettings, clock: Callable[[], float] = time.time
    ) -> None:
        self._people = people
        self._settings = settings
        self._clock = clock
        self._limits = SessionLimits(settings.session_idle, settings.session_lifetime)

    def make(self, principal: Principal, api: str) -> tuple[str, int] | None:
        """Return a pass and when it expires; None for callers who have neither a session nor the admin token."""
        holder = principal.session if principal.name else ADMIN
        key = self._key(holder)
        expires = int(self._clock() + LIFETIME)
        return (CallPass(holder, api, expires).signed(key), expires) if key else None

    def admit(
        self, target: PublishedApi, sent: bytes, origin: bytes | None
    ) -> AuthenticatedCaller | HttpProblem:
        """Return the caller who presents this pass at an API."""
        text = sent.decode("latin-1")
        found = read_pass(text)
        if found is None or origin != ORIGIN or found.api != target.label or found.expires <= self._clock():
            return HttpProblem(ProblemKind.UNAUTHORIZED, _REFUSED)
        signed, _, signature = text.rpartition(".")
        key = self._key(found.holder)
        if not key or not hmac.compare_digest(_signature(key, signed), signature):
            return HttpProblem(ProblemKind.UNAUTHORIZED, _REFUSED)
        who = self._holder(found.holder)
        if who is None:
            return HttpProblem(ProblemKind.UNAUTHORIZED, _REFUSED)
        if not may_call(who, target.label.partition("/")[0], target.api):
            return HttpProblem(ProblemKind.NOT_ALLOWED, _FORBIDDEN)
        return AuthenticatedCaller(name_of_person(who.name or ADMIN))

    def _key(self, holder: str) -> str:
        if holder == ADMIN:
            return self._settings.admin_token.reveal() if self._settings.admin_token else ""
        return self._people.session_key(holder) if holder else ""

    def _holder(self, holder: str) -> Principal | None:
        if holder == ADMIN:
            return administrator("admin token")
        return self._people.session_by_id(holder, self._limits, self._clock())


def is_by_pass(headers: Iterable[Header]) -> bool:
    """Return True if a sandboxed page calls with a pass, or a browser asks on its behalf whether it may. The answer to
    the latter tells nothing: the call that follows has to carry a good pass."""
    if (b"origin", ORIGIN) not in headers:  # almost all requests
        return False
    fields = combined(headers)
    if fields[b"origin"] != ORIGIN:
        return False
    return HEADER in fields or HEADER in CorsRequest.by(headers).names.lower()


def without_page(lines: Iterable[bytes]) -> list[bytes]:
    """Return header lines without what browsers tell about the page that calls."""
    return [line for line in lines if not line.startswith(_OF_PAGE)]


def _signature(key: str, text: str) -> str:
    return hmac.new(key.encode(), b"call " + text.encode(), "sha256").hexdigest()
