"""Jobs whose command a test controls by lines of a file in a mounted folder."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from controller.domain.apps.spec import Resources
from controller.domain.names import AppName, job_name
from controller.domain.volumes import StagingArea, Volume
from controller.ports import Job, JobMount
from tests.support.engines import BASE_IMAGE, MEBIBYTE
from tests.support.specs import make

_PROGRAM = """
import base64, json, os, time
orders = open("/orders/list")
line = ""
while True:
    line += orders.readline()
    if not line.endswith("\\n"):  # a long one may be seen while it is written
        time.sleep(0.01)
        continue
    order, value = json.loads(line)
    line = ""
    if order == "exit":
        os._exit(value)
    if order == "exhaust":
        hoard = bytearray(value)
    if order == "say":
        stream, content = value[0], base64.b64decode(value[1])
        while content:
            content = content[os.write(stream, content):]
"""


class ScriptedContainers:
    """The host's side. `folder` is theirs alone, and what the engine takes for the area of runs."""

    def __init__(self, folder: Path, instance: str) -> None:
        self._folder = folder
        self._instance = instance

    def job(self, app: AppName, stage: str = "train") -> Job:
        name = job_name(self._instance, app, "run", stage, 1)
        orders = self._folder / name
        orders.mkdir(exist_ok=True)
        (orders / "list").touch()
        return Job(
            name=name,
            app=app,
            run="run",
            stage=stage,
            attempt=1,
            image=BASE_IMAGE,
            command=("python3", "-c", _PROGRAM),
            mounts=(JobMount(Volume(StagingArea.RUNS, (name,)), "/orders", read_only=True),),
            resources=make(Resources, cpus=0.5, memory=16 * MEBIBYTE, pids=16),
            read_only_root=False,
        )

    def say(self, name: str, content: bytes, error: bool = False) -> None:
        self._tell(name, "say", [2 if error else 1, base64.b64encode(content).decode()])

    def exit(self, name: str, code: int) -> None:
        self._tell(name, "exit", code)

    def exhaust(self, name: str) -> None:
        """Take 1 GB."""
        self._tell(name, "exhaust", 10**9)

    def _tell(self, name: str, order: str, value: object) -> None:
        with (self._folder / name / "list").open("a") as orders:
            orders.write(json.dumps([order, value]) + "\n")
