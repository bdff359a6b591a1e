"""The daemon killed or stopped at every step of a rollout, and started again: it converges, nothing is left over."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.support.platform import ECHO, Callers, Module, Platform

#: Each is an event that tells that the step has just been taken; the daemon ends right after it.
STEPS = ["NewRevision", "Building", "Started", "BecameReady", "Switched", "Removed"]
ENDS = [
    *((step, signal.SIGKILL) for step in STEPS),
    ("Building", signal.SIGTERM),
    ("Started", signal.SIGTERM),
]
SLOW_START = "import time\ntime.sleep(1)\n" + ECHO


@pytest.fixture
def running(platform: Platform) -> Iterator[Platform]:
    """The shared platform, with its daemon up again afterwards whatever the test did."""
    yield platform
    if not platform.is_alive("daemon"):
        platform.start_process("daemon")


@pytest.mark.parametrize(("step", "number"), ENDS, ids=[f"{s}-{n.name}" for s, n in ENDS])
def test_rollout_survives_the_daemons_end(
    running: Platform, module: Module, app: str, step: str, number: signal.Signals
) -> None:
    first = module.served(ECHO).push()
    running.connect(module, app)
    running.until_ready(app, first)
    last = running.events(app)[-1]["id"]

    with Callers(running, app, 1) as callers:
        second = module.served(SLOW_START, version="2").push()
        running.poke(app)
        running.until(lambda: step in {e["reason"] for e in running.events(app) if e["id"] > last})
        running.kill("daemon", number)
        before = len(callers.versions)
        running.until(lambda: len(callers.versions) > before)  # what serves goes on without the daemon
        running.start_process("daemon")
        running.until_ready(app, second)
    assert callers.failures == []
    assert running.predict(app).json["outputs"][0]["data"] == "2"
    running.until(lambda: len(running.containers(app)) == 1)
    assert len(running.docker.networks(names=[f"{running.instance}.{app}"])) == 1


def test_second_daemon_on_the_same_state_refuses_to_start(running: Platform) -> None:
    running.until(lambda: running.get("/-/readyz").status == 200)
    done = running.prichal("daemon", check=False)
    assert done.returncode != 0
    assert "already uses the state folder" in done.stderr
    assert running.is_alive("daemon")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_web_process_ended_and_started_again_serves_at_once(
    running: Platform, module: Module, app: str, number: signal.Signals
) -> None:
    """A killed one, too, leaves the port to its successor."""
    first = module.served(ECHO).push()
    running.connect(module, app)
    running.until_ready(app, first)
    running.kill("web", number)
    running.start_process("web")
    running.until(lambda: running.predict(app).status == 200)
