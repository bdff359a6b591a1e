"""MLServer, BentoML, LitServe and FastAPI with the same function, in separate virtual environments, for comparison with
the serving library and the whole path. If one cannot be installed, its rows are missing and a note says why."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.environment import BODY, WORKLOAD, Environment, answer, answers, ended, wait_for
from benchmarks.load import LoadFailed, Target
from tests.support.ports import free_port

REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")
ROOT = Path(__file__).parent.parent
VENV = ROOT / "build" / "peers"
BENTOML_REQUIREMENTS = Path(__file__).with_name("requirements-bentoml.txt")
BENTOML_VENV = ROOT / "build" / "peers-bentoml"
LITSERVE_REQUIREMENTS = Path(__file__).with_name("requirements-litserve.txt")
LITSERVE_VENV = ROOT / "build" / "peers-litserve"  # and FastAPI's
INSTALLING = 300.0  # seconds


class NoPeer(Exception):
    """It cannot be installed or does not start here; the text says why."""


@contextmanager
def mlserver(
    ground: Environment,
    implementation: str = "adder_mlserver.Adder",
    body: bytes = BODY,
    expected: bytes = answer(),
    **model_settings: object,
) -> Iterator[Target]:
    """One process (`parallel_workers` 0), on loopback alone, without access log; all else as MLServer has it."""
    install()
    name = implementation.partition("_")[0]
    folder = ground.home / f"mlserver-{name}"
    folder.mkdir(exist_ok=True)
    port = free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": name, "implementation": implementation, **model_settings}
    (folder / "model-settings.json").write_text(json.dumps(model))
    target = Target(("127.0.0.1", port), f"/v2/models/{name}/infer", body, expected)
    env = {**os.environ, "PYTHONPATH": str(WORKLOAD)}
    with ended([str(VENV / "bin" / "mlserver"), "start", str(folder)], env, folder / "log.txt"):
        try:
            wait_for("MLServer", lambda: answers(target))
        except LoadFailed as error:
            raise NoPeer(f"{error}: {(folder / 'log.txt').read_text()[-500:]}") from error
        yield target


@contextmanager
def bentoml(ground: Environment, service: str, body: bytes, expected: bytes) -> Iterator[Target]:
    """One process, on loopback alone, without access log and metrics; all else as BentoML has it."""
    install(BENTOML_VENV, BENTOML_REQUIREMENTS)
    home = ground.home / "bentoml"
    home.mkdir(exist_ok=True)
    port = free_port()
    target = Target(("127.0.0.1", port), "/predict", body, expected)
    env = {
        **os.environ,
        "PYTHONPATH": str(WORKLOAD),
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "1",  # else it tells its makers that it was started
    }
    program = BENTOML_VENV / "bin" / "bentoml"
    command = [str(program), "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    with ended(command, env, home / "log.txt"):
        try:
            wait_for("BentoML", lambda: answers(target))
        except LoadFailed as error:
            raise NoPeer(f"{error}: {(home / 'log.txt').read_text()[-500:]}") from error
        yield target


@contextmanager
def litserve(ground: Environment) -> Iterator[Target]:
    """One process that answers and one that runs the function, on loopback alone; all else as LitServe has it."""
    port = free_port()
    with _in_litserves(ground, "LitServe", port, ["-m", "adder_litserve", str(port)]) as target:
        yield target


@contextmanager
def fastapi(ground: Environment) -> Iterator[Target]:
    """One process of uvicorn, on loopback alone, without access log; all else as FastAPI and uvicorn have it."""
    port = free_port()
    command = ["-m", "uvicorn", "adder_fastapi:app", "--no-access-log", "--port", str(port)]
    with _in_litserves(ground, "FastAPI", port, command) as target:
        yield target


@contextmanager
def _in_litserves(ground: Environment, name: str, port: int, command: list[str]) -> Iterator[Target]:
    install(LITSERVE_VENV, LITSERVE_REQUIREMENTS)
    log = ground.home / f"{name}.txt"
    target = Target(("127.0.0.1", port), "/predict", BODY, answer())
    env = {**os.environ, "PYTHONPATH": str(WORKLOAD)}
    with ended([str(LITSERVE_VENV / "bin" / "python"), *command], env, log):
        try:
            wait_for(name, lambda: answers(target))
        except LoadFailed as error:
            raise NoPeer(f"{error}: {log.read_text()[-500:]}") from error
        yield target


def install(folder: Path = VENV, requirements: Path = REQUIREMENTS) -> None:
    """Make a peer's environment. Raises NoPeer."""
    try:
        subprocess.run(
            [ROOT / "scripts" / "python-env", folder, requirements], check=True, timeout=INSTALLING
        )
    except subprocess.CalledProcessError as error:
        raise NoPeer("it cannot be installed; what stands above says why") from error
    except subprocess.TimeoutExpired as error:
        raise NoPeer(f"it could not be installed within {INSTALLING:g} s") from error
