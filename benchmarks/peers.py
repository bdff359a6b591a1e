"""MLServer with the same function, in a separate virtual environment, for comparison with the serving library
and the whole path. If it cannot be installed, its rows are missing and a note says why."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.environment import BODY, WORKLOAD, Environment, answer, answers, ended, free_port, wait_for
from benchmarks.load import LoadFailed, Target

REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")
ROOT = Path(__file__).parent.parent
VENV = ROOT / "build" / "peers"
INSTALLING = 300.0  # seconds


class NoPeer(Exception):
    """It cannot be installed or does not start here; the text says why."""


@contextmanager
def mlserver(ground: Environment) -> Iterator[Target]:
    """One process (`parallel_workers` 0), on loopback alone, without access log; all else as MLServer has it."""
    _install()
    folder = ground.home / "mlserver"
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
    model = {"name": "adder", "implementation": "adder_mlserver.Adder"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    target = Target(("127.0.0.1", port), "/v2/models/adder/infer", BODY, answer())
    env = {**os.environ, "PYTHONPATH": str(WORKLOAD)}
    with ended([str(VENV / "bin" / "mlserver"), "start", str(folder)], env, folder / "log.txt"):
        try:
            wait_for("MLServer", lambda: answers(target))
        except LoadFailed as error:
            raise NoPeer(f"{error}: {(folder / 'log.txt').read_text()[-500:]}") from error
        yield target


def _install() -> None:
    try:
        subprocess.run([ROOT / "scripts" / "python-env", VENV, REQUIREMENTS], check=True, timeout=INSTALLING)
    except subprocess.CalledProcessError as error:
        raise NoPeer("it cannot be installed; what stands above says why") from error
    except subprocess.TimeoutExpired as error:
        raise NoPeer(f"it could not be installed within {INSTALLING:g} s") from error
