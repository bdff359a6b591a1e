"""Batches and several processes through the gateway, in a real container."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.request import urlopen

from tests.support.platform import ECHO, Module, Platform, Reply

#: Says which process has called it for how many. "hold" waits until the test ends the container.
TOGETHER = ECHO.replace("import os\n", "import os, time\n").replace(
    '    return {"version": os.environ["VERSION"]}',
    """    texts = [call[0]["data"] for call in inputs]
    print("begun", *texts, flush=True)
    time.sleep(0.05)
    while "hold" in texts:
        time.sleep(0.05)
    return [{"version": f"{os.getpid()} {len(texts)}"} for _ in texts]""",
)
SERVICE = {"batch": {"maxSize": 4, "maxDelay": "5ms", "maxQueued": 20}, "processes": 2, "timeout": "60s"}


def _call(platform: Platform, app: str, text: str) -> Reply:
    return platform.predict(app, [{"name": "text", "datatype": "str", "data": text}])


def _state(container: dict[str, Any]) -> dict[str, Any]:
    """What the container says of its calls."""
    (network,) = container["NetworkSettings"]["Networks"].values()
    with urlopen(f"http://{network['IPAddress']}:8002/health/ready", timeout=30) as reply:
        found: dict[str, Any] = json.load(reply)
        return found


def test_calls_go_in_batches_in_several_processes_and_those_that_wait_survive_the_container(
    platform: Platform, module: Module, app: str
) -> None:
    """What has begun is lost with the container, since it may have run. What waits for a batch is sent again."""
    first = module.served(TOGETHER, mlService=SERVICE).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: _call(platform, app, "quick"), range(64)))
        assert {reply.status for reply in replies} == {200}
        ran = [reply.json["outputs"][0]["data"].split() for reply in replies]
        assert len({pid for pid, _ in ran}) == 2
        assert max(int(size) for _, size in ran) == 4

        (container,) = platform.containers(app)
        held: list[Future[Reply]] = []
        for _ in range(2):
            held.append(pool.submit(_call, platform, app, "hold"))
            platform.until(lambda: _held(platform, container["Id"]) == len(held))
        waiting = [pool.submit(_call, platform, app, "waits") for _ in range(6)]
        platform.until(lambda: _state(container)["waiting"] == 6)
        platform.docker.kill(container["Id"])
        assert {call.result(60).status for call in waiting} == {200}
        assert {call.result(60).json["type"] for call in held} == {"urn:prichal:problem:component-died"}


def _held(platform: Platform, container: str) -> int:
    return int(platform.docker.logs(container).decode().count("begun hold"))
