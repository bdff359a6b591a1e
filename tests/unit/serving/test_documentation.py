"""What docs/reference/serving.md shows is so."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

from controller.serving import problems
from controller.serving.config import ServingSettings
from tests.unit.serving.conftest import Serve

PAGE = (pathlib.Path(__file__).parents[3] / "docs" / "reference" / "serving.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def block_with(*words: str) -> str:
    """The example in Python that has these words, wherever it stands."""
    (found,) = [block for block in blocks("python") if all(word in block for word in words)]
    return found


def test_the_example_answers_as_shown(serve: Serve) -> None:
    source, *_ = blocks("python")
    request, reply = map(json.loads, blocks("json"))
    assert serve(source).ready().post(request).json == reply


def test_the_example_that_yields_answers_as_shown(serve: Serve) -> None:
    _, source, *_ = blocks("python")
    shown = re.findall(r"^  data: (.*)$", PAGE, re.MULTILINE)
    (collected,) = re.findall(r"here `(.*?)`", PAGE)
    request = {"inputs": [{"name": "text", "datatype": "str", "data": "to be"}]}
    server = serve(source).ready()
    events = server.post(request, Accept="text/event-stream").body.decode()
    assert list(map(json.loads, re.findall("data: (.*)", events))) == list(map(json.loads, shown))
    assert server.post(request).json["outputs"] == [json.loads(collected)]


def test_the_example_with_arrays_answers(serve: Serve) -> None:
    source = block_with(":type inputs: arrays", "brightness")
    image = {"name": "image", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.0]}
    assert serve(source).ready().post({"inputs": [image]}).outputs == {"brightness": [0.75]}


def test_the_example_of_a_chat_answers(serve: Serve) -> None:
    server = serve(block_with("word by word", "messages"), openai="chat", component="chat").ready()
    request = {"model": "chat", "messages": [{"role": "user", "content": "to be or not"}], "max_tokens": 2}
    (choice,) = server.post(request, "/v1/chat/completions").json["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("to be ", "length")


def test_the_example_that_refuses_answers_as_shown(serve: Serve) -> None:
    server = serve(block_with("class NoDigits")).ready()
    (shown,) = [json.loads(block) for block in blocks("text") if "function-refused" in block]
    call = {"inputs": [{"name": "text", "datatype": "str", "data": "none"}]}
    refused = server.post(call, X_Request_ID=shown["instance"].rpartition(":")[2])
    assert (refused.status, refused.json) == (422, shown)
    call["inputs"][0]["data"] = "a1b7"
    assert server.post(call).outputs == {"digit": "7"}


def test_the_example_of_a_client_is_that_of_the_tests() -> None:
    client = pathlib.Path(__file__).parents[2] / "clients" / "openai_chat.py"
    assert block_with("client = OpenAI") in client.read_text()


def test_every_setting_is_described_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
    for field in dataclasses.fields(ServingSettings):
        if field.name in ("inference", "app", "component"):
            continue
        default = json.dumps(field.default).removesuffix(".0")
        assert rows[field.name].strip() == default, field.name


def test_every_kind_of_problem_is_described() -> None:
    kinds = [value for value in vars(problems).values() if isinstance(value, problems.ServingProblemKind)]
    assert len({kind.slug for kind in kinds}) == len(kinds)
    for kind in kinds:
        (row,) = re.findall(rf"^\| .*`{kind.slug}`.*$", PAGE, re.MULTILINE)
        assert str(kind.status) in row
