"""Fetches what an OpenID Connect issuer says about itself: its discovery document and its public keys. It blocks, so
it runs in threads: those of `issuers` for callers of modules, those of Flask for people who sign in.

Promises: nothing is fetched but the issuer that a manifest or the configuration names and what its discovery document
names, over TLS and without redirects; every answer is bounded in size and time.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import OK, HTTPException
from typing import Any
from urllib.parse import SplitResult, urlsplit

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from controller.domain.people.openid import discovery_url
from controller.fetch import fetched_url

# Seconds.
SILENCE = 5.0  # without a byte
ANSWER = 10.0  # one whole answer

ANSWER_BYTES = 256 * 1024
KEYS = 64  # of one issuer
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


@dataclass(frozen=True)
class KeySet:
    """Keys by algorithm and `kid`."""

    keys: tuple[PyJWK, ...]

    def find(self, algorithm: str, kid: str | None) -> PyJWK | None:
        """Find the key. Without `kid` it must be the only one (OpenID Connect Core §10.1)."""
        usable = [key for key in self.keys if key.algorithm_name == algorithm and kid in (None, key.key_id)]
        return usable[0] if usable and (kid is not None or len(usable) == 1) else None


@dataclass(frozen=True)
class IssuerMetadata:
    """What is used of a discovery document (OpenID Connect Discovery 1.0 §3). Endpoints that it does not have, or that
    have no https URL, are empty; `sends_issuer` if answers to the browser name the issuer (RFC 9207)."""

    issuer: str
    key_set: str
    authorization: str
    token: str
    user_info: str
    end_session: str
    token_auth_methods: frozenset[str]
    sends_issuer: bool


def fetch_metadata(issuer: str) -> IssuerMetadata:
    """Fetch the discovery document (OpenID Connect Discovery 1.0 §4). Raises IssuerFailed."""
    is_plain = checked_url(issuer, plain=True).scheme == "http"
    found = fetch_json(checked_url(discovery_url(issuer), plain=True))
    if found.get("issuer") != issuer:
        # §4.3: else one tenant of an issuer could speak for another.
        raise IssuerFailed(f"its discovery document is that of {str(found.get('issuer'))[:200]!r}")

    def endpoint(name: str) -> str:
        try:
            return checked_url(str(found.get(name, "")), plain=is_plain).geturl()
        except IssuerFailed:
            return ""

    key_set = found.get("jwks_uri")
    if not isinstance(key_set, str):
        raise IssuerFailed("its discovery document has no jwks_uri")
    methods = found.get("token_endpoint_auth_methods_supported")
    return IssuerMetadata(
        issuer,
        checked_url(key_set, plain=is_plain).geturl(),
        endpoint("authorization_endpoint"),
        endpoint("token_endpoint"),
        endpoint("userinfo_endpoint"),
        endpoint("end_session_endpoint"),
        frozenset(map(str, methods)) if isinstance(methods, list) else frozenset(("client_secret_basic",)),
        found.get("authorization_response_iss_parameter_supported") is True,
    )


def fetch_keys(issuer: str) -> KeySet:
    """Fetch the keys of an issuer. Raises IssuerFailed."""
    return fetch_key_set(fetch_metadata(issuer))


def fetch_key_set(metadata: IssuerMetadata) -> KeySet:
    """Fetch the keys that a discovery document names (RFC 7517). Raises IssuerFailed."""
    return read_keys(fetch_json(urlsplit(metadata.key_set)))


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


def fetch_json(
    url: SplitResult, limit: float = ANSWER, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the JSON object at a URL, within `limit` seconds after connecting. Redirects are failures, since
    their targets are not checked."""
    status, text = ask(url, limit, headers=headers)
    if status != OK:
        raise IssuerFailed(f"{url.geturl()} answers {status}")
    return read_object(url.geturl(), text)


def ask(
    url: SplitResult,
    limit: float = ANSWER,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Return status and content of the answer to a GET, or with a `body` to a POST. Raises IssuerFailed."""
    try:
        with fetched_url(
            url, accept="application/json", within=limit, silence=SILENCE, body=body, headers=headers
        ) as response:
            text = response.read(ANSWER_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise IssuerFailed(f"{url.geturl()}: {str(error) or type(error).__name__}") from error
    if len(text) > ANSWER_BYTES:
        raise IssuerFailed(f"{url.geturl()} answers with more than {ANSWER_BYTES} bytes")
    return response.status, text


def read_object(url: str, text: bytes) -> dict[str, Any]:
    """Return a JSON object. Raises IssuerFailed."""
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
