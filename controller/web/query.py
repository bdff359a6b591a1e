"""The query of a request: one reading of it for the Flask application and the event loop, so that both refuse the same
in the same words. Every parameter is asked for with its type and its bounds, which are those of the API's description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

GREATEST: Final = 2**63 - 1  # that the database holds
LONGEST: Final = 2000  # characters of a text

#: JSON Schema takes 3.0 for a whole number, too.
_WHOLE = re.compile(r"([0-9]{1,19})(?:\.0{1,6})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FLAGS: Final[Mapping[str, bool]] = {"": False, "0": False, "false": False, "1": True, "true": True}

T = TypeVar("T")


@dataclass(frozen=True)
class QueryParameters:
    """Every value of every name, in their order."""

    values: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, sent: bytes) -> QueryParameters:
        """`sent` is what stands behind the question mark. Raises RequestRefused."""
        values: dict[str, list[str]] = {}
        try:
            for name, value in parse_qsl(sent.decode(), keep_blank_values=True, errors="strict"):
                values.setdefault(name, []).append(value)
        except UnicodeDecodeError:
            raise _refused("The query is not UTF-8.") from None
        return cls(values)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def text(self, name: str) -> str | None:
        """Return a text of at most LONGEST characters without control characters."""
        found = self.values.get(name)
        if found is None:
            return None
        if len(found) > 1:
            raise _refused(f"{name} is given {len(found)} times: give it once.")
        if len(found[0]) > LONGEST or _CONTROL.search(found[0]):
            raise _refused(f"{name} must have at most {LONGEST} characters and no control characters.")
        return found[0]

    def number(self, name: str, default: T, least: int = 0, most: int = GREATEST) -> int | T:
        """A whole number."""
        text = self.text(name)
        if text is None:
            return default
        return whole(name, text, least, most)

    def needed(self, name: str, least: int = 0, most: int = GREATEST) -> int:
        """A whole number that must be there."""
        found = self.number(name, None, least, most)
        if found is None:
            raise _refused(f"{name} is missing: it must be a whole number, {least} to {most}.")
        return found

    def flag(self, name: str) -> bool:
        """1 or 0, or the words that some clients write for them."""
        return bool(self.choice(name, _FLAGS, "0 or 1"))

    def choice(self, name: str, choices: Mapping[str, T], words: str = "") -> T | None:
        text = self.text(name)
        if text is None:
            return None
        if text not in choices:
            raise _refused(f"{name} is {text[:40]!r}: it must be {words or 'one of ' + ', '.join(choices)}.")
        return choices[text]


def whole(name: str, text: str, least: int = 0, most: int = GREATEST) -> int:
    """A whole number that stands in the query, or in a header field called `name`. Raises RequestRefused."""
    found = _WHOLE.fullmatch(text)
    if found is None or not least <= int(found[1]) <= most:
        raise _refused(f"{name} is {text[:40]!r}: it must be a whole number, {least} to {most}.")
    return int(found[1])


def _refused(detail: str) -> RequestRefused:
    return RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
