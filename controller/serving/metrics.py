"""Counters in memory that the supervisor and its workers share, and their text for Prometheus.

One row of numbers for the supervisor and one for each worker: a process writes only its own row, so no lock
is needed between processes, and counts outlive the worker that made them. Within a worker its threads share a
lock.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from .http1 import REASONS, HttpResponse
from .native import ORIGINS
from .plain_json import dumps

CODES = tuple(REASONS)
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # sizes

BEAT = 1.0  # seconds between two beats of a worker's clock

_CODE_AT = {code: index for index, code in enumerate(CODES)}
_OTHER = len(CODES)  # answers on other paths than inference, by code, follow those of inference
_BUCKET = 2 * len(CODES)
_SUM = _BUCKET + len(BUCKETS) + 1
_IN_FLIGHT, _QUEUED, _OVERDUE, _RESTARTS, _BEAT, _ABANDONED, _RECEIVING, _READY, _EXHAUSTED, _STOPPING = (
    range(_SUM + 1, _SUM + 11)
)
_BATCHES = _STOPPING + 1  # that run now
_CODEC = _BATCHES + 1  # 1 + the place in ORIGINS of what reads large JSON
_BATCH = _CODEC + 1
_BATCHED = _BATCH + len(BATCHES) + 1  # the sum of all sizes
_WIDTH = _BATCHED + 1


class SharedMetrics:
    """All rows. Row 0 is the supervisor's. Made before the first fork."""

    def __init__(self, workers: int) -> None:
        self._view: memoryview[float] = memoryview(mmap.mmap(-1, 8 * _WIDTH * (workers + 1))).cast("d")
        self.rows = [ProcessMetrics(self._view[i * _WIDTH : (i + 1) * _WIDTH]) for i in range(workers + 1)]

    def counts(self) -> tuple[int, int, int]:
        """Return how many calls run (the overdue included), wait, and are overdue, in all processes."""
        running, waiting, overdue = (
            int(sum(row.values[index] for row in self.rows)) for index in (_IN_FLIGHT, _QUEUED, _OVERDUE)
        )
        return running, waiting, overdue

    def ready_response(self) -> HttpResponse:
        """The answer of the readiness paths of a container that is ready."""
        running, waiting, overdue = self.counts()
        state = {"ready": True, "running": running, "waiting": waiting, "overdue": overdue}
        return HttpResponse(200, dumps(state).encode())

    @property
    def exhausted(self) -> bool:
        """Do overdue calls hold every slot of all workers?"""
        return all(row.exhausted for row in self.rows[1:])

    def stop(self) -> None:
        """Say to all processes that the container stops."""
        self.rows[0].values[_STOPPING] = 1

    @property
    def stopping(self) -> bool:
        """Does the container stop?"""
        return bool(self.rows[0].values[_STOPPING])

    def text(self) -> str:
        """The sum of all rows in Prometheus' text format 0.0.4."""
        total = [sum(row.values[i] for row in self.rows) for i in range(_WIDTH)]
        lines = list(_lines(total, sum(row.values[_READY] > 0 for row in self.rows)))
        return "\n".join([*lines, *self._codecs()]) + "\n"

    def _codecs(self) -> Iterator[str]:
        yield "# HELP prichal_serving_json_codec Processes by the origin of the code that reads and writes large JSON."
        yield "# TYPE prichal_serving_json_codec gauge"
        for index, origin in enumerate(ORIGINS, start=1):
            count = sum(row.values[_CODEC] == index for row in self.rows)
            yield f'prichal_serving_json_codec{{origin="{origin}"}} {count}'


class ProcessMetrics:
    """One process's numbers."""

    def __init__(self, values: memoryview[float]) -> None:
        self.values = values
        self._lock = threading.Lock()

    def renew(self) -> None:
        """Reuse this row for another worker: counters continue, gauges restart. There is a new lock, too: the old
        one may be held by a dead thread."""
        self._lock = threading.Lock()
        for index in (
            _IN_FLIGHT,
            _QUEUED,
            _OVERDUE,
            _BEAT,
            _ABANDONED,
            _RECEIVING,
            _READY,
            _EXHAUSTED,
            _BATCHES,
            _CODEC,
        ):
            self.values[index] = 0

    def inferred(self, code: int, seconds: float) -> None:
        """An inference request was answered."""
        bucket = _BUCKET + bisect_left(BUCKETS, seconds)
        values = self.values
        with self._lock:
            values[_CODE_AT[code]] += 1
            values[bucket] += 1
            values[_SUM] += seconds

    def answered(self, code: int) -> None:
        """Any other request was answered."""
        with self._lock:
            self.values[_OTHER + _CODE_AT[code]] += 1

    def batched(self, size: int) -> None:
        """The function was called for so many calls."""
        with self._lock:
            self.values[_BATCH + bisect_left(BATCHES, size)] += 1
            self.values[_BATCHED] += size

    def batching(self, change: int) -> None:
        """One batch more, or one less, runs now."""
        with self._lock:
            self.values[_BATCHES] += change

    @property
    def batches(self) -> int:
        return int(self.values[_BATCHES])

    def restarted(self) -> None:
        self.values[_RESTARTS] += 1

    def load(self, in_flight: int, queued: int, overdue: int) -> None:
        """Return how many calls run, wait, and run past their deadline."""
        self.values[_IN_FLIGHT], self.values[_QUEUED], self.values[_OVERDUE] = in_flight, queued, overdue

    def abandoned(self, count: int) -> None:
        """Record how many running calls have no caller any more, and cannot be stopped."""
        self.values[_ABANDONED] = count

    def received(self, change: int) -> None:
        """One request more, or one less, comes so slowly that it needs no slot yet."""
        with self._lock:
            self.values[_RECEIVING] += change

    @property
    def receiving(self) -> int:
        return int(self.values[_RECEIVING])

    @property
    def queued(self) -> int:
        return int(self.values[_QUEUED])

    @property
    def overdue(self) -> int:
        return int(self.values[_OVERDUE])

    @property
    def exhausted(self) -> bool:
        """Do overdue calls hold every slot? Of a worker that is not set up: yes."""
        return not self.values[_READY] or bool(self.values[_EXHAUSTED])

    def reads_json_by(self, origin: str) -> None:
        """Record where the code is from that reads and writes large JSON."""
        self.values[_CODEC] = 1 + ORIGINS.index(origin)

    def ready(self) -> None:
        """The worker is set up."""
        self.values[_READY] = 1

    def exhaust(self, exhausted: bool) -> None:
        """Say whether overdue calls hold every slot."""
        self.values[_EXHAUSTED] = exhausted

    @property
    def unanswered(self) -> int:
        """Return how many calls without an answer ran at the last report."""
        return int(self.values[_IN_FLIGHT] - self.values[_OVERDUE])

    def heartbeat(self, now: float) -> None:
        """The worker's clock moves; ``now`` of time.monotonic(), which all processes share."""
        self.values[_BEAT] = now

    @property
    def last_beat(self) -> float:
        return float(self.values[_BEAT])


def _lines(total: list[float], ready: int) -> Iterator[str]:
    yield "# HELP prichal_serving_requests_total Requests answered, by route and status code."
    yield "# TYPE prichal_serving_requests_total counter"
    for route, start in (("inference", 0), ("other", _OTHER)):
        for index, code in enumerate(CODES):
            if total[start + index]:
                yield f'prichal_serving_requests_total{{route="{route}",code="{code}"}} {total[start + index]:.0f}'
    yield "# HELP prichal_serving_request_seconds Time from an inference request read to its answer made."
    yield "# TYPE prichal_serving_request_seconds histogram"
    yield from _histogram("prichal_serving_request_seconds", BUCKETS, total[_BUCKET:_SUM], total[_SUM])
    if total[_BATCHED]:
        yield "# HELP prichal_serving_batch_size Calls that went to the inference function together."
        yield "# TYPE prichal_serving_batch_size histogram"
        yield from _histogram("prichal_serving_batch_size", BATCHES, total[_BATCH:_BATCHED], total[_BATCHED])
    for name, index, what in (
        ("calls_in_flight", _IN_FLIGHT, "Calls of the inference function that run now."),
        ("calls_queued", _QUEUED, "Calls that wait for a slot."),
        ("calls_overdue", _OVERDUE, "Calls that were answered 504 and still hold a slot."),
        (
            "calls_abandoned",
            _ABANDONED,
            "Calls without a caller whose threads cannot be stopped: they hold a slot.",
        ),
    ):
        yield f"# HELP prichal_serving_{name} {what}"
        yield f"# TYPE prichal_serving_{name} gauge"
        yield f"prichal_serving_{name} {total[index]:.0f}"
    yield "# HELP prichal_serving_workers_ready Processes that are set up and can take calls."
    yield "# TYPE prichal_serving_workers_ready gauge"
    yield f"prichal_serving_workers_ready {ready}"
    yield "# HELP prichal_serving_worker_restarts_total Workers started in place of one that died or was replaced."
    yield "# TYPE prichal_serving_worker_restarts_total counter"
    yield f"prichal_serving_worker_restarts_total {total[_RESTARTS]:.0f}"


def _histogram(name: str, bounds: Sequence[float], counts: Sequence[float], total: float) -> Iterator[str]:
    """``counts`` has one more, beyond the last bound."""
    below = 0.0
    for bound, count in zip((*bounds, "+Inf"), counts):
        below += count
        yield f'{name}_bucket{{le="{bound}"}} {below:.0f}'
    yield f"{name}_sum {total:.6f}"
    yield f"{name}_count {below:.0f}"
