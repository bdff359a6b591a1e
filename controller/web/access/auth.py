"""Who calls an API: HTTP Basic against password hashes, bearer tokens against their digests or, by OpenID Connect,
against their issuer's keys. Called by the gateway on the event loop; the hashing itself runs in a few threads,
because one check takes 50 ms and more on purpose.

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
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import bcrypt
from werkzeug.security import check_password_hash

from controller.domain.routes import Api
from controller.web.access import oidc
from controller.web.access.issuers import Issuers, IssuerUnreachable
from controller.web.gateway.decide import Published
from controller.web.problems import Kind, Problem

log = logging.getLogger(__name__)

REMEMBER = 300.0  # seconds
REMEMBERED = 4096  # credentials in one worker
CHECKERS = 2  # threads
PENDING = 64  # checks that may wait; more would only time out later


#: Whether a stored hash was made of a password.
Check = Callable[[str, str], bool]


@dataclass(frozen=True)
class Caller:
    """`user` is empty for an API that is open to all."""

    user: str


ANYBODY = Caller("")


class Authenticator:
    """One per gateway worker; used from its event loop alone."""

    def __init__(self, clock: Callable[[], float], check: Check | None = None) -> None:
        self._clock = clock
        self._check = check or check_password
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[float, str]] = {}
        self._pending: dict[bytes, asyncio.Future[str | None]] = {}
        self._threads = ThreadPoolExecutor(CHECKERS, thread_name_prefix="password")
        self._issuers = Issuers(clock)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._issuers.close()

    def recall(self, target: Published, authorization: bytes | None) -> Caller | None:
        """The caller if nothing has to be computed to know him."""
        if target.api.open_to_all:
            return ANYBODY
        if authorization is None:
            return None
        known = self._known.get(self._digest(target, authorization))
        return Caller(known[1]) if known and known[0] > self._clock() else None

    async def identify(self, target: Published, authorization: bytes | None) -> Caller | Problem:
        caller = self.recall(target, authorization)
        if caller is not None:
            return caller
        scheme, _, value = (authorization or b"").partition(b" ")
        match scheme.lower():
            case b"basic":
                user = await self._check_basic(target, authorization or b"", value)
            case b"bearer":
                user = find_token(target.api, value.strip())
                if user is None and target.api.oidc_issuer:
                    user = await self._check_oidc(target, authorization or b"", value.strip())
            case _:
                user = None
        if isinstance(user, Problem):
            return user
        return Caller(user) if user is not None else refusal(target)

    async def _check_basic(
        self, target: Published, authorization: bytes, value: bytes
    ) -> str | Problem | None:
        pair = decode_basic(value)
        if pair is None or not target.api.users:
            return None
        digest = self._digest(target, authorization)
        check = self._pending.get(digest)
        if check is None:
            if len(self._pending) >= PENDING:
                detail = "Too many passwords wait to be checked."
                return Problem(Kind.OVERLOADED, detail, retry_after=1)
            check = self._start_check(target.api, *pair, digest)
        # Shielded: others with the same credential may wait for it when this caller leaves.
        return await asyncio.shield(check)

    async def _check_oidc(self, target: Published, authorization: bytes, token: bytes) -> str | Problem:
        try:
            found = await oidc.identify(self._issuers, target.api, token)
        except IssuerUnreachable as error:
            detail = "The keys that the token is to be checked with cannot be fetched from its issuer."
            return Problem(Kind.ISSUER, detail, retry_after=error.retry_after)
        if isinstance(found, oidc.Refusal):
            return Problem(found.kind, found.detail, challenge=challenge(target, found.error))
        if found.lifetime > 0:
            self._remember(self._digest(target, authorization), found.user, found.lifetime)
        return found.user

    def _start_check(self, api: Api, user: str, password: str, digest: bytes) -> asyncio.Future[str | None]:
        loop = asyncio.get_running_loop()
        check = loop.run_in_executor(self._threads, find_user, api, user, password, self._check)
        self._pending[digest] = check

        def done(finished: asyncio.Future[str | None]) -> None:
            self._pending.pop(digest, None)
            if not finished.cancelled() and finished.exception() is None:
                user = finished.result()
                if user is not None:
                    self._remember(digest, user)

        check.add_done_callback(done)
        return check

    def _remember(self, digest: bytes, user: str, lifetime: float = REMEMBER) -> None:
        if len(self._known) >= REMEMBERED:
            self._known.pop(next(iter(self._known)))  # the oldest: a dict keeps the order of insertion
        self._known[digest] = (self._clock() + min(lifetime, REMEMBER), user)

    def _digest(self, target: Published, authorization: bytes) -> bytes:
        return hmac.digest(self._key, target.credentials + authorization, "sha256")


def refusal(target: Published) -> Problem:
    return Problem(Kind.UNAUTHORIZED, "The credentials are missing or wrong.", challenge=challenge(target))


def challenge(target: Published, error: str = "") -> str:
    """The schemes that the API takes (RFC 9110 §11.6.1); `error` is what was wrong with a bearer token."""
    realm = target.prefix.decode()
    schemes = []
    if target.api.users:
        schemes.append(f'Basic realm="{realm}", charset="UTF-8"')
    if target.api.tokens or target.api.oidc_issuer:
        schemes.append(f'Bearer realm="{realm}"' + (f', error="{error}"' if error else ""))
    return ", ".join(schemes)


def decode_basic(value: bytes) -> tuple[str, str] | None:
    """User and password of RFC 7617 credentials; None if they are malformed."""
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def find_user(api: Api, user: str, password: str, check: Check) -> str | None:
    """`user` if the password is his. Blocking, some 60 ms, whether there is such a user or not: for an unknown one
    somebody else's hash is checked and the result thrown away."""
    users = dict(api.users)
    matches = check(users.get(user) or next(iter(users.values())), password)
    return user if user in users and matches else None


def check_password(stored: str, password: str) -> bool:
    """A hash that cannot be read matches nothing."""
    try:
        if stored.startswith("$2"):
            # The format looks at 72 bytes; other tools cut silently, the library raises.
            return bcrypt.checkpw(password.encode()[:72], stored.encode())
        return check_password_hash(stored, password)
    except ValueError:
        log.warning("a password hash cannot be read", extra={"format": stored.partition("$")[0]})
        return False


def find_token(api: Api, token: bytes) -> str | None:
    """The name that belongs to a bearer token. Every stored digest is compared, each in constant time."""
    digest = "sha256:" + hashlib.sha256(token).hexdigest()
    found = None
    for name, stored in api.tokens:
        if hmac.compare_digest(digest, stored):
            found = name
    return found
