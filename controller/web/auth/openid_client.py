"""Talks to an OpenID Connect issuer for people who sign in: the client of the code flow, by Authlib, over connections
that are bounded in size and time (`discovery`). It blocks. What an issuer says is judged by `openid_sign_in`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http.client import OK
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError

from controller.config import OpenIdIssuer
from controller.web.auth.discovery import IssuerFailed, IssuerMetadata, ask, fetch_json, read_object
from controller.web.auth.oidc import LEEWAY

log = logging.getLogger(__name__)

MOST_TOKEN: Final = 64 * 1024  # characters of an ID token
LONGEST_HINT: Final = (
    6000  # of one in an address: servers take some 8,000 characters; without it the issuer asks
)
_FAILED: Final = 500


class CodeRefused(Exception):
    """The issuer does not take the code: it was used, has expired, or was given to somebody else."""


@dataclass(frozen=True)
class Tokens:
    id_token: str
    access_token: str


class OpenIdClient:
    """The client of one issuer. `back` is where the issuer sends people with a code."""

    def __init__(self, issuer: OpenIdIssuer, metadata: IssuerMetadata, back: str) -> None:
        self._issuer = issuer
        self._metadata = metadata
        self._back = back

    def authorization_url(self, state: str, nonce: str, verifier: str) -> str:
        """Return where the browser goes. Raises IssuerFailed."""
        place = _required(self._metadata.authorization, "authorization_endpoint")
        url, _ = self._client().create_authorization_url(place, state, verifier, nonce=nonce)
        return str(url)

    def tokens(self, code: str, verifier: str) -> Tokens:
        """Exchange a code. Raises CodeRefused, IssuerFailed."""
        place = _required(self._metadata.token, "token_endpoint")
        try:
            found = self._client().fetch_token(
                place,
                grant_type="authorization_code",
                code=code,
                code_verifier=verifier,
                redirect_uri=self._back,
            )
        except OAuth2Error as error:
            if error.error == "invalid_grant":
                raise CodeRefused(str(error.error)) from error
            raise IssuerFailed(f"{place} refuses the code: {str(error)[:200]!r}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise IssuerFailed(f"{place}: {error}") from error
        id_token, access_token = found.get("id_token"), found.get("access_token")
        if not isinstance(id_token, str) or not isinstance(access_token, str) or len(id_token) > MOST_TOKEN:
            raise IssuerFailed(f"{place} answers without an ID token")
        return Tokens(id_token, access_token)

    def user_info(self, tokens: Tokens) -> dict[str, Any]:
        """Return what the issuer says beside the ID token; nothing if it has no such endpoint. Raises IssuerFailed."""
        if not self._metadata.user_info:
            return {}
        authorization = {"Authorization": f"Bearer {tokens.access_token}"}
        return fetch_json(urlsplit(self._metadata.user_info), headers=authorization)

    def is_for_this(self, claims: dict[str, Any], algorithm: str, nonce: str, tokens: Tokens) -> bool:
        """Return True if the ID token belongs to this sign-in and to these tokens (OpenID Connect Core §3.1.3.7); its
        signature, issuer, audience and expiry were checked before."""
        expected = {
            "nonce": nonce,
            "client_id": self._issuer.client_id,
            "access_token": tokens.access_token,
        }
        try:
            CodeIDToken(claims, {"alg": algorithm}, {}, expected).validate(leeway=LEEWAY)
        except (JoseError, ValueError, TypeError, AttributeError) as error:
            log.warning("an ID token is refused: %s", error, extra={"issuer": self._issuer.issuer})
            return False
        return True

    def sign_out_url(self, id_token: str, back: str) -> str:
        """Return where a person ends their session at the issuer (RP-Initiated Logout 1.0); "" if it has none."""
        if not self._metadata.end_session:
            return ""
        fields = {"client_id": self._issuer.client_id, "post_logout_redirect_uri": back}
        if 0 < len(id_token) <= LONGEST_HINT:
            fields["id_token_hint"] = id_token
        return str(add_params_to_uri(self._metadata.end_session, list(fields.items())))

    def _client(self) -> OAuth2Client:
        secret = self._issuer.client_secret
        if secret is not None and not secret:
            raise IssuerFailed("clientSecretFile may not be read by the user of the web process")
        return OAuth2Client(
            _BoundedSession(),
            self._issuer.client_id,
            secret.reveal() if secret else None,
            token_endpoint_auth_method=self._method(),
            scope=" ".join(self._issuer.scopes),
            redirect_uri=self._back,
            code_challenge_method="S256",
        )

    def _method(self) -> str:
        if not self._issuer.client_secret:
            return "none"
        basic, post = "client_secret_basic", "client_secret_post"
        known = self._metadata.token_auth_methods
        return post if post in known and basic not in known else basic


def _required(url: str, name: str) -> str:
    if not url:
        raise IssuerFailed(f"its discovery document has no {name} with an https URL")
    return url


class _BoundedSession:
    """What Authlib needs of a session of the library Requests: one POST, without redirects, and bounded."""

    def post(
        self, url: str, *, data: dict[str, str], headers: dict[str, str], auth: ClientAuth, **_: object
    ) -> _TokenAnswer:
        url, fields, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        status, content = ask(urlsplit(url), body=body.encode(), headers=fields)
        return _TokenAnswer(url, status, content)


@dataclass(frozen=True)
class _TokenAnswer:
    url: str
    status_code: int
    content: bytes

    def json(self) -> dict[str, Any]:
        """A refusal is JSON, too (RFC 6749 §5.2)."""
        found = read_object(self.url, self.content)
        if self.status_code != OK and "error" not in found:
            raise IssuerFailed(f"{self.url} answers {self.status_code}")
        return found

    def raise_for_status(self) -> None:
        if self.status_code >= _FAILED:
            raise IssuerFailed(f"{self.url} answers {self.status_code}")
