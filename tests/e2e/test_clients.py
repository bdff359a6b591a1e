"""Clients of other projects call the platform as they come: generated from its descriptions, those of the Open
Inference Protocol, and readers of event streams. Each runs in an environment of its own, see tests/clients.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import BASE_IMAGE, unique
from tests.support.platform import Module, Platform

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests" / "clients"
TOKEN = "sk-correct-horse-battery"
USER = {"ann": "correct-horse"}
AUTHORIZATION = "Basic " + base64.b64encode(b"ann:correct-horse").decode()

pytestmark = pytest.mark.timeout(900)  # the environments are made by the first test

SOURCE = '''
def predict(inputs):
    """Echo.

    :param inputs.text: what to say
    :type inputs.text: str
    :param inputs.numbers: what to add
    :type inputs.numbers: FP32
    :param outputs.said: the text
    :type outputs.said: str
    :param outputs.sum: the sum
    :type outputs.sum: FP32
    """
    given = {item["name"]: item["data"] for item in inputs}
    return {"said": given["text"], "sum": float(sum(given["numbers"]))}
'''
ARRAYS = '''
import numpy as np


def predict(inputs):
    """Give arrays back.

    :param inputs.image: numbers of 32 bits
    :type inputs.image: FP32
    :param inputs.ids: large whole numbers
    :type inputs.ids: INT64, optional
    :param inputs.words: texts
    :type inputs.words: str, optional
    :param outputs.image: the same
    :type outputs.image: FP32
    :param outputs.ids: the same
    :type outputs.ids: INT64, optional
    :param outputs.half: half of the image
    :type outputs.half: FP16
    :param outputs.mask: where the image is above zero
    :type outputs.mask: BOOL
    :param outputs.words: the same
    :type outputs.words: str, optional
    """
    given = {item["name"]: item for item in inputs}
    image = np.array(given["image"]["data"], np.float32).reshape(given["image"]["shape"])
    ids = np.array(given["ids"]["data"]) if "ids" in given else None
    words = given["words"]["data"] if "words" in given else None
    return {"image": image, "ids": ids, "half": (image / 2).astype(np.float16), "mask": image > 0, "words": words}
'''
WORDS = '''
import threading

go = threading.Event()


def predict(inputs):
    """Say words, the second one after another call has come.

    :param inputs.text: what to say
    :type inputs.text: str
    :param outputs.word: a word
    :type outputs.word: str
    """
    first, *rest = inputs[0]["data"].split()
    yield {"word": first}
    if rest:
        go.wait()
    else:
        go.set()
    for word in rest:
        yield {"word": word}
'''
CHAT = '''
import threading, time

go = threading.Event()


def predict(inputs):
    """Say the last message word by word, the second word of "wait ..." after another chat has come.

    :param inputs.messages: what was said
    :type inputs.messages: dict
    :param outputs.content: a word
    :type outputs.content: str
    :param outputs.prompt_tokens: how many words were said
    :type outputs.prompt_tokens: INT32, optional
    """
    messages = inputs[0]["data"]
    words = messages[-1]["content"].split()
    if words == ["go"]:
        go.set()
    yield {"content": words[0] + " ", "prompt_tokens": 3} if words[0] != "fail" else {"content": 7}
    if words[0] == "wait":
        go.wait()
    for word in words[1:]:
        if word == "fail":
            raise ValueError("too bad")
        yield {"content": word + " "}
    while words == ["for", "ever"]:
        yield {"content": "x"}
        time.sleep(0.01)
'''
STAGE = """
import os
rounds = open(os.environ["UNIP_PIPELINE_ROUNDS"]).read()
table = open(os.environ["UNIP_PIPELINE_TABLE"]).read()
print(table, "x", rounds)
open(os.environ["UNIP_PIPELINE_REPORT"] + "/report.txt", "w").write(table)
"""


def environment(name: str, requirements: Path) -> Path:
    """The folder of the programs of a virtual environment below build/."""
    folder = ROOT / "build" / name
    subprocess.run([ROOT / "scripts" / "python-env", folder, requirements], check=True)
    return folder / "bin"


@pytest.fixture(scope="module")
def clients() -> Path:
    return environment("clients", CLIENTS / "requirements.txt")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an app that has one API of every kind, each for the user ann."""
    platform = Platform(tmp_path_factory.mktemp("platform"))
    app = unique("pu-e2e-pa")
    try:
        platform.start()
        module = Module(platform.home / app)
        auth: dict[str, Any] = {"auth": {"basic": {"credentials": "users"}}}
        module.served(SOURCE).write("arrays.py", ARRAYS).write("words.py", WORDS).write("chat.py", CHAT)
        module.write(
            "Dockerfile", f"FROM {BASE_IMAGE}\nWORKDIR /srv\nCOPY app.py arrays.py words.py chat.py ./\n"
        )
        small = {"cpus": 0.5, "memory": "128Mi"}
        arrays = {"image": {"build": {"context": "."}}, "mlService": {"inference": "arrays:predict"}}
        module.component("arrays", **arrays, resources=small).api("arrays", "arrays", restfulApi=auth)
        words = {"image": {"build": {"context": "."}}, "mlService": {"inference": "words:predict"}}
        module.component("words", **words, resources=small).api("words", "words", restfulApi=auth)
        chat = {"inference": "chat:predict", "openai": "chat", "concurrency": 2, "queue": 1}
        module.component("chat", image={"build": {"context": "."}}, mlService=chat, resources=small)
        module.api("chat", "chat", restfulApi={"auth": {"token": {"credentials": "tokens"}}})
        module.api(path="echo", restfulApi=auth).box("data").files_api(**auth)
        stage = {
            "name": "fit",
            "image": {"existingImageName": BASE_IMAGE},
            "command": ["python3", "-c", STAGE],
            "inputs": [{"name": "table"}, {"name": "rounds"}],
            "outputs": [{"name": "report"}],
            "resources": {"memory": "64Mi"},
        }
        variables = [{"name": name} for name in ("table", "rounds", "report")]
        module.pipeline(stages=[stage], vars=variables, connectedBoxes=[{"name": "data", "default": True}])
        module.runs_api(
            restfulApi=auth,
            apiSpec={
                "inputs": [
                    {"name": "table", "type": {"datatypes": ["FILE"]}},
                    {"name": "rounds", "type": {"datatypes": ["INT32"]}, "required": False},
                ],
                "outputs": [{"name": "report"}],
            },
        )
        count = {
            **stage,
            "command": ["python3", "-c", "print(*'1234', sep='\\n')"],
            "inputs": [],
            "outputs": [],
        }
        module.pipeline("count", stages=[count])
        module.runs_api("count", "count", restfulApi=auth, apiSpec={"inputs": [], "outputs": []})
        module.pipelines_api(**auth)
        revision = module.push()
        platform.connect(module, app, secrets={"users": USER, "tokens": {"robot": TOKEN}})
        platform.until_ready(app, revision)
        yield f"http://127.0.0.1:{platform.port}/{app}"
    finally:
        platform.stop()


def call(python: Path, script: str, *arguments: str | Path) -> str:
    """The output of one of our scripts that uses these clients."""
    done = subprocess.run(
        [python / "python", CLIENTS / script, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_generated_clients_call_every_api(base: str, clients: Path, tmp_path: Path) -> None:
    for name in ("echo", "files", "train", "pipelines"):
        description = tmp_path / f"{name}.json"
        request = ["curl", "-fsS", "-H", f"Authorization: {AUTHORIZATION}", f"{base}/{name}/openapi.json"]
        description.write_bytes(subprocess.run(request, check=True, capture_output=True).stdout)
        generate: list[str | Path] = [
            "generate",
            "--path",
            description,
            "--output-path",
            tmp_path / name,
            "--meta",
            "none",
        ]
        command: list[str | Path] = [
            clients / "openapi-python-client",
            *generate,
            "--meta",
            "none",
            "--fail-on-warning",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env={"PATH": f"{clients}:/usr/bin:/bin"}
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert call(clients, "generated.py", base, tmp_path, AUTHORIZATION).count("as described") == 4


def test_clients_of_the_open_inference_protocol(base: str, clients: Path) -> None:
    address = f"{base}/echo".removeprefix("http://")
    assert call(clients, "open_inference.py", address, "model", AUTHORIZATION) == "as the protocol says\n"


def test_clients_send_tensors_as_bytes_to_a_component_with_numpy(base: str, clients: Path) -> None:
    address = f"{base}/arrays".removeprefix("http://")
    assert call(clients, "binary_tensors.py", address, "arrays", AUTHORIZATION) == "as the protocol says\n"


@pytest.mark.parametrize("form", [[], ["--binary-data"]])
def test_the_client_of_mlserver(base: str, form: list[str], tmp_path: Path) -> None:
    """`mlserver infer` sends a file of requests and writes the replies to another one."""
    peers = environment("peers", ROOT / "benchmarks" / "requirements-peers.txt")
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a cat"]}
    requests = [
        {"inputs": [text, {"name": "numbers", "datatype": "FP32", "shape": [2], "data": [number, 1]}]}
        for number in range(3)
    ]
    (tmp_path / "in.json").write_text("".join(json.dumps(request) + "\n" for request in requests))
    address = f"{base}/echo".removeprefix("http://")
    files: list[str | Path] = ["-i", tmp_path / "in.json", "-o", tmp_path / "out.json"]
    more = ["-t", "rest", "-H", f"Authorization: {AUTHORIZATION}", *form]
    command: list[str | Path] = [peers / "mlserver", "infer", "-u", address, "-m", "model", *files, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    replies = [json.loads(line) for line in (tmp_path / "out.json").read_text().splitlines()]
    sums = sorted(
        output["data"] for reply in replies for output in reply["outputs"] if output["name"] == "sum"
    )
    assert sums == [[1.0], [2.0], [3.0]], replies


def test_a_reader_of_event_streams_gets_what_a_function_yields(base: str, clients: Path) -> None:
    said = call(clients, "yielded_events.py", f"{base}/words/predict", AUTHORIZATION)
    assert said == "to be or: all of them at once\n"


def test_the_client_of_openai(base: str) -> None:
    python = environment("openai-client", CLIENTS / "openai_chat.txt")
    assert call(python, "openai_chat.py", f"{base}/chat", TOKEN) == "to be or not : as the client expects\n"


def test_a_reader_of_event_streams_follows_a_run(base: str, clients: Path) -> None:
    states, log = call(clients, "event_streams.py", f"{base}/count", AUTHORIZATION).splitlines()
    assert states.split()[-1] == "SUCCEEDED"
    assert log == "1 2 3 4"
