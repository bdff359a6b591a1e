"""A model from a box: brought to the container, followed or pinned, replaced by hand or by a run without losing a
call."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from tests.support.engines import BASE_IMAGE
from tests.support.platform import JSON, Callers, Module, Platform, Reply
from tests.support.waiting import wait_for

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
    platform.until(lambda: platform.condition(app, "Ready").get("reason") == "AwaitingModel")
    return pushed


def upload(platform: Platform, app: str, content: str) -> None:
    reply = platform.put_file(app, "weights/words/model.txt", content.encode(), "&area=developer", ANN)
    assert reply.status == 200, reply


def answer(platform: Platform, app: str) -> object:
    return version_of(platform.predict(app))


def version_of(reply: Reply) -> object:
    assert reply.status == 200, reply.body
    return reply.json["outputs"][0]["data"]


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
    # Where a container was lost, a worker of the gateway may refuse calls until it has the new route, too.
    healed = wait_for(lambda: platform.predict(app), lambda reply: reply.status == 200)
    assert version_of(healed) == "one"  # healing takes no other model

    platform.prichal("reconcile", app, "--wait")
    assert answer(platform, app) == "two"
    assert not platform.condition(app, "Warning")


# --- trained by a pipeline --------------------------------------------------------------------------------------

TRAIN = """
import json, os
with open(os.environ["UNIP_PIPELINE_VERSION"]) as given:
    version = json.load(given)
for name in ("model.txt", version):
    with open(os.environ["UNIP_PIPELINE_MODEL"] + "/" + name, "w") as made:
        made.write(version)
"""
JUDGE = """
import os, sys
with open(os.environ["UNIP_PIPELINE_MODEL"] + "/model.txt") as model:
    sys.exit("bad" in model.read())
"""
READS_A_FOLDER = READS_ITS_MODEL.replace(
    "return Path(path).read_text()",
    """found = {file.name: file.read_text() for file in Path(path).iterdir()}
    version = found["model.txt"]
    assert found == {"model.txt": version, version: version}, found
    return version""",
)


def declare_training(module: Module) -> str:
    """A pipeline whose first stage makes a model of two files, which the second one judges."""
    image, memory = {"existingImageName": BASE_IMAGE}, {"cpus": 0.5, "memory": "128Mi"}
    service = {"loader": "app:load", "modelBox": "weights", "modelPath": "words/", "followModel": True}
    module.served(READS_A_FOLDER, mlService=service).box("weights")
    train = {"name": "train", "command": ["python3", "-c", TRAIN], "inputs": [{"name": "version"}]}
    judge = {"name": "judge", "command": ["python3", "-c", JUDGE], "inputs": [{"name": "model"}]}
    module.pipeline(
        vars=[{"name": "version"}, {"name": "model", "publishTo": {"box": "weights", "path": "words/"}}],
        stages=[
            {**train, "image": image, "resources": memory, "outputs": [{"name": "model"}]},
            {**judge, "image": image, "resources": memory},
        ],
    )
    module.runs_api(apiSpec={"inputs": [{"name": "version", "type": {"datatypes": ["str"]}}]})
    return module.push()


def train(platform: Platform, app: str, version: str) -> Reply:
    body = json.dumps({"inputs": {"version": version}}).encode()
    return platform.request("POST", f"/{app}/train/runs", body, {**JSON, "Prefer": "wait=60"})


def test_a_model_that_a_run_publishes_is_followed_and_no_call_is_lost(
    platform: Platform, module: Module, app: str
) -> None:
    revision = declare_training(module)
    platform.connect(module, app)
    platform.until(lambda: platform.condition(app, "Ready").get("reason") == "AwaitingModel")
    first = train(platform, app, "one").json
    assert first["state"] == "SUCCEEDED", first
    place = {"name": "model", "data": "words/", "box": "weights", "area": "developer"}
    assert first["outputs"] == [place]
    platform.until_ready(app, revision)
    with Callers(platform, app, 4) as callers:
        platform.until(lambda: callers.answered("one") > 20)
        failed = train(platform, app, "bad").json
        assert (failed["state"], failed["reason"]) == ("FAILED", "ExitCode")
        assert train(platform, app, "two").json["state"] == "SUCCEEDED"
        platform.until(lambda: callers.answered("two") > 20)
    assert callers.failures == []
    assert set(callers.versions) == {"one", "two"}, "what is no good was never served"
