"""An OpenID Connect issuer on loopback: discovery and key set over HTTP, tokens signed with keys made on the spot.

Keys can be exchanged, and the server stopped and started again on the same port, which its URL names."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import itertools
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from jwt.algorithms import get_default_algorithms

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
#: A port may come back; a URL never does, so that nobody remembers another issuer's keys.
_NUMBERS = itertools.count(1)


def make_key(algorithm: str, bits: int = 2048) -> PrivateKey:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    return rsa.generate_private_key(65537, bits)


#: A key whose making costs more than its use is made once; each `name` has its own.
@cache
def shared_key(algorithm: str, name: str = "") -> PrivateKey:
    return make_key(algorithm)


@dataclass(frozen=True)
class SigningKey:
    kid: str
    algorithm: str
    private: PrivateKey

    def jwk(self, **fields: Any) -> dict[str, Any]:
        """The public half as a JSON Web Key; a field given as None is left out."""
        public = get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        known = {**public, "kid": self.kid, "use": "sig", "alg": self.algorithm, "key_ops": None, **fields}
        return {name: value for name, value in known.items() if value is not None}

    def pem(self) -> bytes:
        """The public half as everybody can have it."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def signing_key(kid: str, algorithm: str = "RS256") -> SigningKey:
    return SigningKey(kid, algorithm, shared_key(algorithm, kid))


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        issuer = self.server.issuer
        issuer.asked.append(self.path)
        status, headers, body = issuer.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """A POST is answered like a GET, unless the issuer has more to say."""
        issuer = self.server.issuer
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = issuer.post(self.path, dict(self.headers), body)
        if answer is None:
            self.do_GET()
            return
        status, document = answer
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, issuer: Issuer) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.issuer = issuer


class Issuer:
    """Speaks TLS if it has a `certificate`. `answers` are what it serves, by path: status, header, body; `asked` the
    paths that were asked for."""

    def __init__(self, certificate: Path | None = None) -> None:
        self._certificate = certificate
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []
        self.port = 0
        self.realm = f"/realm-{next(_NUMBERS)}"
        self.discovery = f"{self.realm}/.well-known/openid-configuration"
        self.keys = f"{self.realm}/keys"
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        scheme = "https" if self._certificate else "http"
        return f"{scheme}://127.0.0.1:{self.port}{self.realm}"

    def start(self) -> None:
        self._server = _Server(self.port, self)
        self.port = self._server.server_port
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        """Afterwards connections are refused."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def serve(self, path: str, document: object) -> None:
        self.answers[path] = (200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def publish(self, *keys: SigningKey) -> None:
        self.serve(self.discovery, {"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        self.serve(self.keys, {"keys": [key.jwk() for key in keys]})

    def post(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, object] | None:
        return None

    def fetches(self) -> int:
        return self.asked.count(self.keys)


@contextmanager
def issuer(*keys: SigningKey, certificate: Path | None = None) -> Iterator[Issuer]:
    running = Issuer(certificate)
    running.start()
    running.publish(*keys)
    try:
        yield running
    finally:
        running.stop()


def make_certificate(path: Path) -> Path:
    """For 127.0.0.1, signed by itself, good for a day; certificate and private key in one PEM file."""
    key, now = make_key("RS256"), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(addresses, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def claims_of(issuer: str, **claims: Any) -> dict[str, Any]:
    """Claims of a good token, good for ten minutes; one given as None is left out."""
    now = int(time.time())
    good = {"iss": issuer, "aud": "demo", "sub": "4711", "iat": now, "exp": now + 600, **claims}
    return {name: value for name, value in good.items() if value is not None}


def sign(key: SigningKey, claims: dict[str, Any], **header: Any) -> bytes:
    header = {"kid": key.kid, **header}
    return jwt.encode(claims, key.private, key.algorithm, headers=header).encode()


def encoded(part: object) -> bytes:
    """One part of a token: base64url of bytes, or of anything else as JSON."""
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def forged(header: dict[str, Any], claims: dict[str, Any], secret: bytes = b"") -> bytes:
    """As an attacker makes it, without a library that would refuse: HMAC-SHA256 with `secret`, or no signature."""
    signed = encoded(header) + b"." + encoded(claims)
    return signed + b"." + (encoded(hmac.digest(secret, signed, hashlib.sha256)) if secret else b"")
