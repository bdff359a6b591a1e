"""The dependencies of every pass, created once by the daemon, and the outcome of a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from controller.config import Settings
from controller.domain.apps.planner import PlannerPolicy
from controller.domain.apps.requests import Outcome
from controller.domain.names import AppName
from controller.domain.runs.stage_slots import Use
from controller.ports import Clock, Engine, Models, Prober, Sources, Storage, Store
from controller.reconcile.catalog import PlatformCatalog


@dataclass(frozen=True)
class ReconcilerDeps:
    """`key` is the platform's own secret for fingerprints and salts; `stopping` returns true when the daemon
    ends.
    """

    store: Store
    sources: Sources
    engine: Engine
    storage: Storage
    models: Models
    prober: Prober
    clock: Clock
    catalog: PlatformCatalog
    settings: Settings
    stopping: Callable[[], bool]
    key: bytes = field(repr=False)
    #: When old images and models of an app were last removed, on the monotonic clock.
    tidied: dict[AppName, float] = field(default_factory=dict)
    #: The resources that the components of each app may use, according to the manifests of the last pass.
    uses: dict[AppName, Use] = field(default_factory=dict)

    @property
    def policy(self) -> PlannerPolicy:
        chosen = self.settings.reconcile
        return PlannerPolicy(
            instance=self.settings.instance,
            backoff=chosen.backoff,
            crash_limit=chosen.crash_limit,
            crash_window=chosen.crash_window,
        )


@dataclass(frozen=True)
class PassOutcome:
    """How a pass ended. `retry_after` is in seconds, or None if there is nothing to wait for."""

    name: Outcome
    message: str = ""
    revision: str = ""
    retry_after: float | None = None
