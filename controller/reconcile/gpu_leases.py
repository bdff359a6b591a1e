"""GPUs of components are lent before a container starts, returned when it is removed, and corrected by what
the engine shows. Called by the pass and its executor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.domain.apps.desired import Workload
from controller.domain.apps.observed import ObservedApp
from controller.domain.runs.gpus import Lease, allocate
from controller.ports import Store


@dataclass(frozen=True)
class GpuLeases:
    """`gpus` are the GPUs that this host lends."""

    store: Store
    gpus: tuple[str, ...]

    def allocate(self, workload: Workload, name: str) -> Workload:
        """Return the workload with its GPUs. Raises errors as `domain.runs.gpus.allocate`. One transaction prevents
        that two workloads take the same GPU.
        """
        wanted = workload.spec.resources.gpus
        if not wanted:
            return workload
        asked = Lease(name, workload.app, workload.component)
        with self.store.transaction():
            active, leases = self.store.runs.active(), self.store.gpus.leases()
            lease = allocate(asked, wanted, self.gpus, leases, active)
            self.store.gpus.save(lease)
        return replace(workload, gpus=lease.gpus)

    def release(self, name: str) -> None:
        """Return the GPUs of a container that is gone."""
        if any(lease.workload == name for lease in self.store.gpus.leases()):
            self.store.gpus.release(name)

    def correct(self, observed: ObservedApp) -> None:
        """Correct the leases by the labels of the app's containers: a daemon may have died after lending, and
        people remove containers.
        """
        leases = (Lease(w.name, observed.app, w.component, w.gpus) for w in observed.workloads if w.gpus)
        self.store.gpus.replace(observed.app, leases)
