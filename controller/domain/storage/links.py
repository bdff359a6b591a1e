"""Links to objects: their permissions, and how they are written and parsed. Pure. A link is a URL that
permits its holder to send one method for one object, until it expires, with a maximum number of bytes. Its
signature covers all of that, with a key of the platform that the storage does not know. A link has one
spelling, so `parse` accepts only what `url` has written. The names in the query are those of S3's presigned
links, for programs that look at them."""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

from controller.domain.secret import Secret

ALGORITHM = "PRICHAL-HMAC-SHA256"
_DATE = "%Y%m%dT%H%M%SZ"
#: Characters of a path that some programs escape and others do not; `url` escapes them.
_LOOSE = {char: f"%{ord(char):02X}" for char in "!$&'()*+,;=:@"}
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_QUERY = re.compile(
    rf"X-Amz-Algorithm={ALGORITHM}&X-Amz-Date=(?P<date>[0-9]{{8}}T[0-9]{{6}}Z)&X-Amz-Expires=(?P<lifetime>[1-9][0-9]{{0,8}})"
    r"(?P<save>&response-content-disposition=attachment)?(?:&size=(?P<size>[1-9][0-9]{0,15}))?"
    r"(?:&uploadId=(?P<upload>[A-Za-z0-9._~%-]{1,2048})&partNumber=(?P<part>[1-9][0-9]{0,4}))?"
    r"&X-Amz-Signature=(?P<signature>[0-9a-f]{64})"
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,253}")


class LinkInvalid(ValueError):
    """The URL is not a link, or the link has expired; the text says which."""


@dataclass(frozen=True)
class ObjectLink:
    """`size`: bytes at most, 0 where none were announced; `begins` in Unix seconds, whole ones; `lifetime` in
    seconds; `upload` and `part` where it is one part of an upload; `save`: browsers save the object under its name, and
    do not show it."""

    method: str
    bucket: str
    key: str
    begins: int
    lifetime: int
    size: int = 0
    upload: str = ""
    part: int = 0
    save: bool = False

    @property
    def expires(self) -> int:
        return self.begins + self.lifetime

    @property
    def path(self) -> str:
        return path_of(self.bucket, self.key)

    def url(self, base: str, key: bytes) -> str:
        return f"{base}{self.path}?{self._query()}&X-Amz-Signature={self._signature(key)}"

    def _query(self) -> str:
        date = datetime.fromtimestamp(self.begins, UTC).strftime(_DATE)
        fields = {"X-Amz-Algorithm": ALGORITHM, "X-Amz-Date": date, "X-Amz-Expires": str(self.lifetime)}
        if self.save:
            fields["response-content-disposition"] = "attachment"
        if self.size:
            fields["size"] = str(self.size)
        if self.upload:
            fields |= {"uploadId": quote(self.upload, safe=""), "partNumber": str(self.part)}
        return "&".join(f"{name}={value}" for name, value in fields.items())

    def _signature(self, key: bytes) -> str:
        signed = ["link", self.method, self.bucket, self.key, self._query()]
        return hmac.digest(key, json.dumps(signed).encode(), "sha256").hex()


def link_key(secret: Secret) -> bytes:
    """Derive the key that signs links from the secret by which the web process reaches the storage. All its
    workers have that secret and nobody else does; a holder of the secret needs no links."""
    return hmac.digest(secret.reveal().encode(), b"links to objects", "sha256")


def path_of(bucket: str, key: str) -> str:
    """Return the path in the one spelling that is signed and sent."""
    return f"/{bucket}/{quote(key, safe='/-_.~')}"


def read_path(path: str) -> tuple[str, str]:
    """Return bucket and key of a path as it was sent; the key is empty for a bucket alone. Raises LinkInvalid
    unless it is spelled as by `path_of`, so that it cannot be read in more than one way."""
    bucket, _, rest = path.removeprefix("/").partition("/")
    try:
        key = unquote_to_bytes(rest).decode()
    except UnicodeDecodeError:
        raise LinkInvalid("escaped bytes of the path must be UTF-8") from None
    if not path.startswith("/") or _BUCKET.fullmatch(bucket) is None:
        raise LinkInvalid("the path begins with no name of a bucket")
    if not key:
        if rest or path not in (f"/{bucket}", f"/{bucket}/"):
            raise LinkInvalid("the path is not spelled as it is signed")
        return bucket, key
    if path_of(bucket, key) != f"/{bucket}/{_strict(rest)}":
        raise LinkInvalid("the path is not spelled as it is signed")
    check_key(key)
    return bucket, key


def check_key(key: str) -> None:
    """Check that no server can mistake the key for another one. Raises LinkInvalid."""
    for segment in key.removesuffix("/").split("/"):
        if not segment or segment.strip() in (".", ".."):
            raise LinkInvalid(f"the path has a segment {segment!r}")
    if "\\" in key or any(ord(char) < 0x20 or ord(char) == 0x7F for char in key):
        raise LinkInvalid("the path has a backslash or a control character")


def _strict(rest: str) -> str:
    """Return the path with escapes in upper case, and with all special characters escaped."""
    upper = _ESCAPE.sub(lambda found: found[0].upper(), rest)
    return "".join(_LOOSE.get(char, char) for char in upper)


def parse(method: str, target: str, key: bytes, now: float) -> ObjectLink:
    """Parse the link that a request was sent to. Raises LinkInvalid."""
    path, _, query = target.partition("?")
    found = _QUERY.fullmatch(query)
    if found is None:
        raise LinkInvalid("this is not a link of the files API")
    bucket, name = read_path(path)
    link = ObjectLink(
        method,
        bucket,
        name,
        _seconds(found["date"]),
        int(found["lifetime"]),
        int(found["size"] or 0),
        unquote_to_bytes(found["upload"] or "").decode("utf-8", "replace"),
        int(found["part"] or 0),
        found["save"] is not None,
    )
    # Compared with what would be written, not with what was sent: another spelling has another signature.
    unsigned = query.removesuffix(f"&X-Amz-Signature={found['signature']}")
    if unsigned != link._query() or not hmac.compare_digest(link._signature(key), found["signature"]):
        raise LinkInvalid("the signature does not fit: a link is good for one method and one object")
    if now >= link.expires:
        raise LinkInvalid("the link has expired")
    return link


def _seconds(date: str) -> int:
    try:
        return int(datetime.strptime(date, _DATE).replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise LinkInvalid("this is not a link of the files API") from None


def is_link(query: str) -> bool:
    return query.startswith(f"X-Amz-Algorithm={ALGORITHM}&")
