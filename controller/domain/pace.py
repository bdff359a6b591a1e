"""How often to look at something: at what takes long to look at, and at what changes often. Pure; used by all scans of
disks, boxes and images, and by who waits for changes of a database."""

from __future__ import annotations

from typing import Final

_SHARE: Final = 10.0  # the pause after a look, as a multiple of its duration
#: Seconds between two looks at what has changed: the first pause after a time without changes, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.01


def pause_after(took: float, shortest: float = 0.0) -> float:
    """Return the seconds until the next look, so that looks take at most a tenth of the time however slow they are."""
    return max(shortest, _SHARE * took)


def next_pause(pause: float, waited: float) -> float:
    """Return the pause after a look at changes. `pause` was made before it, and then the next change came after
    `waited` seconds. Of a few changes each is seen at once; a flood of them costs a look each LONGEST_PAUSE."""
    return min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE) if waited < LONGEST_PAUSE else FIRST_PAUSE
