"""The daemon killed or stopped at every step of a rollout, and started again: it converges, nothing is left over."""

from __future__ import annotations

import signal

import pytest

from tests.support.platform import ECHO, Callers, Module, Platform

#: Each is an event that tells that the step has just been taken.
STEPS = ["NewRevision", "Building", "Started", "BecameReady", "Switched", "Removed"]
SLOW_START = "import time\ntime.sleep(1)\n" + ECHO


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_rollout_survives_the_daemons_end(
    own_platform: Platform, own_module: Module, app: str, step: str, number: int
) -> None:
    platform, module = own_platform, own_module
    first = module.served(ECHO).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    last = platform.events(app)[-1]["id"]

    with Callers(platform, app, 2) as callers:
        second = module.served(SLOW_START, version="2").push()
        platform.poke(app)
        platform.until(lambda: step in {e["reason"] for e in platform.events(app) if e["id"] > last})
        platform.kill("daemon", number)
        platform.until(lambda: callers.versions)  # what serves goes on serving without the daemon
        platform.start_process("daemon")
        platform.until_ready(app, second)
    assert callers.failures == []
    assert platform.predict(app).json["outputs"][0]["data"] == "2"
    platform.until(lambda: len(platform.containers(app)) == 1)
    assert len(platform.docker.networks(names=[f"{platform.instance}.{app}"])) == 1


def test_second_daemon_on_the_same_state_refuses_to_start(platform: Platform) -> None:
    done = platform.prichal("daemon", check=False)
    assert done.returncode != 0
    assert "already works on" in done.stderr
    assert platform.get("/-/readyz").status == 200


def test_web_process_killed_and_started_again_serves_at_once(
    own_platform: Platform, own_module: Module, app: str
) -> None:
    platform = own_platform
    first = own_module.served(ECHO).push()
    platform.connect(own_module, app)
    platform.until_ready(app, first)
    platform.kill("web", signal.SIGTERM)
    platform.start_process("web")
    platform.until(lambda: platform.predict(app).status == 200)
