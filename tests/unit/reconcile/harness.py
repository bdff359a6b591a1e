"""The stage of the reconciler's tests: a real store; engine, Git, readiness and time as the test sets them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller.adapters.cron import CronTicks
from controller.adapters.models import ModelCache
from controller.adapters.staging import StagingFolders
from controller.config import Settings
from controller.config.settings import StorageSettings
from controller.domain.apps.conditions import Condition, ConditionType, find
from controller.domain.apps.deploy_gate import DeployRules
from controller.domain.apps.observed import ObservedWorkload
from controller.domain.apps.requests import Outcome, ReconcileRequest, RequestState, Trigger
from controller.domain.apps.rollback import decide_rollback, ends_rollback
from controller.domain.apps.spec import (
    GitRef,
    PlatformAppSpec,
    PlatformSpec,
    RefKind,
    RepositorySpec,
    SecretSpec,
)
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName, ComponentName, RepositoryName
from controller.domain.routing.routes import Route
from controller.domain.secret import Secret
from controller.reconcile.catalog import PlatformCatalog
from controller.reconcile.deps import PassOutcome, ReconcilerDeps
from controller.reconcile.reconciliation import reconcile
from tests.support.clock import FakeClock
from tests.support.fake_engine import FakeEngine
from tests.support.fake_objects import FakeStorage
from tests.support.fake_prober import FakeProber
from tests.support.fake_sources import FakeSources
from tests.support.invariants import check_invariants
from tests.support.specs import make
from tests.support.stores import open_store

API_VERSION = "unified-platform.cs.hse.ru/v1"
APP = AppName("demo")
REPOSITORY = RepositoryName("demo")


def manifest(kind: str, name: str, **spec: object) -> str:
    """JSON is YAML."""
    return json.dumps({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})


def ml(name: str = "classify", image: str | dict[str, object] = "demo:1", **spec: Any) -> str:
    source = image if isinstance(image, dict) else {"existingImageName": image}
    declared = {"image": source, "mlService": {"inference": "app:predict"}, **spec}
    return manifest("MLComponent", name, **declared)


def built(name: str = "classify", **build: Any) -> str:
    """An image to be built from the commit."""
    return ml(name, image={"build": {"context": ".", **build}})


def api(name: str = "classify-api", component: str = "classify", path: str = "image", **rest: Any) -> str:
    return manifest("APIComponent", name, mlComponent={"name": component}, restfulApi={"path": path, **rest})


class Harness:
    def __init__(self, folder: Path, storage: StorageSettings | None = None) -> None:
        self.clock = FakeClock()
        self.settings = Settings(state=folder, storage=storage or StorageSettings())
        self.database = self.settings.database
        self.store = open_store(self.database, clock=self.clock.now)
        self.engine = FakeEngine(images={"demo:1", "demo:2", "demo:3"}, now=self.clock.now)
        self.engine.look = StagingFolders.of(self.settings).path
        self.sources = FakeSources()
        self.storage = FakeStorage()
        self.prober = FakeProber(self.engine)
        self.catalog = PlatformCatalog()
        self.stopping = False
        self.outcome = PassOutcome(Outcome.NONE)  # of the last pass
        self.secrets: list[str] = []
        self.models = ModelCache(self.settings.models, self.storage, capacity=100)
        self.deps = ReconcilerDeps(
            store=self.store,
            sources=self.sources,
            engine=self.engine,
            storage=self.storage,
            models=self.models,
            prober=self.prober,
            clock=self.clock,
            ticks=CronTicks(),
            catalog=self.catalog,
            settings=self.settings,
            stopping=lambda: self.stopping,
            key=b"k" * 32,
        )

    # --- what people do ----------------------------------------------------------------------------------------

    def connect(
        self,
        *apps: PlatformAppSpec,
        secrets: Iterable[SecretSpec] = (),
        repositories: Iterable[str] = ("demo",),
    ) -> None:
        """The platform folder holds just this. Without `apps`: the app `demo` with the defaults."""
        found = tuple(
            make(
                RepositorySpec,
                RepositoryName(name),
                f"https://git.example.org/{name}.git",
                GitRef(RefKind.BRANCH, "main"),
            )
            for name in repositories
        )
        self.catalog.replace(PlatformSpec(found, apps or (app(),), tuple(secrets)))

    def disconnect(self) -> None:
        self.catalog.replace(PlatformSpec())

    def push(self, *manifests: str, repository: str = "demo", **files: str) -> str:
        tree = {f"m{number}.yaml": text for number, text in enumerate(manifests)}
        return self.sources.push(repository, {**tree, **files})

    def roll_back(self, wanted: str | None = None, by: str = "anna") -> None:
        """As the web process and `prichal rollback` do it."""
        history = self.store.history.list(APP)
        self.store.apps.roll_back(APP, decide_rollback(self.status(), history, wanted, by, self.clock.now()))

    def resume(self) -> None:
        """As the web process and `prichal resume` do it."""
        status = self.status()
        self.store.apps.set_suspended(APP, False)
        if status.rollback and ends_rollback(status):
            self.store.apps.end_rollback(APP, status.rollback)

    def run(self, *reasons: str, app: AppName = APP) -> PassOutcome:
        """One pass, with all invariants checked after it."""
        outcome = self.run_unchecked(*reasons, app=app)
        self.check()
        return outcome

    def run_unchecked(self, *reasons: str, app: AppName = APP) -> PassOutcome:
        """For an engine that does not answer the checks either."""
        self.outcome = reconcile(self.deps, self.request(app, *reasons))
        return self.outcome

    def retry(self, app: AppName = APP) -> PassOutcome:
        """The pass that the one before has asked for, when it is due."""
        assert self.outcome.retry_after is not None
        self.clock.advance(self.outcome.retry_after)
        return self.run("retry", app=app)

    def request(self, app: AppName, *reasons: str) -> ReconcileRequest:
        triggers = tuple(map(Trigger, reasons)) or (Trigger.POLL,)
        return ReconcileRequest(1, app, triggers, RequestState.RUNNING, created=self.clock.now())

    def settle(self, app: AppName = APP, passes: int = 5) -> PassOutcome:
        """A few passes, as the drift tick asks for them."""
        outcomes = [self.run("drift", app=app) for _ in range(passes)]
        return outcomes[-1]

    # --- what is to be seen ------------------------------------------------------------------------------------

    def check(self) -> None:
        check_invariants(self.store, self.engine, self.database, self.secrets)

    def status(self, app: AppName = APP) -> AppStatus:
        return self.store.apps.status(app)

    def condition(self, kind: ConditionType, app: AppName = APP) -> Condition | None:
        return find(self.status(app).conditions, kind)

    def types(self, app: AppName = APP) -> list[ConditionType]:
        return [condition.type for condition in self.status(app).conditions]

    def events(self, app: AppName = APP) -> list[str]:
        return [event.reason for event in self.store.events.list(app, limit=10_000)]

    def running(self, component: str = "classify", app: AppName = APP) -> list[ObservedWorkload]:
        return [w for w in self.engine.observe(app).of(ComponentName(component)) if w.endpoint]

    def route(self, component: str = "classify", app: AppName = APP) -> Route:
        (found,) = [route for route in self.store.routes.of(app) if route.component == component]
        return found

    def all_stored(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.database.parent.glob(f"{self.database.name}*"))


def app(name: str = "demo", **changes: Any) -> PlatformAppSpec:
    anytime = DeployRules(frozen=False, approval=False)
    return replace(make(PlatformAppSpec, AppName(name), REPOSITORY, deploy=anytime), **changes)


def secret(name: str, app: str | None = "demo", **values: str) -> SecretSpec:
    kept = tuple((key, Secret(value)) for key, value in values.items())
    return SecretSpec(name, kept, AppName(app) if app else None)
