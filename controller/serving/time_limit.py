"""How long one call may take. The gateway says so for a call whose caller does not wait; it drops the field from the
requests of callers."""

from __future__ import annotations

import re

from .http1 import HttpRequest

FIELD = b"x-prichal-timeout"
_SECONDS = re.compile(rb"[0-9]{1,7}(?:\.[0-9]{1,6})?")


def time_limit(request: HttpRequest, usual: float) -> float:
    """Return the seconds that the call has: those of the header field, or the usual ones."""
    value = request.headers.get(FIELD)
    if value is None or _SECONDS.fullmatch(value) is None:
        return usual
    return float(value) or usual
