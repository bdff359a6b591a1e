"""A small part of JSONPath (RFC 9535) for `-o jsonpath=PATH`: names, indices and wildcards, which select from
the results of commands without another program. kubectl's braces around a path are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: A step is a name, an index, or None for all members.
Step = str | int | None

_STEP = re.compile(
    r"""\.?\[ (?: (?P<index> -?[0-9]+ ) | (?P<all> \* ) | (?P<quote> ['"] ) (?P<quoted> .*? ) (?P=quote) ) \]
      | \. (?: (?P<every> \* ) | (?P<name> [^\s.\[\]{}'"*]+ ) )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class JsonPath:
    text: str
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """Raises ValueError with the place of the first character that is not part of a path."""
        rest = text[1:-1] if text.startswith("{") and text.endswith("}") else text
        rest = rest.removeprefix("$")
        if rest and rest[0] not in ".[":
            rest = f".{rest}"  # `apps[0].app` is `.apps[0].app`
        steps: list[Step] = []
        while rest and rest != ".":  # a dot alone is the whole document
            found = _STEP.match(rest)
            if found is None:
                raise ValueError(f"{rest!r} in {text!r} is not .NAME, [INDEX], ['NAME'] or [*]")
            steps.append(_step(found))
            rest = rest[found.end() :]
        return cls(text, tuple(steps))

    def select(self, document: object) -> tuple[object, ...]:
        """Return what the path leads to, in order; nothing if there is no such member."""
        found: tuple[object, ...] = (document,)
        for step in self.steps:
            found = tuple(member for value in found for member in _members(value, step))
        return found


def _step(found: re.Match[str]) -> Step:
    if found["index"] is not None:
        return int(found["index"])
    if found["all"] or found["every"]:
        return None
    return found["quoted"] if found["quoted"] is not None else found["name"]


def _members(value: object, step: Step) -> Iterator[object]:
    if isinstance(value, dict) and step is None:
        yield from value.values()
    elif isinstance(value, dict) and step in value:
        yield value[step]
    elif isinstance(value, list) and step is None:
        yield from value
    elif isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
        yield value[step]
