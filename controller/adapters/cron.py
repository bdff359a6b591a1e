"""Ticks of cron expressions, behind the port `Ticks`; the library `cronsim` provides the calendar.

When clocks change, ticks follow the rules of Debian's cron. An expression whose minute or hour begins with
`*` follows the local time: skipped times do not occur, and repeated ones occur twice. Every other expression
means a time of day: a skipped one occurs right after the change, and a repeated one occurs once.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

_STRIDE = 7 * 86400  # seconds; no zone changes its offset twice within this time


class CronTicks:
    def after(self, cron: str, timezone: str, moment: float) -> float:
        zone = ZoneInfo(timezone)
        minute, hour, *_ = cron.split()
        if minute.startswith("*") or hour.startswith("*"):
            return _on_the_wall(cron, zone, moment)
        ticks = (tick.timestamp() for tick in CronSim(cron, datetime.fromtimestamp(moment, zone)))
        # The library does not distinguish the second occurrence of an hour from the first.
        return next((tick for tick in ticks if tick > moment), math.inf)


def _on_the_wall(cron: str, zone: ZoneInfo, moment: float) -> float:
    """Search one period of constant offset after another. The library steps by hours, which fails where
    clocks change by thirty minutes.
    """
    begin = math.floor(moment) + 1
    while True:
        offset = _offset(zone, begin)
        tick = _in_calendar(cron, begin - 1 + offset) - offset
        change = _change(zone, begin, tick)
        if change is None:
            return tick
        begin = change


def _in_calendar(cron: str, local: float) -> float:
    """Return the first match after a moment, in a calendar without changes; both are seconds since 1970 in
    it.
    """
    found = next(CronSim(cron, datetime.fromtimestamp(local, UTC)), None)
    return math.inf if found is None else found.timestamp()


def _offset(zone: ZoneInfo, moment: float) -> float:
    return (datetime.fromtimestamp(moment, zone).utcoffset() or timedelta()).total_seconds()


def _change(zone: ZoneInfo, begin: int, end: float) -> int | None:
    """Return the first second in (begin, end] with another offset than at `begin`."""
    offset = _offset(zone, begin)
    while begin < end < math.inf:
        late = min(begin + _STRIDE, math.floor(end))
        if _offset(zone, late) != offset:
            while late - begin > 1:
                middle = (begin + late) // 2
                begin, late = (begin, middle) if _offset(zone, middle) != offset else (middle, late)
            return late
        begin = late
    return None
