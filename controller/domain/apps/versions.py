"""Semantic version ranges, as `ref: {semver: ">=1.2 <2"}` of a Repository uses them: which tag is meant?

Versions follow https://semver.org (2.0.0), with or without a leading `v`; a tag that is not a complete version is
ignored, so that moving tags such as `v1` are never picked. The range language is the one that npm and Flux share:

    1.2.3   =1.2.3          exactly this version
    1.x   1.2   1.2.*   *   any version that begins so
    >1.2   >=1.2   <2   <=2 comparison
    ~1.2.3                  >=1.2.3 and below 1.3.0
    ^1.2.3                  >=1.2.3 and below the next version that may break: 2.0.0 (^0.2.3: 0.3.0)
    1.2 - 2.3               from 1.2.0 up to and including all of 2.3

Blanks or commas join conditions that must all hold, `||` separates alternatives. A pre-release (`2.0.0-rc.1`) is
only picked if the same alternative names a pre-release itself (`>=2.0.0-0`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_RANGE: Final = 1000
_NUMBER = r"0|[1-9]\d{0,39}"  # a date with the time, as of a nightly build, is one
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_SUFFIX = rf"(?:-(?P<prerelease>{_IDENTIFIERS}))?(?:\+{_IDENTIFIERS})?"
_VERSION = re.compile(rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER}){_SUFFIX}", re.ASCII)
_OPERAND = re.compile(
    rf"v?({_NUMBER}|[xX*])(?:\.({_NUMBER}|[xX*]))?(?:\.({_NUMBER}|[xX*]))?{_SUFFIX}", re.ASCII
)
_CONDITION = re.compile(r"(?P<sign>>=|<=|>|<|=|~|\^|)\s*(?P<operand>[^\s,<>=~^]+)[\s,]*")
_HYPHEN = re.compile(r"\s*(?P<low>\S+)\s+-\s+(?P<high>\S+)\s*")

#: Sorts as semver.org's precedence does: a release after its pre-releases, numeric identifiers before others.
_Precedence = tuple[bool, tuple[tuple[bool, int, str], ...]]
_RELEASE: Final[_Precedence] = (True, ())


class _Version(NamedTuple):
    numbers: tuple[int, ...]  # major, minor, patch
    precedence: _Precedence = _RELEASE


def _prerelease(text: str | None) -> _Precedence:
    if not text:
        return _RELEASE
    identifiers = text.split(".")
    return False, tuple(map(_identifier, identifiers))


def _identifier(text: str) -> tuple[bool, int, str]:
    """Return what sorts numbers by value, however long they are, and before other texts."""
    digits = text.lstrip("0")
    return (False, len(digits), digits) if text.isdecimal() else (True, 0, text)


_LOWEST = _prerelease("0")
_ZERO = _Version((0, 0, 0), _LOWEST)


@dataclass(frozen=True)
class _Alternative:
    """Conditions that must all hold, each a half-open span of versions."""

    spans: tuple[tuple[_Version, _Version | None], ...]
    prereleases: bool

    def admits(self, version: _Version) -> bool:
        if version.precedence != _RELEASE and not self.prereleases:
            return False
        return all(low <= version and (high is None or version < high) for low, high in self.spans)


@dataclass(frozen=True)
class _Operand:
    """A version that may be incomplete: `parts` has the given numbers."""

    parts: tuple[int, ...]
    precedence: _Precedence = _RELEASE

    @property
    def low(self) -> _Version:
        """Return the first version that the operand stands for."""
        return _Version((*self.parts, 0, 0, 0)[:3], self.precedence)

    @property
    def end(self) -> _Version | None:
        """Return the first version after all that the operand stands for; None if there is none."""
        if len(self.parts) < 3:
            return self.beyond(len(self.parts) - 1)
        is_release, identifiers = self.precedence
        return self.beyond(2) if is_release else _Version(self.parts, (False, (*identifiers, (False, 0, ""))))

    def beyond(self, position: int) -> _Version | None:
        """Return the first version after all that agree with this one up to and including part `position`:
        the lowest pre-release (`-0`), which excludes all pre-releases of the next version, too."""
        if position < 0:
            return None
        return _Version((*self.parts[:position], self.parts[position] + 1, 0, 0)[:3], _LOWEST)


def is_range(text: str) -> bool:
    """Return True if `text` is a range that `pick` understands."""
    try:
        _parse(text)
    except ValueError:
        return False
    return True


def pick(range: str, tags: Iterable[str]) -> str | None:
    """Return the tag with the highest version within `range`, or None. Equal versions (`1.2.0` and `v1.2.0`, or
    other build metadata) are distinguished by their text, so that the answer does not depend on the order of `tags`.
    Raises ValueError if `range` is invalid."""
    return next(iter(ranked(range, tags)), None)


def ranked(range: str, tags: Iterable[str]) -> tuple[str, ...]:
    """Return all tags within `range`, the one that `pick` returns first. Raises ValueError if `range` is invalid."""
    alternatives = _parse(range)
    versions = ((_version(tag), tag) for tag in tags)
    fitting = [(v, tag) for v, tag in versions if v is not None and any(a.admits(v) for a in alternatives)]
    return tuple(tag for _, tag in sorted(fitting, reverse=True))


def _version(tag: str) -> _Version | None:
    if not (match := _VERSION.fullmatch(tag)):
        return None
    return _Version(tuple(map(int, match.group(1, 2, 3))), _prerelease(match["prerelease"]))


def _parse(text: str) -> tuple[_Alternative, ...]:
    if len(text) > MAX_RANGE:  # each condition is compared with each tag
        raise ValueError(f"a version range has at most {MAX_RANGE} characters")
    return tuple(_alternative(part) for part in text.split("||"))


def _alternative(text: str) -> _Alternative:
    if hyphen := _HYPHEN.fullmatch(text):
        conditions = [(">=", _operand(hyphen["low"])), ("<=", _operand(hyphen["high"]))]
    else:
        conditions = _conditions(text.strip())
    spans = tuple(_span(sign, operand) for sign, operand in conditions)
    return _Alternative(spans, any(operand.precedence != _RELEASE for _, operand in conditions))


def _conditions(text: str) -> list[tuple[str, _Operand]]:
    found, position = [], 0
    while match := _CONDITION.match(text, position):
        found.append((match["sign"], _operand(match["operand"])))
        position = match.end()
    if not found or position != len(text):
        raise ValueError(f"not a version range: {text!r}")
    return found


def _operand(text: str) -> _Operand:
    match = _OPERAND.fullmatch(text)
    if match is None:
        raise ValueError(f"not a version: {text!r}")
    parts: list[int] = []
    for number in match.group(1, 2, 3):
        if number is None or not number.isdecimal():
            break
        parts.append(int(number))
    if len(parts) < 3 and match["prerelease"]:
        raise ValueError(f"a pre-release needs a complete version: {text!r}")
    return _Operand(tuple(parts), _prerelease(match["prerelease"]))


def _span(sign: str, operand: _Operand) -> tuple[_Version, _Version | None]:
    """Return the half-open span of versions that fulfil a condition."""
    low, end, last = operand.low, operand.end, len(operand.parts) - 1
    match sign:
        case ">":
            return (end or low), (None if end else _ZERO)
        case ">=":
            return low, None
        case "<":
            return _ZERO, (low if last == 2 else low._replace(precedence=_LOWEST))
        case "<=":
            return _ZERO, end
        case "~":
            return low, operand.beyond(min(last, 1))
        case "^":
            first = next((i for i, part in enumerate(operand.parts) if part), last)
            return low, operand.beyond(first)
        case _:
            return low, end
