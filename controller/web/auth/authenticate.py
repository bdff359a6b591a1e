"""Authenticates callers of an API: HTTP Basic against password hashes, bearer tokens against their digests or, by
OpenID Connect, against their issuer's keys. Called by the gateway on the event loop; the hashing itself runs in a few
threads, because one check takes 50 ms and more on purpose.

An authenticated caller may use their name if it belongs to their account: see `caller_names`. How often a password
may be tried: see `attempts`.

Promises: an unknown user and a wrong password cost and look the same; a credential that was good is remembered for
five minutes, or until the token expires, as a keyed digest and never as itself; a change of the API's users or rules
forgets it at once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import bcrypt
from werkzeug.security import check_password_hash

from controller.domain.routing.caller_names import PASSWORD, TOKEN, openid
from controller.domain.routing.passwords import cost_problem
from controller.domain.routing.routes import Api
from controller.domain.routing.shares import PASSWORD_CHECKS
from controller.web.auth import oidc
from controller.web.auth.attempts import LoginAttempts, log_failure
from controller.web.auth.caller_names import CallerNames
from controller.web.auth.issuers import Issuers, IssuerUnreachable
from controller.web.gateway.router import PublishedApi
from controller.web.gateway.shares import WorkerShares
from controller.web.problems import HttpProblem, ProblemKind

log = logging.getLogger(__name__)

REMEMBER = 300.0  # seconds
#: Credentials of one app in one worker: one with many callers makes no other app check again.
REMEMBERED = 4096
CHECKERS = 4  # threads, of which an app has one at a time
PENDING = 256  # checks that may wait; more would only time out later
PENDING_APP = PASSWORD_CHECKS  # of them for one app
PENDING_ADDRESS = 8  # of them from one address


#: A function that checks a password against a stored hash.
Check = Callable[[str, str], bool]


@dataclass(frozen=True)
class AuthenticatedCaller:
    """A caller; `user` is empty for an API that is open to all."""

    user: str


ANYBODY = AuthenticatedCaller("")


@dataclass(frozen=True)
class _Known:
    """The user of a valid credential; `owner` is the account, see domain/routing/caller_names.py."""

    user: str
    owner: str
    lifetime: float  # seconds that it may be remembered


class Authenticator:
    """Authenticates callers for one gateway worker; used only on its event loop."""

    def __init__(
        self, clock: Callable[[], float], check: Check | None = None, owners: CallerNames | None = None
    ) -> None:
        self._clock = clock
        self._owners = owners
        self._attempts = LoginAttempts(clock)
        self._matches = check or check_password
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, dict[bytes, tuple[float, str]]] = {}  # by app and digest
        self._pending: dict[bytes, asyncio.Future[str | None]] = {}
        self.checks = WorkerShares("password checks", PENDING, PENDING_APP)  # by the app, as bytes
        self._addresses = WorkerShares("password checks", PENDING, PENDING_ADDRESS)
        self._turns: dict[bytes, asyncio.Lock] = {}
        self._threads = ThreadPoolExecutor(CHECKERS, "password", initializer=_be_idle)
        self._issuers = Issuers(clock)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._issuers.close()
        if self._owners is not None:
            self._owners.close()

    def recall(self, target: PublishedApi, authorization: bytes | None) -> AuthenticatedCaller | None:
        """Return the caller if no hash has to be computed."""
        if target.api.open_to_all:
            return ANYBODY
        if authorization is None:
            return None
        if (of_app := self._known.get(target.key[0])) is None:
            return None
        known = of_app.get(self._digest(target, authorization))
        return AuthenticatedCaller(known[1]) if known and known[0] > self._clock() else None

    async def identify(
        self, target: PublishedApi, authorization: bytes | None, address: bytes = b""
    ) -> AuthenticatedCaller | HttpProblem:
        """Authenticate the caller. `address` is empty if it is not known. Raises RequestRefused if too many
        checks wait."""
        caller = self.recall(target, authorization)
        if caller is not None:
            return caller
        if not authorization:
            return refusal(target)
        scheme, _, value = authorization.partition(b" ")
        match scheme.lower():
            case b"basic":
                found = await self._check_basic(target, authorization, value, address)
            case b"bearer":
                found = await self._check_bearer(target, value.strip(), address)
            case _:
                return refusal(target)
        if isinstance(found, HttpProblem):
            return found
        if self._owners is not None and (
            problem := await self._owners.admit(target, found.user, found.owner)
        ):
            return problem
        if found.lifetime > 0:
            self._remember(target, authorization, found)
        return AuthenticatedCaller(found.user)

    async def _check_basic(
        self, target: PublishedApi, authorization: bytes, value: bytes, address: bytes
    ) -> _Known | HttpProblem:
        pair = decode_basic(value)
        if pair is None or not target.api.users:
            return _failed(target, PASSWORD, pair[0] if pair else "", address)
        digest = self._digest(target, authorization)
        check = self._pending.get(digest)
        if check is None:
            if wait := self._attempts.begin(address.decode("latin-1"), target.label, pair[0]):
                return HttpProblem(
                    ProblemKind.ATTEMPTS, "Too many sign-ins from there have failed.", retry_after=wait
                )
            check = self._pending[digest] = asyncio.ensure_future(self._check(target, *pair, address))
            check.add_done_callback(lambda finished: self._checked(digest, finished))
        # Shielded: others with the same credential may wait for it when this caller leaves.
        if await asyncio.shield(check) is None:
            return _failed(target, PASSWORD, pair[0], address)
        return _Known(pair[0], PASSWORD, REMEMBER)

    async def _check_bearer(self, target: PublishedApi, token: bytes, address: bytes) -> _Known | HttpProblem:
        user = find_token(target.api, token)
        if user is not None:
            return _Known(user, TOKEN, REMEMBER)
        if target.api.oidc_issuer:
            return await self._check_oidc(target, token, address)
        return _failed(target, TOKEN, "", address)

    async def _check_oidc(self, target: PublishedApi, token: bytes, address: bytes) -> _Known | HttpProblem:
        try:
            found = await oidc.identify(self._issuers, target.api, token)
        except IssuerUnreachable as error:
            detail = "The keys that the token is to be checked with cannot be fetched from its issuer."
            return HttpProblem(ProblemKind.ISSUER, detail, retry_after=error.retry_after)
        if isinstance(found, oidc.TokenRefusal):
            if found is oidc.TokenRefusal.INVALID:
                log_failure(address.decode("latin-1"), "openid", "", target.label)
            return HttpProblem(found.kind, found.detail, challenge=challenge(target, found.error))
        owner = openid(target.api.oidc_issuer or "", found.subject)
        return _Known(found.user, owner, found.lifetime)

    async def _check(self, target: PublishedApi, user: str, password: str, address: bytes) -> str | None:
        """Check a password in a thread. Checks of one app wait for each other, so that other apps do not wait for
        many of them. Only refusals count as failed attempts."""
        app, place = target.prefix.split(b"/")[1], (address.decode("latin-1"), target.label, user)
        try:
            found = await self._check_in_turn(target, user, password, address or app, app)
        except BaseException:
            self._attempts.give_back(*place)
            raise
        if found is not None:
            self._attempts.succeeded(*place)
        return found

    async def _check_in_turn(
        self, target: PublishedApi, user: str, password: str, address: bytes, app: bytes
    ) -> str | None:
        with (
            self._addresses.take(address, "one address"),
            self.checks.take(app, f"app {app.decode()}"),
        ):
            async with self._turns.setdefault(app, asyncio.Lock()):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(
                    self._threads, find_user, target.api, user, password, self._matches
                )

    def _checked(self, digest: bytes, finished: asyncio.Future[str | None]) -> None:
        self._pending.pop(digest, None)
        if not finished.cancelled():
            finished.exception()  # the caller gets the error; if nobody waits any more, it is not logged

    def _remember(self, target: PublishedApi, authorization: bytes, found: _Known) -> None:
        now, (app, _) = self._clock(), target.key
        if app not in self._known:
            self._forget_idle(now)
        of_app, digest = self._known.setdefault(app, {}), self._digest(target, authorization)
        of_app.pop(digest, None)  # it becomes the newest
        if len(of_app) >= REMEMBERED:
            del of_app[next(iter(of_app))]  # the oldest: a dict keeps the order of insertion
        of_app[digest] = (now + min(found.lifetime, REMEMBER), found.user)

    def _forget_idle(self, now: float) -> None:
        """Forget apps whose newest credential counts no more; some of them are deleted."""
        for app, of_app in tuple(self._known.items()):
            if next(reversed(of_app.values()))[0] <= now:
                del self._known[app]

    def _digest(self, target: PublishedApi, authorization: bytes) -> bytes:
        return hashlib.blake2b(target.credentials + authorization, key=self._key, digest_size=32).digest()


def _be_idle() -> None:
    """Run only while nothing else of this process has to: a thread that is merely nicer keeps its processor for some
    milliseconds, in which a call waits."""
    os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


def refusal(target: PublishedApi) -> HttpProblem:
    return HttpProblem(
        ProblemKind.UNAUTHORIZED, "The credentials are missing or wrong.", challenge=challenge(target)
    )


def _failed(target: PublishedApi, scheme: str, user: str, address: bytes) -> HttpProblem:
    log_failure(address.decode("latin-1"), scheme, user, target.label)
    return refusal(target)


def challenge(target: PublishedApi, error: str = "") -> str:
    """Return the schemes that the API accepts (RFC 9110 §11.6.1); `error` describes an invalid bearer token."""
    realm = target.prefix.decode()
    schemes = []
    if target.api.users:
        schemes.append(f'Basic realm="{realm}", charset="UTF-8"')
    if target.api.tokens or target.api.oidc_issuer:
        schemes.append(f'Bearer realm="{realm}"' + (f', error="{error}"' if error else ""))
    return ", ".join(schemes)


def decode_basic(value: bytes) -> tuple[str, str] | None:
    """Return user and password of RFC 7617 credentials; None if they are malformed."""
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def find_user(api: Api, user: str, password: str, check: Check) -> str | None:
    """Return `user` if the password is correct. Blocks for some 60 ms, also for an unknown user: another user's
    hash is checked then and the result discarded."""
    users = dict(api.users)
    matches = check(users.get(user) or next(iter(users.values())), password)
    return user if user in users and matches else None


def check_password(stored: str, password: str) -> bool:
    """Return True if the password matches. A hash that cannot be parsed, or costs too much, matches nothing."""
    if problem := cost_problem(stored):
        log.warning("a password hash is not checked: %s", problem)
        return False
    try:
        if stored.startswith("$2"):
            # bcrypt uses 72 bytes; other tools truncate silently, the library raises.
            return bcrypt.checkpw(password.encode()[:72], stored.encode())
        return check_password_hash(stored, password)
    except ValueError:
        log.warning("a password hash cannot be read", extra={"format": stored.partition("$")[0]})
        return False


def find_token(api: Api, token: bytes) -> str | None:
    """Return the name that belongs to a bearer token. Every stored digest is compared, each in constant time."""
    digest = "sha256:" + hashlib.sha256(token).hexdigest()
    found = None
    for name, stored in api.tokens:
        if hmac.compare_digest(digest, stored):
            found = name
    return found
