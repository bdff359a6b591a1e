"""The example `digits` as its page tells it: a model is trained, published, served and replaced; no call is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT, Block, blocks
from tests.support.platform import Callers, Platform
from tests.support.shell import run

APP = "demo-digits"
EXAMPLE = ROOT / "examples" / "digits"
CONNECT, TRAIN, CALL, TRAIN_BADLY, TRAIN_AGAIN = blocks(EXAMPLE / "README.md", "sh")
HERE = "http://127.0.0.1:8000"
SEVEN = json.loads((EXAMPLE / "seven.json").read_text())["inputs"]


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    """Made here where it is missing, since no other test needs it."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([ROOT / "scripts" / "example-image", "sklearn"], check=True, timeout=300, env=environment)


def test_a_model_is_trained_served_and_replaced_as_the_page_tells(platform: Platform, tmp_path: Path) -> None:
    here = f"http://127.0.0.1:{platform.port}"

    def typed(shown: Block) -> str:
        replaced = {HERE: here} if HERE in shown.text else {}
        environment = {"PRICHAL_CONFIG": str(platform.config), "PRICHAL_SERVER": here}
        return run((shown,), tmp_path, replaced, **environment).outputs[0]

    connected = typed(CONNECT)
    assert f"{APP}: NotReady" in connected
    assert "AwaitingModel" in connected
    assert "prichal run start demo-digits/training" in connected

    trained = typed(TRAIN)
    assert "of 450 images read right" in trained  # the log
    assert '"accuracy": 0.9' in trained  # the report
    platform.until(lambda: platform.condition(APP, "Ready").get("status"))  # nobody has asked for it
    answer = {output["name"]: output["data"] for output in json.loads(typed(CALL))["outputs"]}
    assert (answer["digit"], answer["model"]) == ([7], "64 neurons, 30 epochs")

    failed = typed(TRAIN_BADLY)
    assert "not good enough" in failed
    assert "not published" in failed

    with Callers(platform, APP, 1, SEVEN, path="digits") as callers:
        platform.until(lambda: callers.answered("64 neurons, 30 epochs") > 20)
        assert typed(TRAIN_AGAIN).count("SUCCEEDED") >= 2
        platform.until(lambda: callers.answered("32 neurons, 60 epochs") > 20)
    assert callers.failures == []
    assert len(set(callers.versions)) == 2
