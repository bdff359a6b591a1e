"""Lists in messages for people."""

from __future__ import annotations

from collections.abc import Sequence

from controller.domain.localizable import Localizable

SHOWN = 12


def listed(names: Sequence[str]) -> str:
    """Return the first names and the number of others."""
    more = len(names) - SHOWN
    shown = ", ".join(names[:SHOWN])
    return Localizable("{shown} and {more} more", shown=shown, more=more) if more > 0 else shown
