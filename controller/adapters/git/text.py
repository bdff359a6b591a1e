"""Lists in messages for people."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 12


def listed(names: Sequence[str]) -> str:
    """Return the first names and the number of others."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
