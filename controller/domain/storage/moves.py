"""Moves of groups within one area of a box. Pure.

A storage moves one object at a time, by a copy and a removal. So a group of many files moves in steps, each of them a
request, and a record tells which moves are under way: the same request again continues the move, also after a process
has ended in the middle. Until its removal a file is in the old place, from its copy on in the new one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupMove:
    """`source` and `target` are prefixes of keys, which end in `/`. `files` is how many there were at the beginning, 0
    if nobody has counted so far; times are in Unix seconds, and `stepped` is when a file was last moved."""

    bucket: str
    source: str
    target: str
    files: int
    began: float
    stepped: float
    moved: int = 0
    done: bool = False

    def key(self, key: str) -> str:
        """Return where a key below `source` comes to."""
        return self.target + key.removeprefix(self.source)

    def is_reverse_of(self, source: str, target: str) -> bool:
        return (self.source, self.target) == (target, source)


def leads_into_itself(source: str, target: str) -> bool:
    return target.startswith(source)
