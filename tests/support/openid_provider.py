"""An issuer of OpenID Connect that signs people in by the code flow: strict about codes, clients, redirect URIs and
PKCE, as the specifications ask, and able to break each rule that a client has to check."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support.issuer import Issuer, SigningKey, claims_of, encoded, sign, signing_key

CLIENT, SECRET = "prichal", "s3cret of the client"
KEY = signing_key("provider")


@dataclass(frozen=True)
class Request:
    """What a client asks the authorization endpoint for."""

    place: str
    state: str
    nonce: str
    challenge: str
    back: str
    scope: str

    @classmethod
    def of(cls, url: str) -> Request:
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert query["code_challenge_method"] == "S256"
        place = f"{parts.scheme}://{parts.netloc}{parts.path}"
        challenge = query["code_challenge"]
        return cls(place, query["state"], query["nonce"], challenge, query["redirect_uri"], query["scope"])


class OpenIdProvider(Issuer):
    """`tokens` makes the ID token from its claims, `users` is what the endpoint for user information says by access
    token, `metadata` what the discovery document says beside the usual."""

    def __init__(self) -> None:
        super().__init__()
        self.key = KEY
        self.metadata: dict[str, Any] = {}
        self.tokens: Callable[[dict[str, Any]], bytes] = self.signed
        self.users: dict[str, Any] = {}
        self.granted: list[dict[str, str]] = []  # forms of clients that got tokens
        self.refuse: tuple[int, object] | None = None
        self._codes: dict[str, tuple[Request, dict[str, Any]]] = {}
        self._numbers = itertools.count(1)

    def signed(self, claims: dict[str, Any]) -> bytes:
        return sign(self.key, claims)

    def publish(self, *keys: SigningKey) -> None:
        names = ("authorization", "token", "userinfo", "end_session")
        endpoints = {f"{name}_endpoint": f"{self.url}/{name}" for name in names}
        document = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **endpoints, **self.metadata}
        self.serve(self.discovery, {name: value for name, value in document.items() if value is not None})
        self.serve(self.keys, {"keys": [key.jwk() for key in keys or (self.key,)]})

    def sign_in(self, request: Request, sub: str = "4711", **claims: Any) -> str:
        """The person agrees: return a code."""
        code = f"code-{next(self._numbers)}"
        about = {"sub": sub, "aud": CLIENT, "nonce": request.nonce, **claims}
        self._codes[code] = (request, claims_of(self.url, **about))
        return code

    def answer(self, request: Request, sub: str = "4711", **claims: Any) -> str:
        """Where the browser is sent back to."""
        code = self.sign_in(request, sub, **claims)
        return f"{request.back}?{urlencode({'code': code, 'state': request.state})}"

    def post(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, object] | None:
        if path != f"{self.realm}/token" or path in self.answers:
            return None
        if self.refuse is not None:
            return self.refuse
        form = {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}
        expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if headers.get("Authorization") != f"Basic {expected}":
            return 401, {"error": "invalid_client"}
        request, claims = self._codes.pop(form["code"], (None, {}))
        if request is None or form["redirect_uri"] != request.back or not _fits(form, request):
            return 400, {"error": "invalid_grant"}
        self.granted.append(form)
        access = f"access-{form['code']}"
        self.serve(f"{self.realm}/userinfo", self.users.get(claims["sub"], {"sub": claims["sub"]}))
        return 200, {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": 60,
            "id_token": self.tokens(claims).decode(),
        }


def _fits(form: dict[str, str], request: Request) -> bool:
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    return encoded(digest).decode() == request.challenge


@contextmanager
def openid_provider() -> Iterator[OpenIdProvider]:
    running = OpenIdProvider()
    running.start()
    running.publish()
    try:
        yield running
    finally:
        running.stop()
