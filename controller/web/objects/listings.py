"""Listings of the embedded storage by containers. Its server, the JuiceFS gateway, reads the whole folder for each
page, and keeps the rest for half an hour, for the next page that begins exactly where that one has ended. It does not
look who asks for it: a listing would get the rest of another one that was abandoned there, without what was written
since.

So a page begins right behind the place where one has ended, which reads the folder again. Large pages of one listing
go on with its own rest, which costs a tenth for large folders: their tokens say when the listing began, and their ends
are where those of others seldom are. Pure.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.web.objects.s3 import check_place

#: Seconds for which a listing goes on with what it found when it began.
GOES_ON: Final = 60.0
#: A page of so many keys is a large one, which gets fewer, by up to `FEWER`: S3 allows that.
LARGE: Final = 500
FEWER: Final = 400
_MOST: Final = 1000  # keys of a page, as S3 allows
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]+)</")
_COUNT = re.compile(r"[0-9]{1,9}")
_TIME = re.compile(r"[0-9]{1,12}")
_MARK: Final = "\0"  # between a place and a time: no key has it


@dataclass(frozen=True)
class EmbeddedListing:
    """The `query` of a page for the storage. `began`: when the listing of a large page began, in Unix seconds."""

    query: dict[str, str]
    began: int | None = None

    def answer(self, document: bytes) -> bytes:
        """Return the storage's answer, with a token by which the next page goes on with this listing."""
        if self.began is None:
            return document
        return _TOKEN.sub(self._marked, document)

    def _marked(self, token: re.Match[bytes]) -> bytes:
        place = _decoded(token[1].decode("ascii", "replace"))
        if place is None:
            return token[0]
        return b"<NextContinuationToken>%s</" % _encoded(f"{place}{_MARK}{self.began}").encode()


def for_embedded(query: Mapping[str, str], now: float, fewer: int) -> EmbeddedListing:
    """Return what the embedded storage is asked for a page; `fewer` is a random number below `FEWER`. Raises S3Error
    for a token that leads elsewhere."""
    found, began = dict(query), None
    if (token := _decoded(found.get("continuation-token", ""))) is not None:
        place, _, time = token.partition(_MARK)
        check_place(place)
        began = int(time) if _TIME.fullmatch(time) and 0 <= now - int(time) < GOES_ON else None
        found["continuation-token"] = _encoded(_behind(place, query, goes_on=began is not None))
    for name in ("start-after", "marker"):
        if name in found:
            found[name] = _behind(found[name], query)
    keys = found.get("max-keys", str(_MOST))
    if found.get("list-type") != "2" or not _COUNT.fullmatch(keys) or int(keys) < LARGE:
        return EmbeddedListing(found)
    found["max-keys"] = str(min(int(keys), _MOST) - fewer)
    return EmbeddedListing(found, int(now) if began is None else began)


def _behind(place: str, query: Mapping[str, str], goes_on: bool = False) -> str:
    """Return a text that sorts behind an object, or behind all of a folder that was listed as one. The prefix itself
    is not one: a listing that begins there has all that follows."""
    if not place:
        return place
    if query.get("delimiter") and place.endswith("/") and place != query.get("prefix", ""):
        return f"{place}\U0010ffff"
    return place if goes_on else f"{place}\x01"


def _decoded(token: str) -> str | None:
    """Return what a token says; None for what is none, which the storage refuses."""
    try:
        return base64.b64decode(token, validate=True).decode() if token else None
    except ValueError:
        return None


def _encoded(place: str) -> str:
    return base64.b64encode(place.encode()).decode()
