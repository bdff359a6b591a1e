"""The dependencies of every pass, created once by the daemon, and the outcome of a pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from controller.config import Settings
from controller.domain.apps.pauses import PlannerPolicy
from controller.domain.apps.quiet import QuietPass
from controller.domain.apps.requests import Outcome, Trigger
from controller.domain.apps.samples import RequestCounts
from controller.domain.forges import Forge, address_of
from controller.domain.names import AppName
from controller.domain.routing.app_links import PublicAddress, link_documents
from controller.domain.runs.stage_slots import Use
from controller.domain.secret import Secret
from controller.ports import Clock, Engine, Models, Prober, Sources, Storage, Store, Ticks
from controller.reconcile.box_copies import CopyMemory
from controller.reconcile.builds import BuildLog, BuildTurns, no_build_log
from controller.reconcile.catalog import PlatformCatalog
from controller.reconcile.gpu_leases import GpuLeases
from controller.tracing import OFF, Tracer

MOST_SECRETS = 1000  # values of one app

PROBE_TIMEOUT = 2.0  # seconds that a container has to say whether it is ready


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
    ticks: Ticks
    catalog: PlatformCatalog
    settings: Settings
    stopping: Callable[[], bool]
    key: bytes = field(repr=False)
    builds: BuildTurns = field(default_factory=BuildTurns)
    #: When old images and models of an app were last removed, on the monotonic clock.
    tidied: dict[AppName, float] = field(default_factory=dict)
    #: The last whole pass over each app in which nothing has changed since.
    quiet: dict[AppName, QuietPass] = field(default_factory=dict)
    #: How far copies of boxes are.
    copies: CopyMemory = field(default_factory=CopyMemory)
    #: The resources that the components of each app may use, according to the manifests of the last pass.
    uses: dict[AppName, Use] = field(default_factory=dict)
    #: What must not appear in any log of an app, according to its last passes.
    secrets: dict[AppName, tuple[Secret, ...]] = field(default_factory=dict)
    #: Called with the id of a container that has stopped, before it is removed.
    finish_log: Callable[[str], object] = lambda id: None
    #: Holds the log of a build, by app and tag, and yields what takes its lines.
    build_log: BuildLog = no_build_log
    #: What callers were answered so far, by API (`<app>/<path>`), as the gateway counts it.
    request_counts: Callable[[], Mapping[str, RequestCounts]] = dict
    #: The GPUs that do not work at the moment, with the reason.
    lost_gpus: Callable[[], Mapping[str, str]] = dict
    tracer: Tracer = OFF

    def keep_secret(self, app: AppName, secrets: tuple[Secret, ...]) -> None:
        """Remember the Secrets of an app. Those before them count, too: containers that have them still run."""
        self.secrets[app] = tuple(dict.fromkeys((*secrets, *self.secrets.get(app, ()))))[:MOST_SECRETS]

    def forge(self, app: AppName) -> Forge | None:
        """Return where commit statuses of the app go now, if its Repository asks for them."""
        declared = self.catalog.spec.app(app)
        repository = self.catalog.spec.repository(declared.repository) if declared else None
        wanted = repository.commit_status if repository else None
        if repository is None or wanted is None:
            return None
        secret = self.catalog.repository_secret(repository, wanted.credentials)
        return Forge(
            app=app,
            provider=wanted.provider,
            address=address_of(wanted, repository.url),
            context=f"{self.settings.instance}/{app}",
            page=self._preview_page(app) if declared and declared.preview else self._page(app),
            credentials=dict(secret.values) if secret else None,
        )

    def _page(self, app: AppName) -> str:
        return f"{self.settings.web.url}/-/apps/{app}"

    def _preview_page(self, app: AppName) -> str:
        """Return what people who look at a branch want to open: the first thing that its preview publishes."""
        web = self.settings.web
        address = PublicAddress(web.url, web.app_domain)
        links = link_documents(address, self.store.routes.of(app), self.store.routes.services(app), {})
        return next((str(link["open"]) for link in links), self._page(app))

    @property
    def gpu_leases(self) -> GpuLeases:
        return GpuLeases(self.store, self.engine, self.clock, self.settings.runs.gpus, self.lost_gpus)

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
    """How a pass ended. `retry_after` is in seconds, or None if there is nothing to wait for; `retry_as` is what the
    next pass is then asked for by."""

    name: Outcome
    message: str = ""
    revision: str = ""
    retry_after: float | None = None
    retry_as: Trigger = Trigger.RETRY
