"""Metrics in Prometheus' text format, from the store and from the counters of the gateway's workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from controller.domain.apps.samples import BUCKETS
from controller.domain.backups import BackupRecord
from controller.domain.gpu_devices import GpuDevice, GpuHolder, GpuState
from controller.domain.runs.run import RunState, id_time
from controller.ports import Store
from controller.store.request_metrics import RequestMetrics, read_all

CONTENT_TYPE = CONTENT_TYPE_LATEST


#: API, state and number.
CallCounts = Iterable[tuple[str, str, int]]


def render(
    store: Store,
    counts: Path,
    now: float,
    gpus: tuple[GpuState, ...] = (),
    calls: CallCounts = (),
    backups: BackupRecord | None = None,
) -> bytes:
    """Return the page. `backups` is None where none are made."""
    registry = CollectorRegistry()
    registry.register(_Page(store, counts, now, gpus, calls, backups))
    return generate_latest(registry)


class _Page(Collector):
    def __init__(
        self,
        store: Store,
        counts: Path,
        now: float,
        gpus: tuple[GpuState, ...],
        calls: CallCounts,
        backups: BackupRecord | None,
    ) -> None:
        self._store = store
        self._backups = backups
        self._gpus = gpus
        self._calls = calls
        self._meter = read_all(counts)
        self._now = now

    def collect(self) -> Iterator[Metric]:
        yield from self._daemon()
        yield from self._apps()
        yield from self._boxes()
        yield from self._runs()
        yield self._async_calls()
        if self._gpus:
            yield from _of_gpus(self._gpus)
        if self._backups is not None:
            yield from _of_backups(self._backups)
        yield from _gateway(self._meter)

    def _daemon(self) -> Iterator[Metric]:
        beat = self._store.last_heartbeat()
        age = GaugeMetricFamily(
            "prichal_daemon_heartbeat_age_seconds", "Since the daemon's control loop was last alive."
        )
        if beat is not None:
            age.add_metric([], self._now - beat)
        yield age
        restarts = CounterMetricFamily(
            "prichal_restarts", "Parts that ended unexpectedly and were restarted.", labels=["part"]
        )
        for part, count in sorted(self._store.restarts().items()):
            restarts.add_metric([part], count)
        restarts.add_metric(["web worker"], self._meter.lost)
        yield restarts
        yield self._spans()
        yield GaugeMetricFamily(
            "prichal_route_table_version", "Grows with every switch of a route.", self._store.routes.version()
        )

    def _spans(self) -> Metric:
        dropped = CounterMetricFamily(
            "prichal_trace_spans_dropped",
            "Spans that were not exported, because too many waited or the receiver did not take them.",
            labels=["process", "reason"],
        )
        for process, counts in (("daemon", self._store.spans_dropped()), ("web", self._meter.spans)):
            for why, count in sorted(counts.items()):
                dropped.add_metric([process, why], count)
        return dropped

    def _apps(self) -> Iterator[Metric]:
        conditions = GaugeMetricFamily(
            "prichal_app_condition",
            "1 while the condition holds, 0 if it is false.",
            labels=["app", "component", "type"],
        )
        failures = GaugeMetricFamily("prichal_app_failures", "Failed passes in a row.", labels=["app"])
        depth = 0
        for app in self._store.apps.all():
            failures.add_metric([app.app], app.failures)
            depth += self._store.requests.queued(app.app) is not None
            for owner, held in (("", app.conditions), *((c.name, c.conditions) for c in app.components)):
                for condition in held:
                    conditions.add_metric([app.app, owner, condition.type.value], float(condition.status))
        yield conditions
        yield failures
        yield GaugeMetricFamily("prichal_requests_queued", "Apps that wait for a pass.", depth)

    def _boxes(self) -> Iterator[Metric]:
        """Return all boxes, including kept data, which takes space, too."""
        used = _box_gauge("prichal_box_bytes", "Stored in the box when it was last measured.")
        capacity = _box_gauge("prichal_box_capacity_bytes", "What the box may hold.")
        files = _box_gauge("prichal_box_files", "Files in the box when it was last measured.")
        pending = _box_gauge(
            "prichal_box_pending_bytes", "Kept for uploads that were allowed and not counted yet."
        )
        for box in self._store.boxes.all():
            labels = [box.app, box.box]
            used.add_metric(labels, box.used)
            capacity.add_metric(labels, box.capacity)
            files.add_metric(labels, box.files)
            pending.add_metric(labels, self._store.boxes.usage(box.bucket, self._now).pending)
        yield from (used, capacity, files, pending)

    def _runs(self) -> Iterator[Metric]:
        runs = GaugeMetricFamily(
            "prichal_runs",
            "Runs that are kept, by state; those that are over until their time to live has passed.",
            labels=["app", "pipeline", "state"],
        )
        oldest = GaugeMetricFamily(
            "prichal_runs_oldest_queued_seconds",
            "Since the run that has been queued for longest was submitted.",
            labels=["app", "pipeline"],
        )
        for count in self._store.runs.counts():
            runs.add_metric([count.app, count.pipeline, count.state.value], count.number)
            if count.state is RunState.QUEUED:
                oldest.add_metric([count.app, count.pipeline], max(0.0, self._now - id_time(count.oldest)))
        yield from (runs, oldest)

    def _async_calls(self) -> Metric:
        calls = GaugeMetricFamily(
            "prichal_async_calls",
            "Async calls that are kept, by state; those that are over until their results are removed.",
            labels=["api", "state"],
        )
        for api, state, number in self._calls:
            calls.add_metric([api, state], number)
        return calls


def _of_gpus(gpus: tuple[GpuState, ...]) -> Iterator[Metric]:
    """What the driver does not say of a GPU is left out."""
    used, total, use, usable = (
        GaugeMetricFamily(name, meaning, labels=["gpu", "device"])
        for name, meaning in (
            ("prichal_gpu_memory_used_bytes", "Memory in use on the GPU, by all containers."),
            ("prichal_gpu_memory_bytes", "Memory of the GPU."),
            ("prichal_gpu_utilization_ratio", "Share of the last moments in which the GPU computed, 0 to 1."),
            ("prichal_gpu_usable", "1 if the GPU can be lent, 0 if it does not work or is not in runs.gpus."),
        )
    )
    holders = GaugeMetricFamily(
        "prichal_gpu_holders",
        "Containers that have the GPU, of a component or of stages of a pipeline.",
        labels=["gpu", "app", "component", "pipeline"],
    )
    for gpu in gpus:
        device = gpu.device or GpuDevice("")
        labels = [gpu.id, device.id]
        for family, value in (
            (used, device.memory_used),
            (total, device.memory_total),
            (use, device.utilization),
            (usable, float(gpu.usable)),
        ):
            if value is not None:
                family.add_metric(labels, value)
        for (app, component, pipeline), count in sorted(Counter(map(_owner, gpu.holders)).items()):
            holders.add_metric([gpu.id, app, component, pipeline], count)
    yield from (used, total, use, usable, holders)


def _owner(holder: GpuHolder) -> tuple[str, str, str]:
    return holder.app, holder.component, holder.pipeline


def _of_backups(record: BackupRecord) -> Iterator[Metric]:
    good, failure = record.good, record.failure
    yield GaugeMetricFamily(
        "prichal_backup_last_success_timestamp_seconds",
        "When the last good backup ended; 0 before the first one.",
        good.ended if good else 0.0,
    )
    yield GaugeMetricFamily(
        "prichal_backup_size_bytes", "The size of the last good backup.", good.size if good else 0
    )
    yield GaugeMetricFamily(
        "prichal_backup_failures", "Backups that have failed in a row.", failure.count if failure else 0
    )


def _box_gauge(name: str, meaning: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=["app", "box"])


def _gateway(meter: RequestMetrics) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "prichal_gateway_requests", "Requests answered, by API and status code.", labels=["api", "code"]
    )
    for (api, status), count in sorted(meter.requests.items()):
        requests.add_metric([api, str(status)], count)
    yield requests
    durations = HistogramMetricFamily(
        "prichal_gateway_request_seconds", "From the request's header to the response's end.", labels=["api"]
    )
    for api, counts in sorted(meter.durations.items()):
        total, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        durations.add_metric([api], buckets, meter.seconds[api] / 1e6)
    yield durations
    in_flight = GaugeMetricFamily(
        "prichal_gateway_requests_in_flight", "Requests that have begun and not ended.", labels=["api"]
    )
    for api, count in sorted(meter.in_flight.items()):
        in_flight.add_metric([api], count)
    yield in_flight
    yield CounterMetricFamily(
        "prichal_access_log_lines_dropped",
        "Lines of the access log that were not written as a whole, since its reader or disk was slow or full.",
        meter.unlogged,
    )
    yield from _waits(meter)
    yield from _sockets(meter)


def _waits(meter: RequestMetrics) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "prichal_gateway_requests_waiting",
        "Calls that wait for a component, which is asleep or healing.",
        labels=["api", "reason"],
    )
    for (api, why), count in sorted(meter.waiting.items()):
        waiting.add_metric([api, why], count)
    yield waiting
    waits = CounterMetricFamily(
        "prichal_gateway_waits",
        "How often calls began to wait for a component, which was asleep or healing.",
        labels=["api", "reason"],
    )
    for (api, why), count in sorted(meter.waits.items()):
        waits.add_metric([api, why], count)
    yield waits


def _sockets(meter: RequestMetrics) -> Iterator[Metric]:
    are_open = GaugeMetricFamily("prichal_gateway_websockets", "WebSockets that are open.", labels=["api"])
    for api, count in sorted(meter.sockets.items()):
        are_open.add_metric([api], count)
    yield are_open
    ended = CounterMetricFamily(
        "prichal_gateway_websockets_ended",
        "WebSockets that ended: closed by both ends, lost by caller or component, or closed by the gateway.",
        labels=["api", "end"],
    )
    for (api, how), count in sorted(meter.ended.items()):
        ended.add_metric([api, how], count)
    yield ended
    seconds = CounterMetricFamily(
        "prichal_gateway_websocket_seconds", "For how long ended WebSockets had been open.", labels=["api"]
    )
    for api, micros in sorted(meter.open_seconds.items()):
        seconds.add_metric([api], micros / 1e6)
    yield seconds
    moved = CounterMetricFamily(
        "prichal_gateway_websocket_bytes",
        "Bytes of WebSockets from and to callers.",
        labels=["api", "direction"],
    )
    for (api, direction), count in sorted(meter.bytes.items()):
        moved.add_metric([api, direction], count)
    yield moved
