"""Measures the cost of the platform while nothing changes: a pass over an app with 10 components, and the
idle processes. The minimum is the one call to the container engine that is needed to know that nothing has
changed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks.environment import Adder, Environment, RunningPlatform, running_platform, wait_for
from benchmarks.figures import Section, in_turns
from controller.domain import labels
from controller.domain.apps.requests import RequestState, Trigger
from controller.domain.names import AppName
from controller.ports import Store
from controller.store import open_store

COMPONENTS = 10
ROUNDS = 25
REST = 8  # seconds for which the processes are watched
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(ground: Environment) -> Section:
    components = ground.count(COMPONENTS, 2)
    section = Section("idle", f"nothing changes: an app with {components} components")
    with running_platform(ground) as platform:
        module = Adder(platform, ground, components)
        module.deploy(0)
        with closing(open_store(platform.database)) as store:
            _passes(section, ground, platform, store, AppName(module.app))
        _processes(section, platform, ground.count(REST))
    return section


def _passes(
    section: Section, ground: Environment, platform: RunningPlatform, store: Store, app: AppName
) -> None:
    calls: dict[str, Callable[[], float]] = {
        "pass": partial(one_pass, store, app),
        "list": partial(_one_list, ground, platform, app),
    }
    one_pass(store, app)  # the events of the deployment may still have a pass under way
    seconds = in_turns(calls, ground.count(ROUNDS))
    section.add("a request that changes nothing, until it is done", "ms", [1e3 * s for s in seconds["pass"]])
    section.add("one list of the containers", "ms", [1e3 * s for s in seconds["list"]])
    section.compare("a request beside one list", seconds["pass"], seconds["list"])


def one_pass(store: Store, app: AppName) -> float:
    """Seconds from the request to its outcome."""
    begun = time.perf_counter()
    request = store.requests.enqueue(app, Trigger.DRIFT)
    wait_for("a pass", lambda: _is_done(store, request))
    return time.perf_counter() - begun


def _is_done(store: Store, request: int) -> bool:
    found = store.requests.get(request)
    return found is not None and found.state is RequestState.DONE


def _one_list(ground: Environment, platform: RunningPlatform, app: AppName) -> float:
    filters = {"label": [f"{labels.INSTANCE}={platform.instance}", f"{labels.APP}={app}"]}
    begun = time.perf_counter()
    found = ground.docker.containers(all=True, filters=filters)
    seconds = time.perf_counter() - begun
    assert len(found) == ground.count(COMPONENTS, 2)
    return seconds


# --- at rest ----------------------------------------------------------------------------------------------------


def _processes(section: Section, platform: RunningPlatform, rest: int) -> None:
    trees = {name: _tree(platform.processes[name]) for name in ("daemon", "web")}
    before = {name: sum(map(_cpu_seconds, tree)) for name, tree in trees.items()}
    time.sleep(rest)
    for name, tree in trees.items():
        used = sum(map(_cpu_seconds, tree)) - before[name]
        count = f"{len(tree)} process{'es' if len(tree) > 1 else ''}"
        section.add(f"{name} at rest ({count}), one processor's", "%", [100 * used / rest])
        section.add("  memory (proportional set size)", "MiB", [memory_of(platform.processes[name])])


def _tree(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(one for child in children for one in _tree(int(child)))]


def memory_of(process: int) -> float:
    """MiB of a process and its children (proportional set size)."""
    return sum(map(_memory, _tree(process))) / 2**20


def cpu_seconds_of(process: int) -> float:
    """Seconds of processor time of a process and its children."""
    return sum(map(_cpu_seconds, _tree(process)))


def _cpu_seconds(process: int) -> float:
    """User and system time, fields 14 and 15 of proc(5)'s stat; the second field may contain blanks."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(process: int) -> int:
    """Bytes; what processes share is divided among them."""
    found = re.search(r"^Pss: +(\d+) kB$", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0
