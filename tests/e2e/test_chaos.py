"""Everything at once, in an order that a seed decides; at the end all is as declared and nothing is left over.

`make chaos` runs it for some minutes, `make test` for some seconds. The seed is printed, and `make chaos CHAOS_SEED=…`
does the same acts in the same order; when each of them meets the platform differs a little.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.support.chaos import Caller, Chaos
from tests.support.platform import Platform

SECONDS = float(os.environ.get("CHAOS_SECONDS") or 15)
SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))
SETTINGS: dict[str, object] = {
    "docker": {"keepUnfinished": "3s"},
    "reconcile": {"driftInterval": "2s", "backoffInitial": "200ms", "backoffMax": "2s", "crashLimit": 1000},
}


@pytest.mark.timeout(SECONDS + 900)
def test_the_platform_ends_as_declared_whatever_happens(tmp_path: Path) -> None:
    print(f"chaos: CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:.0f}", flush=True)
    platform = Platform(tmp_path / "platform", **SETTINGS)
    try:
        platform.start()
        chaos = Chaos(platform, SEED)
        chaos.begin()
        with (
            Caller(platform, "steady", chaos.excused) as steady,
            Caller(platform, "rough", chaos.excused) as rough,
        ):
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                chaos.act()
                time.sleep(chaos.random.random())
            versions = chaos.calm()
            platform.until(lambda: steady.version == versions["steady"])
            platform.until(lambda: rough.version == versions["rough"])
            rough.lost.clear()
            answered = rough.answered
            platform.until(lambda: rough.answered > answered + 20)
        print(
            f"chaos: {steady.answered} + {rough.answered} calls answered, {len(chaos.runs)} runs", flush=True
        )
        assert steady.lost == [], "calls that were promised not to be lost"
        assert rough.lost == [], "calls after all has calmed down"
        _runs_ended_once(platform, chaos)
        nothing_left(
            platform, chaos, ("steady", "rough"), kept_images=6
        )  # of each the newest two, and that in use
        for app in ("steady", "rough"):
            platform.disconnect(app)
        platform.prichal("approve", "@platform")  # everything at once is asked for
        nothing_left(platform, chaos, (), kept_images=0)
    finally:
        platform.stop()


def _runs_ended_once(platform: Platform, chaos: Chaos) -> None:
    assert len(set(chaos.runs)) == len(chaos.runs)
    for id in chaos.runs:
        run = platform.get(f"/steady/train/runs/{id}?wait=60").json
        assert run["state"] == "SUCCEEDED", run
        assert [len(stage["attempts"]) for stage in run["stages"]] == [1], f"it ran twice: {run}"
    listed = platform.get("/steady/train/runs?limit=100").json["runs"]
    assert {run["id"] for run in listed} == set(chaos.runs)


def nothing_left(platform: Platform, chaos: Chaos, apps: tuple[str, ...], kept_images: int) -> None:
    try:
        platform.until(lambda: not chaos.leftovers(apps, kept_images))
    except AssertionError:
        left = "\n".join(chaos.leftovers(apps, kept_images))
        acts = "\n".join(chaos.acts)
        pytest.fail(f"CHAOS_SEED={SEED}: left over beside {apps}:\n{left}\nafter:\n{acts}")
