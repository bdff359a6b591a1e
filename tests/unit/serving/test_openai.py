"""OpenAI's chat API over real sockets: completions, streams, and errors as its clients read them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.support.waiting import wait_for
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import Server, read_all

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
DOCSTRING = '''"""Answer.

    :param inputs.messages: what was said
    :type inputs.messages: dict
    :param inputs.max_tokens: how long
    :type inputs.max_tokens: INT32, optional
    :param outputs.content: the answer
    :type outputs.content: str
    :param outputs.finish_reason: why it ends
    :type outputs.finish_reason: str, optional
    :param outputs.prompt_tokens: what was read
    :type outputs.prompt_tokens: INT32, optional
    """'''
KINDS = [("def", "time.sleep(0.01)"), ("async def", "await asyncio.sleep(0.01)")]


def function(body: str, kind: str = "def") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    head = "import asyncio, os, sys, threading, time\ndef seen(name): return os.path.exists(name)\n"
    text = "    text = inputs[0]['data'][-1]['content']\n"
    return f"{head}{kind} predict(inputs, parameters):\n    {DOCSTRING}\n{text}{lines}"


WORDS = "for word in text.split():\n    yield {'content': word + ' '}"


def asked(text: str, **members: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **members}


def chunks(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(rb"data: (\{.*\})\n\n", body)]


def said(body: bytes) -> str:
    choices = [choice for chunk in chunks(body) for choice in chunk.get("choices", ())]
    return "".join(choice["delta"].get("content", "") for choice in choices)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_function_that_yields_answers_a_chat_both_ways(serve: Serve, kind: str) -> None:
    server = serve(function(WORDS, kind), openai="chat").ready()
    reply = server.post(asked("to be"), CHAT, X_Request_ID="r-1").json
    assert reply.pop("created") > 0
    assert reply == {
        "id": "chatcmpl-r-1",
        "object": "chat.completion",
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "to be ", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2},
    }
    stream = server.post(asked("to be", stream=True), CHAT)
    assert stream.headers["content-type"] == "text/event-stream"
    assert said(stream.body) == "to be "
    assert stream.body.endswith(b"\n\ndata: [DONE]\n\n")
    assert server.post(asked(""), CHAT).json["choices"][0]["message"]["content"] == ""
    assert said(server.post(asked("", stream=True), CHAT).body) == ""


def test_a_function_that_returns_answers_a_chat_both_ways(serve: Serve) -> None:
    body = "return {'content': text, 'finish_reason': 'length', 'prompt_tokens': 3}"
    server = serve(function(body), openai="chat").ready()
    reply = server.post(asked("a"), CHAT).json
    assert (reply["choices"][0]["message"]["content"], reply["choices"][0]["finish_reason"]) == (
        "a",
        "length",
    )
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    options = {"include_usage": True}
    first, last, usage = chunks(server.post(asked("a", stream=True, stream_options=options), CHAT).body)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "a"}
    assert last["choices"][0]["finish_reason"] == "length"
    assert usage["usage"]["total_tokens"] == 4


def test_the_function_gets_messages_inputs_and_parameters(serve: Serve) -> None:
    server = serve(function("return {'content': repr((inputs[1:], parameters))}"), openai="chat").ready()
    reply = server.post(asked("a", max_completion_tokens=5, temperature=0.5), CHAT).json
    assert reply["choices"][0]["message"]["content"] == repr(
        (
            [{"name": "max_tokens", "datatype": "INT32", "data": 5}],
            [{"name": "temperature", "data": 0.5}],
        )
    )


def test_the_models(serve: Serve) -> None:
    server = serve(function(WORDS), openai="chat").ready()
    listed = server.get("/v1/models").json
    (model,) = listed["data"]
    assert listed["object"] == "list"
    assert (model["id"], model["object"], model["owned_by"]) == ("echo", "model", "demo")
    assert server.get("/v1/models/echo").json == model
    unknown = server.get("/v1/models/gpt-4")
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
    paths = server.get("/openapi.json").json["paths"]
    assert set(paths) == {"/predict", CHAT, "/v1/models"}


def test_a_component_without_it_has_no_such_path(echo: Server) -> None:
    for reply in (echo.post(asked("a"), CHAT), echo.get("/v1/models"), echo.get("/v1/models/echo")):
        assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")


def test_every_error_has_the_form_that_clients_read(serve: Serve) -> None:
    body = "if text == 'fail': raise ValueError('no')\nif text == 'odd': return 7\ntime.sleep(60)"
    server = serve(function(body), openai="chat", timeout=0.5, max_body=1000, replace_after=60).ready()
    replies = {
        "malformed_json": (400, server.post(b"{", CHAT)),
        "invalid_value": (400, server.post(asked("a", stream="yes"), CHAT)),
        "unsupported_parameter": (400, server.post(asked("a", n=2), CHAT)),
        "model_not_found": (404, server.post({**asked("a"), "model": "b"}, CHAT)),
        "not_found": (404, server.post(asked("a"), "/v1/completions")),
        "method_not_allowed": (405, server.get(CHAT)),
        "body_too_large": (413, server.post(b" " * 2000, CHAT)),
        "unsupported_media_type": (415, server.post(asked("a"), CHAT, Content_Type="text/plain")),
        "function_failed": (500, server.post(asked("fail", stream=True), CHAT)),
        "bad_output": (500, server.post(asked("odd"), CHAT)),
        "function_timeout": (504, server.post(asked("slow"), CHAT)),
    }
    for code, (status, reply) in replies.items():
        error = reply.json["error"]
        kind = "server_error" if status >= 500 else "invalid_request_error"
        assert (reply.status, error["code"], error["type"]) == (status, code, kind), reply.body
        assert error["message"] == reply.json["detail"]
        assert "param" in error


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    ("failing", "code", "words"),
    [
        ("raise ValueError('too bad')", "function_failed", "ValueError: too bad"),
        ("sys.exit(3)", "function_failed", "SystemExit"),
        ("yield {'content': 7}", "bad_output", "'content'"),
        ("yield {'content': 'a', 'finish_reason': 'tired'}", "bad_output", "'tired', not one of stop"),
        ("yield 7", "bad_output", "a value of type int"),
    ],
)
def test_an_error_in_the_middle_is_an_event_with_an_error(
    serve: Serve, kind: str, failing: str, code: str, words: str
) -> None:
    source = function(f"yield {{'content': text}}\n{failing}\nyield {{}}", kind)
    server = serve(source, openai="chat").ready()
    stream = server.post(asked("first", stream=True), CHAT)
    assert stream.status == 200
    first, failed = chunks(stream.body)
    assert first["choices"][0]["delta"]["content"] == "first"
    assert (failed["error"]["code"], failed["error"]["type"]) == (code, "server_error")
    assert words in failed["error"]["message"]
    assert b"[DONE]" not in stream.body
    assert b"event:" not in stream.body
    whole = server.post(asked("first"), CHAT)
    assert (whole.status, whole.json["error"]["code"]) == (500, code)


@pytest.mark.parametrize(("kind", "pause"), KINDS)
def test_the_timeout_between_items_is_an_event_with_an_error(serve: Serve, kind: str, pause: str) -> None:
    body = f"yield {{'content': text}}\nwhile not seen('go'): {pause}"
    server = serve(function(body, kind), openai="chat", timeout=0.5, replace_after=60).ready()
    _, failed = chunks(server.post(asked("a", stream=True), CHAT).body)
    assert failed["error"]["code"] == "function_timeout"
    server.release()


FOR_EVER = """
try:
    while True:
        yield {'content': 'x'}
        PAUSE
finally:
    open('closed', 'w').close()
"""


@pytest.mark.parametrize(("kind", "pause"), KINDS)
def test_what_yields_for_ever_ends_with_its_caller(serve: Serve, kind: str, pause: str) -> None:
    server = serve(function(FOR_EVER.replace("PAUSE", pause), kind), openai="chat").ready()
    body = json.dumps(asked("a", stream=True))
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with server.connect() as caller:
        caller.sendall(f"{head}\r\n\r\n{body}".encode())
        assert caller.recv(100).startswith(b"HTTP/1.1 200 OK")
    wait_for((server.folder / "closed").exists)


def test_what_yields_for_ever_ends_with_the_timeout_if_it_is_collected(serve: Serve) -> None:
    server = serve(
        function(FOR_EVER.replace("PAUSE", "time.sleep(0.001)")), openai="chat", timeout=0.5
    ).ready()
    assert server.post(asked("a"), CHAT).json["error"]["code"] == "function_timeout"
    wait_for((server.folder / "closed").exists)


def test_a_slow_reader_loses_the_stream(serve: Serve) -> None:
    body = FOR_EVER.replace("'x'", "'x' * 1_000_000").replace("PAUSE", "pass")
    server = serve(function(body), openai="chat", read_timeout=0.5).ready()
    request = json.dumps(asked("a", stream=True))
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(request)}"
    )
    with server.connect() as caller:
        caller.sendall(f"{head}\r\n\r\n{request}".encode())
        wait_for((server.folder / "closed").exists)
        assert b"[DONE]" not in read_all(caller)[-2000:]


@pytest.mark.parametrize(
    ("settings", "source", "words"),
    [
        (
            {"openai": "chat"},
            None,
            "cannot serve openai: chat: it has no inputs.messages of type dict",
        ),
        ({"openai": "embeddings"}, function(WORDS), "openai: 'embeddings' is not known; there is chat"),
    ],
)
def test_what_cannot_serve_chats_is_refused_at_set_up(
    serve: Serve, settings: dict[str, Any], source: str | None, words: str
) -> None:
    server = serve(source, **settings) if source else serve(**settings)
    assert server.wait_ended() in (2, 3)
    assert words in server.lines()[-1]


HINTED = """
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Optional, TypedDict

class Message(TypedDict):
    role: str
    content: str

@dataclass
class Piece:
    content: str
    finish_reason: Optional[str] = None

async def pieces(messages: list[Message], temperature: float = 0.7) -> AsyncIterator[Piece]:
    yield Piece(messages[-1]["content"])
    yield Piece(f" at {temperature}", "length")

def texts(messages: list[dict], stop: Optional[list[str]] = None) -> Iterator[str]:
    yield messages[-1]["content"]
    yield f" until {stop}"
"""


@pytest.mark.parametrize(
    ("function_", "text", "reason"),
    [("pieces", "a at 0.5", "length"), ("texts", "a until ['end']", "stop")],
)
def test_functions_with_type_hints_answer_chats(serve: Serve, function_: str, text: str, reason: str) -> None:
    server = serve(HINTED, inference=f"app:{function_}", openai="chat").ready()
    chat = asked("a", temperature=0.5, stop="end")
    (choice,) = server.post(chat, CHAT).json["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, reason)
    assert said(server.post({**chat, "stream": True}, CHAT).body) == text
    wrong = server.post(asked("a", stop=7), CHAT).json["error"]
    assert (wrong["code"], wrong["param"]) == ("invalid_value", "stop")
