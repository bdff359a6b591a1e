"""What cron expressions and time zones may be, in manifests and in the configuration. Pure.

A cron expression is the five fields of crontab(5) with its names of months and days; no `@daily`, no seconds, no `L`,
`W`, `#`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

#: Lowest and highest value and the names of each cron field.
_FIELDS: Final[tuple[tuple[int, int, Mapping[str, int]], ...]] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    (0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_PART = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]{1,4}))?", re.ASCII)
_LONGEST_MONTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def is_cron(text: str) -> bool:
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return False
    values = [_values(field, *bounds) for field, bounds in zip(fields, _FIELDS, strict=True)]
    return all(values) and _has_day(fields, values)


def _has_day(fields: list[str], values: list[frozenset[int]]) -> bool:
    """Return True if such a day exists: 30 February does not."""
    _, _, days, months, _ = values
    if not fields[4].startswith("*"):  # either day field suffices
        return True
    return any(min(days) <= _LONGEST_MONTHS[month - 1] for month in months)


def _values(field: str, low: int, high: int, names: Mapping[str, int]) -> frozenset[int]:
    """Return the numbers that a cron field stands for; empty if it is wrong."""
    found: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if not match:
            return frozenset()
        numbers = _range(match, low, high, names)
        if not numbers:
            return frozenset()
        found.update(numbers)
    return frozenset(found)


def _range(match: re.Match[str], low: int, high: int, names: Mapping[str, int]) -> range:
    step = int(match["step"] or 1)
    if match["first"] is None:
        first, last = low, high
    else:
        first = _number(match["first"], names)
        # `5/15` is 5-59/15, as in Vixie's cron
        last = _number(match["last"], names) if match["last"] else (high if match["step"] else first)
        if match["last"] and match["step"] and first == last:
            return range(0)  # `5-5/15`: programs disagree whether it is 5 or `5/15`
    if not low <= first <= last <= high or step < 1:
        return range(0)
    return range(first, last + 1, step)


def _number(text: str, names: Mapping[str, int]) -> int:
    return int(text) if text.isdecimal() and len(text) < 4 else names.get(text.lower(), -1)


@lru_cache(maxsize=1024)
def is_timezone(name: str) -> bool:
    """Return True if the host (or the `tzdata` package) knows this IANA zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
