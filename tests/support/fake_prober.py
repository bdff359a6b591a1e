"""`FakeProber`: the port `Prober` over a `FakeEngine`: running workloads are ready, unless the test says
otherwise."""

from __future__ import annotations

from collections.abc import Callable

from controller.domain.apps.observed import ObservedWorkload
from controller.ports import Readiness
from tests.support.fake_engine import FakeEngine


class FakeProber:
    """`unready` maps a component's name or a commit to what its workloads answer instead of being ready; `on_probe`
    is called with each workload that is asked, before it answers. `asked` are the paths asked for."""

    def __init__(self, engine: FakeEngine) -> None:
        self.unready: dict[str, str] = {}
        self.on_probe: Callable[[ObservedWorkload], None] = lambda workload: None
        self.asked: list[str] = []
        self._engine = engine

    def probe(self, endpoint: str, path: str, timeout: float) -> Readiness:
        self.asked.append(path)
        workload = self._at(endpoint)
        if workload is not None:
            self.on_probe(workload)
            workload = self._at(endpoint)
        if workload is None:
            return Readiness(False, "connection refused")
        detail = self.unready.get(workload.component) or self.unready.get(workload.revision)
        return Readiness(detail is None, detail or "")

    def _at(self, endpoint: str) -> ObservedWorkload | None:
        everything = (w for app in self._engine.apps() for w in self._engine.observe(app).workloads)
        return next((w for w in everything if w.endpoint == endpoint), None)
