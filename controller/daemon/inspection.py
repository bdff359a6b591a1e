"""Read-only access for the command line: the plan of an app as things stand, and a component's logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from controller.adapters.objects import ReadOnlyStorage
from controller.config import Settings
from controller.daemon.platform_folder import PlatformFolder
from controller.daemon.wiring import build_reconciler_deps
from controller.domain.apps.plan import Plan
from controller.domain.errors import Stalled
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.reconciliation import preview
from controller.store import open_guest_store


def plan(settings: Settings, app: AppName) -> Plan:
    """Return what a pass would do now. The repository is fetched; nothing else is changed."""
    with _deps(settings) as deps:
        spec, _ = PlatformFolder(settings, deps.sources).read()
        deps.catalog.replace(spec)
        return preview(deps, app)


def logs(
    settings: Settings, app: AppName, component: ComponentName | None, tail: int, follow: bool
) -> Iterator[bytes]:
    """Yield the log of the app's newest container (of `component`, if given), as the engine kept it."""
    with _deps(settings) as deps:
        workloads = [w for w in deps.engine.observe(app).workloads if component in (None, w.component)]
        if not workloads:
            raise Stalled(
                Reason.NO_CONTAINER, f"{component or app!r} has no container; see: prichal status {app}"
            )
        newest = max(workloads, key=lambda workload: workload.created)
        if follow:
            yield from deps.engine.follow_logs(newest.id, tail)
        else:
            yield deps.engine.logs(newest.id, tail).encode()


@contextmanager
def _deps(settings: Settings) -> Iterator[ReconcilerDeps]:
    """Connect the adapters to the daemon's state. Creates no state folder: the user of a command may not be
    its owner. Raises Transient `StateMissing`.
    """
    store = open_guest_store(settings.database)
    # A daemon may use the embedded storage, and a second server there would damage it.
    deps = build_reconciler_deps(
        settings, store, stopping=lambda: False, storage=ReadOnlyStorage(store.boxes)
    )
    try:
        yield deps
    finally:
        deps.engine.close()
        deps.storage.close()
        store.close()
