"""The environment of the measurements: an image with the workload, the serving library, and containers and
platforms that are removed at the end. Everything is real, and everything is called by the same client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docker

from benchmarks.load import LoadFailed, Target, connect, exchange
from controller.adapters.docker.mapping import LIBRARY
from controller.adapters.docker.serving import MOUNT, package_folder, stage_serving
from controller.config import load as load_settings
from tests.support.engines import BASE_IMAGE, build_image, unique
from tests.support.platform import Module, Platform

WORKLOAD = Path(__file__).parent / "workload"
CODE = ("adder.py", "words.py", "own_words.py", "own_echo.py")
OWN_COMMAND = (
    'CMD ["sh", "-c", "exec python3 ${OWN:-own_words.py}"]'  # the variable names another server of one's own
)
NUMBERS = (2, 3, 5)
BODY = json.dumps(
    {"inputs": [{"name": "numbers", "datatype": "INT32", "shape": [len(NUMBERS)], "data": NUMBERS}]}
).encode()
PORT = 8002
IDENTITY = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
PAUSE = 0.002  # seconds at least between two looks of one who waits
SHARE = 0.01  # of the time waited so far: a wait becomes longer by no more than that, and the looks take little of it
WAIT_LIMIT = 60.0  # seconds after which waiting has failed


@dataclass(frozen=True)
class Environment:
    """`home` is a temporary folder, `library` the serving library as containers get it. With `quick`
    everything is done as often as it takes to see that the measurement works, and its figures mean
    nothing."""

    home: Path
    docker: docker.APIClient
    image: str
    library: Path
    quick: bool = False

    def count(self, full: int, quick: int = 1) -> int:
        """How often something is done, or how much of it: `full` for a measurement, `quick` for a try of it."""
        return quick if self.quick else full


@contextmanager
def prepared(home: Path, quick: bool = False) -> Iterator[Environment]:
    client = docker.APIClient()
    image = f"{unique('bench')}.local/adder:1"
    files = {
        "Dockerfile": f"FROM {BASE_IMAGE}\nWORKDIR /srv\nCOPY {' '.join(CODE)} ./\n{OWN_COMMAND}\n",
        **{name: (WORKLOAD / name).read_text() for name in CODE},
    }
    build_image(client, image, files)
    try:
        yield Environment(home, client, image, stage_serving(package_folder(), home / "library"), quick)
    finally:
        client.remove_image(image, force=True)
        client.close()


def answer(offset: int = 0) -> bytes:
    """What must be in every reply of the version with that OFFSET."""
    return f"[{sum(NUMBERS) + offset}]".encode()


def wait_for(what: str, look: Callable[[], object]) -> None:
    begun = time.monotonic()
    while not look():
        waited = time.monotonic() - begun
        if waited > WAIT_LIMIT:
            raise LoadFailed(f"waited {WAIT_LIMIT:g} s in vain for {what}")
        time.sleep(max(PAUSE, waited * SHARE))


def answers(target: Target) -> bool:
    """Whether a new caller gets the expected answer."""
    try:
        with connect(target.address) as connection:
            return target.expected in exchange(connection, target.request)
    except (OSError, LoadFailed):
        return False


# --- the serving library without the platform -------------------------------------------------------------------


@contextmanager
def bare_process(
    ground: Environment,
    port: int,
    inference: str = "adder:predict",
    component: str = "component",
    python: str = sys.executable,
    first: Target | None = None,
    settings: Mapping[str, object] = MappingProxyType({}),
) -> Iterator[Target]:
    """The serving library as a process on this host, once it answers the `first` call. All `settings` but these are as
    it has them by default."""
    path = ground.home / "path"
    path.mkdir(exist_ok=True)
    if not (path / "prichal_serving").exists():
        (path / "prichal_serving").symlink_to(ground.library)
    variable = {"inference": inference, "component": component, "port": port, **settings}
    env = {
        **os.environ,
        "PYTHONPATH": f"{path}:{WORKLOAD}",
        "PRICHAL_SERVING": json.dumps(variable),
    }
    target = first or Target(("127.0.0.1", port), "/predict", BODY, answer())
    with ended([python, "-m", "prichal_serving"], env, ground.home / "serving.log"):
        wait_for("the serving library", lambda: answers(target))
        yield target


@contextmanager
def ended(command: list[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command, asked to end afterwards. What it has started and left behind is ended with it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=dict(env), stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):  # there is nothing left, which is usual
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def bare_container(ground: Environment, options: tuple[str, ...]) -> Iterator[str]:
    """`docker run -d` of the workload; its id. Returns as soon as the command does."""
    name = unique("bench")
    settings = json.dumps({"inference": "adder:predict", "port": PORT})
    command = [
        *("docker", "run", "--detach", "--name", name, *options),
        *("--mount", f"type=bind,source={ground.library},target={MOUNT},readonly"),
        *("--env", f"PYTHONPATH={LIBRARY}", "--env", f"PRICHAL_SERVING={settings}"),
        *("--entrypoint", "python3", ground.image, "-m", "prichal_serving"),
    ]
    try:
        yield subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    finally:
        ground.docker.remove_container(name, force=True, v=True)


@contextmanager
def network(ground: Environment) -> Iterator[str]:
    """The name of a bridge network."""
    name = unique("bench")
    made = ground.docker.create_network(name, driver="bridge")
    try:
        yield name
    finally:
        ground.docker.remove_network(made["Id"])


def address_of(ground: Environment, container: str) -> tuple[str, int]:
    networks = ground.docker.inspect_container(container)["NetworkSettings"]["Networks"]
    return next(iter(networks.values()))["IPAddress"], PORT


# --- the platform -----------------------------------------------------------------------------------------------


class RunningPlatform(Platform):
    """Daemon and web process with their default settings; `processes` are their process ids."""

    def __init__(self, home: Path, **settings: object) -> None:
        # Its components ask for as many CPUs as bare containers have, each of them.
        super().__init__(home, **{"reconcile": {}, "limits": {"appCpus": 1024}, **settings})
        self.processes: dict[str, int] = {}

    def start_process(self, name: str) -> subprocess.Popen[bytes]:
        process = super().start_process(name)
        self.processes[name] = process.pid
        return process

    @property
    def database(self) -> Path:
        return load_settings(self.config).database


PROCESSORS = os.cpu_count() or 1
#: Each component may use all processors, and an app has up to ten of them.
LIMITS = {"appCpus": min(1024, 10 * PROCESSORS)}


@contextmanager
def running_platform(ground: Environment, **settings: object) -> Iterator[RunningPlatform]:
    home = ground.home / unique("platform")
    home.mkdir()
    platform = RunningPlatform(home, **{"limits": LIMITS, **settings})
    try:
        platform.start()
        yield platform
    finally:
        platform.stop()


@contextmanager
def empty_server(status: int = 503) -> Iterator[int]:
    """The port of a server that only gives empty answers."""
    command = [sys.executable, "-m", "benchmarks.empty_reply", str(status)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def adder(image: str, offset: int, **service: object) -> dict[str, object]:
    """The component that is measured. `service`: more of its `mlService`."""
    return {
        "image": {"existingImageName": image},
        "env": [{"name": "OFFSET", "value": str(offset)}],
        "mlService": {"inference": "adder:predict", **service},
        "resources": {"cpus": PROCESSORS, "memory": "256Mi"},  # as many as bare containers have
    }


class Adder(Module):
    """The module under test, in a repository that `prichal repo create` made."""

    def __init__(
        self, platform: Platform, ground: Environment, components: int = 1, **service: object
    ) -> None:
        self.app = unique("bench")
        self.home = platform.home / self.app
        self.tree = self.home
        self._platform = platform
        self._image = ground.image
        self._service = service
        self._components = [f"adder-{number}" for number in range(components)]
        made = platform.prichal("repo", "create", self.app, "--connect", "--path", "manifests")
        self.bare = Path(made.stdout.split()[-1])
        subprocess.run(["git", "clone", "--quiet", self.bare, self.tree], check=True, capture_output=True)

    def commit(self, offset: int) -> str:
        """Declare the version with that OFFSET; the commit, which is not pushed yet."""
        for name in self._components:
            self.component(name, **adder(self._image, offset, **self._service))
        self.api(self._components[0])
        self._git("add", "--all")
        self._git(*IDENTITY, "commit", "--quiet", "--message", f"Add {offset}")
        return self._git("rev-parse", "HEAD").strip()

    def begin_push(self) -> subprocess.Popen[bytes]:
        command = ["git", "-C", str(self.tree), "push", "--quiet", "origin", "HEAD:main"]
        with (self.home.parent / "push.txt").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def push_as_it_is(self) -> str:
        """Commit and push what lies in the tree, and return the revision."""
        self._git("add", "--all")
        self._git(*IDENTITY, "commit", "--quiet", "--message", "As it is")
        if self.begin_push().wait(WAIT_LIMIT):
            raise LoadFailed("git push failed")
        return self._git("rev-parse", "HEAD").strip()

    def target(self, offset: int) -> Target:
        return Target(("127.0.0.1", self._platform.port), f"/{self.app}/api/predict", BODY, answer(offset))

    def deploy(self, offset: int) -> Target:
        """The version, pushed and ready."""
        revision = self.commit(offset)
        process = self.begin_push()
        if process.wait(WAIT_LIMIT):
            raise LoadFailed(f"git push failed with {process.returncode}")
        self._platform.until_ready(self.app, revision)
        return self.target(offset)

    def direct_target(self, offset: int) -> Target:
        """The container itself, past the gateway."""
        (container,) = self._platform.containers(self.app, running=True)
        networks: dict[str, Any] = container["NetworkSettings"]["Networks"]
        address = next(iter(networks.values()))["IPAddress"]
        return Target((address, PORT), "/predict", BODY, answer(offset))

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.tree), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
