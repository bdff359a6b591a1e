"""Samples what components do and use, for the series that the store keeps for a day. A thread of the daemon.

The sources: the engine (processors, memory, GPUs), the counts of the gateway's workers, and what the serving library
says of itself. Each counts since its own beginning; here the growth between two looks becomes a sample, by a clock
that nobody sets. A source that does not answer leaves its values unknown, and the others are kept.

The pause follows the cost: a look may take a twentieth of the time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from controller.domain.apps.observed import WorkloadUse
from controller.domain.apps.samples import (
    FINE,
    NO_REQUESTS,
    RequestCounts,
    Sample,
    request_values,
    serving_values,
)
from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ControllerError
from controller.domain.gpu_devices import GpuReport, use_of
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Route
from controller.guards import GuardedStep
from controller.ports import Clock, Engine, Prober, Store
from controller.store.request_metrics import read_all

log = logging.getLogger(__name__)

Key = tuple[AppName, ComponentName]
Values = dict[str, float]

_SHARE = 20.0  # the pause after a look, as a multiple of its duration
_LONGEST = 60.0  # seconds of a pause
_TIDY = 60.0  # seconds between two looks for components that are gone
_TIMEOUT = 0.5  # seconds for a component's own numbers
_AT_ONCE = 4  # components that are asked


class ComponentSampler:
    """`counts` is the folder of the gateway's counts, `gpus` returns what the driver of the GPUs said last."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        prober: Prober,
        clock: Clock,
        counts: Path,
        gpus: Callable[[], GpuReport] = GpuReport,
    ) -> None:
        self._store = store
        self._engine = engine
        self._prober = prober
        self._clock = clock
        self._counts = counts
        self._gpus = gpus
        self._looked: float | None = None
        self._tidied = -_TIDY
        self._requests: Mapping[str, RequestCounts] = {}  # by API
        self._cpu: Mapping[str, float] = {}  # seconds by container
        self._restarts: Mapping[str, float] = {}  # of workers, by endpoint

    def run(self, stop: threading.Event) -> None:
        look = GuardedStep("components are not measured", self.look)
        tidy = GuardedStep("samples of components that are gone stay", self._tidy)
        while not stop.is_set():
            began = time.monotonic()
            look()
            tidy()
            took = time.monotonic() - began
            stop.wait(max(FINE.step - took, min(took * _SHARE, _LONGEST)))

    def look(self) -> None:
        """Measure all components once. The first look only finds where counters stand. Raises errors of the store."""
        routes = self._store.routes.all()
        now = self._clock.monotonic()
        seconds = now - self._looked if self._looked is not None else 0.0
        requests = self._read_requests(routes)
        uses = self._read_uses()
        serving = self._read_serving(routes)
        samples = self._samples(seconds, requests, uses, serving) if seconds > 0 else {}
        self._looked = now
        self._cpu = {each.workload_id: each.cpu for each in uses}
        self._store.series.add(self._clock.now(), samples)

    def _samples(
        self,
        seconds: float,
        requests: Mapping[Key, RequestCounts],
        uses: tuple[WorkloadUse, ...],
        serving: Mapping[Key, Values],
    ) -> dict[Key, Sample]:
        values: dict[Key, Values] = {key: dict(found) for key, found in serving.items()}
        buckets: dict[Key, tuple[int, ...]] = {}
        for key, counts in requests.items():
            values.setdefault(key, {}).update(request_values(counts))
            buckets[key] = counts.buckets
        for each in uses:
            _add(values.setdefault((each.app, each.component), {}), self._use(each, seconds))
        found = {key: Sample(seconds, **named, buckets=buckets.get(key, ())) for key, named in values.items()}
        return {key: sample for key, sample in found.items() if not sample.is_empty}

    # --- sources ------------------------------------------------------------------------------------------------

    def _read_requests(self, routes: tuple[Route, ...]) -> Mapping[Key, RequestCounts]:
        """Return the new requests of each component, over all of its paths; others that the files name do not count."""
        by_api = read_all(self._counts).by_api()
        found: dict[Key, RequestCounts] = {}
        for route in routes:
            total = NO_REQUESTS
            for api in route.apis:
                label = f"{route.app}/{api.path}"
                if label in by_api:
                    total += by_api[label].since(self._requests.get(label, NO_REQUESTS))
            if total.buckets:
                found[route.app, route.component] = total
        self._requests = by_api
        return found

    def _read_uses(self) -> tuple[WorkloadUse, ...]:
        try:
            return self._engine.use(self._ask_in_containers())
        except ControllerError as error:
            log.debug("containers are not measured: %s", error)
            return ()

    def _ask_in_containers(self) -> bool:
        """Return True if the driver of the GPUs tells this host nothing, so that programs in containers are asked."""
        return not self._gpus().is_fresh(self._clock.now())

    def _use(self, each: WorkloadUse, seconds: float) -> Values:
        values = {"memory": each.memory}
        before = self._cpu.get(each.workload_id)
        if before is not None and each.cpu >= before:
            values["cpu"] = (each.cpu - before) / seconds
        gpu, gpu_memory = use_of(each.gpus, self._gpus(), self._clock.now())
        gpu, gpu_memory = (
            each.gpu if gpu is None else gpu,
            each.gpu_memory if gpu_memory is None else gpu_memory,
        )
        if gpu is not None:
            values["gpu"] = gpu
        if gpu_memory is not None:
            values["gpu_memory"] = gpu_memory
        return values

    def _read_serving(self, routes: tuple[Route, ...]) -> Mapping[Key, Values]:
        asked = [route for route in routes if route.upstreams and not route.any_path]
        with ThreadPoolExecutor(_AT_ONCE, "component-metrics") as threads:
            answers = dict(zip(asked, threads.map(self._ask, asked), strict=True))
        restarts: dict[str, float] = {}
        found: dict[Key, Values] = {}
        for route, replicas in answers.items():
            total = found.setdefault((route.app, route.component), {})
            for endpoint, values in replicas.items():
                restarts[endpoint] = count = values.pop("restarted", 0.0)
                before = self._restarts.get(endpoint)
                values["restarted"] = max(0.0, count - before) if before is not None else 0.0
                _add(total, values)
        self._restarts = restarts
        return found

    def _ask(self, route: Route) -> Mapping[str, Values]:
        """Return what each replica says. If one does not answer, the others are not asked: they are of one kind, and
        each costs its time."""
        found: dict[str, Values] = {}
        for endpoint in route.upstreams:
            values = serving_values(self._prober.read(endpoint, "/metrics", _TIMEOUT))
            if not values:
                break
            found[endpoint] = values
        return found

    # --- components that are gone -------------------------------------------------------------------------------

    def _tidy(self) -> None:
        if time.monotonic() - self._tidied < _TIDY:
            return
        self._store.series.keep(frozenset(self._declared()))
        self._tidied = time.monotonic()

    def _declared(self) -> Iterator[Key]:
        for app in self._store.apps.all():
            for each in app.components:
                if each.kind == ComponentKind.ML_COMPONENT:
                    yield app.app, each.name
        for route in self._store.routes.all():
            yield route.app, route.component


_MEANS: Mapping[str, Callable[[float, float], float]] = {"gpu": max}


def _add(total: Values, values: Values) -> None:
    """Add what one replica has to that of all; the share of GPUs is that of the busiest one."""
    for name, value in values.items():
        join = _MEANS.get(name, float.__add__)
        total[name] = join(total[name], value) if name in total else value
