"""Looking without acting, for the command line: the plan as things stand, a component's logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from controller.adapters.objects import LentStorage
from controller.config import Settings
from controller.daemon.platform_folder import PlatformFolder
from controller.daemon.wiring import build_house
from controller.domain.errors import Stalled
from controller.domain.names import AppName, ComponentName
from controller.domain.plan import Plan
from controller.reconcile.house import House
from controller.reconcile.passes import preview
from controller.store import open_store


def plan(settings: Settings, app: AppName) -> Plan:
    """What a pass would do now. Fetches the repository, changes nothing else."""
    with _house(settings) as house:
        spec, _ = PlatformFolder(settings, house.sources).read()
        house.directory.replace(spec)
        return preview(house, app)


def logs(
    settings: Settings, app: AppName, component: ComponentName | None, tail: int, follow: bool
) -> Iterator[bytes]:
    """Output of the app's newest container (of `component`, if given) as Docker kept it."""
    with _house(settings) as house:
        workloads = [w for w in house.engine.observe(app).workloads if component in (None, w.component)]
        if not workloads:
            raise Stalled("NoContainer", f"no container of {component or app!r} is there")
        newest = max(workloads, key=lambda workload: workload.created)
        if follow:
            yield from house.engine.follow_logs(newest.id, tail)
        else:
            yield house.engine.logs(newest.id, tail).encode()


@contextmanager
def _house(settings: Settings) -> Iterator[House]:
    """Wired as the daemon's own, on its state. Makes no state folder: whoever runs a command may not be its owner."""
    if not settings.database.exists():
        raise Stalled("NoState", f"{settings.state} holds no state yet: start the daemon first")
    store = open_store(settings.database)
    # A daemon may work on the embedded storage: a second server there would ruin it.
    house = build_house(settings, store, stopping=lambda: False, storage=LentStorage(store.boxes))
    try:
        yield house
    finally:
        house.engine.close()
        house.storage.close()
        store.close()
