"""How often to look at something that takes long to look at. Pure; used by all scans of disks, boxes and images."""

from __future__ import annotations

from typing import Final

_SHARE: Final = 10.0  # the pause after a look, as a multiple of its duration


def pause_after(took: float, shortest: float = 0.0) -> float:
    """Return the seconds until the next look, so that looks take at most a tenth of the time however slow they are."""
    return max(shortest, _SHARE * took)
