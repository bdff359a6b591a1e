"""Tokens by which the scripts of a page of ours make requests. Pages below /-/ are sandboxed, so browsers send no
cookie with requests of their scripts; a page carries a token instead, which stands for whom the page was shown to.

A token is good for reading one path and all below it, for a limited time, as long as the session lasts. Where its
scripts have to change something, it names a second path for that, often a smaller one. What the person may do is judged
by their roles at the moment of each request, like with the cookie. Scripts send it as `X-Prichal-Page` with
`Origin: null`, which pages of modules do not have; they cannot read it either
(docs/adr/0022-scripts-of-pages-carry-a-token.md). Pure.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

HEADER: Final = "x-prichal-page"
ORIGIN: Final = "null"  # of a sandboxed page
LIFETIME: Final = 3600.0  # seconds; a page that is open gets another one in time
LONGEST: Final = 1000
#: Callers without a session: the holder of the admin token, and a caller of this host who is trusted.
ADMIN: Final = "@admin"
HOST: Final = "@host"


@dataclass(frozen=True)
class PageToken:
    """`holder` is the id of a session, ADMIN or HOST. `writes`: the path below which something may be changed, "" for
    none. `expires` in Unix seconds."""

    holder: str
    path: str
    writes: str
    expires: int

    def opens(self, method: str, path: str, now: float) -> bool:
        place = self.path if method in ("GET", "HEAD") else self.writes
        return bool(place) and _is_in(path, place) and now < self.expires

    def signed(self, key: str) -> str:
        """`key` is the holder's."""
        text = f"{self.holder}.{self.expires}.{_encoded(self.path)}.{_encoded(self.writes)}"
        return f"{text}.{_signature(key, text)}"


def read_token(text: str) -> PageToken | None:
    """Return what the token says; who uses it has to check it by `is_genuine`."""
    parts = text.split(".")
    if len(text) > LONGEST or not text.isascii() or len(parts) != 5:
        return None
    holder, expires, path, writes, _ = parts
    if not (expires.isdecimal() and len(expires) < 15):
        return None
    try:
        return PageToken(holder, _decoded(path), _decoded(writes), int(expires))
    except ValueError:
        return None


def is_genuine(text: str, key: str) -> bool:
    signed, _, signature = text.rpartition(".")
    return bool(key) and hmac.compare_digest(_signature(key, signed), signature)


def _is_in(path: str, place: str) -> bool:
    """A place that ends with a slash is that of one page, which has none below it."""
    return path == place or (not place.endswith("/") and path.startswith(f"{place}/"))


def _encoded(path: str) -> str:
    return urlsafe_b64encode(path.encode()).decode().rstrip("=")


def _decoded(path: str) -> str:
    return urlsafe_b64decode(path + "=" * (-len(path) % 4)).decode()


def _signature(key: str, text: str) -> str:
    return hmac.new(key.encode(), b"page " + text.encode(), "sha256").hexdigest()
