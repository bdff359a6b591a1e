"""Signs people in with OpenID Connect: authorization code flow with PKCE, state and nonce. The pages call it in
threads.

Nothing is stored between the two requests. State, nonce and verifier are made from the cookie that binds a sign-in to
its browser, with the name of the issuer: an answer for another browser, issuer or time fits nothing, and with the
cookie, which the first session replaces, all of them are used up. Each issuer sends people to an address of its own, so
that one cannot pass on what another one has issued.

Promises: an issuer that is down or slow holds at most `SLOTS` threads, and is asked again after a pause; what it says
is verified before it counts.
"""

from __future__ import annotations

import base64
import hmac
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from controller.config import OpenIdIssuer, WebSettings
from controller.domain.errors import Stalled
from controller.domain.people.accounts import SessionRecord
from controller.domain.people.openid import (
    Identity,
    IssuerSession,
    SignedInPerson,
    account_name,
    groups_of,
    is_subject,
    issuer_session,
    logout_of,
)
from controller.domain.reasons import Reason
from controller.store.people import AdmittedPerson, PeopleStore
from controller.web.auth.discovery import IssuerFailed, IssuerMetadata, KeySet, fetch_key_set, fetch_metadata
from controller.web.auth.oidc import MISSING, TokenRefusal, find_claim, read_header, user_of, verified_claims
from controller.web.auth.openid_client import MOST_TOKEN, CodeRefused, OpenIdClient, Tokens
from controller.web.auth.sign_in import local_path

log = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds.
LIFETIME: Final = 600.0  # of an issuer's documents
RETRY: Final = 5.0  # between two looks at an issuer that failed, or that is said to have another key
SIGN_IN_TIMEOUT: Final = 3600.0  # for a person at the issuer: as long as the page with the form is good

SLOTS: Final = 2  # threads of one worker that may wait for one issuer
ALL_SLOTS: Final = 4  # and for all of them: pages need the others
LONGEST_CODE: Final = 4096  # characters
LONGEST_STATE: Final = 2048


class SignInRefusal(Enum):
    """Why somebody was not signed in: the word for it in the audit, the status of the page, and whether it counts as a
    failed attempt."""

    ELSEWHERE = ("elsewhere", 403, True)  # not begun in this browser or for this issuer, too old, or used up
    DENIED = ("denied", 403, False)  # the issuer did not sign the person in, or the person did not want it
    UNVERIFIED = ("unverified", 403, True)  # what the issuer says
    UNREACHABLE = ("unreachable", 503, False)
    BUSY = ("busy", 503, False)
    NAME_TAKEN = ("name of another account", 403, True)
    NAME_LOCAL = ("name of a local account", 403, True)
    NAME_INVALID = ("name that no account can have", 403, False)
    NO_GROUP = ("in no group that may sign in", 403, False)
    FULL = ("too many accounts", 503, False)
    ENDED = ("ended at the issuer meanwhile", 403, False)

    def __init__(self, word: str, status: int, counts: bool) -> None:
        self.word = word
        self.status = status
        self.counts = counts


_BY_REASON: Final = {
    Reason.USER_TAKEN: SignInRefusal.NAME_TAKEN,
    Reason.USER_LOCAL: SignInRefusal.NAME_LOCAL,
    Reason.USER_INVALID: SignInRefusal.NAME_INVALID,
    Reason.TOO_MANY_USERS: SignInRefusal.FULL,
}


class OpenIdRefused(Exception):
    """`name` is what the issuer calls the person, `who` the verified identity, both empty before that is known."""

    def __init__(self, refusal: SignInRefusal, name: str = "", who: str = "") -> None:
        super().__init__(refusal.name)
        self.refusal = refusal
        self.name = name
        self.who = who


@dataclass(frozen=True)
class FinishedSignIn:
    person: AdmittedPerson
    next: str
    id_token: str
    origin: IssuerSession


@dataclass(frozen=True)
class _Begun:
    """What a state stands for."""

    until: int
    random: str
    next: str


@dataclass(frozen=True)
class _Documents:
    metadata: IssuerMetadata
    keys: KeySet


def base_of(web: WebSettings) -> str:
    """Return the address at which people sign in: that which is registered with issuers."""
    return web.public_url or f"http://{web.listen}"


def back_from(web: WebSettings, name: str) -> str:
    """Return the redirect URI for an issuer."""
    return f"{base_of(web)}/-/login/oidc/{name}/callback"


class OpenIdSignIn:
    """The sign-in with one issuer. `back` is where it sends people, `shared` has the slots of all issuers. Threads may
    share it."""

    def __init__(
        self,
        issuer: OpenIdIssuer,
        back: str,
        people: PeopleStore,
        group_lifetime: float,
        shared: threading.Semaphore,
        clock: Callable[[], float] = time.time,
        passing: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self._back = back
        self._people = people
        self._group_lifetime = group_lifetime
        self._clock = clock
        self._known = _KnownIssuer(issuer.issuer, passing)
        self._slots = threading.BoundedSemaphore(SLOTS)
        self._shared = shared

    def begin(self, cookie: str, next: str) -> str:
        """Return where the browser with this cookie goes. Raises OpenIdRefused."""
        begun = _Begun(int(self._clock() + SIGN_IN_TIMEOUT), secrets.token_urlsafe(16), local_path(next))
        state = self._state(cookie, begun)

        def place() -> str:
            client = OpenIdClient(self.issuer, self._known.documents().metadata, self._back)
            return client.authorization_url(
                state,
                self._secret(cookie, "nonce", begun.random),
                self._secret(cookie, "verifier", begun.random),
            )

        return self._asked(place)

    def finish(self, cookie: str, answer: Mapping[str, str]) -> FinishedSignIn:
        """Return who was signed in, from what the issuer sent with the browser. Raises OpenIdRefused."""
        begun = self._begun(cookie, answer.get("state", ""))
        if begun is None:
            raise OpenIdRefused(SignInRefusal.ELSEWHERE)
        return self._asked(lambda: self._finish(cookie, begun, answer))

    def sign_out_url(self, id_token: str, back: str) -> str:
        """Return where a person ends their session at the issuer; "" if that cannot be told."""
        try:
            return self._asked(
                lambda: OpenIdClient(self.issuer, self._known.documents().metadata, self._back).sign_out_url(
                    id_token, back
                )
            )
        except OpenIdRefused:
            return ""

    def end_sessions(self, logout_token: str) -> tuple[SessionRecord, ...]:
        """End the sessions here that the issuer says have ended there, and return them (OpenID Connect Back-Channel
        Logout 1.0). A token counts once. Raises OpenIdRefused."""
        return self._asked(lambda: self._end_sessions(logout_token))

    def _end_sessions(self, logout_token: str) -> tuple[SessionRecord, ...]:
        token = logout_token.encode("utf-8", "replace")
        claims = self._verified(token)[0] if len(token) <= MOST_TOKEN else {}
        logout = logout_of(claims)
        if logout is None:
            log.warning("a logout token is refused: its claims are not those of one", extra=self._about())
            raise OpenIdRefused(SignInRefusal.UNVERIFIED)
        ended = self._people.end_issuer_sessions(self.issuer, logout, self._clock())
        if ended is None:
            log.warning("a logout token is refused: it was used before", extra=self._about())
            raise OpenIdRefused(SignInRefusal.UNVERIFIED)
        return ended

    def _finish(self, cookie: str, begun: _Begun, answer: Mapping[str, str]) -> FinishedSignIn:
        documents, asked = self._known.documents(), self._clock()
        self._check_sender(documents.metadata, answer)
        code = answer.get("code", "")
        if "error" in answer or not 0 < len(code) <= LONGEST_CODE:
            log.info("an issuer did not sign somebody in", extra=self._about(answer.get("error", "no code")))
            raise OpenIdRefused(SignInRefusal.DENIED)
        client = OpenIdClient(self.issuer, documents.metadata, self._back)
        try:
            tokens = client.tokens(code, self._secret(cookie, "verifier", begun.random))
        except CodeRefused as error:
            log.warning("an issuer refuses a code", extra=self._about(str(error)))
            raise OpenIdRefused(SignInRefusal.UNVERIFIED) from error
        claims = self._claims(client, tokens, self._secret(cookie, "nonce", begun.random))
        person = self._admit(client, tokens, claims)
        origin = IssuerSession(
            self.issuer.issuer, claims["sub"], issuer_session(claims), float(claims.get("iat", asked)), asked
        )
        return FinishedSignIn(person, begun.next, tokens.id_token, origin)

    def _check_sender(self, metadata: IssuerMetadata, answer: Mapping[str, str]) -> None:
        """Refuse the answer of another issuer (RFC 9207 §2.4)."""
        sender = answer.get("iss")
        if sender is None and not metadata.sends_issuer:
            return
        if sender != self.issuer.issuer:
            log.warning("an answer names another issuer", extra=self._about(str(sender)))
            raise OpenIdRefused(SignInRefusal.UNVERIFIED)

    # --- who it is ----------------------------------------------------------------------------------------------

    def _claims(self, client: OpenIdClient, tokens: Tokens, nonce: str) -> dict[str, Any]:
        """Return the verified claims of the ID token. Raises OpenIdRefused, IssuerFailed."""
        claims, algorithm = self._verified(tokens.id_token.encode("utf-8", "replace"))
        if not client.is_for_this(claims, algorithm, nonce, tokens) or not is_subject(claims.get("sub")):
            raise OpenIdRefused(SignInRefusal.UNVERIFIED)
        return claims

    def _verified(self, token: bytes) -> tuple[dict[str, Any], str]:
        """Return the claims of a token that the issuer has signed for this client, and with which algorithm. Raises
        OpenIdRefused, IssuerFailed."""
        header = read_header(token)
        key = self._known.key(header.algorithm, header.kid) if header is not None else None
        if header is None or key is None:
            log.warning("no key of the issuer fits a token", extra=self._about())
            raise OpenIdRefused(SignInRefusal.UNVERIFIED)
        claims = verified_claims(token, key, self.issuer.issuer, [self.issuer.client_id])
        if isinstance(claims, TokenRefusal):
            log.warning("a token of the issuer is refused: %s", claims.detail, extra=self._about())
            raise OpenIdRefused(SignInRefusal.UNVERIFIED)
        return claims, header.algorithm

    def _admit(self, client: OpenIdClient, tokens: Tokens, claims: dict[str, Any]) -> AdmittedPerson:
        """Return the account. Raises OpenIdRefused, IssuerFailed."""
        claims = self._complete(client, tokens, claims)
        identity = Identity(self.issuer.issuer, str(claims["sub"]))
        who = f"{self.issuer.name}:{identity.subject}"
        groups = groups_of(find_claim(claims, self.issuer.groups_claim))
        if self.issuer.allowed_groups and not groups & set(self.issuer.allowed_groups):
            name = self._people.dismiss(identity)
            raise OpenIdRefused(SignInRefusal.NO_GROUP, name or "", who)
        claimed = user_of(claims, self.issuer.username_claim) or ""
        person = SignedInPerson(identity, account_name(claimed) or claimed[:100], groups)
        now = self._clock()
        try:
            return self._people.admit(person, self.issuer.groups, now, now + self._group_lifetime)
        except Stalled as error:
            if error.reason not in _BY_REASON:
                raise
            raise OpenIdRefused(_BY_REASON[Reason(error.reason)], person.name, who) from error

    def _complete(self, client: OpenIdClient, tokens: Tokens, claims: dict[str, Any]) -> dict[str, Any]:
        """Return the claims with what the issuer tells only at its endpoint for it, if something is missing."""
        wanted = [self.issuer.username_claim or "preferred_username"]
        if self.issuer.groups or self.issuer.allowed_groups:
            wanted.append(self.issuer.groups_claim)
        if all(find_claim(claims, name) is not MISSING for name in wanted):
            return claims
        more = client.user_info(tokens)
        if more and more.get("sub") != claims["sub"]:  # OpenID Connect Core §5.3.2
            log.warning("an issuer tells about somebody else", extra=self._about())
            raise OpenIdRefused(SignInRefusal.UNVERIFIED)
        return {**more, **claims}

    # --- what is bound to the browser ---------------------------------------------------------------------------

    def _state(self, cookie: str, begun: _Begun) -> str:
        place = base64.urlsafe_b64encode(begun.next.encode()).decode().rstrip("=")
        text = f"{begun.until}.{begun.random}.{place}"
        return f"{text}.{self._secret(cookie, 'state', text)}"

    def _begun(self, cookie: str, state: str) -> _Begun | None:
        """Return what a state stands for; None if it is not one of this browser and issuer, or too old."""
        text, _, proof = state.rpartition(".")
        if not cookie or len(state) > LONGEST_STATE or not state.isascii():
            return None
        if not hmac.compare_digest(self._secret(cookie, "state", text), proof):
            return None
        until, random, place = text.split(".")
        begun = _Begun(int(until), random, base64.urlsafe_b64decode(place + "=" * (-len(place) % 4)).decode())
        return begun if self._clock() <= begun.until else None

    def _secret(self, cookie: str, purpose: str, about: str) -> str:
        text = f"openid\0{purpose}\0{self.issuer.name}\0{self.issuer.issuer}\0{about}"
        return hmac.new(cookie.encode("utf-8", "replace"), text.encode(), "sha256").hexdigest()

    # --- the issuer ---------------------------------------------------------------------------------------------

    def _asked(self, question: Callable[[], T]) -> T:
        """Return the answer to what needs the issuer. Raises OpenIdRefused."""
        with _slot(self._slots), _slot(self._shared):
            try:
                return question()
            except IssuerFailed as error:
                log.warning("people cannot sign in with an issuer: %s", error, extra=self._about())
                raise OpenIdRefused(SignInRefusal.UNREACHABLE) from error

    def _about(self, answer: str = "") -> dict[str, str]:
        told = {"answer": answer[:200]} if answer else {}
        return {"issuer": self.issuer.issuer, **told}


@contextmanager
def _slot(slots: threading.Semaphore) -> Iterator[None]:
    if not slots.acquire(blocking=False):
        raise OpenIdRefused(SignInRefusal.BUSY)
    try:
        yield
    finally:
        slots.release()


class _KnownIssuer:
    """The documents of an issuer, in memory. Threads may share it."""

    def __init__(self, issuer: str, passing: Callable[[], float]) -> None:
        self._issuer = issuer
        self._passing = passing
        self._lock = threading.Lock()
        self._found: _Documents | None = None
        self._loaded = self._tried = -math.inf

    def documents(self) -> _Documents:
        """Raises IssuerFailed."""
        with self._lock:
            now = self._passing()
            if self._found is not None and now - self._loaded < LIFETIME:
                return self._found
            if now - self._tried < RETRY:
                raise IssuerFailed("it failed a moment ago")
            return self._load()

    def key(self, algorithm: str, kid: str | None) -> Any:
        """Return the key; None if the issuer has no such key. Raises IssuerFailed."""
        found = self.documents().keys.find(algorithm, kid)
        if found is not None:
            return found
        with self._lock:  # the issuer may have begun to use another one
            if self._found is None or self._passing() - self._tried < RETRY:
                return None
            return self._load().keys.find(algorithm, kid)

    def _load(self) -> _Documents:
        self._tried = self._passing()
        try:
            metadata = fetch_metadata(self._issuer)
            self._found = _Documents(metadata, fetch_key_set(metadata))
        finally:
            self._tried = self._passing()
        self._loaded = self._tried
        return self._found
