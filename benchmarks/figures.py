"""The results of a measurement: one value for each round, and ratios of pairs. The machines that this runs on
are noisy. So alternatives are measured in turns, A B A B, ratios are those of neighbours in time, and the
result is a median with minimum and maximum, never one number alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """One row: a value for each round, in `unit` (ms, req/s, %, MiB, ×, or "" for a plain count)."""

    name: str
    unit: str
    values: tuple[float, ...]
    aim: str = ""

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def document(self) -> dict[str, object]:
        """For machines; `name` without the indentation that the table has."""
        summary = {"min": self.low, "median": self.median, "max": self.high}
        return {
            "name": self.name.strip(),
            "unit": self.unit,
            **summary,
            "aim": self.aim,
            "values": self.values,
        }


@dataclass
class Section:
    """One measurement's result. `notes` say what could not be measured, and what one must know to read the rest."""

    name: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, unit: str, values: Sequence[float], aim: str = "") -> None:
        self.figures.append(Figure(name, unit, tuple(values), aim))

    def compare(self, name: str, these: Sequence[float], those: Sequence[float], aim: str = "") -> None:
        """How many times `those` fits into `these`, round by round."""
        ratios = [a / b for a, b in zip(these, those, strict=True)]
        self.add(name, "×", ratios, aim)

    def document(self) -> dict[str, object]:
        return {"title": self.title, "figures": [f.document() for f in self.figures], "notes": self.notes}


def in_turns(measurements: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Each measurement `rounds` times, A B C A B C."""
    results: dict[str, list[T]] = {name: [] for name in measurements}
    for _ in range(rounds):
        for name, measure in measurements.items():
            results[name].append(measure())
    return results
