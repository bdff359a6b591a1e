"""Password hashes in werkzeug's format `scrypt:N:r:p$salt$hex`, which the web process checks.

Plain passwords of a Secret are hashed by the daemon before the web process may see them. The salt is then derived
from the platform's own key instead of drawn, so that an unchanged password gives an unchanged route.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from controller.domain.localizable import Localizable

_N, _R, _P = 2**15, 8, 1  # 32 MiB and some 60 ms a check, werkzeug's defaults
#: The most that a check may cost: about a second.
_BCRYPT_COST, _PBKDF2_ITERATIONS, _SCRYPT_MEMORY = 14, 2_000_000, 256 * 2**20
_HASH_PREFIXES = ("scrypt:", "pbkdf2:", "$2a$", "$2b$", "$2y$")


def is_hash(text: str) -> bool:
    """Return True if a credential is a hash already: werkzeug's scrypt and pbkdf2 formats or bcrypt."""
    return text.startswith(_HASH_PREFIXES)


def cost_problem(text: str) -> str:
    """Return why a hash is too costly to check: minutes or gigabytes would delay all other callers. Empty if
    it is fine, or cannot be parsed and so matches nothing."""
    method, _, rest = text.partition("$")
    kind, *numbers = method.split(":")
    if method == "":
        cost = rest.split("$")[1:2]
        return _exceeds("bcrypt's cost", cost, _BCRYPT_COST)
    if kind == "pbkdf2":
        return _exceeds(Localizable("the iterations of pbkdf2"), numbers[1:2], _PBKDF2_ITERATIONS)
    if kind == "scrypt" and len(numbers) == 3 and all(number.isdecimal() for number in numbers):
        n, r, p = (int(number[:12]) for number in numbers)
        size = 128 * n * r
        if size > _SCRYPT_MEMORY or size * p > 2 * _SCRYPT_MEMORY:
            return Localizable(
                "scrypt may take {scrypt_memory} MiB and twice that in all, as in scrypt:{n}:{r}:{p}",
                scrypt_memory=_SCRYPT_MEMORY // 2**20,
                n=_N,
                r=_R,
                p=_P,
            )
    return ""


def _exceeds(what: str, given: list[str], most: int) -> str:
    too_many = any(len(number) > 9 or int(number) > most for number in given if number.isdecimal())
    return Localizable("{what} may be at most {most}", what=what, most=most) if too_many else ""


def hash_password(password: str, salt: str | None = None) -> str:
    salt = salt or secrets.token_hex(8)
    digest = hashlib.scrypt(password.encode(), salt=salt.encode(), n=_N, r=_R, p=_P, maxmem=132 * _N * _R)
    return f"scrypt:{_N}:{_R}:{_P}${salt}${digest.hex()}"


def stable_salt(key: bytes, *context: str) -> str:
    return hmac.new(key, "\0".join(context).encode(), "sha256").hexdigest()[:32]


def hash_token(token: str) -> str:
    """Return `sha256:<hex>`; a plain digest suffices, since API tokens are long and random. Such a digest is
    not hashed again."""
    return token if token.startswith("sha256:") else "sha256:" + hashlib.sha256(token.encode()).hexdigest()
