"""The public keys of OpenID Connect issuers: found by discovery, kept in memory. Called by `oidc`, on the event loop;
what talks to an issuer (`discovery`) runs in a few threads.

Promises: an issuer that does not answer is asked again after a pause; until then its known keys stay valid, for a day
at most."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from jwt import PyJWK

from controller.web.auth.discovery import KeySet, fetch_keys

log = logging.getLogger(__name__)

# Seconds.
LIFETIME = 600.0  # of a key set; a key that the issuer withdraws counts no longer than this
STALE = 86_400.0  # the same while the issuer does not answer
AGAIN = 60.0  # between two looks at an issuer of whom a key set is known
RETRY = 5.0  # the same if none is
CALLER_TIMEOUT = 20.0  # for a caller, even if all threads are busy

FETCHERS = 4  # threads


class IssuerUnreachable(Exception):
    """The keys are not known and cannot be fetched. `retry_after` is in whole seconds, at least 1."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


@dataclass
class _IssuerEntry:
    keys: KeySet = field(default_factory=lambda: KeySet(()))
    loaded: float = -math.inf
    tried: float = -math.inf
    failed: bool = False  # the last try
    fetch: asyncio.Future[KeySet] | None = field(default=None, repr=False)


class Issuers:
    """The issuers of one gateway worker; used only on its event loop. `clock` in seconds, monotonic; `timeout` in
    seconds."""

    def __init__(self, clock: Callable[[], float], timeout: float = CALLER_TIMEOUT) -> None:
        self._clock = clock
        self._timeout = timeout
        self._entries: dict[str, _IssuerEntry] = {}
        self._threads = ThreadPoolExecutor(FETCHERS, thread_name_prefix="issuer")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def key(self, issuer: str, algorithm: str, kid: str | None) -> PyJWK | None:
        """Return the key; None if the issuer has no such key. Raises IssuerUnreachable if that is unknown."""
        entry = self._entries.setdefault(issuer, _IssuerEntry())
        key = entry.keys.find(algorithm, kid)
        if key is None or self._age(entry) >= LIFETIME:
            await self._refresh(issuer, entry)
            key = entry.keys.find(algorithm, kid) if self._age(entry) < STALE else None
        if key is None and (entry.failed or entry.fetch is not None):
            raise IssuerUnreachable(max(1, math.ceil(entry.tried + _pause(entry) - self._clock())))
        return key

    def _age(self, entry: _IssuerEntry) -> float:
        return self._clock() - entry.loaded

    async def _refresh(self, issuer: str, entry: _IssuerEntry) -> None:
        """Return when a fetch has ended (a new one or one in progress), when the caller has waited long enough, or
        at once if it is too early for a fetch."""
        if entry.fetch is None:
            if self._clock() < entry.tried + _pause(entry):
                return
            entry.tried = self._clock()
            entry.fetch = asyncio.get_running_loop().run_in_executor(self._threads, fetch_keys, issuer)
            entry.fetch.add_done_callback(lambda fetch: self._store_keys(issuer, entry, fetch))
        # Unlike `wait_for`, it neither raises nor cancels the fetch when this caller disconnects.
        await asyncio.wait([entry.fetch], timeout=self._timeout)

    def _store_keys(self, issuer: str, entry: _IssuerEntry, fetch: asyncio.Future[KeySet]) -> None:
        entry.fetch, entry.tried = None, self._clock()
        if fetch.cancelled():
            return
        error = fetch.exception()
        entry.failed = error is not None
        if error is not None:
            log.warning("the keys of an issuer cannot be fetched: %s", error, extra={"issuer": issuer})
            return
        entry.keys, entry.loaded = fetch.result(), self._clock()
        log.info("keys of an issuer loaded", extra={"issuer": issuer, "keys": len(entry.keys.keys)})


def _pause(entry: _IssuerEntry) -> float:
    return AGAIN if entry.keys.keys else RETRY
