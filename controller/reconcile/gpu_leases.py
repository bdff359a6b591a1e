"""GPUs of components are lent before a container starts, returned when it is removed, and corrected by what
the engine shows. Called by the pass and its executor, and by the daemon when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from controller.domain.apps.desired import DesiredApp, Workload
from controller.domain.apps.gpu_plan import (
    NO_GPUS,
    GpuView,
    claims,
    gpu_starts,
    hands_over,
    leases_of_app,
)
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.plan import Action, Plan
from controller.domain.errors import ControllerError
from controller.domain.names import AppName
from controller.domain.runs.gpus import GpuPool, Lease, allocate
from controller.ports import Clock, Engine, Store


@dataclass(frozen=True)
class GpuLeases:
    """`gpus` are the GPUs that this host lends; `lost` returns those that do not work, with the reason."""

    store: Store
    engine: Engine
    clock: Clock
    gpus: tuple[str, ...]
    lost: Callable[[], Mapping[str, str]] = dict

    def restore(self) -> None:
        """Write down the GPUs of containers whose leases are not in the store, whatever became of it. Raises errors of
        the engine."""
        if not self._unwritten():
            return
        with self.store.transaction():  # looked at again: what was removed meanwhile must not get a lease
            for lease in self._unwritten():
                self.store.gpus.save(lease)

    def _unwritten(self) -> tuple[Lease, ...]:
        written = {lease.workload for lease in self.store.gpus.leases()}
        return tuple(lease for lease in self.engine.held_gpus() if lease.workload not in written)

    def view(self, desired: DesiredApp) -> GpuView:
        """Return what the planner has to know for this app."""
        if not any(component.spec.resources.gpus for component in (*desired.components, *desired.left)):
            return NO_GPUS
        return self._view()

    def pool(self) -> GpuPool:
        gpus = self.store.gpus
        return GpuPool(self.gpus, gpus.leases(), gpus.requests(self.clock.now()), self.lost())

    def _view(self) -> GpuView:
        return GpuView(self.pool(), self.store.runs.active())

    def claim(self, group: Sequence[Action]) -> frozenset[str]:
        """Make sure, before the first action, that all containers of the group get their GPUs. If others are removed
        for them, the GPUs are handed over at once, so that nobody else takes them in between. Returns the names of the
        containers that have them now. Raises errors as `domain.runs.gpus.allocate`."""
        if not gpu_starts(group):
            return frozenset()
        self.restore()
        with self.store.transaction():
            leases = claims(group, self._view())
            if not hands_over(group):
                return frozenset()
            for lease in leases:
                self.store.gpus.save(lease)
        return frozenset(lease.workload for lease in leases)

    def allocate(self, workload: Workload, name: str) -> Workload:
        """Return the workload with its GPUs. Raises errors as `domain.runs.gpus.allocate`. One transaction prevents
        that two workloads take the same GPU.
        """
        wanted = workload.spec.resources.gpus
        if not wanted:
            return workload
        asked = Lease(name, workload.app, workload.component, share=workload.spec.resources.per_gpu)
        with self.store.transaction():
            view = self._view()
            lease = allocate(asked, wanted, view.pool, view.active)
            self.store.gpus.save(lease)
        return replace(workload, gpus=lease.gpus)

    def release(self, name: str) -> None:
        """Return the GPUs of a container that is gone."""
        if any(lease.workload == name for lease in self.store.gpus.leases()):
            self.store.gpus.release(name)

    def correct_suspended(self, app: AppName) -> None:
        """Correct the leases of an app whose containers people may remove, and nobody starts again. An engine that does
        not answer shows them later."""
        if any(lease.app == app for lease in self.store.gpus.leases()):
            with suppress(ControllerError):
                self.correct(self.engine.observe(app), Plan(app, ""))

    def correct(self, observed: ObservedApp, plan: Plan) -> None:
        """Correct the leases by the labels of the app's containers: a daemon may have died after lending, and
        people remove containers. What the plan is about to start, now or at the next attempt, keeps what it was lent.
        """
        starting = (*plan.actions, *plan.paused)
        leases = leases_of_app(observed.app, self.store.gpus.leases(), observed, starting)
        self.store.gpus.replace(observed.app, leases)
        self.store.gpus.ask(observed.app, plan.requests, self.clock.now())
