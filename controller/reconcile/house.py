"""What every pass works with, wired once by the daemon, and how a pass ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from controller.config import Settings
from controller.domain.planner import Policy
from controller.ports import Clock, Engine, Models, Prober, Sources, Storage, Store
from controller.reconcile.directory import Directory


@dataclass(frozen=True)
class House:
    """`key` is the platform's own secret for fingerprints and salts; `stopping` turns true when the daemon ends."""

    store: Store
    sources: Sources
    engine: Engine
    storage: Storage
    models: Models
    prober: Prober
    clock: Clock
    directory: Directory
    settings: Settings
    stopping: Callable[[], bool]
    key: bytes = field(repr=False)

    @property
    def policy(self) -> Policy:
        chosen = self.settings.reconcile
        return Policy(
            instance=self.settings.instance,
            backoff_initial=chosen.backoff_initial,
            backoff_max=chosen.backoff_max,
            crash_limit=chosen.crash_limit,
            crash_window=chosen.crash_window,
        )


@dataclass(frozen=True)
class Outcome:
    """How a pass ended. `retry_after` in seconds, None: nothing to wait for."""

    name: str  # Ready | Degraded | Failed | Superseded | Suspended | Waiting | Removed
    message: str = ""
    revision: str = ""
    retry_after: float | None = None
