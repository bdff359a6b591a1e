"""Counts requests in a gateway worker, and merges the counts of all workers into one page of metrics.

A worker counts in plain integers, which costs the hot path less than a microsecond, and writes them once a
second into its own file; the worker that answers a request for metrics adds up the files. When a worker has
ended, the arbiter adds its file to that of the ended ones, so that counters never go back."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from controller.atomic import replace_file

#: Upper bounds in seconds; the last bucket has none.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ENDED = "ended.json"


@dataclass
class RequestMetrics:
    """Requests by (API, status code) and their durations by API. An API is `<app>/<path>`; `-` is everything else."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    durations: dict[str, list[int]] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)  # sums, as microseconds
    lost: int = 0  # workers that ended unexpectedly
    _observed: int = 0
    _written: int = -1

    def observe(self, api: str, status: int, duration: float) -> None:
        self.requests[api, status] += 1
        buckets = self.durations.get(api)
        if buckets is None:
            buckets = self.durations[api] = [0] * (len(BUCKETS) + 1)
        buckets[bisect_left(BUCKETS, duration)] += 1
        self.seconds[api] += int(duration * 1e6)
        self._observed += 1

    def add(self, other: RequestMetrics) -> None:
        self.requests.update(other.requests)
        self.seconds.update(other.seconds)
        self.lost += other.lost
        for api, counts in other.durations.items():
            mine = self.durations.get(api, [0] * len(counts))
            self.durations[api] = [a + b for a, b in zip(mine, counts, strict=True)]

    def flush(self, path: Path) -> None:
        """Write all counts, atomically, if there are new ones."""
        if self._written == self._observed:
            return
        observed = self._observed
        _write(path, self)
        self._written = observed


def worker_file(folder: Path, process: int) -> Path:
    return folder / f"worker-{process}.json"


def read_all(folder: Path) -> RequestMetrics:
    """Return the sum over all workers, running and ended."""
    total = RequestMetrics()
    for meter in _read_each(folder):
        total.add(meter)
    return total


def retire(folder: Path, process: int, unexpected: bool = False) -> None:
    """Add an ended worker's counts to those of the ended ones."""
    path = worker_file(folder, process)
    total = RequestMetrics(lost=int(unexpected))
    for meter in filter(None, (_read(folder / ENDED), _read(path))):
        total.add(meter)
    _write(folder / ENDED, total)
    path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove the files of a former arbiter, when the arbiter starts."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()


def _read_each(folder: Path) -> Iterator[RequestMetrics]:
    for path in sorted(folder.glob("*.json")):
        meter = _read(path)
        if meter is not None:
            yield meter


def _read(path: Path) -> RequestMetrics | None:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return None  # retired just now
    return RequestMetrics(
        Counter({(api, status): count for api, status, count in document["requests"]}),
        document["durations"],
        Counter(document["seconds"]),
        document.get("lost", 0),
    )


def _write(path: Path, meter: RequestMetrics) -> None:
    document = {
        "requests": [(api, status, count) for (api, status), count in meter.requests.items()],
        "durations": meter.durations,
        "seconds": meter.seconds,
        "lost": meter.lost,
    }
    replace_file(path, json.dumps(document))
