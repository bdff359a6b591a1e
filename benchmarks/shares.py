"""Measures how long calls of one app take while the developer and callers of another app attack the host, and
how much memory the attacks leave in use. Each attack is measured after a quiet period, and before another one in which
the same attackers send the same to a server that only gives empty answers: they share the processors with the load."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from benchmarks.attacking import ATTACKS, under_way
from benchmarks.environment import Adder, Environment, RunningPlatform, empty_server, running_platform
from benchmarks.figures import Section
from benchmarks.idle import memory_of
from benchmarks.load import Load, run
from tests.support.engines import BASE_IMAGE, unique
from tests.support.platform import API_VERSION, ECHO, Module

ROUNDS = 3
SECONDS = 4
CONNECTIONS = 4
SETTLED = 90.0  # seconds in which memory is to come back
LARGE = 300 * 2**20  # bytes of each of six files of a commit, all of them holes
COSTLY = "pbkdf2:sha256:2000000$salt$" + "0" * 64  # as much as is allowed
PATTERN = "*a" * 10 + "b"


def measure_shares(ground: Environment) -> Section:
    section = Section("shares", "calls of an app while another one is used to attack the host")
    with running_platform(ground) as platform:
        target = Adder(platform, ground).deploy(0)
        hostile = Hostile(platform)
        load = partial(run, target, CONNECTIONS, ground.count(SECONDS))
        load()
        before = _memory(platform)
        attacks: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "a costly .dockerignore": hostile.dockerignore,
            "a commit of 1.8 GB": hostile.large_commit,
        }
        for name in ATTACKS:
            attacks[name] = partial(under_way, name, platform.port, hostile.app)
        with empty_server() as port:
            floors = {name: partial(under_way, name, port, hostile.app) for name in ATTACKS}
            _report(section, attacks, floors, load, ground.count(ROUNDS))
        hostile.take_back()
        _report_memory(section, platform, before, ground.count(int(SETTLED)))
    return section


def _report(
    section: Section,
    attacks: Mapping[str, Callable[[], AbstractContextManager[None]]],
    floors: Mapping[str, Callable[[], AbstractContextManager[None]]],
    load: Callable[[], Load],
    rounds: int,
) -> None:
    quiet: dict[str, list[Load]] = {name: [] for name in attacks}
    attacked: dict[str, list[Load]] = {name: [] for name in attacks}
    beside: dict[str, list[Load]] = {name: [] for name in floors}
    for _ in range(rounds):
        for name, attack in attacks.items():
            quiet[name].append(load())
            with attack():
                attacked[name].append(load())
            if name in floors:
                with floors[name]():
                    beside[name].append(load())
    everything = [each for loads in quiet.values() for each in loads]
    section.add("calls, nothing else, p50", "ms", [1e3 * each.p50 for each in everything])
    section.add("  p99", "ms", [1e3 * each.p99 for each in everything])
    for name, loads in attacked.items():
        section.add(f"{name}: p50", "ms", [1e3 * each.p50 for each in loads])
        section.add("  p99", "ms", [1e3 * each.p99 for each in loads])
        of_both = [each.p99 for each in loads], [each.p99 for each in quiet[name]]
        section.compare("  p99 beside the quiet one", of_both[0], of_both[1], aim="2 ×")
        if name in beside:
            floor = [each.p99 for each in beside[name]]
            section.compare(
                "  p99 with the attackers at an empty server, beside the quiet one", floor, of_both[1]
            )
            section.compare("  p99 beside that", of_both[0], floor)


def _memory(platform: RunningPlatform) -> dict[str, float]:
    return {name: memory_of(platform.processes[name]) for name in ("daemon", "web")}


def _report_memory(
    section: Section, platform: RunningPlatform, before: Mapping[str, float], patience: float
) -> None:
    deadline = time.monotonic() + patience
    after = _memory(platform)
    while time.monotonic() < deadline and any(after[name] > 1.1 * before[name] for name in after):
        time.sleep(1)
        after = _memory(platform)
    for name, memory in after.items():
        section.add(f"memory of {name} before", "MiB", [before[name]])
        section.add("  after all of it", "MiB", [memory])
        section.compare("  after beside before", [memory], [before[name]], aim="1.1 ×")


class Hostile:
    """An app of somebody who may push to its repository, with an open API, a closed one, a pipeline and a webhook."""

    def __init__(self, platform: RunningPlatform) -> None:
        self.app = unique("bench")
        self._platform = platform
        self._module = module = Module(platform.home / self.app)
        module.served(ECHO)
        small = {"cpus": 0.5, "memory": "128Mi"}
        stage = {
            "name": "fit",
            "image": {"existingImageName": BASE_IMAGE},
            "command": ["sleep", "1"],
            "inputs": [{"name": "text"}],
            "resources": small,
        }
        module.pipeline(stages=[stage], vars=[{"name": "text"}], concurrency=1000)
        module.runs_api(apiSpec={"inputs": [{"name": "text", "type": {"datatypes": ["str"]}}], "outputs": []})
        closed = {"path": "closed", "auth": {"basic": {"credentials": "users"}}}
        module.api("closed", "closed", mlComponent={"name": "model"}, restfulApi=closed)
        self._connect(module.push())

    def _connect(self, revision: str) -> None:
        self._platform.connect(self._module, self.app, {"users": {f"user-{n}": COSTLY for n in range(8)}})
        folder = self._platform.platform_folder
        documents = (folder / f"{self.app}.yaml").read_text().split("\n---\n")
        repository = json.loads(documents[0])
        repository["spec"]["webhook"] = {"provider": "generic", "secret": f"{self.app}-hook"}
        hook = {
            "apiVersion": API_VERSION,
            "kind": "Secret",
            "metadata": {"name": f"{self.app}-hook"},
            "stringData": {"secret": "x" * 32},
        }
        text = "\n---\n".join([json.dumps(repository), *documents[1:], json.dumps(hook)])
        draft = folder / f".{self.app}"
        draft.write_text(text)
        draft.rename(folder / f"{self.app}.yaml")
        self._platform.poke("@platform")
        self._platform.until_ready(self.app, revision)

    @contextmanager
    def dockerignore(self) -> Iterator[None]:
        """One line that backtracks, and a file of which it nearly fits the name."""
        self._module.write(".dockerignore", f"{PATTERN}\n").write("a" * 200, os.urandom(4).hex())
        self._push()
        yield

    @contextmanager
    def large_commit(self) -> Iterator[None]:
        """Some kilobytes in Git."""
        for number in range(6):
            path = self._module.tree / "manifests" / f"big{number}.yaml"
            with path.open("wb") as file:
                file.truncate(LARGE)
        self._push()
        yield
        for number in range(6):
            (self._module.tree / "manifests" / f"big{number}.yaml").unlink()

    def take_back(self) -> None:
        self._push()

    def _push(self) -> None:
        self._module.push()
        self._platform.poke(self.app)
