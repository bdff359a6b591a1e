"""Listings of the embedded storage by containers, see domain/storage/pages.py. Large pages of one listing go on with
it: their tokens say when it began. Pure.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.domain.storage.pages import GOES_ON, MOST, begin_behind
from controller.web.objects.s3 import check_place

#: A page of so many keys is a large one, which gets fewer: S3 allows that.
LARGE: Final = 500
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
    """Return what the embedded storage is asked for a page; `fewer` is a random number below `pages.FEWER`. Raises
    S3Error for a token that leads elsewhere."""
    found, began = dict(query), None
    if (token := _decoded(found.get("continuation-token", ""))) is not None:
        place, _, time = token.partition(_MARK)
        check_place(place)
        began = int(time) if _TIME.fullmatch(time) and 0 <= now - int(time) < GOES_ON else None
        found["continuation-token"] = _encoded(_behind(place, query, goes_on=began is not None))
    for name in ("start-after", "marker"):
        if name in found:
            found[name] = _behind(found[name], query)
    keys = found.get("max-keys", str(MOST))
    if found.get("list-type") != "2" or not _COUNT.fullmatch(keys) or int(keys) < LARGE:
        return EmbeddedListing(found)
    found["max-keys"] = str(min(int(keys), MOST) - fewer)
    return EmbeddedListing(found, int(now) if began is None else began)


def _behind(place: str, query: Mapping[str, str], goes_on: bool = False) -> str:
    return begin_behind(place, query.get("prefix", ""), bool(query.get("delimiter")), goes_on)


def _decoded(token: str) -> str | None:
    """Return what a token says; None for what is none, which the storage refuses."""
    try:
        return base64.b64decode(token, validate=True).decode() if token else None
    except ValueError:
        return None


def _encoded(place: str) -> str:
    return base64.b64encode(place.encode()).decode()
