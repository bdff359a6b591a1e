"""Functions that yield, over real sockets: items at once as events, or all of them in one reply."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest

from controller.serving.http1 import HttpRequest
from controller.serving.streams import wants_events
from tests.support.waiting import wait_for
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import Reply, Server, read_all

pytestmark = pytest.mark.slow

DOCSTRING = '''"""Yield words.

    :param inputs.text: what to say
    :type inputs.text: str
    :param outputs.word: one of its words
    :type outputs.word: str, optional
    :param outputs.count: numbers
    :type outputs.count: INT32, optional
    :param outputs.about: an object
    :type outputs.about: dict, optional
    :param outputs.file: a file
    :type outputs.file: FILE, optional
    """'''
EVENTS = {"Accept": "text/event-stream"}


def function(body: str, kind: str = "def") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    head = "import asyncio, os, sys, threading, time\ndef seen(name): return os.path.exists(name)\n"
    return f"{head}{kind} predict(inputs, context):\n    {DOCSTRING}\n    text = inputs[0]['data']\n{lines}"


def words(text: str) -> dict[str, Any]:
    return {"id": "7", "inputs": [{"name": "text", "datatype": "str", "data": text}]}


class Events:
    """A call whose events are read one by one."""

    def __init__(self, server: Server, text: str, version: str = "1.1", more: str = "") -> None:
        body = json.dumps(words(text))
        head = f"POST /predict HTTP/{version}\r\nHost: a\r\nContent-Type: application/json\r\n"
        more += "Accept: text/event-stream\r\n"
        self.socket = server.connect()
        self.socket.sendall(f"{head}{more}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        self.stream = self.socket.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        self.headers = dict(
            line.decode().lower().strip().split(": ", 1) for line in iter(self._line, b"\r\n")
        )

    def _line(self) -> bytes:
        return self.stream.readline()

    def chunk(self) -> bytes:
        """The next chunk of the body, b"" for the last one."""
        size = int(self.stream.readline(), 16)
        data = self.stream.read(size)
        assert self.stream.readline() == b"\r\n"
        return data

    def next(self) -> tuple[str, Any] | None:
        """The next event's name and value; None at the end."""
        data = self.chunk()
        return parsed(data)[0] if data else None

    def close(self) -> None:
        self.stream.close()
        self.socket.close()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parsed(data: bytes) -> list[tuple[str, Any]]:
    found = re.findall(rb"(?:event: (\w+)\n)?data: (.*)\n\n", data)
    assert (
        b"".join((b"event: %b\n" % name if name else b"") + b"data: %b\n\n" % value for name, value in found)
        == data
    )
    return [(name.decode(), json.loads(value)) for name, value in found]


def post(server: Server, text: str, **headers: str) -> Reply:
    return server.post(words(text), **headers)


def said(event: tuple[str, Any] | None) -> Any:
    """The word of an event that is a reply."""
    assert event is not None
    name, reply = event
    assert name == ""
    assert reply["id"] == "7"
    return reply["outputs"][0]["data"]


WAITING = """
try:
    for word in text.split():
        yield {"word": word}
        while not seen(word): PAUSE
finally:
    open("closed", "w").close()
"""
KINDS = [("def", "time.sleep(0.01)"), ("async def", "await asyncio.sleep(0.01)")]


def waiting(kind: str, pause: str) -> str:
    """It yields a word, and goes on when there is a file of that name."""
    return function(WAITING.replace("PAUSE", pause), kind)


@pytest.mark.parametrize(("kind", "pause"), KINDS)
def test_each_item_goes_out_at_once(serve: Serve, kind: str, pause: str) -> None:
    server = serve(waiting(kind, pause)).ready()
    with Events(server, "to be or") as events:
        assert events.status == 200
        assert events.headers["content-type"] == "text/event-stream"
        assert events.headers["cache-control"] == "no-store"
        for word in ("to", "be", "or"):
            assert said(events.next()) == word
            (server.folder / word).touch()
        assert events.next() is None
        events.socket.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert events.stream.readline() == b"HTTP/1.1 200 OK\r\n", "the connection goes on"
    assert (server.folder / "closed").exists()


@pytest.mark.parametrize(("kind", "pause"), KINDS)
def test_a_caller_who_leaves_closes_the_generator(serve: Serve, kind: str, pause: str) -> None:
    server = serve(waiting(kind, pause), concurrency=1, queue=0).ready()
    events = Events(server, "to be")
    assert said(events.next()) == "to"
    events.close()
    if kind == "def":  # between two items nothing can stop it
        (server.folder / "to").touch()
    wait_for((server.folder / "closed").exists)
    (server.folder / "or").touch()
    wait_for(lambda: post(server, "or").status == 200)
    assert "raised" not in "\n".join(server.lines())


@pytest.mark.parametrize(("kind", "pause"), KINDS)
def test_a_caller_who_leaves_closes_a_generator_whose_items_are_collected(
    serve: Serve, kind: str, pause: str
) -> None:
    begun = "open('begun', 'w').close()"
    server = serve(function(begun + WAITING.replace("PAUSE", pause), kind), timeout=600).ready()
    body = json.dumps(words("to be")).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    with server.connect() as caller:
        caller.sendall(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        wait_for((server.folder / "begun").exists)
    if kind == "def":
        (server.folder / "to").touch()
    wait_for((server.folder / "closed").exists)


def test_others_get_all_items_in_one_reply(serve: Serve) -> None:
    source = function(
        "for index, word in enumerate(text.split()):\n"
        '    yield {"word": word, "count": [index, 2 * index], "about": {word: index}}'
    )
    server = serve(source, component="net").ready()
    reply = post(server, "to be or")
    assert reply.json == {
        "id": "7",
        "outputs": [
            {"name": "word", "datatype": "str", "shape": [3], "data": ["to", "be", "or"]},
            {"name": "count", "datatype": "INT32", "shape": [3, 2], "data": [0, 0, 1, 2, 2, 4]},
            {"name": "about", "datatype": "dict", "shape": [3], "data": [{"to": 0}, {"be": 1}, {"or": 2}]},
        ],
    }
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["to be"]}
    tensors = server.ask("POST", "/v2/models/net/infer", json.dumps({"inputs": [text]}).encode(), EVENTS)
    assert tensors.outputs["word"] == ["to", "be"]
    only = server.post(
        {**words("to be"), "output_fields": [{"name": "word"}]}, Accept="text/html, text/event-stream;q=1"
    )
    assert [value["outputs"] for _, value in parsed(only.body)] == [
        [{"name": "word", "datatype": "str", "data": "to"}],
        [{"name": "word", "datatype": "str", "data": "be"}],
    ]


def test_none_leaves_an_optional_output_out_of_an_item_both_ways(serve: Serve) -> None:
    server = serve(function("yield {'word': text, 'count': None}\nyield {'word': None, 'count': 2}")).ready()
    outputs = [
        {"name": "word", "datatype": "str", "shape": [1], "data": ["x"]},
        {"name": "count", "datatype": "INT32", "shape": [1], "data": [2]},
    ]
    assert post(server, "x").json == {"id": "7", "outputs": outputs}
    with Events(server, "x") as events:
        names = [[output["name"] for output in event[1]["outputs"]] for event in iter(events.next, None)]
    assert names == [["word"], ["count"]]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("return iter([])", "def"),
        ("if False: yield", "def"),
        ("if False: yield", "async def"),
        ("return map(str, [])", "def"),
    ],
)
def test_a_function_may_yield_nothing(serve: Serve, body: str, kind: str) -> None:
    server = serve(function(body, kind)).ready()
    assert post(server, "x").json == {"id": "7", "outputs": []}
    with Events(server, "x") as events:
        assert events.next() is None


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    ("failing", "slug", "words_"),
    [
        ("raise ValueError('too bad')", "function-failed", "raised ValueError: too bad"),
        ("sys.exit(3)", "function-failed", "SystemExit"),
        ("yield {'count': 2.5}", "bad-output", "'count' cannot be written as INT32"),
        ("yield 7", "bad-output", "a value of type int"),
        ("yield {'file': '/etc/hostname'}", "bad-output", "FILE"),
    ],
)
def test_what_fails_before_the_first_item_is_a_problem_and_later_an_event(
    serve: Serve, kind: str, failing: str, slug: str, words_: str
) -> None:
    source = function(
        f"if text != 'at once':\n    yield {{'word': text}}\nif text:\n    {failing}\nyield {{}}", kind
    )
    server = serve(source).ready()
    for reply in (post(server, "at once"), post(server, "later"), post(server, "at once", **EVENTS)):
        assert reply.status == 500, reply.body
        assert reply.json["type"] == f"urn:prichal:problem:{slug}"
        assert words_ in reply.json["detail"]
    with Events(server, "later") as events:
        assert said(events.next()) == "later"
        name, problem = events.next() or ("", {})
        assert (name, problem["type"], problem["status"]) == ("error", f"urn:prichal:problem:{slug}", 500)
        assert words_ in problem["detail"]
        assert events.next() is None
    metrics = server.get("/metrics").body.decode()
    assert re.search(r'code="500"\} 4$', metrics, re.MULTILINE), metrics
    assert post(server, "").status == 200


@pytest.mark.parametrize(("kind", "pause"), KINDS)
def test_the_timeout_counts_between_items(serve: Serve, kind: str, pause: str) -> None:
    server = serve(waiting(kind, pause), timeout=1, replace_after=60).ready()
    many = [str(number) for number in range(8)]
    with Events(server, " ".join(many)) as events:
        for word in many[:-1]:  # together they may take longer than the timeout
            assert said(events.next()) == word
            (server.folder / word).touch()
        assert said(events.next()) == many[-1]
        name, problem = events.next() or ("", {})
        assert (name, problem["status"]) == ("error", 504)
        assert events.next() is None
        assert events.stream.read() == b"", "the connection ends"
    (server.folder / many[-1]).touch()
    wait_for((server.folder / "closed").exists)


CONTEXT = """
import contextvars
word = contextvars.ContextVar("word")
token = word.set(text)
try:
    yield {"word": word.get()}
    yield {"word": word.get()}
finally:
    word.reset(token)
"""
TIME_LIMIT = """
async def wait():
    for _ in range(2):
        yield {"word": text}
        await asyncio.sleep(600)
async with asyncio.timeout(0.1):
    async for item in wait(): yield item
"""


def test_a_context_holds_from_one_item_of_an_async_generator_to_the_next(serve: Serve) -> None:
    server = serve(function(CONTEXT, "async def")).ready()
    assert post(server, "x").outputs == {"word": ["x", "x"]}
    with Events(server, "x") as events:
        assert [said(events.next()), said(events.next()), events.next()] == ["x", "x", None]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is of 3.11")
def test_so_does_a_time_limit_of_its_own(serve: Serve) -> None:
    server = serve(function(TIME_LIMIT, "async def")).ready()
    with Events(server, "x") as events:
        assert said(events.next()) == "x"
        name, problem = events.next() or ("", {})
        assert (name, problem["exception"]["type"]) == ("error", "TimeoutError")


def test_all_items_of_one_reply_have_one_timeout(serve: Serve) -> None:
    """What yields for ever is ended."""
    body = "while True:\n        yield {'count': 1}\n        time.sleep(0.001)"
    body = f"try:\n    {body}\nfinally:\n    open('closed', 'w').close()"
    server = serve(function(body), timeout=0.5).ready()
    assert post(server, "x").status == 504
    wait_for((server.folder / "closed").exists)


def test_a_reader_who_does_not_read_ends_the_stream(serve: Serve) -> None:
    body = "try:\n    while True: yield {'word': 'x' * 1_000_000}\nfinally:\n    open('closed', 'w').close()"
    server = serve(function(body), read_timeout=0.5, timeout=30).ready()
    with Events(server, "x") as events:
        assert events.status == 200
        wait_for((server.folder / "closed").exists)
        assert b"event: error" not in read_all(events.socket)[-2000:]


def test_what_fails_while_it_is_closed_is_logged(serve: Serve) -> None:
    body = "while True:\n        yield {'word': text}\n        time.sleep(0.01)"
    body = f"try:\n    {body}\nfinally:\n    raise ValueError('in the end')"
    server = serve(function(body)).ready()
    events = Events(server, "x")
    assert said(events.next()) == "x"
    events.close()
    assert server.wait_for("raised ValueError when it was closed")
    assert server.wait_for("ValueError: in the end")


def test_http_1_0_ends_with_the_connection(serve: Serve) -> None:
    server = serve(function("yield {'word': text}\nyield {'word': 'end'}")).ready()
    with Events(server, "x", version="1.0") as events:
        assert "transfer-encoding" not in events.headers
        assert [said(event) for event in parsed(events.stream.read())] == ["x", "end"]
    with Events(server, "x", more="Connection: close\r\n") as events:
        assert events.headers["connection"] == "close"
        assert [said(events.next()), said(events.next()), events.next()] == ["x", "end", None]
        assert events.stream.read() == b""


def takes_connections(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_stream_holds_its_slot_and_a_drain_waits_for_it(serve: Serve) -> None:
    server = serve(waiting(*KINDS[0]), concurrency=1, queue=0).ready()
    with Events(server, "to") as events:
        assert said(events.next()) == "to"
        assert post(server, "x").status == 503
        server.process.terminate()
        wait_for(lambda: not takes_connections(server))
        (server.folder / "to").touch()
        assert events.next() is None
    assert server.wait_ended() == 0


def test_the_description_names_events(serve: Serve) -> None:
    server = serve(function("yield {'word': text}")).ready()
    content = server.get("/openapi.json").json["paths"]["/predict"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}


@pytest.mark.parametrize("accept", ["application/json", EVENTS["Accept"]])
def test_a_file_that_is_yielded_is_named_as_the_reason(serve: Serve, accept: str) -> None:
    server = serve(function("yield {'file': '/etc/hostname'}")).ready()
    problem = post(server, "x", Accept=accept).json
    assert problem["type"].endswith(":bad-output")
    assert "output 'file': a FILE cannot be yielded: return it" in problem["detail"]


@pytest.mark.parametrize(
    ("accept", "events"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("application/json, text/event-stream", True),
        ("text/event-stream;q=0.9, */*;q=0.1", True),
        ("text/event-stream; q=0.001", True),
        ("text/event-stream;q=lots", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; charset=utf-8; Q=0.000", False),
        ("application/json, text/event-stream;q=0.5", False),
        ("*/*", False),
        ("text/*", False),
        ("text/event-streams", False),
        ("", False),
        (";q=1,,", False),
    ],
)
def test_who_gets_events(accept: str, events: bool) -> None:
    request = HttpRequest("POST", "/predict", {b"accept": accept.encode()}, False)
    assert wants_events(request) == events


HIDING = """
import asyncio, concurrent.futures, functools
pool = concurrent.futures.ThreadPoolExecutor(1)

def later(function):
    return functools.wraps(function)(lambda **given: pool.submit(function, **given))

class Words:
    def __init__(self, texts): self.texts = texts
    async def __aiter__(self):
        for text in self.texts: yield {"word": text}

def hidden(function):
    return functools.wraps(function)(lambda **given: function(**given))
"""


@pytest.mark.parametrize(
    ("decorator", "body", "said_"),
    [
        ("@later", "return {'word': text}", "x"),
        ("@hidden", "async def answer(): return {'word': text}\nreturn answer()", "x"),
        ("@later", "yield {'word': text}", ["x"]),
        ("", "return Words([text, text])", ["x", "x"]),
    ],
)
def test_what_decorators_hide_is_served_right(serve: Serve, decorator: str, body: str, said_: Any) -> None:
    source = function(body).replace("def predict", f"{HIDING}\n{decorator}\ndef predict")
    assert post(serve(source).ready(), "x").outputs == {"word": said_}


def test_a_function_that_does_not_yield_answers_as_usual(echo: Server) -> None:
    assert echo.post({"inputs": [{"name": "text", "datatype": "str", "data": "a"}]}, **EVENTS).outputs == {
        "text": "a"
    }


HINTED = """
from collections.abc import Iterator
from typing import Literal

def predict(text: str) -> Iterator[Literal["to", "be"]]:
    yield from text.split()
"""


def test_hints_hold_of_each_item(serve: Serve) -> None:
    server = serve(HINTED).ready()
    assert post(server, "to be").outputs == {"result": ["to", "be"]}
    assert [event[1]["outputs"][0]["data"] for event in parsed(post(server, "to be", **EVENTS).body)] == [
        "to",
        "be",
    ]
    wrong = post(server, "to go")
    assert (wrong.status, wrong.json["type"].rpartition(":")[2]) == (500, "bad-output")
    assert "'go'" in wrong.json["detail"]
