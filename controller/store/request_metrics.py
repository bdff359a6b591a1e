"""Counts requests in a gateway worker, and merges the counts of all workers.

A worker counts in plain integers, which costs the hot path less than a microsecond, and writes them once a
second into its own file; the worker that answers a request for metrics adds up the files, and so does the daemon for
the series of components. When a worker has ended, the arbiter adds its file to that of the ended ones, so that
counters never go back. The daemon does not trust the files: one that no worker can have written counts as none."""

from __future__ import annotations

import json
import os
import stat
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from controller.atomic import replace_file
from controller.domain.apps.samples import BUCKETS, RequestCounts

ENDED = "ended.json"
LARGEST = 64 * 2**20  # bytes of a file: some hundred for each API and status code
FILES = 256  # that are read; one for each worker
GREATEST = 2**53  # of a count
RECEIVED, SENT = "received", "sent"  # directions of bytes, as the gateway sees callers


class WaitReason(StrEnum):
    """Why a call waits in the gateway."""

    ASLEEP = "asleep"  # its component hibernates, and starts
    HEALING = "healing"  # none of its containers takes calls


@dataclass
class RequestMetrics:
    """Requests by (API, status code) and their durations by API. An API is `<app>/<path>`; `-` is everything else."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    durations: dict[str, list[int]] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)  # sums, as microseconds
    lost: int = 0  # workers that ended unexpectedly
    in_flight: Counter[str] = field(default_factory=Counter)
    sockets: Counter[str] = field(default_factory=Counter)  # that are open
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)  # sockets, by API and how
    open_seconds: Counter[str] = field(default_factory=Counter)  # of ended sockets, as microseconds
    bytes: Counter[tuple[str, str]] = field(default_factory=Counter)  # of sockets, by API and direction
    waiting: Counter[tuple[str, str]] = field(default_factory=Counter)  # calls, by API and why
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)  # that have begun, the same
    unlogged: int = 0  # lines that the access log has dropped
    spans: Counter[str] = field(default_factory=Counter)  # that were dropped, by why
    _changes: int = 0
    _written: int = -1

    def begin(self, api: str) -> None:
        self.in_flight[api] += 1
        self._changes += 1

    def end(self, api: str, status: int, duration: float) -> None:
        """Observe a request that began."""
        self.in_flight[api] -= 1
        self.observe(api, status, duration)

    def observe(self, api: str, status: int, duration: float) -> None:
        self.requests[api, status] += 1
        buckets = self.durations.get(api)
        if buckets is None:
            buckets = self.durations[api] = [0] * (len(BUCKETS) + 1)
        buckets[bisect_left(BUCKETS, duration)] += 1
        self.seconds[api] += int(duration * 1e6)
        self._changes += 1

    def access_lines_dropped(self, count: int) -> None:
        """Note how many there are since the start of the worker."""
        if count != self.unlogged:
            self.unlogged = count
            self._changes += 1

    def wait_begins(self, api: str, why: WaitReason) -> None:
        self.waiting[api, why] += 1
        self.waits[api, why] += 1
        self._changes += 1

    def wait_ends(self, api: str, why: WaitReason) -> None:
        self.waiting[api, why] -= 1
        self._changes += 1

    def socket_opened(self, api: str) -> None:
        self.sockets[api] += 1
        self._changes += 1

    def socket_bytes(self, api: str, received: int, sent: int) -> None:
        """Count bytes from and to a caller."""
        self.bytes[api, RECEIVED] += received
        self.bytes[api, SENT] += sent
        self._changes += 1

    def socket_ended(self, api: str, how: str, duration: float) -> None:
        self.sockets[api] -= 1
        self.ended[api, how] += 1
        self.open_seconds[api] += int(duration * 1e6)
        self._changes += 1

    def spans_dropped(self, counts: Mapping[str, int]) -> None:
        """Take the counts of this worker's tracer, which only grow."""
        if counts and self.spans != counts:
            self.spans = Counter(counts)
            self._changes += 1

    def add(self, other: RequestMetrics) -> None:
        self.requests.update(other.requests)
        self.seconds.update(other.seconds)
        self.lost += other.lost
        self.unlogged += other.unlogged
        self.in_flight.update(other.in_flight)
        self.sockets.update(other.sockets)
        self.ended.update(other.ended)
        self.open_seconds.update(other.open_seconds)
        self.bytes.update(other.bytes)
        self.waiting.update(other.waiting)
        self.waits.update(other.waits)
        self.spans.update(other.spans)
        for api, counts in other.durations.items():
            mine = self.durations.get(api, [0] * len(counts))
            self.durations[api] = [a + b for a, b in zip(mine, counts, strict=True)]

    def flush(self, path: Path) -> None:
        """Write all counts, atomically, if there are new ones."""
        if self._written == self._changes:
            return
        changes = self._changes
        _write(path, self)
        self._written = changes

    def by_api(self) -> dict[str, RequestCounts]:
        codes: dict[str, dict[int, int]] = {api: {} for api in (*self.durations, *self.in_flight)}
        for (api, status), count in self.requests.items():
            codes.setdefault(api, {})[status] = count
        none = [0] * (len(BUCKETS) + 1)
        return {
            api: RequestCounts(found, tuple(self.durations.get(api, none)), max(0, self.in_flight[api]))
            for api, found in codes.items()
        }


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
        meter.in_flight.clear()
        meter.sockets.clear()
        meter.waiting.clear()
        total.add(meter)
    _write(folder / ENDED, total)
    path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove the files of a former arbiter, when the arbiter starts."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()


def _read_each(folder: Path) -> Iterator[RequestMetrics]:
    for path in islice(sorted(folder.glob("*.json")), FILES):
        meter = _read(path)
        if meter is not None:
            yield meter


def _read(path: Path) -> RequestMetrics | None:
    """Return None for a file that was retired just now, and for one that is not ours."""
    try:
        return _meter(json.loads(_content(path)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _content(path: Path) -> bytes:
    """Read a regular file. Others could block the reader, or lead elsewhere."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError("too large")
    return content


def _meter(document: dict[str, Any]) -> RequestMetrics:
    """Raises ValueError and others for what no worker writes."""
    durations = {_api(api): [*map(_count, counts)] for api, counts in document["durations"].items()}
    if any(len(counts) != len(BUCKETS) + 1 for counts in durations.values()):
        raise ValueError("other buckets")
    return RequestMetrics(
        Counter({(_api(api), _count(status)): _count(count) for api, status, count in document["requests"]}),
        durations,
        Counter({_api(api): _count(count) for api, count in document["seconds"].items()}),
        _count(document.get("lost", 0)),
        Counter({_api(api): _count(count) for api, count in document.get("inFlight", {}).items()}),
        Counter({_api(api): _count(count) for api, count in document.get("sockets", {}).items()}),
        _pairs(document.get("socketsEnded", [])),
        Counter({_api(api): _count(count) for api, count in document.get("socketSeconds", {}).items()}),
        _pairs(document.get("socketBytes", [])),
        _pairs(document.get("waiting", [])),
        _pairs(document.get("waits", [])),
        _count(document.get("unlogged", 0)),
        Counter({_api(why): _count(count) for why, count in document.get("spansDropped", {}).items()}),
    )


def _pairs(rows: list[Any]) -> Counter[tuple[str, str]]:
    return Counter({(_api(api), _api(word)): _count(count) for api, word, count in rows})


def _api(name: object) -> str:
    if not isinstance(name, str):
        raise ValueError("not the name of an API")
    return name


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= GREATEST:
        raise ValueError("not a count")
    return value


def _write(path: Path, meter: RequestMetrics) -> None:
    document = {
        "requests": [(api, status, count) for (api, status), count in meter.requests.items()],
        "durations": meter.durations,
        "seconds": meter.seconds,
        "lost": meter.lost,
        "unlogged": meter.unlogged,
        "inFlight": {api: count for api, count in meter.in_flight.items() if count > 0},
        "sockets": {api: count for api, count in meter.sockets.items() if count > 0},
        "socketsEnded": [(api, how, count) for (api, how), count in meter.ended.items()],
        "socketSeconds": meter.open_seconds,
        "waiting": [(api, why, count) for (api, why), count in meter.waiting.items() if count > 0],
        "waits": [(api, why, count) for (api, why), count in meter.waits.items()],
        "spansDropped": meter.spans,
        "socketBytes": [(api, direction, count) for (api, direction), count in meter.bytes.items()],
    }
    replace_file(path, json.dumps(document))
