"""Finds out who uses Git over HTTP: HTTP Basic with a person's name and one of their tokens or their password, or with
the admin token; a bearer token does as well.

What a browser sends is refused, whatever it carries: browsers remember these credentials and would add them to what
a page of a module asks for.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from typing import Final

from controller.config import Settings
from controller.domain.git_http import clone_path
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Principal, administrator
from controller.domain.people.tokens import PREFIX
from controller.store.people import PeopleStore
from controller.web.auth.admin import ClientInfo
from controller.web.auth.attempts import log_failure
from controller.web.auth.authenticate import decode_basic
from controller.web.auth.people import LONGEST, Callers
from controller.web.auth.sign_in import SignIn
from controller.web.gateway.shares import WorkerShares
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

REMEMBER: Final = 300.0  # seconds for which a password need not be hashed again, unless it was changed
REMEMBERED: Final = 1024
CHECKS: Final = 2  # passwords that are hashed at once; the others wait
WAITING, WAITING_EACH = 64, 8  # checks that wait, and of them from one address
ANY_NAME: Final = "git"  # sent as the name by programs that know a token alone
CHALLENGE: Final = 'Basic realm="prichal", charset="UTF-8"'
_BROWSER: Final = ("origin", "service-worker")


class GitCallers:
    """Used only on the event loop of one worker."""

    def __init__(self, people: PeopleStore, callers: Callers, sign_in: SignIn, settings: Settings) -> None:
        self._people = people
        self._callers = callers
        self._sign_in = sign_in
        self._settings = settings
        self._key = secrets.token_bytes(32)
        self._good: dict[bytes, float] = {}
        self._checks = asyncio.Semaphore(CHECKS)
        self._waiting = WorkerShares("password checks", WAITING, WAITING_EACH)

    def address(self, client: ClientInfo) -> str:
        return self._callers.address(client)

    async def identify(self, client: ClientInfo, repository: str) -> Principal:
        """Raises RequestRefused: 401 for a caller without credentials, so that Git asks for them."""
        headers = client.headers
        if any(name in headers for name in _BROWSER) or any(
            name.startswith("sec-fetch-") for name in headers
        ):
            detail = f"This address is for Git: git clone URL, which ends with {clone_path(repository)}"
            raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, detail))
        if not self._callers.is_private(client):
            detail = "Passwords and tokens are taken over HTTPS, or from this host, alone."
            raise RequestRefused(HttpProblem(ProblemKind.HTTP, detail, status=403, title="HTTPS is needed"))
        found = await self._by_credentials(client)
        if found is None:
            detail = "Give your name, and one of your tokens (prichal token add) as the password."
            raise RequestRefused(HttpProblem(ProblemKind.UNAUTHORIZED, detail, challenge=CHALLENGE))
        return found

    async def _by_credentials(self, client: ClientInfo) -> Principal | None:
        scheme, _, value = client.headers.get("authorization", "").partition(" ")
        match scheme.lower():
            case "basic":
                pair = decode_basic(value.encode("latin-1"))
                if pair is None or len(pair[0]) > LONGEST:
                    return None
                return await self._by_pair(*pair, self.address(client))
            case "bearer":
                return await self._by_token(ANY_NAME, value.strip(), self.address(client))
            case _:
                return None

    async def _by_pair(self, name: str, secret: str, address: str) -> Principal | None:
        if secret.startswith(PREFIX) or self._is_admin_token(secret):
            return await self._by_token(name, secret, address)
        if not self._settings.sign_in.passwords:
            return None
        return await self._by_password(name, secret, address)

    async def _by_token(self, name: str, secret: str, address: str) -> Principal | None:
        if self._is_admin_token(secret):
            return administrator("admin token")
        found = None
        if len(secret) <= LONGEST:
            found = await asyncio.to_thread(self._people.by_token, secret, time.time())
        if found is None or name not in (found.name, ANY_NAME):
            log_failure(address, "token", name, "-")
            return None
        return found

    def _is_admin_token(self, secret: str) -> bool:
        token = self._settings.web.admin_token
        return (
            token is not None
            and bool(token)
            and hmac.compare_digest(secret.encode(), token.reveal().encode())
        )

    async def _by_password(self, name: str, password: str, address: str) -> Principal | None:
        """A password that was right is not hashed again for a while, as long as it is still the person's."""
        stored = await asyncio.to_thread(self._people.hash_of, name) or ""
        digest = hmac.digest(self._key, f"{stored}\0{name}\0{password}".encode(), hashlib.sha256)
        if not stored or self._good.get(digest, 0.0) < time.monotonic():
            with self._waiting.take(address, f"the address {address}"):
                async with self._checks:
                    found = await asyncio.to_thread(self._sign_in.by_password, address, name, password)
            if found is None:
                return None
            self._remember(digest)
        grants = await asyncio.to_thread(self._people.grants, time.time(), name)
        return Principal(name, grants, Scope.ADMIN, "password")

    def _remember(self, digest: bytes) -> None:
        if len(self._good) >= REMEMBERED:
            self._good.pop(next(iter(self._good)))
        self._good[digest] = time.monotonic() + REMEMBER
