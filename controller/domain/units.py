"""Durations and sizes as people write them in manifests and in the configuration, and back; points in time as
in documents.

Durations are seconds: `500ms`, `30s`, `10m`, `1h30m`, `7d`, or a bare number of seconds. Sizes are bytes, with
the suffixes of Kubernetes quantities: `k M G T P` are powers of 1000, `Ki Mi Gi Ti Pi` powers of 1024; a `B` may
follow. Suffixes are case-sensitive: `512m` is half a byte to Kubernetes and 512 MiB to Docker, so it is refused.

`DURATION` and `SIZE` are the patterns that the JSON Schemas use, too.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

# Digits are bounded, so that no value overflows where it is used.
_TIME = r"[0-9]{1,7}(?:\.[0-9]{1,6})?"
DURATION = rf"^(?=.)(?:{_TIME}d)?(?:{_TIME}h)?(?:{_TIME}m)?(?:{_TIME}s)?(?:{_TIME}ms)?$"
# As many digits as every suffix leaves below 2**63, the largest number of SQLite and of engines.
_DIGITS = ((18, ""), (15, "[kK]i?"), (12, "Mi?"), (9, "Gi?"), (6, "Ti?"), (3, "Pi?"))
_SIZES = "|".join(rf"[0-9]{{1,{digits}}}(?:\.[0-9]{{1,6}})?{prefix}" for digits, prefix in _DIGITS)
SIZE = rf"^(?:{_SIZES})B?$"

LONGEST = 1e9  # seconds, 31 years: clocks, calendars and timers go on working with it

_DURATION_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_DURATION_PART = re.compile(rf"({_TIME})(ms|[dhms])")
_SIZE_PARTS = re.compile(r"([0-9]++)\.?([0-9]*+)([kKMGTP]?)(i?)B?")


def parse_duration(value: str | float) -> float:
    """Return seconds, at most `LONGEST`. Raises ValueError if `value` is not a duration."""
    if isinstance(value, bool):
        raise ValueError("not a duration")
    if isinstance(value, int | float):
        if not 0 <= value < LONGEST:
            raise ValueError("not a duration")
        return float(value)
    if not re.fullmatch(DURATION.removesuffix("$"), value):
        raise ValueError("not a duration")
    parts = _DURATION_PART.findall(value)
    return min(LONGEST, round(sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts), 3))


def parse_size(value: str | float) -> int:
    """Return bytes, rounded down. Raises ValueError if `value` is not a size."""
    if isinstance(value, bool):
        raise ValueError("not a size")
    if isinstance(value, int | float):
        if not 0 <= value < 10**18:
            raise ValueError("not a size")
        return int(value)
    if not re.fullmatch(SIZE.removesuffix("$"), value):
        raise ValueError("not a size")
    match = _SIZE_PARTS.fullmatch(value)
    assert match is not None
    whole, fraction, prefix, binary = match.groups()
    millionths = int(whole + fraction.ljust(6, "0"))  # exact, unlike a float
    unit: int = (1024 if binary else 1000) ** _POWERS[prefix]
    return millionths * unit // 10**6


def render_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads back: `90.0` is `1m30s`."""
    milliseconds = round(seconds * 1000)
    text = ""
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, length)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def render_size(size: int) -> str:
    """Return the shortest text that `parse_size` reads back: `2**30` is `1Gi`, `30 * 10**9` is `30G`."""
    texts = [str(size)]
    for base, suffix in ((1024, "i"), (1000, "")):
        for prefix in ("K" if suffix else "k", "M", "G", "T", "P"):
            unit: int = base ** _POWERS[prefix]
            if size and size % unit == 0:
                texts.append(f"{size // unit}{prefix}{suffix}")
    return min(texts, key=len)


def about_size(size: int) -> str:
    """Format a size approximately, for people: `4 kB`, `1.5 GB`. It has three digits and units of 1000."""
    if size < 1000:
        return f"{size} bytes" if size != 1 else "1 byte"
    value = float(size)
    units = ["kB", "MB", "GB", "TB", "PB"]
    while True:
        value, unit = value / 1000, units.pop(0)
        if value < 999.5 or not units:
            return f"{value:.3g} {unit}"


_LAST = 253_402_300_799.0  # the end of the year 9999, the last one that it can say


def rfc3339(at: float | None) -> str | None:
    """Return Unix seconds as `2026-01-31T12:00:00.000Z`; times outside of 1970 to 9999 become the nearest of
    these."""
    return None if at is None else in_utc(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def in_utc(at: float) -> datetime:
    """Return Unix seconds as a moment, within the same bounds: others have written some of them."""
    return datetime.fromtimestamp(min(max(at, 0.0), _LAST), UTC)


def parse_rfc3339(text: str) -> float:
    """Return Unix seconds. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()


def about_duration(seconds: float) -> str:
    """Format a duration for people: `0.4s`, `12s`, `3m 20s`, `1h 05m`, `2d 03h`."""
    if seconds < 1:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    for size, unit, small, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // small:02}{smaller}"
    return f"{whole}s"
