"""Conditions of writes, `If-Match` and `If-None-Match` (RFC 9110 §13.1), which not every storage knows. Pure.

The proxy judges them itself when the last byte of a body has come, see `Reservations.require_condition`: so lock files
and table formats, which rely on them, work with every storage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

ANY = "*"
_TAG = re.compile(r'(W/)?(?:"([^"]*)"|([^\s,"]+))')


@dataclass(frozen=True)
class WriteCondition:
    """Tags of which the object must have one, and must have none; None if it is not asked. `ANY` stands for each."""

    match: frozenset[str] | None = None
    none_match: frozenset[str] | None = None

    def holds(self, etag: str | None) -> bool:
        """Return True if an object with this tag may be replaced; `etag` is None if there is no object."""
        here = frozenset() if etag is None else frozenset((etag, ANY))
        if self.match is not None and not self.match & here:
            return False
        return self.none_match is None or not self.none_match & here


def condition_of(headers: Mapping[str, str]) -> WriteCondition | None:
    """Return the condition that a request states. Names of fields are in lower case."""
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is None and none_match is None:
        return None
    return WriteCondition(
        None if match is None else _tags(match, is_strong=True),
        None if none_match is None else _tags(none_match, is_strong=False),
    )


def _tags(text: str, is_strong: bool) -> frozenset[str]:
    """Return the tags without quotes, which clients of S3 leave out. A weak tag equals no other one where tags are
    compared strongly."""
    if text.strip() == ANY:
        return frozenset((ANY,))
    found = (quoted or plain for weak, quoted, plain in _TAG.findall(text) if not (weak and is_strong))
    return frozenset(found) - {ANY}
