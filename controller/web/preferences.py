"""What a caller prefers and repeats: the fields `Prefer` (RFC 7240) and `Idempotency-Key` of a request. Pure; used by
the run API and for async calls."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?([0-9]{1,6})"?\s*(?=$|[,;])', re.IGNORECASE)
_ASYNC = re.compile(r"(?:^|,)\s*respond-async\s*(?=$|[,;])", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
_KEY = re.compile(r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')


@dataclass(frozen=True)
class Preferences:
    """`wait` in seconds, 0 if the caller does not say. Unknown and invalid preferences are ignored."""

    respond_async: bool = False
    wait: float = 0.0

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Preferences:
        """Read the header of a request, whose names are in lower case."""
        text = ", ".join(value.decode("latin-1") for name, value in headers if name == b"prefer")
        if not text:
            return NONE
        found = _WAIT.search(text)
        return cls(_ASYNC.search(_QUOTED.sub("", text)) is not None, float(found[1]) if found else 0.0)


NONE = Preferences()


def idempotency_key(text: str | None) -> str:
    """Return the key, which may be a string of HTTP's structured fields, as the draft requires, or plain, as many
    clients send it; "" without one. Raises RequestRefused."""
    if text is None:
        return ""
    found = _KEY.fullmatch(text)
    if found is None:
        detail = "Idempotency-Key must be 1 to 255 visible ASCII characters, best of all a UUID, in quotes."
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
    return found[1] or found[2]
