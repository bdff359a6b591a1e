"""What the builds of a push have said: their lines as they come, for the hook that shows them to the person who pushes.
Reads the logs that the daemon keeps.

An answer has all lines up to now. Those who are far behind, for example because they read slowly, get the newest ones,
and a line that says how much was left out: no answer is long, and nothing is remembered for anybody here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.kept_logs import PIECE, ContainerLog, KeptLogs

MOST: Final = 2**15  # bytes of one answer
_PLACE: Final = re.compile(r"([a-z0-9.-]{1,253})/([0-9]{14}-[0-9a-zA-Z._-]{1,64}):([0-9]{1,16})")


@dataclass(frozen=True)
class BuildNews:
    """`place` is what to ask with the next time."""

    text: str
    place: str


@dataclass(frozen=True)
class _OfApp:
    app: str
    log: ContainerLog

    def place(self, offset: int) -> str:
        return f"{self.app}/{self.log.name}:{offset}"


def build_news(kept: KeptLogs, apps: Iterable[str], since: float, place: str) -> BuildNews:
    """Return the lines after `place` of the builds of these apps that began at `since`, in Unix seconds, or later. A
    place that is not one is as the beginning."""
    found = [_OfApp(app, log) for app in apps for log in kept.builds(app) if log.made >= int(since * 1000)]
    found.sort(key=lambda each: (each.log.name, each.app))
    told: list[str] = []
    for each, offset in _unread(found, place):
        ended = each.log.has_ended  # before it is read: what is added meanwhile is read the next time
        text, offset = _lines(each, offset)
        told.append(text)
        place = each.place(offset)
        if not ended:  # the next build of the app waits for this one, those of others are told after it
            break
    return BuildNews("".join(told), place)


def _unread(found: list[_OfApp], place: str) -> list[tuple[_OfApp, int]]:
    if match := _PLACE.fullmatch(place):
        for number, each in enumerate(found):
            if (each.app, each.log.name) == (match[1], match[2]):
                return [(each, int(match[3])), *((later, 0) for later in found[number + 1 :])]
    return [(each, 0) for each in found]


def _lines(each: _OfApp, offset: int) -> tuple[str, int]:
    """Return whole lines, and the offset after them."""
    end, note = each.log.end, ""
    if (begin := max(offset, end - MOST)) > offset:
        note = f"[{begin - offset} bytes left out; see: prichal logs {each.app} --build]\n"
    content = b""
    at = begin
    while at < end and len(content) < MOST:
        at, piece = each.log.read(at, min(PIECE, MOST - len(content)))
        if not piece:
            break
        content, at = content + piece, at + len(piece)
    if note:  # begin with a whole line
        _, _, content = content.partition(b"\n")
    whole = content.rfind(b"\n") + 1
    return note + content[:whole].decode("utf-8", "replace"), at - (len(content) - whole)
