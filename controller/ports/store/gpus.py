"""GPUs: which containers of components hold them, and which components wait."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from controller.domain.names import AppName
from controller.domain.runs.gpus import GpuRequest, Lease


class Gpus(Protocol):
    """Records which GPUs containers of components hold. Leases are decided in a transaction, see
    `domain.runs.gpus`."""

    def leases(self) -> tuple[Lease, ...]:
        """Sorted by workload."""

    def save(self, lease: Lease) -> None: ...

    def release(self, workload: str) -> None:
        """Release the lease of a workload, if it has one."""

    def replace(self, app: AppName, leases: Iterable[Lease]) -> None:
        """Replace the app's leases by these, which its containers have."""

    def requests(self, now: float) -> tuple[GpuRequest, ...]:
        """Return what components wait for, without what was asked for long ago. Sorted by app and component."""

    def ask(self, app: AppName, requests: Iterable[GpuRequest], now: float) -> None:
        """Record that the app's components wait for these, and for no others."""
