"""Whether a bearer token is one of the API's OpenID Connect issuer, and whom it names. Called by `auth`, on the event
loop: a signature costs less to check (0.03–0.3 ms) than a thread to ask; keys are fetched elsewhere (`issuers`).

Promises: of the token's header only `alg` and `kid` are looked at, the latter as a name among the issuer's keys and
never as a place (`jku`, `x5u`, `jwk` are nothing here); only asymmetric algorithms, each with keys of its own kind;
a refusal tells no more than expired, invalid, or not entitled.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import Enum
from typing import Any

import jwt
from jwt import PyJWK
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from controller.domain.routes import Api
from controller.web.access.issuers import ACCEPTED, Issuers
from controller.web.problems import Kind

LEEWAY = 30.0  # seconds that two clocks may differ


class Refusal(Enum):
    """Kind of problem, error code of RFC 6750 §3.1, detail."""

    EXPIRED = (Kind.INVALID_TOKEN, "invalid_token", "The token has expired.")
    INVALID = (Kind.INVALID_TOKEN, "invalid_token", "The token is not valid here.")
    NOT_ENTITLED = (Kind.CLAIMS, "insufficient_scope", "The token lacks a claim that this API requires.")

    def __init__(self, kind: Kind, error: str, detail: str) -> None:
        self.kind = kind
        self.error = error
        self.detail = detail


@dataclass(frozen=True)
class Verified:
    """`lifetime` in seconds; not positive in the last moments, when only the leeway is left."""

    user: str
    lifetime: float


@dataclass(frozen=True)
class TokenHeader:
    algorithm: str
    kid: str | None


async def identify(issuers: Issuers, api: Api, token: bytes) -> Verified | Refusal:
    """`api` has an issuer. Raises IssuerUnreachable."""
    header = read_header(token)
    if header is None:
        return Refusal.INVALID
    key = await issuers.key(api.oidc_issuer or "", header.algorithm, header.kid)
    return verify(api, token, key) if key is not None else Refusal.INVALID


def read_header(token: bytes) -> TokenHeader | None:
    """What says which key to look for; nothing of it is believed yet. None if no key could ever fit."""
    try:
        header = jwt.get_unverified_header(token)
    except PyJWTError:
        return None
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ACCEPTED:
        return None
    return TokenHeader(algorithm, kid)


def verify(api: Api, token: bytes, key: PyJWK) -> Verified | Refusal:
    """RFC 7519 §7.2 and OpenID Connect Core §3.1.3.7."""
    audiences = [audience for audience in (api.oidc_audience, api.oidc_client) if audience]
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=audiences,
            issuer=api.oidc_issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "iss", "aud"]},
        )
    except ExpiredSignatureError:
        return Refusal.EXPIRED
    except PyJWTError:
        return Refusal.INVALID
    user = user_of(claims)
    if user is None or (api.oidc_client and claims.get("azp", api.oidc_client) != api.oidc_client):
        return Refusal.INVALID
    if not all(has_claim(claims, name, value) for name, value in api.oidc_claims):
        return Refusal.NOT_ENTITLED
    return Verified(user, int(claims["exp"]) - time.time())


def user_of(claims: dict[str, Any]) -> str | None:
    """`preferred_username`, else `email` unless the issuer says that nobody has checked it, else `sub`."""
    trusted = claims.get("email_verified", True) is True
    for name in ("preferred_username", "email", "sub"):
        value = claims.get(name)
        if isinstance(value, str) and _is_text(value) and (name != "email" or trusted):
            return value
    return None


def _is_text(value: str) -> bool:
    """JSON can hold halves of surrogate pairs, which nothing can be made of."""
    try:
        return bool(value.encode().strip())
    except UnicodeEncodeError:
        return False


def has_claim(claims: dict[str, Any], name: str, value: str) -> bool:
    """Whether the claim is `value` or a list that has it. Numbers and booleans are compared as JSON writes them."""
    found = claims.get(name)
    several = found if isinstance(found, list) else [found]
    return any((one if isinstance(one, str) else json.dumps(one)) == value for one in several)
