"""The public keys of OpenID Connect issuers: found by discovery, kept in memory. Called by `oidc`, on the event loop;
what talks to an issuer runs in a few threads.

Promises: nothing is fetched but the issuer that a manifest names and the key set that its discovery document
names, over TLS and without redirects; every answer is bounded in size and time; an issuer that does not
answer is asked again after a pause; until then its known keys stay valid, for a day at most."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import OK, HTTPException
from typing import Any
from urllib.parse import SplitResult, urlsplit

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from controller.fetch import fetched_url

log = logging.getLogger(__name__)

# Seconds.
LIFETIME = 600.0  # of a key set; a key that the issuer withdraws counts no longer than this
STALE = 86_400.0  # the same while the issuer does not answer
AGAIN = 60.0  # between two looks at an issuer of whom a key set is known
RETRY = 5.0  # the same if none is
SILENCE = 5.0  # without a byte
ANSWER = 10.0  # one whole answer
PATIENCE = 20.0  # for a caller, even if all threads are busy

ANSWER_BYTES = 256 * 1024
KEYS = 64  # of one issuer
FETCHERS = 4  # threads
MODULUS, EXPONENT = (
    8192,
    32,
)  # bits of an RSA key: signatures are checked on the event loop, with keys of strangers

#: The algorithms of each kind of key (RFC 7518 §3.1, RFC 8037), by `kty` and `crv`. Asymmetric only: with a shared
#: secret, everybody who can check a token can make one.
ALGORITHMS: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
ACCEPTED = frozenset(algorithm for several in ALGORITHMS.values() for algorithm in several)


class IssuerFailed(Exception):
    """The issuer's answer is unusable; the text says why, for the log."""


class IssuerUnreachable(Exception):
    """The keys are not known and cannot be fetched. `retry_after` is in whole seconds, at least 1."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


@dataclass(frozen=True)
class KeySet:
    """Keys by algorithm and `kid`."""

    keys: tuple[PyJWK, ...]

    def find(self, algorithm: str, kid: str | None) -> PyJWK | None:
        """Find the key. Without `kid` it must be the only one (OpenID Connect Core §10.1)."""
        usable = [key for key in self.keys if key.algorithm_name == algorithm and kid in (None, key.key_id)]
        return usable[0] if usable and (kid is not None or len(usable) == 1) else None


@dataclass
class _IssuerEntry:
    keys: KeySet = KeySet(())
    loaded: float = -math.inf
    tried: float = -math.inf
    failed: bool = False  # the last try
    fetch: asyncio.Future[KeySet] | None = field(default=None, repr=False)


class Issuers:
    """The issuers of one gateway worker; used only on its event loop. `clock` in seconds, monotonic; `patience` in
    seconds."""

    def __init__(self, clock: Callable[[], float], patience: float = PATIENCE) -> None:
        self._clock = clock
        self._patience = patience
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
        await asyncio.wait([entry.fetch], timeout=self._patience)

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


# --- in the threads ---------------------------------------------------------------------------------------------


def fetch_keys(issuer: str) -> KeySet:
    """Fetch the keys (OpenID Connect Discovery 1.0 §4, RFC 7517). It blocks. Raises IssuerFailed."""
    base = checked_url(issuer, plain=True)
    discovered = fetch_json(checked_url(issuer.rstrip("/") + "/.well-known/openid-configuration", plain=True))
    if discovered.get("issuer") != issuer:
        # §4.3: else one tenant of an issuer could speak for another.
        raise IssuerFailed(f"its discovery document is that of {str(discovered.get('issuer'))[:200]!r}")
    url = discovered.get("jwks_uri")
    if not isinstance(url, str):
        raise IssuerFailed("its discovery document has no jwks_uri")
    return read_keys(fetch_json(checked_url(url, plain=base.scheme == "http")))


def checked_url(url: str, plain: bool) -> SplitResult:
    """Return the URL if it uses TLS or, if `plain`, names loopback, where nobody is in between. Raises
    IssuerFailed."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise IssuerFailed(f"{url[:200]!r} is not a URL: {error}") from error
    if host and (parts.scheme == "https" or (plain and parts.scheme == "http" and _is_loopback(host))):
        return parts
    raise IssuerFailed(f"{url[:200]!r} is not an https URL")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def fetch_json(url: SplitResult, limit: float = ANSWER) -> dict[str, Any]:
    """Return the JSON object at a URL, within `limit` seconds after connecting. Redirects are failures, since
    their targets are not checked."""
    try:
        with fetched_url(url, accept="application/json", within=limit, silence=SILENCE) as response:
            text = response.read(ANSWER_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise IssuerFailed(f"{url.geturl()}: {str(error) or type(error).__name__}") from error
    if response.status != OK:
        raise IssuerFailed(f"{url.geturl()} answers {response.status}")
    if len(text) > ANSWER_BYTES:
        raise IssuerFailed(f"{url.geturl()} answers with more than {ANSWER_BYTES} bytes")
    return _object(url.geturl(), text)


def _object(url: str, text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IssuerFailed(f"{url} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise IssuerFailed(f"{url} is not a JSON object")
    return found


def read_keys(document: dict[str, Any]) -> KeySet:
    """Return the keys for signatures with accepted algorithms. Raises IssuerFailed if there is none."""
    listed = document.get("keys")
    raws = [raw for raw in listed[:KEYS] if isinstance(raw, dict)] if isinstance(listed, list) else []
    keys = tuple(key for raw in raws for algorithm in _algorithms(raw) if (key := _key(raw, algorithm)))
    if not keys:
        raise IssuerFailed("its key set has no key that could be used")
    return KeySet(keys)


def _algorithms(raw: dict[str, Any]) -> tuple[str, ...]:
    """Return the algorithms that fit the key's type, independent of a token."""
    kind, curve, bound, uses = raw.get("kty"), raw.get("crv"), raw.get("alg"), raw.get("key_ops")
    if raw.get("use") not in (None, "sig") or (isinstance(uses, list) and "verify" not in uses):
        return ()
    if not isinstance(kind, str) or not isinstance(curve, str | None):
        return ()
    return tuple(one for one in ALGORITHMS.get((kind, curve), ()) if bound in (None, one))


def _key(raw: dict[str, Any], algorithm: str) -> PyJWK | None:
    """Return the key; None for one that is malformed, too short (RFC 7518 §3.3: RSA with less than 2048 bits) or too
    long."""
    if _bits(raw.get("n")) > MODULUS or _bits(raw.get("e")) > EXPONENT:
        return None
    public = {name: value for name, value in raw.items() if name in ("kty", "crv", "kid", "n", "e", "x", "y")}
    try:
        key = PyJWK(public, algorithm)
        return None if key.Algorithm.check_key_length(key.key) else key
    except (PyJWTError, ValueError, TypeError, AttributeError):
        return None


def _bits(number: object) -> int:
    """Return about how many bits a base64url number has: six for each character, of which the last may be padding."""
    return len(number) * 6 // 8 * 8 if isinstance(number, str) else 0
