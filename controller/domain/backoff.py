"""How long to wait before something that failed is tried again. Pure.

Used by everything whose pauses grow exponentially. Pauses that a specification lists one by one stay tables: those of
webhooks (domain/runs/webhooks.py) and of the platform's own failures in a run (domain/runs/steps.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

JITTER: Final = 0.2  # the most that is added to a pause, as a share of it
_MOST: Final = 64  # steps; more would overflow, and all caps are below


@dataclass(frozen=True)
class Backoff:
    """`initial` seconds after the first failure in a row, then `factor` times as long, up to `cap` seconds."""

    initial: float
    cap: float
    factor: float = 2.0

    def after(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row; 0 without any."""
        return min(self.cap, self.initial * self.factor ** min(failures - 1, _MOST)) if failures > 0 else 0.0


def jittered(pause: float, random: float) -> float:
    """Lengthen a pause by `random`, from 0 to 1: what failed together need not come again together."""
    return pause * (1 + JITTER * random)
