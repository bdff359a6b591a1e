"""Measures how the platform grows with the number of apps: passes in which nothing changes, over a fake engine for
thousands of apps and over the real one for as many as it has networks for; and a burst of webhooks, which must not
become as many passes."""

from __future__ import annotations

import json
import re
import time
from contextlib import closing
from http.client import HTTPConnection
from statistics import median, quantiles

from ruamel.yaml import YAML

from benchmarks.environment import Adder, Environment, RunningPlatform, adder, running_platform
from benchmarks.figures import Section, in_turns
from benchmarks.idle import memory_of, one_pass
from controller.domain.names import AppName
from controller.store import open_store
from controller.web.api.platform.signatures import sign
from tests.support.platform import API_VERSION
from tests.unit.reconcile.harness import Harness, api, app, ml

SIZES = (250, 500, 1000, 2000)
REAL = 100  # apps on the real engine
NETWORKS = 25  # apps there if Docker has its default address pools, which give some thirty networks
HOOKS = 1000
EMPTY = 1000  # empty replies beside them
ROUNDS = 3


def measure(ground: Environment) -> Section:
    section = Section("apps", "many apps in which nothing changes, and a burst of webhooks")
    for count in SIZES if not ground.quick else (5, 10):
        _fake(section, ground, count)
    with running_platform(ground) as platform:
        module = Adder(platform, ground)
        module.deploy(0)
        _burst(section, ground, platform, module)
        _real(section, ground, platform, module)
    return section


# --- over the fake engine ---------------------------------------------------------------------------------------


def _fake(section: Section, ground: Environment, count: int) -> None:
    """Processor time, since other programs of the machine must not count."""
    folder = ground.home / f"apps-{count}"
    folder.mkdir()
    harness = Harness(folder)
    names = [AppName(f"app-{number:04}") for number in range(count)]
    harness.connect(*map(app, names))
    harness.push(ml(), api())
    for _ in range(3):  # they are ready, and nothing is recorded any more
        for name in names:
            harness.run_unchecked(app=name)
    rounds = []
    for _ in range(ground.count(ROUNDS)):
        begun = time.process_time()
        for name in names:
            harness.run_unchecked(app=name)
        rounds.append(time.process_time() - begun)
    harness.deps.quiet.clear()
    begun = time.process_time()
    for name in names:
        harness.run_unchecked(app=name)
    whole = time.process_time() - begun
    harness.store.close()
    section.add(f"{count} apps, fake engine: a pass over each", "s", rounds, "1 s" if count == 1000 else "")
    section.add("  one of them", "ms", [1e3 * seconds / count for seconds in rounds])
    section.add("  a whole pass over one of them", "ms", [1e3 * whole / count])


# --- over the real engine ---------------------------------------------------------------------------------------


def _real(section: Section, ground: Environment, platform: RunningPlatform, module: Adder) -> None:
    pools = ground.docker.info().get("DefaultAddressPools")
    count = ground.count(REAL if pools else NETWORKS, 2)
    names = [AppName(f"{module.app}-{number}") for number in range(count)]
    small = {**adder(ground.image, 0), "resources": {"cpus": 0.1, "memory": "64Mi"}}
    for component in (module.tree / "manifests").glob("*.yaml"):
        document = json.loads(component.read_text())
        if document["kind"] == "MLComponent":
            component.write_text(json.dumps({**document, "spec": small}))
    revision = module.push_as_it_is()
    documents = [
        {
            "apiVersion": API_VERSION,
            "kind": "PlatformApp",
            "metadata": {"name": name},
            "spec": {"repository": module.app, "path": "manifests"},
        }
        for name in names
    ]
    (platform.platform_folder / "many.yaml").write_text("\n---\n".join(map(json.dumps, documents)))
    platform.poke("@platform")
    for name in names:
        platform.until_ready(name, revision)
    with closing(open_store(platform.database)) as store:
        passes = [1e3 * one_pass(store, name) for name in names for _ in range(ground.count(ROUNDS))]
    section.add(f"{count} apps on the engine: a pass, until it is done", "ms", passes, "30 ms")
    memory = memory_of(platform.processes["daemon"])
    section.add("  memory of the daemon", "MiB", [memory], "120 MiB")


# --- webhooks ---------------------------------------------------------------------------------------------------


def _burst(section: Section, ground: Environment, platform: RunningPlatform, module: Adder) -> None:
    body = json.dumps({"ref": "refs/heads/main"}).encode()
    passes = re.compile(rf"pass ended app={module.app} ")
    count = ground.count(HOOKS, 20)
    with closing(HTTPConnection("127.0.0.1", platform.port, timeout=60)) as line:

        def empty() -> list[float]:
            return [_timed(line, "GET", "/-/healthz", b"", {}) for _ in range(ground.count(EMPTY, 20))]

        def hooks() -> list[float]:
            headers = {
                "Content-Type": "application/json",
                "X-Signature": sign(_secret_of(platform, module.app), body),
            }
            path = f"/-/hooks/{module.app}"
            return [
                _timed(line, "POST", path, body, {**headers, "X-Delivery": f"{number}-{time.monotonic_ns()}"})
                for number in range(count)
            ]

        _settle(platform, passes)
        before = len(passes.findall(platform.log.read_text()))
        found: dict[str, list[list[float]]] = in_turns({"empty": empty, "hooks": hooks}, 1)
        _settle(platform, passes)
        after = len(passes.findall(platform.log.read_text()))
    kinds = {"an empty reply": found["empty"][0], f"{count} webhooks, acknowledged": found["hooks"][0]}
    p99 = {name: quantiles(times, n=100)[98] for name, times in kinds.items()}
    for name, times in kinds.items():
        section.add(f"{name}: p50", "ms", [median(times)])
        section.add("  p99", "ms", [p99[name]])
    quiet, busy = p99.values()
    section.add("  p99 above an empty reply's", "ms", [busy - quiet], "20 ms")
    section.add("  passes for all of them", "", [after - before], "at most 2")


def _secret_of(platform: RunningPlatform, name: str) -> str:
    """Return the secret with which `prichal repo create` lets its own hook sign."""
    document = YAML(typ="safe").load((platform.platform_folder / f"{name}.secret.yaml").read_text())
    return str(document["stringData"]["secret"])


def _settle(platform: RunningPlatform, passes: re.Pattern[str]) -> None:
    """Wait until no pass has ended for a second."""
    seen, since = -1, time.monotonic()
    while time.monotonic() < since + 1:
        now = len(passes.findall(platform.log.read_text()))
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.05)


def _timed(line: HTTPConnection, method: str, path: str, body: bytes, headers: dict[str, str]) -> float:
    begun = time.perf_counter()
    line.request(method, path, body or None, headers)
    reply = line.getresponse()
    reply.read()
    assert reply.status in (200, 202), (reply.status, path)
    return 1e3 * (time.perf_counter() - begun)
