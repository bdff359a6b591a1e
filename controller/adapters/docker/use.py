"""Measures what containers use of processors, memory and GPUs.

The engine takes a second for the figures of one container, whatever it is asked for, so they are read where it reads
them: in the files of the container's control group, which everybody may read on the engine's own host. Where they are
not found (an engine elsewhere, a group of another name) the engine is asked, for several containers at once.

The engine knows nothing of GPUs. Where NVIDIA's driver does not tell this host about them either, `nvidia-smi` is
asked, which its runtime puts into a container that has some and which shows exactly these; what it prints there is the
module's word, and a container in which it hangs is not asked again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import requests

from controller.adapters.docker.connection import EngineConnection
from controller.domain import labels
from controller.domain.apps.observed import WorkloadUse
from controller.domain.names import AppName, ComponentName

Json = dict[str, Any]

GROUPS: Final = Path("/sys/fs/cgroup")
_AT_ONCE: Final = 8  # containers that the engine is asked about
_LONGEST: Final = 4096  # bytes of what a program in a container may print
_SMI_TIMEOUT: Final = 3.0  # seconds
_SMI: Final = (
    "nvidia-smi",
    "--query-gpu=utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
)


class UseMeter:
    """Used by one thread."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._silent: set[str] = set()  # containers in which the program for GPUs hangs

    def measure(self, entries: Sequence[Json], ask_gpus: bool = True) -> tuple[WorkloadUse, ...]:
        """Measure the containers that `GET /containers/json` lists. Raises errors of the SDK."""
        client = self._connection.client
        found = {entry["Id"]: read_group(GROUPS, entry["Id"]) for entry in entries}
        asked = [id for id, read in found.items() if read is None]
        with ThreadPoolExecutor(_AT_ONCE, "docker-use") as threads:
            found |= zip(asked, threads.map(lambda id: _ask(client, id), asked), strict=True)
        self._silent &= found.keys()
        return tuple(
            self._use(entry, use, ask_gpus) for entry in entries if (use := found[entry["Id"]]) is not None
        )

    def _use(self, entry: Json, found: tuple[float, float], ask_gpus: bool) -> WorkloadUse:
        told = entry["Labels"]
        gpus = labels.gpus(told)
        gpu, gpu_memory = self._gpus(entry["Id"]) if gpus and ask_gpus else (None, None)
        app, component = AppName(told[labels.APP]), ComponentName(told[labels.COMPONENT])
        return WorkloadUse(app, component, entry["Id"], *found, gpu, gpu_memory, gpus)

    def _gpus(self, container: str) -> tuple[float | None, float | None]:
        if container in self._silent:
            return None, None
        deadline = time.monotonic() + _SMI_TIMEOUT
        try:
            return read_smi(self._printed(container, deadline))
        except (docker.errors.APIError, requests.RequestException, OSError):
            if time.monotonic() >= deadline:
                self._silent.add(container)
            return None, None

    def _printed(self, container: str, deadline: float) -> str:
        client = self._connection.client_with(_SMI_TIMEOUT)
        made = client.exec_create(container, list(_SMI), stderr=False)
        printed = b""
        for piece in client.exec_start(made["Id"], stream=True):
            printed += piece
            if time.monotonic() >= deadline:
                raise TimeoutError
            if len(printed) > _LONGEST:
                break
        return printed.decode("ascii", "replace")


# --- control groups -----------------------------------------------------------------------------------------------


def read_group(groups: Path, container: str) -> tuple[float, float] | None:
    """Return seconds on processors and bytes of memory; None if there is no such group."""
    for group in (groups / "system.slice" / f"docker-{container}.scope", groups / "docker" / container):
        with suppress(OSError, ValueError, KeyError):
            cpu = _numbers(group / "cpu.stat")["usage_usec"] / 1e6
            cached = _numbers(group / "memory.stat")["inactive_file"]
            return cpu, max(0.0, _number(group / "memory.current") - cached)
    for name in (Path("system.slice") / f"docker-{container}.scope", Path("docker") / container):
        with suppress(OSError, ValueError, KeyError):
            cpu = _number(groups / "cpuacct" / name / "cpuacct.usage") / 1e9
            memory = groups / "memory" / name
            cached = _numbers(memory / "memory.stat")["total_inactive_file"]
            return cpu, max(0.0, _number(memory / "memory.usage_in_bytes") - cached)
    return None


def _number(path: Path) -> float:
    return float(path.read_text())


def _numbers(path: Path) -> Mapping[str, float]:
    pairs = (line.partition(" ") for line in path.read_text().splitlines())
    return {name: float(number) for name, _, number in pairs}


# --- the engine ---------------------------------------------------------------------------------------------------


def _ask(client: docker.APIClient, container: str) -> tuple[float, float] | None:
    """Return None for one that has ended meanwhile."""
    try:
        found: Json = client.stats(container, stream=False, one_shot=True)
        memory = found["memory_stats"]
        details = memory.get("stats", {})
        cached = details.get("inactive_file", details.get("total_inactive_file", 0))
        return found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, max(0.0, memory["usage"] - cached)
    except (docker.errors.APIError, requests.RequestException, KeyError, TypeError):
        return None


def read_smi(printed: str) -> tuple[float | None, float | None]:
    """Return the mean use, 0 to 1, and the memory in bytes of all GPUs that `nvidia-smi` has listed."""
    shares, memory = [], 0.0
    for line in printed.splitlines():
        percent, comma, mebibytes = line.partition(",")
        try:
            share, used = float(percent) / 100, float(mebibytes) * 2**20
        except ValueError:
            return None, None
        if not comma or not 0 <= share <= 1 or not 0 <= used < 2**50:
            return None, None
        shares.append(share)
        memory += used
    return (sum(shares) / len(shares), memory) if shares else (None, None)
