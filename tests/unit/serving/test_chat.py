"""Chat completions of OpenAI's API as values: what the function gets, what is refused, and what it says as chunks."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import Any

import pytest

from controller.manifests.hints import function_of
from controller.serving import docstring
from controller.serving.chat import ChatAnswer, ChatReader, unfit
from controller.serving.fault_texts import MAX_FAULTS
from controller.serving.hinted import describe
from controller.serving.problems import ServingProblem
from controller.serving.signature import Signature
from controller.serving.validate import compile_check

DOCSTRING = """Chat.

:param inputs.messages: what was said
:type inputs.messages: dict
:param inputs.temperature: how free it is
:type inputs.temperature: FP32, optional
:param inputs.max_tokens: how long it may be
:type inputs.max_tokens: INT32, optional
:param inputs.stop: where it ends
:type inputs.stop: str, optional
:param inputs.persona: who speaks
:type inputs.persona: dict or str, optional
:param outputs.content: what is answered
:type outputs.content: str
:param outputs.finish_reason: why it ends
:type outputs.finish_reason: str, optional
:param outputs.completion_tokens: how much it is
:type outputs.completion_tokens: INT32, optional
"""
HELLO = [{"role": "user", "content": "hello"}]


def signature(text: str = DOCSTRING) -> Signature:
    found = docstring.parse(text)
    assert isinstance(found, Signature), found
    return found


def read(**members: Any) -> Any:
    body = {"model": "net", "messages": HELLO, **members}
    shown = {name: value for name, value in body.items() if value is not ...}
    return ChatReader("net", signature(), compile_check(signature())).read(shown)


def given(**members: Any) -> dict[str, Any]:
    return {item["name"]: item for item in read(**members).call["inputs"]}


def test_messages_are_one_text_each() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": parts, "name": "ann"},
        {"role": "assistant", "content": None},
        {"role": "assistant"},
    ]
    assert given(messages=messages)["messages"] == {
        "name": "messages",
        "datatype": "dict",
        "shape": [4],
        "data": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "one\ntwo", "name": "ann"},
            {"role": "assistant", "content": ""},
            {"role": "assistant", "content": ""},
        ],
    }


@pytest.mark.parametrize(
    ("member", "value", "item"),
    [
        ("temperature", 0.5, {"name": "temperature", "datatype": "FP32", "data": 0.5}),
        ("temperature", 1, {"name": "temperature", "datatype": "FP32", "data": 1}),
        ("max_tokens", 7, {"name": "max_tokens", "datatype": "INT32", "data": 7}),
        ("max_completion_tokens", 7, {"name": "max_tokens", "datatype": "INT32", "data": 7}),
        ("stop", "end", {"name": "stop", "datatype": "str", "data": ["end"], "shape": [1]}),
        ("stop", ["a", "b"], {"name": "stop", "datatype": "str", "data": ["a", "b"], "shape": [2]}),
        ("persona", "cat", {"name": "persona", "datatype": "str", "data": "cat"}),
        ("persona", {"a": 1}, {"name": "persona", "datatype": "dict", "data": {"a": 1}}),
    ],
)
def test_members_with_the_name_of_an_input_are_that_input(
    member: str, value: Any, item: dict[str, Any]
) -> None:
    chat = read(**{member: value})
    assert chat.call["inputs"][1:] == [item]
    assert chat.call["parameters"] == []


def test_other_members_are_parameters_and_null_is_nothing() -> None:
    chat = read(
        top_p=0.9, seed=3, user="ann", temperature=None, tools=None, n=1, stream=False, tool_choice="none"
    )
    assert chat.call["parameters"] == [
        {"name": "top_p", "data": 0.9},
        {"name": "seed", "data": 3},
        {"name": "user", "data": "ann"},
        {"name": "tool_choice", "data": "none"},
    ]
    assert [item["name"] for item in chat.call["inputs"]] == ["messages"]
    assert not chat.stream
    assert read(stream=True, stream_options={"include_usage": True})[1:] == (True, True)


@pytest.mark.parametrize(
    ("members", "status", "param", "words"),
    [
        ({"messages": ...}, 400, "messages", "missing"),
        ({"messages": None}, 400, "messages", "missing"),
        ({"messages": []}, 400, "messages", "at least one"),
        ({"messages": "hello"}, 400, "messages", "must be an array"),
        ({"messages": ["hello"]}, 400, "messages[0]", "must be an object"),
        (
            {"messages": [*HELLO, {"role": "boss", "content": "a"}]},
            400,
            "messages[1].role",
            "must be one of system",
        ),
        ({"messages": [{"role": ["user"], "content": "a"}]}, 400, "messages[0].role", "must be one of"),
        ({"messages": [{"content": "a"}]}, 400, "messages[0].role", "must be one of"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content", "must be a string"),
        ({"messages": [{"role": "user", "content": 7}]}, 400, "messages[0].content", "must be a string"),
        ({"messages": [{"role": "user", "content": []}]}, 400, "messages[0].content", "must be a string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]},
            400,
            "messages[0].content[0]",
            "type text",
        ),
        ({"model": ...}, 400, "model", "missing"),
        ({"model": 7}, 400, "model", "must be a string"),
        ({"model": "gpt-4"}, 404, "model", "no model 'gpt-4'"),
        ({"n": 2}, 400, "n", "one choice"),
        ({"n": 0}, 400, "n", "an integer from 1"),
        ({"n": True}, 400, "n", "an integer from 1"),
        ({"stream": "yes"}, 400, "stream", "true or false"),
        ({"stream": 1}, 400, "stream", "true or false"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "stream is not true"),
        ({"stream": True, "stream_options": 7}, 400, "stream_options", "an object"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            400,
            "stream_options.include_usage",
            "true or",
        ),
        ({"temperature": 3}, 400, "temperature", "within 0..2"),
        ({"temperature": "hot"}, 400, "temperature", "must be a number"),
        ({"temperature": True}, 400, "temperature", "must be a number"),
        ({"top_p": -0.1}, 400, "top_p", "within 0..1"),
        ({"max_tokens": 0}, 400, "max_tokens", "from 1"),
        ({"max_tokens": 2**40}, 400, "max_tokens", "within"),
        ({"max_completion_tokens": 1.5}, 400, "max_completion_tokens", "an integer"),
        ({"stop": []}, 400, "stop", "one to four"),
        ({"stop": ["a", 7]}, 400, "stop", "one to four"),
        ({"persona": 7}, 400, "persona", "must be"),
        ({"persona": ["a", {}]}, 400, "persona[1]", "must be a string"),
        ({"tools": [{"type": "function"}]}, 400, "tools", "does not support"),
        ({"functions": [{}]}, 400, "functions", "does not support"),
        ({"tool_choice": "required"}, 400, "tool_choice", "does not support"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", "does not support"),
        ({"logprobs": True}, 400, "logprobs", "does not support"),
        ({"modalities": ["text", "audio"]}, 400, "modalities", "does not support"),
        ({"audio": {}}, 400, "audio", "does not support"),
    ],
)
def test_what_is_wrong_is_said_as_openai_says_it(
    members: dict[str, Any], status: int, param: str, words: str
) -> None:
    with pytest.raises(ServingProblem) as caught:
        read(**members)
    assert caught.value.kind.status == status
    document = json.loads(caught.value.body("r-1", "/v1/chat/completions"))
    assert document["status"] == status
    error = document["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param), error
    assert words in error["message"]
    assert error["code"] == document["type"].rpartition(":")[2].replace("-", "_")


def test_a_body_that_is_no_object_and_many_faults_are_told_within_bounds() -> None:
    reader = ChatReader("net", signature(), compile_check(signature()))
    with pytest.raises(ServingProblem, match="must be an object, not an array"):
        reader.read([])
    with pytest.raises(ServingProblem) as caught:
        read(messages=[{}] * 5000)
    assert len(caught.value.faults) == 100


def test_no_more_faults_are_made_than_are_told() -> None:
    looked = 0

    class Messages(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            nonlocal looked
            for message in super().__iter__():
                looked += 1
                yield message

    with pytest.raises(ServingProblem):
        read(messages=Messages([0] * 100_000))
    assert looked <= MAX_FAULTS + 1


def test_what_a_function_declares_is_not_refused() -> None:
    text = DOCSTRING.replace("persona", "response_format")
    reader = ChatReader("net", signature(text), compile_check(signature(text)))
    body = {"model": "net", "messages": HELLO, "response_format": {"type": "json_object"}}
    assert reader.read(body).call["inputs"][1]["data"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("inputs.messages", "inputs.said", "no inputs.messages of type dict"),
        ("inputs.messages: dict", "inputs.messages: str", "inputs.messages must be of type dict"),
        ("outputs.content", "outputs.text", "no outputs.content of type str"),
        ("outputs.content: str", "outputs.content: str or dict", "outputs.content must be of type str"),
        ('tokens: INT32, optional\n"', "", ""),
        ("outputs.completion_tokens: INT32", "outputs.completion_tokens: str", "must be of type INT32"),
        ("inputs.persona: dict or str, optional", "inputs.persona: FILE", "inputs.persona is a FILE"),
    ],
)
def test_a_function_that_cannot_answer_chats(old: str, new: str, words: str) -> None:
    found = unfit(signature(DOCSTRING.replace(old, new)))
    assert words in "; ".join(found)
    assert bool(found) == bool(words)


def outputs(**values: Any) -> dict[str, Any]:
    return {"outputs": [{"name": name, "data": data} for name, data in values.items()]}


def chunks(pieces: list[bytes]) -> list[dict[str, Any]]:
    texts = b"".join(pieces).decode().split("\n\n")
    assert texts[-2:] == ["data: [DONE]", ""]
    return [json.loads(text.removeprefix("data: ")) for text in texts[:-2]]


@pytest.mark.parametrize(("hint", "fits"), [("dict", False), ("list[dict]", True), ("list[Message]", True)])
def test_messages_are_a_list_by_their_hint(hint: str, fits: bool) -> None:
    source = f"""
class Message(typing.TypedDict):
    role: str
    content: str
def predict(messages: {hint}) -> str: ...
"""
    module = ast.parse(f"import typing{source}")
    node = module.body[-1]
    assert isinstance(node, ast.FunctionDef)
    found = unfit(describe(function_of(module, node, "app.py"), None, "app.py", 1).signature)
    assert found == ([] if fits else ["argument messages is one object by its type hint: write list[dict]"])


def test_items_become_deltas() -> None:
    answer = ChatAnswer("net", "r-1", 7, include_usage=True)
    items = [
        outputs(content="to "),
        outputs(content="be", finish_reason="length"),
        outputs(prompt_tokens=[5]),
    ]
    *said, last, usage = chunks([*map(answer.item, items), answer.end()])
    assert {(c["id"], c["created"], c["model"], c["object"]) for c in said} == {
        ("chatcmpl-r-1", 7, "net", "chat.completion.chunk")
    }
    assert [c["choices"][0]["delta"] for c in said] == [
        {"role": "assistant", "content": "to "},
        {"content": "be"},
        {"content": ""},
    ]
    assert [c["usage"] for c in (*said, last)] == [None] * 4
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def test_nothing_yielded_is_an_empty_text() -> None:
    (only,) = chunks([ChatAnswer("net", "r-1", 7, False).end()])
    assert only["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert only["choices"][0]["finish_reason"] == "stop"
    assert "usage" not in only
    whole = json.loads(ChatAnswer("net", "r-1", 7, False).completion({"outputs": []}))
    assert whole["choices"][0]["message"]["content"] == ""
    assert whole["usage"]["total_tokens"] == 0


def test_the_last_count_is_that_of_the_whole() -> None:
    collected = outputs(
        content=["to ", "be"], finish_reason=["stop", "length"], completion_tokens=[3, None, 9]
    )
    whole = json.loads(ChatAnswer("net", "r-1", 7, False).completion(collected))
    (choice,) = whole["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("to be", "length")
    assert whole["usage"] == {"prompt_tokens": 0, "completion_tokens": 9, "total_tokens": 9}
