"""Measures runs of pipelines: the time that the platform adds to `docker run`, the gaps between runs in a
queue, and the effect of a stage that writes very much on daemon, web process and disk."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import docker

from benchmarks.environment import Environment, RunningPlatform, network, running_platform
from benchmarks.figures import Section, in_turns
from benchmarks.idle import memory_of
from benchmarks.load import LoadFailed
from benchmarks.storage import timed
from benchmarks.submitting import submitted
from controller.domain import labels
from controller.store import open_store
from tests.support.engines import BASE_IMAGE, unique
from tests.support.platform import JSON, Module

TRIVIAL = ("true",)
LIMITS = ("--memory", "256m", "--memory-swap", "256m", "--pids-limit", "256", "--cpus", "1")
HARDENED = (*LIMITS, "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
ROUNDS = 15
QUEUED = 200
SLOTS = 2
PAUSE = 0.05  # seconds between two submissions, so that they are spread over what runs
BARE = 40  # containers started one after another in each slot, to compare with
BARE_LABEL = "benchmark-of-runs"
WRITTEN = 10**9  # bytes
WRITE = (
    "import sys\nline = b'epoch 0001 loss 0.12345678 ' + b'x' * 72 + b'\\n'\n"
    "for _ in range(%d // (1000 * len(line))):\n    sys.stdout.buffer.write(1000 * line)\n"
)


class Runs:
    """An app with one pipeline of one stage, and its API, which is open to all."""

    def __init__(self, platform: RunningPlatform, command: Sequence[str], concurrency: int = QUEUED) -> None:
        self.platform = platform
        self.app = unique("bench")
        self.path = f"/{self.app}/train/runs"
        module = Module(platform.home / self.app)
        stage = {
            "name": "fit",
            "image": {"existingImageName": BASE_IMAGE},
            "command": list(command),
            "resources": {"cpus": 1, "memory": "256Mi"},
        }
        module.pipeline(stages=[stage], concurrency=concurrency).runs_api(
            apiSpec={"inputs": [], "outputs": []}
        )
        revision = module.push()
        platform.connect(module, self.app)
        platform.until_ready(self.app, revision)
        self._connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=120)

    def ask(self, method: str, path: str) -> Any:
        body = b"{}" if method == "POST" else None
        try:
            self._connection.request(method, path, body, JSON)
            reply = self._connection.getresponse()
        except http.client.RemoteDisconnected:  # it was idle for longer than the gateway keeps one
            self._connection.close()
            self._connection.request(method, path, body, JSON)
            reply = self._connection.getresponse()
        content = reply.read()
        if reply.status not in (200, 202):
            raise LoadFailed(f"{method} {path}: {reply.status} {content!r}")
        return json.loads(content)

    def submit(self) -> str:
        return str(self.ask("POST", self.path)["id"])

    def until_over(self, run: str) -> dict[str, Any]:
        """By long polls."""
        found: dict[str, Any] = {"ended": None}
        while not found["ended"]:
            found = self.ask("GET", f"{self.path}/{run}?wait=60")
        if found["state"] != "SUCCEEDED":
            raise LoadFailed(f"the run ended as {found['state']}: {found['message']}")
        return found

    def all(self) -> Iterator[dict[str, Any]]:
        after: str | None = ""
        while after is not None:
            page = self.ask("GET", f"{self.path}?limit=100" + (f"&after={after}" if after else ""))
            yield from page["runs"]
            after = page["next"]


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[18]


def p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


# --- one run ----------------------------------------------------------------------------------------------------


def measure_runs(ground: Environment) -> Section:
    section = Section("runs", "a run of one trivial stage, from POST to SUCCEEDED, beside docker run --rm")
    with running_platform(ground) as platform, network(ground) as own:
        runs = Runs(platform, TRIVIAL)
        runs.until_over(runs.submit())  # the app's network is made by the first
        calls: dict[str, Callable[[], object]] = {
            "run, POST → SUCCEEDED seen": lambda: runs.until_over(runs.submit()),
            "docker run --rm": partial(docker_run, ()),
            "docker run --rm, limits and own network": partial(docker_run, ("--network", own, *HARDENED)),
        }
        measured = in_turns(
            {name: partial(timed, call) for name, call in calls.items()}, ground.count(ROUNDS)
        )
    for name, values in measured.items():
        section.add(name, "ms", [1e3 * seconds for seconds in values])
    run, bare, same = measured.values()
    section.compare("run beside docker run --rm", run, bare, aim="1.3 ×")
    section.compare("run beside docker run --rm, limits and own network", run, same)
    return section


def docker_run(options: Sequence[str]) -> None:
    command = ["docker", "run", "--rm", *options, BASE_IMAGE, *TRIVIAL]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


# --- a queue ----------------------------------------------------------------------------------------------------


def measure_queue(ground: Environment) -> Section:
    queued = ground.count(QUEUED, 4)
    section = Section("queue", f"{queued} queued runs on {SLOTS} slots")
    with running_platform(ground) as platform:
        waiting = Runs(platform, ("sleep", "600"), concurrency=1)
        waiting.submit()
        idle = submitted(platform.port, waiting.path, queued, PAUSE)
    with running_platform(ground, runs={"concurrent": SLOTS, "perApp": SLOTS}) as platform:
        runs = Runs(platform, TRIVIAL)
        with watched(ground.docker, f"{labels.INSTANCE}={platform.instance}") as ours:
            begun = time.monotonic()
            busy = submitted(platform.port, runs.path, queued, PAUSE)
            _until(lambda: all(run["ended"] for run in runs.all()))
            took = time.monotonic() - begun
        written = _written_gaps(platform, runs.app)
    with watched(ground.docker, BARE_LABEL) as theirs, ThreadPoolExecutor(SLOTS) as pool:
        list(pool.map(_bare_loop, [ground.count(BARE, 2)] * SLOTS))
    _report_queue(section, ours, theirs, written, took / queued)
    section.add("submitting meanwhile, p50", "ms", [1e3 * statistics.median(busy)])
    section.add("  p99", "ms", [1e3 * p99(busy)], aim="20 ms")
    section.add("submitting while all others wait, p50", "ms", [1e3 * statistics.median(idle)])
    section.add("  p99", "ms", [1e3 * p99(idle)])
    section.compare("submitting meanwhile beside that, p99", [p99(busy)], [p99(idle)])
    return section


def _report_queue(
    section: Section, ours: Moments, theirs: Moments, written: Sequence[float], each: float
) -> None:
    section.add("a run's share of a slot", "ms", [1e3 * each * SLOTS])
    section.add("slot free → next run begins, as written down, p50", "ms", [1e3 * statistics.median(written)])
    section.add("  p95", "ms", [1e3 * p95(written)], aim="50 ms")
    for name, moments in (("runs", ours), ("docker run --rm", theirs)):
        whole, making = moments.gaps("die", "start"), moments.making()
        section.add(f"{name}: container ends → next one starts, p50", "ms", [1e3 * statistics.median(whole)])
        section.add("  p95", "ms", [1e3 * p95(whole)])
        section.add("  of which the engine makes and starts it, p50", "ms", [1e3 * statistics.median(making)])
    ratio = statistics.median(ours.gaps("die", "start")) / statistics.median(theirs.gaps("die", "start"))
    section.add("containers' gap beside that of docker run --rm", "×", [ratio])


def _bare_loop(count: int) -> None:
    for _ in range(count):
        docker_run(("--label", BARE_LABEL, *HARDENED))


def _until(look: Callable[[], bool]) -> None:
    while not look():
        time.sleep(1)


def _written_gaps(platform: RunningPlatform, app: str) -> list[float]:
    """Seconds from a run's end to the beginning of the one that takes its slot, by the runs' own histories."""
    store = open_store(platform.database)
    try:
        found = store.runs.list(app, limit=QUEUED)  # type: ignore[arg-type]
    finally:
        store.close()
    return in_slots([r.started or 0.0 for r in found], [r.ended or 0.0 for r in found])


def in_slots(starts: Sequence[float], ends: Sequence[float]) -> list[float]:
    """Seconds for which a slot was empty: the next run takes the one that has been free for longest."""
    later = sorted(starts)[SLOTS:]
    return [start - end for start, end in zip(later, sorted(ends), strict=False)]


@dataclass
class Moments:
    """When which container was created, started and ended, Unix seconds, as the engine says it."""

    by_kind: dict[str, dict[str, float]] = field(default_factory=dict)

    def gaps(self, end: str, start: str) -> list[float]:
        return in_slots([*self.by_kind[start].values()], [*self.by_kind[end].values()])

    def making(self) -> list[float]:
        started = self.by_kind["start"]
        return [started[id] - at for id, at in self.by_kind["create"].items() if id in started]


@contextmanager
def watched(client: docker.APIClient, label: str) -> Iterator[Moments]:
    """The engine's own stamps, while they happen: it remembers few."""
    moments = Moments()
    kinds = {"label": label, "type": "container", "event": ["create", "start", "die"]}
    stream = client.events(filters=kinds, decode=True)

    def read() -> None:
        for event in stream:
            kind = moments.by_kind.setdefault(event["Action"], {})
            kind[event["Actor"]["ID"]] = event["timeNano"] / 1e9

    reader = threading.Thread(target=read, name="events")
    reader.start()
    try:
        yield moments
    finally:
        time.sleep(1)  # for the last one to arrive
        stream.close()
        reader.join()


# --- a log ------------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """What is looked at again and again while the stage writes: MiB of memory, bytes on the disk, and how far the
    follower is behind the file."""

    memory: dict[str, list[float]] = field(default_factory=lambda: {"daemon": [], "web": []})
    kept: int = 0
    engine: int = 0
    behind: list[int] = field(default_factory=list)


class Follower(threading.Thread):
    """Reads the log as server-sent events; `offset` is how far it is, `ended` when it was told the end."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(name="follower")
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self._path = path
        self.offset = 0
        self.ended = 0.0

    def run(self) -> None:
        self._connection.request("GET", self._path)
        for line in self._connection.getresponse():
            if line == b"id: end\n":
                self.ended = time.time()
            elif line.startswith(b"id: "):
                self.offset = int(line[4:])
        self._connection.close()


def measure_logs(ground: Environment) -> Section:
    written = ground.count(WRITTEN, 10**6)
    section = Section("logs", f"a stage that writes {written // 10**6:,} MB, beside a follower of its log")
    with running_platform(ground) as platform:
        runs = Runs(platform, ["python3", "-c", WRITE % written])
        watch, before = Watch(), {name: memory_of(pid) for name, pid in platform.processes.items()}
        begun = time.time()
        run = runs.submit()
        follower = Follower(platform.port, f"{runs.path}/{run}/logs?stage=fit&follow=1")
        follower.start()
        file = platform.home / "state" / "runs" / run / "fit.1.log"
        options = _look_on(ground, platform, runs.app, watch, file, follower)
        over = runs.until_over(run)
        follower.join()
        after = {name: memory_of(pid) for name, pid in platform.processes.items()}
        size = file.stat().st_size
    section.add("the run", "s", [time.time() - begun])
    for name in ("daemon", "web"):
        section.add(f"memory of the {name} before", "MiB", [before[name]])
        section.add("  while it writes", "MiB", watch.memory[name])
        section.add("  after", "MiB", [after[name]])
        section.add("  the most beside before", "×", [max(watch.memory[name]) / before[name]], aim="flat")
    section.add("follower behind the file", "MiB", [behind / 2**20 for behind in watch.behind])
    section.add(
        "follower told the end, after the run's", "ms", [1e3 * (follower.ended - _unix(over["ended"]))]
    )
    section.add("log kept, and read by the follower", "MiB", [size / 2**20, follower.offset / 2**20])
    section.add("most on the disk: log kept", "MiB", [watch.kept / 2**20], aim="64 MiB (runs.logMax)")
    if watch.engine:
        section.add(
            "  the engine's own", "MiB", [watch.engine / 2**20], aim="180 MiB (18 × docker.logMaxSize)"
        )
    section.notes.append(f"the engine was told: {json.dumps(options)}")
    return section


def _look_on(
    ground: Environment, platform: RunningPlatform, app: str, watch: Watch, file: Path, follower: Follower
) -> dict[str, Any]:
    """Until the container is gone; the log options that it had."""
    options: dict[str, Any] = {}
    log = ""
    while follower.is_alive():
        for container in platform.containers(app) if not log else ():
            found = ground.docker.inspect_container(container["Id"])
            options, log = found["HostConfig"]["LogConfig"], found["LogPath"]
        for name, pid in platform.processes.items():
            watch.memory[name].append(memory_of(pid))
        behind = follower.offset
        size = _size(file)
        watch.behind.append(max(0, size - behind))
        watch.kept = max(watch.kept, size)
        watch.engine = max(watch.engine, _size_of_engines(log, options) if log else 0)
        time.sleep(0.1)
    return options


def _size_of_engines(log: str, options: dict[str, Any]) -> int:
    """Of all files of a log: the one that is written, and those before it."""
    before = range(1, int(options.get("Config", {}).get("max-file", "1")))
    return sum(_size(Path(name)) for name in (log, *(f"{log}.{number}" for number in before)))


def _size(file: Path) -> int:
    """0 where it is not there, or others' alone."""
    try:
        return os.stat(file).st_size
    except OSError:
        return 0


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
