"""The stage of tests about previews: the platform folder with an app, branches beside it, and all requests that are
due. A daemon may die before any call that changes something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.domain.apps.branch_previews import preview_name
from controller.domain.apps.desired import Workload
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import (
    CommitStatusSpec,
    GitRef,
    GivenSecrets,
    Limits,
    PlatformAppSpec,
    PlatformSpec,
    PreviewRules,
    RefKind,
    RepositorySpec,
    SecretSpec,
)
from controller.domain.names import PLATFORM, AppName, RepositoryName, app_of_previews, previews_key
from controller.reconcile.box_copies import CopyMemory
from controller.reconcile.branch_previews import look_at_branches
from controller.reconcile.deps import PassOutcome, ReconcilerDeps
from controller.reconcile.platform import PlatformReconciler
from controller.reconcile.reconciliation import reconcile
from tests.support.fake_objects import FakeStorage
from tests.support.specs import make
from tests.unit.reconcile.crashing import Died, Mortal, MortalStore
from tests.unit.reconcile.harness import APP, Harness, api, app, manifest, ml

DAY = 86400.0
RULES = PreviewRules(
    ("feature/*",),
    ttl=3 * DAY,
    most=3,
    limits=Limits(),
    secrets=GivenSecrets(frozenset()),
    copies_boxes=False,
)
BOX = manifest("DataBox", "files", s3DefaultStorage={"capacity": "1M"})
MOST_STEPS = 200


def ref(branch: str) -> str:
    return f"refs/heads/{branch}"


def named(branch: str) -> AppName:
    return preview_name(APP, ref(branch))


class Platform:
    """The daemon: the platform folder, and all requests that are due."""

    def __init__(self, harness: Harness, rules: PreviewRules | None = RULES, **changes: Any) -> None:
        self.harness = harness
        self.apps: tuple[PlatformAppSpec, ...] = (app(previews=rules, **changes),)
        self.secrets: tuple[SecretSpec, ...] = ()
        self.commit_status: CommitStatusSpec | None = None
        self.started: dict[str, Workload] = {}  # by the name of the container
        self.before_start: Callable[[], object] = lambda: None
        start = harness.engine.start

        def record(workload: Workload, name: str) -> None:
            self.before_start()
            self.started[name] = workload
            start(workload, name)

        harness.engine.start = record  # type: ignore[method-assign]
        self.start()

    def start(self, deps: ReconcilerDeps | None = None) -> None:
        """A daemon that has just started."""
        self.deps = deps or self.harness.deps
        self.reconciler = PlatformReconciler(self.deps, self.read)
        self.harness.store.requests.recover()
        self.harness.store.requests.enqueue(PLATFORM, Trigger.START)

    def read(self) -> tuple[PlatformSpec, str]:
        url, main = "https://git.example.org/team/demo.git", GitRef(RefKind.BRANCH, "main")
        repository = make(RepositorySpec, RepositoryName("demo"), url, main, commit_status=self.commit_status)
        return PlatformSpec((repository,), self.apps, self.secrets), ""

    def tick(self) -> None:
        """What the timer asks for every two seconds."""
        if self.reconciler.is_due():
            self.reconciler.refresh()

    def work(self) -> dict[str, PassOutcome]:
        """Handle requests until none is due; return how the last pass over each app ended."""
        requests = self.harness.store.requests
        outcomes: dict[str, PassOutcome] = {}
        for _ in range(MOST_STEPS):
            self.tick()
            request = requests.claim(self.harness.clock.now())
            if request is None:
                self.harness.check()
                return outcomes
            outcome = self._handle(request)
            requests.finish(request.id, outcome.name, outcome.message, outcome.revision)
            outcomes[request.app] = outcome
        pytest.fail("requests never end")

    def _handle(self, request: Any) -> PassOutcome:
        if request.app == PLATFORM:
            return self.reconciler.reconcile(request)
        if looked_at := app_of_previews(request.app):
            return look_at_branches(self.deps, looked_at, self.reconciler.refresh)
        return reconcile(self.deps, request)

    def look(self) -> dict[str, PassOutcome]:
        """What a webhook or a poll leads to."""
        self.harness.store.requests.enqueue(previews_key(APP), Trigger.POLL)
        return self.work()

    def push(self, branch: str, *manifests: str) -> dict[str, PassOutcome]:
        self.commit(branch, *manifests)
        return self.look()

    def commit(self, branch: str, *manifests: str) -> str:
        tree = {f"m{number}.yaml": text for number, text in enumerate(manifests or (ml(), api()))}
        return self.harness.sources.push_branch("demo", ref(branch), tree)

    def drop(self, branch: str) -> dict[str, PassOutcome]:
        self.harness.sources.delete_branch("demo", ref(branch))
        return self.look()

    def images(self, name: AppName = APP) -> list[str]:
        return [self.started[each.name].image for each in self.harness.running(app=name)]

    @property
    def previews(self) -> list[str]:
        return sorted(each.name for each in self.harness.catalog.spec.apps if each.preview)

    def told(self) -> list[str]:
        events = self.harness.store.events.list(APP, limit=1000)
        return [f"{each.reason}: {each.message}" for each in events if each.reason.startswith("Preview")]


def is_gone(harness: Harness, name: AppName) -> bool:
    store = harness.store
    return (
        not harness.engine.observe(name).workloads
        and not store.routes.of(name)
        and not store.boxes.of(name)
        and not store.apps.has(name)
        and store.branches.preview(name) is None
        and harness.catalog.spec.app(name) is None
        and not any(bucket.startswith(f"prichal.{name}.") for bucket in harness.storage.objects().buckets())
    )


READS = frozenset(
    [
        "all",
        "apps",
        "account",
        "accounts",
        "boxes",
        "decisions",
        "get",
        "buckets",
        "page",
        "parts",
        "stat",
        "has",
        "held_gpus",
        "image_sizes",
        "images",
        "inspect",
        "left_out",
        "list",
        "listed",
        "logs",
        "names",
        "observe",
        "of",
        "ping",
        "pin",
        "pipelines",
        "preview",
        "previews",
        "pulls",
        "pusher",
        "queued",
        "requests",
        "seen",
        "services",
        "status",
        "unfinished",
        "use",
        "unreadable",
        "usage",
        "values",
        "version",
    ]
)


class MortalWriter(Mortal):
    """Only calls that change something count: between two of them nothing is different."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name) if name in READS else super().__getattr__(name)


class MortalTables(MortalStore):
    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return found if name in self.LASTING else MortalWriter(found, self._lives, self._after)


class MortalStorage:
    def __init__(self, storage: FakeStorage, lives: list[int]) -> None:
        self._storage, self._lives = storage, lives

    def objects(self) -> Any:
        return MortalWriter(self._storage.objects(), self._lives, False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def die_at(platform: Platform, number: int) -> bool:
    harness, lives = platform.harness, [number]
    whole = harness.deps
    parts: dict[str, Any] = {
        name: MortalWriter(getattr(harness, name), lives, False) for name in ("engine", "sources")
    }
    parts["storage"] = MortalStorage(harness.storage, lives)
    try:
        platform.start(replace(whole, **parts, store=MortalTables(harness.store, lives, False)))
        platform.look()
    except Died:
        return True
    finally:
        platform.start(replace(whole, copies=CopyMemory()))
    return False


def shape_of(platform: Platform) -> object:
    store, engine = platform.harness.store, platform.harness.engine
    apps = sorted({status.app for status in store.apps.all()} - {PLATFORM})
    there = {
        name: sorted((w.name, w.state) for w in engine.observe(AppName(name)).workloads) for name in apps
    }
    boxes = {name: [(box.box, box.state) for box in store.boxes.of(AppName(name))] for name in apps}
    rows = sorted(each.app for each in store.branches.previews())
    return apps, there, boxes, rows, platform.previews, sorted(platform.harness.storage.objects().buckets())
