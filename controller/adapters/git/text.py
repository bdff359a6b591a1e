"""Lists in messages for people."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 12


def listed(names: Sequence[str]) -> str:
    """The first names and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
