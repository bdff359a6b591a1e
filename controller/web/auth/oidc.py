"""Verifies a bearer token of the API's OpenID Connect issuer and returns its user. `authenticate` calls it on
the event loop: checking a signature (0.03–0.3 ms) is cheaper than handing it to a thread; keys are fetched
elsewhere (`issuers`). Promises: only `alg` and `kid` of the token's header are used, and `kid` only to select
one of the issuer's keys (`jku`, `x5u` and `jwk` are ignored); only asymmetric algorithms, each with keys of
its own kind; a refusal reveals no more than expired, invalid, or not entitled."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import jwt
from jwt import PyJWK
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from controller.domain.routing.routes import Api
from controller.web.auth.discovery import ACCEPTED
from controller.web.auth.issuers import Issuers
from controller.web.problems import ProblemKind

LEEWAY = 30.0  # seconds that two clocks may differ

#: Claims that name the client that a token was given to: OpenID Connect, RFC 9068, Okta, Entra.
CLIENTS: Final = ("azp", "client_id", "cid", "appid")
#: Claims that are lists separated by spaces (RFC 8693, Entra).
SPACED: Final = frozenset(("scope", "scp"))

#: In place of a claim that a token does not have.
MISSING: Final = object()
_STEP = re.compile(r"\\(.)|(\.)|([^.\\]+|\\$)", re.DOTALL)


class TokenRefusal(Enum):
    """A refusal: kind of problem, error code of RFC 6750 §3.1, detail."""

    EXPIRED = (ProblemKind.INVALID_TOKEN, "invalid_token", "The token has expired.")
    INVALID = (ProblemKind.INVALID_TOKEN, "invalid_token", "The token is not valid here.")
    NOT_ENTITLED = (
        ProblemKind.CLAIMS,
        "insufficient_scope",
        "The token lacks a claim that this API requires.",
    )

    def __init__(self, kind: ProblemKind, error: str, detail: str) -> None:
        self.kind = kind
        self.error = error
        self.detail = detail


@dataclass(frozen=True)
class VerifiedToken:
    """A valid token. `lifetime` is in seconds; it is not positive when only the leeway is left."""

    user: str
    subject: str  # at the issuer; "" if the token does not say
    lifetime: float


@dataclass(frozen=True)
class TokenHeader:
    algorithm: str
    kid: str | None


async def identify(issuers: Issuers, api: Api, token: bytes) -> VerifiedToken | TokenRefusal:
    """Return the token's user; `api` has an issuer. Raises IssuerUnreachable."""
    header = read_header(token)
    if header is None:
        return TokenRefusal.INVALID
    key = await issuers.key(api.oidc_issuer or "", header.algorithm, header.kid)
    return verify(api, token, key) if key is not None else TokenRefusal.INVALID


def read_header(token: bytes) -> TokenHeader | None:
    """Return the header fields that select the key, which are not trusted yet, or None if no key can fit."""
    try:
        header = jwt.get_unverified_header(token)
    except PyJWTError:
        return None
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ACCEPTED:
        return None
    return TokenHeader(algorithm, kid)


def verify(api: Api, token: bytes, key: PyJWK) -> VerifiedToken | TokenRefusal:
    """Verify the claims (RFC 7519 §7.2, OpenID Connect Core §3.1.3.7)."""
    audiences = [audience for audience in (api.oidc_audience, api.oidc_client) if audience]
    claims = verified_claims(token, key, api.oidc_issuer or "", audiences)
    if isinstance(claims, TokenRefusal):
        return claims
    user = user_of(claims, api.oidc_username)
    if user is None or not is_for(claims, api.oidc_client):
        return TokenRefusal.INVALID
    if not all(has_claim(claims, name, value) for name, value in api.oidc_claims):
        return TokenRefusal.NOT_ENTITLED
    subject = claims.get("sub")
    subject = subject if isinstance(subject, str) and _is_text(subject) else ""
    return VerifiedToken(user, subject, int(claims["exp"]) - time.time())


def verified_claims(
    token: bytes, key: PyJWK, issuer: str, audiences: list[str]
) -> dict[str, Any] | TokenRefusal:
    """Return the claims of a token that the key signed, that has not expired, and is for one of the audiences."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=audiences,
            issuer=issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "iss", "aud"]},
        )
    except ExpiredSignatureError:
        return TokenRefusal.EXPIRED
    except PyJWTError:
        return TokenRefusal.INVALID
    return claims


def user_of(claims: dict[str, Any], claim: str = "") -> str | None:
    """Return the user's name: the claim that the manifest names, else `preferred_username`, else `email`, else `sub`.
    An email counts only if the issuer says that it has checked it."""
    for name in (claim,) if claim else ("preferred_username", "email", "sub"):
        value = find_claim(claims, name)
        is_checked = name != "email" or claims.get("email_verified") is True
        if isinstance(value, str) and _is_text(value) and is_checked:
            return value
    return None


def _is_text(value: str) -> bool:
    """Return True for a valid text; JSON can contain lone surrogates."""
    try:
        return bool(value.encode().strip())
    except UnicodeEncodeError:
        return False


def is_for(claims: dict[str, Any], client: str | None) -> bool:
    """Return True if the token was issued to this client."""
    return client is None or all(claims[name] == client for name in CLIENTS if name in claims)


def has_claim(claims: dict[str, Any], name: str, value: str) -> bool:
    """Return True if the claim is `value` or a list that has it. Numbers and booleans are compared as JSON writes
    them."""
    found = find_claim(claims, name)
    if found is MISSING:
        return False
    if name in SPACED and isinstance(found, str):
        found = [found, *found.split()]
    several = found if isinstance(found, list) else [found]
    return any((one if isinstance(one, str) else json.dumps(one)) == value for one in several)


def find_claim(claims: dict[str, Any], name: str) -> object:
    """Return the claim with exactly this name, which may have dots, else the one at this path."""
    if name in claims:
        return claims[name]
    found: object = claims
    for step in claim_path(name):
        if not isinstance(found, dict) or step not in found:
            return MISSING
        found = found[step]
    return found


@lru_cache(maxsize=1024)
def claim_path(name: str) -> tuple[str, ...]:
    """Return the steps of `realm_access.roles`; a backslash precedes a dot or backslash that is part of a name."""
    steps = [""]
    for escaped, dot, text in _STEP.findall(name):
        if dot:
            steps.append("")
        else:
            steps[-1] += escaped or text
    return tuple(steps)
