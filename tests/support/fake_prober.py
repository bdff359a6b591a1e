"""`FakeProber`: the port `Prober` over a `FakeEngine`: running workloads are ready, unless the test says
otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller.domain.apps.observed import ObservedWorkload
from controller.domain.apps.smoke import SmokeAnswer, SmokeCase
from controller.ports import Readiness
from tests.support.fake_engine import FakeEngine


class FakeProber:
    """`unready` maps a component's name or a commit to what its workloads answer instead of being ready; `on_probe`
    is called with each workload that is asked, before it answers. `asked` are the paths asked for; `says` maps a
    component's name to what its workloads answer on any path."""

    def __init__(self, engine: FakeEngine) -> None:
        self.unready: dict[str, str] = {}
        self.on_probe: Callable[[ObservedWorkload], None] = lambda workload: None
        self.asked: list[str] = []
        self.says: dict[str, str] = {}
        self.answers: dict[str, SmokeAnswer] = {}  # to smoke tests, by commit or component
        self.on_call: Callable[[ObservedWorkload], object] = lambda workload: None
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

    def read(self, endpoint: str, path: str, timeout: float) -> str:
        if self._engine.down:
            return ""
        workload = self._at(endpoint)
        return self.says.get(workload.component, "") if workload else ""

    def call(
        self,
        endpoint: str,
        case: SmokeCase,
        headers: Mapping[str, str],
        timeout: float,
        unless: Callable[[], bool],
    ) -> SmokeAnswer:
        """As scripted by `answers`: by the revision of the workload, else by its component, else with what is
        expected."""
        self.asked.append(case.test.path)
        workload = self._at(endpoint)
        if workload is None:
            return SmokeAnswer(failure="connection refused")
        self.on_call(workload)
        scripted = self.answers.get(workload.revision) or self.answers.get(workload.component)
        return scripted or SmokeAnswer(200, case.expected or b"{}")

    def _at(self, endpoint: str) -> ObservedWorkload | None:
        return self._engine.at(endpoint)
