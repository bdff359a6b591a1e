"""Calls that nobody waits for, in a real container, while everything around them changes."""

from __future__ import annotations

from typing import Any

from tests.support.platform import ECHO, Module, Platform
from tests.support.waiting import wait_for

ASYNC = {"Prefer": "respond-async"}
#: Waits until the caller's file is there: calls that begin are counted, and run for as long as the test wants.
HOLDS = ECHO.replace("import os\n", "import os, time\n").replace(
    "    return {",
    """    held = inputs[0]["data"] == "hold" if inputs else False
    print("begun" if held else "quick", flush=True)
    while held and not os.path.exists("/tmp/go"):
        time.sleep(0.05)
    return {""",
)


def _submit(platform: Platform, app: str, text: str) -> str:
    inputs = [{"name": "text", "datatype": "str", "data": text}]
    accepted = platform.predict(app, inputs, headers=ASYNC)
    assert accepted.status == 202, accepted
    return str(accepted.json["links"]["self"])


def _state(platform: Platform, place: str) -> str:
    return str(platform.get(place).json["state"])


def _ended(platform: Platform, place: str) -> Any:
    """Ask until the call is over: the web process may be restarting."""

    def ask() -> Any:
        try:
            return platform.get(f"{place}?wait=5").json
        except OSError:
            return {"state": "QUEUED"}

    return wait_for(ask, lambda found: found["state"] not in ("QUEUED", "RUNNING", "CANCELING"), 60)


def _let_go(platform: Platform, container: str) -> None:
    made = platform.docker.exec_create(container, ["touch", "/tmp/go"])
    platform.docker.exec_start(made["Id"])


def _version(platform: Platform, place: str) -> str:
    return str(platform.get(f"{place}/result").json["outputs"][0]["data"])


def test_calls_outlive_a_rollout_the_daemon_and_the_web_process(
    platform: Platform, module: Module, app: str
) -> None:
    """One runs and three wait. The one that runs is finished by the old version, without a daemon; the waiting ones are
    made by the new version. Then the workers are killed: what ran is lost, as it may have run, what waited is not."""
    service = {"concurrency": 2, "asyncTimeout": "5m"}  # one slot is for callers who wait
    rollout = {"drainTimeout": "2m"}
    first = module.served(HOLDS, mlService=service, rollout=rollout).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    (old,) = platform.containers(app)

    held = _submit(platform, app, "hold")
    platform.until(lambda: _state(platform, held) == "RUNNING")
    waiting = [_submit(platform, app, "quick") for _ in range(3)]
    module.served(HOLDS, version="2", mlService=service, rollout=rollout).push()
    platform.poke(app)
    platform.until(lambda: platform.predict(app).json["outputs"][0]["data"] == "2")
    platform.kill("daemon")
    assert _state(platform, held) == "RUNNING"
    _let_go(platform, old["Id"])
    for place in (held, *waiting):
        assert _ended(platform, place)["state"] == "SUCCEEDED"
        assert _version(platform, place) == ("1" if place == held else "2")
    platform.start_process("daemon")
    platform.until(lambda: [c["Id"] for c in platform.containers(app)] not in ([], [old["Id"]]))
    platform.until(lambda: len(platform.containers(app)) == 1)

    (new,) = platform.containers(app)
    lost = _submit(platform, app, "hold")
    platform.until(lambda: _state(platform, lost) == "RUNNING")
    waiting = [_submit(platform, app, "quick") for _ in range(3)]
    for pid in platform.children("web"):
        platform.kill_child("web", pid)
    _let_go(platform, new["Id"])
    found = _ended(platform, lost)
    assert (found["state"], found["reason"]) == ("ERROR", "WorkerLost")
    assert {_ended(platform, place)["state"] for place in waiting} == {"SUCCEEDED"}
    log = platform.docker.logs(new["Id"]).decode()
    assert log.count("begun") == 1
