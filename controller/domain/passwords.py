"""Password hashes in werkzeug's format `scrypt:N:r:p$salt$hex`, which the web process checks.

Plain passwords of a Secret are hashed by the daemon before the web process may see them. The salt is then derived
from the platform's own key instead of drawn, so that an unchanged password gives an unchanged route.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

_N, _R, _P = 2**15, 8, 1  # 32 MiB and some 60 ms a check, werkzeug's defaults
_HASH_PREFIXES = ("scrypt:", "pbkdf2:", "$2a$", "$2b$", "$2y$")


def is_hash(text: str) -> bool:
    """Whether a credential is a hash already: werkzeug's scrypt and pbkdf2 formats or bcrypt."""
    return text.startswith(_HASH_PREFIXES)


def hash_password(password: str, salt: str | None = None) -> str:
    salt = salt or secrets.token_hex(8)
    digest = hashlib.scrypt(password.encode(), salt=salt.encode(), n=_N, r=_R, p=_P, maxmem=132 * _N * _R)
    return f"scrypt:{_N}:{_R}:{_P}${salt}${digest.hex()}"


def stable_salt(key: bytes, *context: str) -> str:
    return hmac.new(key, "\0".join(context).encode(), "sha256").hexdigest()[:32]


def hash_token(token: str) -> str:
    """API tokens are long and random, so a plain digest suffices: `sha256:<hex>`; such a digest stays as it is."""
    return token if token.startswith("sha256:") else "sha256:" + hashlib.sha256(token.encode()).hexdigest()
