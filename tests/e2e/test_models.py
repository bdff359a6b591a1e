"""A model from a box: brought to the container, followed or pinned, and replaced without losing a call."""

from __future__ import annotations

from base64 import b64encode

import pytest

from tests.support.platform import Callers, Module, Platform

READS_ITS_MODEL = '''
import os
from pathlib import Path


def load(path):
    assert path == os.environ["UNIP_MODEL_PATH"]
    return Path(path).read_text()


def predict(inputs, model):
    """Tell what the model holds.

    :param inputs.text: anything
    :type inputs.text: str, optional
    :param outputs.version: what the model holds
    :type outputs.version: str
    """
    return {"version": model}
'''
ANN = {"Authorization": "Basic " + b64encode(b"ann:a-password").decode()}


@pytest.fixture
def follows() -> bool:
    return False


@pytest.fixture
def commit(platform: Platform, module: Module, app: str, follows: bool) -> str:
    """A component whose model is not in its box yet."""
    service = {
        "loader": "app:load",
        "modelBox": "weights",
        "modelPath": "words/model.txt",
        "followModel": follows,
    }
    module.served(READS_ITS_MODEL, mlService=service).box("weights")
    pushed = module.files_api(("ann",), auth={"basic": {"credentials": "users"}}).push()
    platform.connect(module, app, secrets={"users": {"ann": "a-password"}})
    platform.until(lambda: platform.condition(app, "Stalled").get("reason") == "ModelMissing")
    return pushed


def upload(platform: Platform, app: str, content: str) -> None:
    reply = platform.put_file(app, "weights/words/model.txt", content.encode(), "&area=developer", ANN)
    assert reply.status == 200, reply


def answer(platform: Platform, app: str) -> object:
    return platform.predict(app).json["outputs"][0]["data"]


@pytest.mark.parametrize("follows", [True])
def test_a_replaced_model_is_followed_and_no_call_is_lost(platform: Platform, app: str, commit: str) -> None:
    upload(platform, app, "one")
    platform.until_ready(app, commit)
    with Callers(platform, app, 4) as callers:
        platform.until(lambda: callers.answered("one") > 20)
        upload(platform, app, "two")
        platform.until(lambda: callers.answered("two") > 20)
    assert callers.failures == []
    platform.until(lambda: len(platform.containers(app)) == 1)


def test_a_newer_model_is_told_and_taken_when_a_person_asks(
    platform: Platform, app: str, commit: str
) -> None:
    upload(platform, app, "one")
    platform.until_ready(app, commit)
    upload(platform, app, "two")
    platform.until(lambda: "prichal reconcile" in platform.condition(app, "Warning").get("message", ""))
    assert answer(platform, app) == "one"

    (container,) = platform.containers(app)
    platform.docker.remove_container(container["Id"], force=True)
    platform.until(lambda: platform.predict(app).status == 200)
    assert answer(platform, app) == "one"  # healing takes no other model

    platform.prichal("reconcile", app, "--wait")
    assert answer(platform, app) == "two"
    assert not platform.condition(app, "Warning")
