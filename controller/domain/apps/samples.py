"""Samples of components: what the platform measured of one component in some seconds. Pure: the daemon makes them from
what the engine, the gateway and the serving library count (`daemon/sampling`), the store keeps them for a day.

Counts are of the sample's own time, so that clocks and restarts of the counting processes do no harm. A value that is
not known is None, which is another thing than zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: Upper bounds of the durations of requests, in seconds; the last bucket has none.
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class Resolution:
    """Samples of `step` seconds, of which `slots` are kept: a later one takes the place of the oldest."""

    step: int
    slots: int

    @property
    def window(self) -> int:
        return self.step * self.slots

    def slot(self, at: float) -> int:
        return self.start(at) // self.step % self.slots

    def start(self, at: float) -> int:
        """Return when the step began that `at` is in."""
        return int(at // self.step) * self.step


FINE: Final = Resolution(10, 360)
COARSE: Final = Resolution(60, 1440)
RESOLUTIONS: Final = (FINE, COARSE)


@dataclass(frozen=True)
class Sample:
    """`seconds` is the time that it covers. Requests are those that ended in it: all, those refused (4xx) and those
    that failed (5xx, or broken off), and how many were within each of `BUCKETS`. `cpu` is in processors, `memory` in
    bytes, of all replicas together; `gpu` is the mean use of its GPUs, 0 to 1. `queued`, `overdue` and `restarted`
    (workers) are what the serving library says of itself."""

    seconds: float
    requests: float | None = None
    refused: float | None = None
    failed: float | None = None
    in_flight: float | None = None
    cpu: float | None = None
    memory: float | None = None
    gpu: float | None = None
    gpu_memory: float | None = None
    running: float | None = None
    queued: float | None = None
    overdue: float | None = None
    restarted: float | None = None
    buckets: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        return all(getattr(self, name) is None for name in FIELDS)


#: Values of a sample that are counts of events, levels whose mean tells most, and levels whose peak does.
SUMS: Final = ("requests", "refused", "failed", "restarted")
MEANS: Final = ("cpu", "gpu")
PEAKS: Final = ("in_flight", "memory", "gpu_memory", "running", "queued", "overdue")
FIELDS: Final = (*SUMS, *MEANS, *PEAKS)


def merged(one: Sample, other: Sample) -> Sample:
    """Return one sample of the time of both."""
    seconds = one.seconds + other.seconds
    values: dict[str, float | None] = {}
    for name in FIELDS:
        first, second = getattr(one, name), getattr(other, name)
        if first is None or second is None:
            values[name] = second if first is None else first
        elif name in SUMS:
            values[name] = first + second
        elif name in PEAKS:
            values[name] = max(first, second)
        else:
            values[name] = (first * one.seconds + second * other.seconds) / seconds if seconds else second
    return Sample(seconds, **values, buckets=_added(one.buckets, other.buckets))


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True)) if one and other else one or other


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return the duration in seconds within which this share of the requests ended, as exactly as the buckets tell:
    linear within a bucket, and the last bound for what took longer. None without requests."""
    rank, below = share * sum(buckets), 0
    if not rank:
        return None
    for number, count in enumerate(buckets):
        if below + count >= rank and count:
            if number == len(BUCKETS):
                break
            least = BUCKETS[number - 1] if number else 0.0
            return least + (BUCKETS[number] - least) * (rank - below) / count
        below += count
    return BUCKETS[-1]


# --- counters -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RequestCounts:
    """Requests since some time: by status code, and by duration. `in_flight` are those that have not ended."""

    codes: Mapping[int, int]
    buckets: tuple[int, ...]
    in_flight: int = 0

    def since(self, before: RequestCounts) -> RequestCounts:
        """Return what came after `before`. Counters that went back have started again."""
        codes = {code: grown(count, before.codes.get(code, 0)) for code, count in self.codes.items()}
        old = before.buckets or (0,) * len(self.buckets)
        buckets = tuple(grown(count, was) for count, was in zip(self.buckets, old, strict=True))
        return RequestCounts(codes, buckets, self.in_flight)

    def __add__(self, other: RequestCounts) -> RequestCounts:
        codes = {
            code: self.codes.get(code, 0) + other.codes.get(code, 0) for code in {*self.codes, *other.codes}
        }
        return RequestCounts(codes, _added(self.buckets, other.buckets), self.in_flight + other.in_flight)


NO_REQUESTS: Final = RequestCounts({}, ())
CALLER_LEFT: Final = 499  # the status under which a call is counted whose caller did not wait


def grown(now: int, before: int) -> int:
    """Return by how much a counter has grown. One that went back has started again."""
    return now - before if now >= before else now


def request_values(counts: RequestCounts) -> dict[str, float]:
    """Return the values of a sample; 0 is a call that was broken off by the platform."""
    codes = counts.codes.items()
    return {
        "requests": sum(counts.codes.values()),
        "refused": sum(count for code, count in codes if 400 <= code < 500 and code != CALLER_LEFT),
        "failed": sum(count for code, count in codes if code >= 500 or code == 0),
        "in_flight": counts.in_flight,
    }


# --- what is shown ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """A sample as it was kept: `at` is when its step began, in Unix seconds."""

    at: int
    sample: Sample


@dataclass(frozen=True)
class SeriesGrid:
    """Samples at equal distances: `start` is the first one's time in Unix seconds, and None stands where nothing was
    measured."""

    start: int
    step: int
    samples: tuple[Sample | None, ...]


def resolution_for(window: float) -> Resolution:
    """Return the finest one that reaches back so far."""
    return next((each for each in RESOLUTIONS if window <= each.window), COARSE)


def grid(stored: Iterable[Stored], resolution: Resolution, window: float, now: float) -> SeriesGrid:
    """Return the samples of the last `window` seconds up to the step before the present one. Samples of another time,
    which a clock that was set has left behind, do not count. A sample that took longer than a step stands in all
    steps that it covers."""
    step = resolution.step
    end = resolution.start(now)
    count = min(max(1, int(window // step)), resolution.slots)
    start = end - count * step
    found: list[Sample | None] = [None] * count
    for each in sorted(stored, key=lambda one: one.at):
        last = (each.at - start) // step
        reach = min(max(1, round(each.sample.seconds / step)), _REACH)
        for place in range(last - reach + 1, last + 1):
            if 0 <= place < count and last < count and (place == last or found[place] is None):
                found[place] = each.sample
    return SeriesGrid(start, step, tuple(found))


_REACH = 12  # steps that one sample may cover; beyond that the platform was not there


# --- the serving library's own numbers ------------------------------------------------------------------------------

_SERVING: Final = {
    "prichal_serving_calls_in_flight": "running",
    "prichal_serving_calls_queued": "queued",
    "prichal_serving_calls_overdue": "overdue",
    "prichal_serving_worker_restarts_total": "restarted",
}
_MOST = 1e9  # a module may say anything


def serving_values(text: str) -> dict[str, float]:
    """Return what the serving library says of a replica in Prometheus' text format; lines that it does not write are
    ignored."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name in _SERVING:
            try:
                value = float(number)
            except ValueError:
                continue
            if 0 <= value <= _MOST:
                values[_SERVING[name]] = value
    return values
