"""Looking without acting, for the command line: the plan as things stand, a component's logs."""

from __future__ import annotations

from collections.abc import Iterator

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
    return preview(_house(settings), app)


def logs(
    settings: Settings, app: AppName, component: ComponentName | None, tail: int, follow: bool
) -> Iterator[bytes]:
    """Output of the app's newest container (of `component`, if given) as Docker kept it."""
    engine = _house(settings).engine
    workloads = [w for w in engine.observe(app).workloads if component in (None, w.component)]
    if not workloads:
        raise Stalled("NoContainer", f"no container of {component or app!r} is there")
    newest = max(workloads, key=lambda workload: workload.created)
    if follow:
        yield from engine.follow_logs(newest.id, tail)
    else:
        yield engine.logs(newest.id, tail).encode()


def _house(settings: Settings) -> House:
    house = build_house(settings, open_store(settings.database), stopping=lambda: False)
    spec, _ = PlatformFolder(settings, house.sources).read()
    house.directory.replace(spec)
    return house
