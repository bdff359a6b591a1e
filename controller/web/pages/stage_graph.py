"""Lays out the graph of a pipeline's stages: a column for each step, and lines from a stage to those that wait for it.
Pure; the template `runs/graph.html` draws it, and the list of stages below it says the same in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from controller.domain.runs.pipeline import Pipeline

MOST: Final = 40  # stages; a larger graph is shown as a list alone
WIDTH, HEIGHT = 180, 52  # of a stage
ACROSS, DOWN = 60, 20  # between two stages
EDGE: Final = 6  # around the graph


@dataclass(frozen=True)
class StageBox:
    """`x` and `y` are of its upper left corner."""

    name: str
    x: int
    y: int


@dataclass(frozen=True)
class StageGraph:
    """`lines` are paths of SVG."""

    stages: tuple[StageBox, ...]
    lines: tuple[str, ...]
    width: int
    height: int


@lru_cache(maxsize=64)
def graph_of(pipeline: Pipeline) -> StageGraph | None:
    """Return the graph, None where there is nothing to draw."""
    if not 1 < len(pipeline.stages) <= MOST:
        return None
    return laid_out({stage.name: pipeline.needs(stage) for stage in pipeline.stages})


def laid_out(needs: Mapping[str, frozenset[str]]) -> StageGraph:
    """`needs` has for each stage those that it waits for, without a cycle."""
    direct = {name: _direct(name, needs) for name in needs}
    steps = _steps(direct)
    columns = _columns(direct, steps)
    place = {
        node: (EDGE + step * (WIDTH + ACROSS), EDGE + row * (HEIGHT + DOWN))
        for step, column in enumerate(columns)
        for row, node in enumerate(column)
    }
    rows = max(map(len, columns))
    return StageGraph(
        tuple(StageBox(name, *place[name, name]) for name in needs),
        tuple(_line(before, name, steps, place) for name in needs for before in sorted(direct[name])),
        2 * EDGE + len(columns) * (WIDTH + ACROSS) - ACROSS,
        2 * EDGE + rows * (HEIGHT + DOWN) - DOWN,
    )


#: A stage is (name, name); a line that passes a column on its way to a later one is (from, to).
_Node = tuple[str, str]


def _direct(name: str, needs: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return what a stage needs, without what one of those needs anyway."""
    above = {before: _all_above(before, needs) for before in needs[name]}
    return frozenset(b for b in needs[name] if not any(b in each for each in above.values()))


def _all_above(name: str, needs: Mapping[str, frozenset[str]]) -> frozenset[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        fresh = needs[waiting.pop()] - found
        found |= fresh
        waiting += fresh
    return frozenset(found)


def _steps(needs: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """Return the column of each stage: one behind the last of those that it needs."""
    found: dict[str, int] = {}
    while len(found) < len(needs):
        ready = [name for name in needs if name not in found and needs[name] <= found.keys()]
        found |= {name: 1 + max((found[each] for each in needs[name]), default=-1) for name in ready}
    return found


def _columns(needs: Mapping[str, frozenset[str]], steps: Mapping[str, int]) -> list[list[_Node]]:
    """Return stages and passing lines column by column, each near what it comes from."""
    columns: list[list[_Node]] = [[] for _ in range(max(steps.values()) + 1)]
    rows: dict[_Node, float] = {}
    for step, column in enumerate(columns):
        sources = {
            (name, name): [_before(b, name, step, steps) for b in needs[name]]
            for name in steps
            if steps[name] == step
        }
        sources |= {
            (before, name): [_before(before, name, step, steps)]
            for name in steps
            for before in needs[name]
            if steps[before] < step < steps[name]
        }
        wanted = {
            node: sum(rows[each] for each in found) / max(1, len(found)) for node, found in sources.items()
        }
        column += sorted(wanted, key=lambda node: wanted[node])
        rows |= {node: row for row, node in enumerate(column)}
    return columns


def _before(start: str, end: str, step: int, steps: Mapping[str, int]) -> _Node:
    """Return where a line is in the column before this one."""
    return (start, start) if steps[start] == step - 1 else (start, end)


def _line(start: str, end: str, steps: Mapping[str, int], place: Mapping[_Node, tuple[int, int]]) -> str:
    """Return a line from the right side of a stage to the left side of another one, through the columns between."""
    x, y = place[start, start]
    found = f"M{x + WIDTH},{y + HEIGHT // 2}"
    x += WIDTH
    y += HEIGHT // 2
    for step in range(steps[start] + 1, steps[end] + 1):
        next_x, next_y = place[(end, end) if step == steps[end] else (start, end)]
        next_y += HEIGHT // 2
        found += f" C{x + ACROSS // 2},{y} {next_x - ACROSS // 2},{next_y} {next_x},{next_y}"
        x, y = next_x, next_y
        if step < steps[end]:
            x += WIDTH
            found += f" H{x}"
    return found
