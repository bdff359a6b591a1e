"""Builds whose daemon is killed at random points, by both builders: when what they have left is collected, nothing of
it is there any more.

`make test` kills a few; KILLED_BUILDS says how many: `KILLED_BUILDS=80 make test PYTEST_ARGS="-k killed_builds"`.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from controller.adapters.docker import DockerEngine
from controller.adapters.docker.buildkit.cache import BuildCache
from controller.adapters.docker.connection import EngineConnection
from controller.config import DockerSettings
from controller.domain import labels
from tests.integration.docker.test_build import containers
from tests.integration.docker.test_buildkit import cache_locked, steps_with
from tests.support.engines import BASE_IMAGE
from tests.support.waiting import wait_for

KILLS = int(os.environ.get("KILLED_BUILDS", "6"))
RESTART = 5  # kills until a daemon collects what is left, as one that was started again does
STEPS = 4
#: Builds as the daemon does, each in a process of its own, and prints the lines of the log.
BUILDER = """
import json, os, sys
from pathlib import Path
from controller.adapters.docker import DockerEngine
from controller.config import DockerSettings
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.spec import BuildImage
from tests.support.engines import context_of
from tests.support.specs import make
instance, folder, builder, tag = sys.argv[1:]
for line in sys.stdin:
    child = os.fork()
    if not child:
        print("begun", os.getpid(), flush=True)
        engine = DockerEngine(DockerSettings(builder=builder), instance, Path(folder))
        context = context_of({"Dockerfile": json.loads(line), "more": "x" * 2**20})
        order = BuildInput("c0ffee", make(BuildImage, "."))
        engine.build(tag, order, context, lambda line: print(line, flush=True))
        os._exit(0)
    os.waitpid(child, 0)
    print("over", flush=True)
"""


class Victim:
    """Builds, and is killed when its log has a certain line, or so many seconds after it began."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def build(self, dockerfile: str, at: str, after: float) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(dockerfile) + "\n")
        self._process.stdin.flush()
        killing: threading.Timer | None = None
        seen: list[str] = []
        pid = 0
        for line in self._process.stdout:
            seen.append(line)
            if line == "over\n":
                break
            if line.startswith("begun "):
                pid = int(line.split()[1])
                killing = threading.Timer(after, _kill, [pid]) if not at else None
                if killing:
                    killing.start()
            elif at and at in line:
                _kill(pid)
        if killing:
            killing.join()
        assert seen[-1:] == ["over\n"], seen


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


@contextmanager
def victim(instance: str, folder: Path, builder: str, tag: str) -> Iterator[Victim]:
    temporary = folder / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-c", BUILDER, instance, str(folder / "serving"), builder, tag]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Victim(process)
        assert process.stdin
        process.stdin.close()
    assert process.returncode == 0
    assert list(temporary.iterdir()) == [], "folders of killed builds"


def left(client: docker.APIClient, instance: str, tag: str) -> list[str]:
    """Everything that a build may leave on the engine."""
    ours = {"label": f"{labels.BUILT_BY}={instance}"}
    images = [image["Id"] for image in client.images(all=True, filters=ours)]
    labelled = [entry["Id"] for entry in client.containers(all=True, filters=ours)]
    networks = [each["Name"] for each in client.networks() if each["Name"].startswith(instance)]
    volumes = [each["Name"] for each in (client.volumes(filters=ours)["Volumes"] or ())]
    return [
        *images,
        *labelled,
        *containers(client, tag),
        *networks,
        *volumes,
        *steps_with(f"echo {tag}"),
        *steps_with(f"sleep 600; echo {tag}"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(300 + 60 * KILLS)
@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_nothing_is_left_of_killed_builds(
    client: docker.APIClient, instance: str, tmp_path: Path, builder: str
) -> None:
    settings = replace(DockerSettings(builder=builder), build_cache=2**20)
    tag, chance = f"{instance}.local/app/build:1", random.Random(1)
    with victim(instance, tmp_path, builder, tag) as victims:
        for number in range(KILLS):
            steps = "".join(
                f"RUN echo begun; echo {tag} {number} {step} | tee /{step}\n" for step in range(STEPS)
            )
            stage = f"FROM {BASE_IMAGE} AS other\nRUN echo {tag} {number} > /other\n"
            dockerfile = (
                f"{stage}FROM {BASE_IMAGE}\nCOPY more /more\nLABEL number={number}\n{steps}"
                f"COPY --from=other /other /other\nRUN echo begun; sleep 600; echo {tag}\n"
            )
            at = chance.choice(["", *(f"{tag} {number} {step}" for step in range(STEPS))])
            victims.build(dockerfile, at, chance.uniform(0.0, 3.0))
            if number % RESTART == RESTART - 1:
                with closing(DockerEngine(settings, instance, tmp_path)) as restarted:
                    restarted.collect_builds(age=3600)
    with closing(DockerEngine(settings, instance, tmp_path)) as engine:

        def collected() -> list[str]:
            engine.collect_builds(age=0)
            return left(client, instance, tag)

        wait_for(collected, lambda found: not found)
    if builder == "buildkit":
        with (
            cache_locked(fcntl.LOCK_EX),
            closing(EngineConnection(settings.host, settings.timeout)) as connection,
        ):
            cache = BuildCache(connection, settings)
            cache.used()

            def cached() -> list[str]:
                cache.collect(0.0)
                return [part["Description"] for part in cache.parts() if tag in part["Description"]]

            wait_for(cached, lambda found: not found)
