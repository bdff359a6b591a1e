"""Decides which runs are removed or ended so that no app uses more than its share of this host's disk. Pure;
the runner calls it with its measurements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.units import about_size


@dataclass(frozen=True)
class Held:
    """The disk use of a run, outputs and logs, in bytes. `kept`: it is over, and no active run needs it. Ids
    of runs grow with time."""

    run: str
    app: AppName
    size: int
    kept: bool


@dataclass(frozen=True)
class Excess:
    """`forget`: finished runs that free space; `end`: runs under way, with the reason in words."""

    forget: tuple[str, ...]
    end: Mapping[str, str]


def used(held: Iterable[Held]) -> dict[AppName, int]:
    found = defaultdict[AppName, int](int)
    for each in held:
        found[each.app] += each.size
    return dict(found)


def excess(held: Iterable[Held], most: int) -> Excess:
    """Forget the oldest finished runs first; if that is not enough, end the largest run in progress. Only one run
    is ended at a time: the space that it frees may be enough for the others."""
    by_app = defaultdict[AppName, list[Held]](list)
    for each in sorted(held, key=lambda each: each.run):
        by_app[each.app].append(each)
    forget: list[str] = []
    end: dict[str, str] = {}
    for own in by_app.values():
        size = sum(each.size for each in own)
        for each in own:
            if size > most and each.kept and each.size:
                forget.append(each.run)
                size -= each.size
        under_way = [each for each in own if not each.kept and each.size]
        if size > most and under_way:
            largest = max(under_way, key=lambda each: each.size)
            end[largest.run] = Localizable(
                "the runs of its app hold {size} on this host and may hold {most} (runs.diskPerApp); "
                "this one holds the most, {size2}",
                size=about_size(size),
                most=about_size(most),
                size2=about_size(largest.size),
            )
    return Excess(tuple(forget), end)
