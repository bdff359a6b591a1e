"""Amazon's Signature Version 4 of a request to an S3 server: signing and checking. Pure.

Paths and queries are given as they are sent; nothing here decodes them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from controller.domain.secret import Secret

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
DATE = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Signer:
    """An account as its requests are signed. `access_key` is its name."""

    access_key: str
    secret: Secret
    region: str

    def headers(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        now: float,
        payload: str = UNSIGNED,
    ) -> dict[str, str]:
        """Return `headers`, in lower case and with `host`, and those of the signature; `payload` is the
        digest of the body, if the signature covers it. `query` is sorted and escaped."""
        date = datetime.fromtimestamp(now, UTC).strftime(DATE)
        signed = {**headers, "x-amz-content-sha256": payload, "x-amz-date": date}
        covered = sorted(name for name in signed if name != "content-length")
        request = canonical_request(method, path, query, {n: signed[n] for n in covered}, payload)
        scope = f"{date[:8]}/{self.region}/s3/aws4_request"
        signature = sign(self.secret, scope, text_to_sign(date, scope, request))
        credential = f"{self.access_key}/{scope}"
        authorization = (
            f"{ALGORITHM} Credential={credential}, SignedHeaders={';'.join(covered)}, Signature={signature}"
        )
        return {**signed, "authorization": authorization}


def canonical_request(method: str, path: str, query: str, headers: Mapping[str, str], payload: str) -> str:
    """`headers` are those that are signed, sorted by their names in lower case, their values bytes as Latin-1."""
    lines = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in headers.items())
    return f"{method}\n{path}\n{query}\n{lines}\n{';'.join(headers)}\n{payload}"


def text_to_sign(date: str, scope: str, request: str) -> str:
    return f"{ALGORITHM}\n{date}\n{scope}\n{hashlib.sha256(request.encode('latin-1')).hexdigest()}"


def sign(secret: Secret, scope: str, text: str) -> str:
    return hmac.digest(signing_key(secret, scope), text.encode(), "sha256").hex()


@lru_cache(maxsize=256)
def signing_key(secret: Secret, scope: str) -> bytes:
    """`scope` is date/region/service/aws4_request."""
    key = f"AWS4{secret.reveal()}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


@dataclass(frozen=True)
class Signed:
    """The signature of a request as it states it. `names` are the signed header fields; `date` as it was sent,
    `lifetime` of a signed link in seconds, 0 for a signature in a header."""

    access_key: str
    scope: str
    names: tuple[str, ...]
    signature: str
    date: str
    lifetime: int = 0


class SignatureInvalid(ValueError):
    """There is no signature, or not one that fits; the text says which."""


_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=([^/,\s]+)/(\d{{8}}/[a-z0-9-]+/s3/aws4_request),\s*"
    r"SignedHeaders=([a-z0-9;_-]+),\s*Signature=([0-9a-f]{64})"
)
_CREDENTIAL = re.compile(r"([^/]+)/(\d{8}/[a-z0-9-]+/s3/aws4_request)")
_LONGEST = 7 * 24 * 3600  # seconds that a signed link lives
_SKEW = 15 * 60  # seconds between the clocks of two hosts


def read_signature(headers: Mapping[str, str], query: Mapping[str, str]) -> Signed:
    """Read the signature of a request. Raises SignatureInvalid."""
    line = headers.get("authorization")
    if line is not None:
        found = _AUTHORIZATION.fullmatch(line)
        if found is None or "X-Amz-Signature" in query:
            raise SignatureInvalid("the request is to be signed once, with AWS4-HMAC-SHA256")
        return Signed(found[1], found[2], tuple(found[3].split(";")), found[4], headers.get("x-amz-date", ""))
    credential = _CREDENTIAL.fullmatch(query.get("X-Amz-Credential", ""))
    lifetime, signature = query.get("X-Amz-Expires", ""), query.get("X-Amz-Signature", "")
    if query.get("X-Amz-Algorithm") != ALGORITHM or credential is None or not lifetime.isdecimal():
        raise SignatureInvalid("the request is to be signed, with AWS4-HMAC-SHA256")
    names = tuple(query.get("X-Amz-SignedHeaders", "").split(";"))
    seconds = int(lifetime[:9])
    if not 1 <= seconds <= _LONGEST:
        raise SignatureInvalid("a signed link lives for 1 second to 7 days")
    return Signed(credential[1], credential[2], names, signature, query.get("X-Amz-Date", ""), seconds)


def check_signature(
    signed: Signed,
    secret: Secret,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    payload: str,
    now: float,
) -> None:
    """Check the signature; `path` and `query` are canonical and do not contain it. Raises SignatureInvalid."""
    try:
        date = datetime.strptime(signed.date, DATE).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise SignatureInvalid("the date of the signature is missing or malformed") from None
    late = signed.lifetime or _SKEW
    if not -_SKEW <= now - date <= late or not signed.scope.startswith(signed.date[:8]):
        raise SignatureInvalid("the signature has expired, or the clocks differ by too much")
    if "host" not in signed.names or list(signed.names) != sorted(set(signed.names)):
        raise SignatureInvalid("the signature must cover the host, and name what it covers in order")
    if any(name not in headers for name in signed.names):
        raise SignatureInvalid("a field that is signed is missing")
    unsigned = [name for name in headers if name.startswith("x-amz-") and name not in signed.names]
    if unsigned:
        raise SignatureInvalid(f"{unsigned[0]} is not covered by the signature")
    covered = {name: headers[name] for name in signed.names}
    request = canonical_request(method, path, query, covered, payload)
    fits = sign(secret, signed.scope, text_to_sign(signed.date, signed.scope, request))
    if not hmac.compare_digest(fits.encode(), signed.signature.encode()):
        raise SignatureInvalid("the signature does not fit the request")
