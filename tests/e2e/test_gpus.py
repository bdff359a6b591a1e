"""GPUs from the driver to the function. The driver's library is a stand-in, and so is the hook of NVIDIA's runtime,
which an engine of the test's own finds; that engine makes the containers, and tells them which GPUs they have."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_waiting import inside
from tests.support.engines import BASE_IMAGE, build_image
from tests.support.nvml import StandInDriver, StandInGpu, has_compiler
from tests.support.own_engine import available, own_engine
from tests.support.platform import ECHO, Module, Platform

CARDS = ("GPU-0000aaaa", "GPU-0000bbbb")
IMAGE = "test.local/gpus:1"
SEES = ECHO.replace(
    'os.environ["VERSION"]', 'os.environ["VERSION"] + " " + os.environ["NVIDIA_VISIBLE_DEVICES"]'
)

pytestmark = [
    pytest.mark.timeout(900),  # an engine is started, and five containers one after another
    pytest.mark.skipif(not available(), reason="needs root for an engine of its own"),
    pytest.mark.skipif(not has_compiler(), reason="needs a C compiler for the stand-in"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInDriver:
    """Both stand-ins, where the engine and the platform's processes find them."""
    made = StandInDriver(tmp_path)
    made.says(*(StandInGpu(id) for id in CARDS))
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    hook = tmp_path / "bin" / "nvidia-container-runtime-hook"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    monkeypatch.setenv("PATH", f"{hook.parent}:{os.environ['PATH']}")
    return made


@pytest.fixture
def platform(tmp_path: Path, driver: StandInDriver) -> Iterator[Platform]:
    with own_engine() as engine, inside(engine.network), closing(engine.client()) as client:
        engine.load(BASE_IMAGE)
        files = {"Dockerfile": f"FROM {BASE_IMAGE}\nCOPY app.py .\n", "app.py": SEES}
        build_image(client, IMAGE, files)
        running = Platform(tmp_path / "home", docker={"host": engine.host}, runs={"gpus": list(CARDS)})
        running.docker.close()
        running.docker = client
        try:
            yield running.start()
        finally:
            running.stop()


def _push(module: Module, version: str, **spec: object) -> str:
    env = [{"name": "VERSION", "value": version}]
    resources = {"cpus": 0.5, "memory": "128Mi", "gpus": 1}
    service = {"inference": "app:predict"}
    image = {"existingImageName": IMAGE}
    module.component("model", image=image, env=env, mlService=service, resources=resources, **spec)
    return module.api().push()


def _deployed(platform: Platform, app: str, **spec: object) -> Module:
    module = Module(platform.home / app)
    _push(module, "1", **spec)
    platform.connect(module, app)
    return module


def _seen(platform: Platform, app: str) -> list[str]:
    """The version that answers, and the GPU that its container has."""
    return str(platform.predict(app).json["outputs"][0]["data"]).split()


def _holders(platform: Platform) -> dict[str, list[str]]:
    gpus: list[dict[str, Any]] = platform.get("/-/status").json["gpus"]
    return {gpu["id"]: sorted(holder["app"] for holder in gpu["holders"]) for gpu in gpus}


def test_gpus_are_lent_one_by_one_through_rollouts_and_the_end_of_the_daemon(platform: Platform) -> None:
    first = _deployed(platform, "first")
    platform.until(lambda: platform.predict("first").status == 200)
    card = _seen(platform, "first")[1]
    assert card in CARDS

    revision = _push(first, "2")  # the next version starts beside this one, and needs the other card
    platform.poke("first")
    platform.until_ready("first", revision)
    other = _seen(platform, "first")
    assert other == ["2", next(one for one in CARDS if one != card)]

    _deployed(platform, "second", rollout={"strategy": "Recreate"})
    platform.until(lambda: platform.predict("second").status == 200)
    assert _seen(platform, "second") == ["1", card]
    _deployed(platform, "third")
    platform.until(lambda: "WaitingForGpu" in json.dumps(platform.status("third")))
    assert not platform.containers("third")
    assert _holders(platform) == {card: ["second"], other[1]: ["first"]}

    platform.kill("daemon")
    platform.start_process("daemon")
    platform.poke("first")
    platform.until(lambda: _holders(platform) == {card: ["second"], other[1]: ["first"]})
    assert [_seen(platform, app)[1] for app in ("first", "second")] == [other[1], card]
    metrics = platform.get("/-/metrics").body.decode()
    assert f'prichal_gpu_memory_bytes{{device="{card}",gpu="{card}"}}' in metrics
    assert "NVIDIA-A100" in platform.prichal("doctor", check=False).stdout

    platform.disconnect("second")
    platform.until(lambda: platform.predict("third").status == 200)
    assert _seen(platform, "third") == ["1", card]
    platform.until(lambda: _holders(platform) == {card: ["third"], other[1]: ["first"]})
