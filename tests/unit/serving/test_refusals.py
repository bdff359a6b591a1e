"""Exceptions by which a function refuses a call: a problem of the caller's, in each form of an answer."""

from __future__ import annotations

import builtins
import json
from http import HTTPStatus
from typing import Any

import pytest
import werkzeug.exceptions
from hypothesis import given
from hypothesis import strategies as st

from controller.serving import docstring, http1
from controller.serving.refusals import LONGEST, STATUSES, refusal_of
from tests.support.events import parse_events
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import Reply, Server, text, text_function


class WebError(Exception):
    """As FastAPI, Starlette and Litestar have it."""

    def __init__(self, status_code: Any, detail: Any = None, headers: Any = None) -> None:
        super().__init__(status_code, detail)
        self.status_code, self.detail, self.headers = status_code, detail, headers


class NoFace(ValueError):
    """As people write one themselves."""

    status_code = 422
    detail = "the picture shows no face"
    title = "No face"


class ClientError(Exception):
    """As clients of other services raise it: its status is that of another call."""

    status_code, code, message, reason = 404, 404, "no such model", "Not Found"


def in_group(*errors: Exception) -> Exception:
    """As tasks of a `TaskGroup` raise it; alone before Python 3.11."""
    group = getattr(builtins, "ExceptionGroup", None)
    return group("of tasks", errors) if group else errors[0]


OF_ITSELF: dict[str, Any] = {}
OF_ITSELF["of"] = OF_ITSELF


class Broken(Exception):
    status_code = 422

    @property
    def detail(self) -> str:
        raise RuntimeError("no detail")


REFUSED = {
    "of a framework": (WebError(404, "no such city"), 404, "no such city"),
    "an enum": (WebError(HTTPStatus.CONFLICT, "it exists"), 409, "it exists"),
    "any JSON": (WebError(400, {"city": ["unknown"]}), 400, '{"city": ["unknown"]}'),
    "without a detail": (WebError(418), 418, "(418, None)"),
    "of one's own": (NoFace(), 422, "the picture shows no face"),
    "no JSON": (WebError(422, {("a", 1): 2}), 422, "{('a', 1): 2}"),
    "a detail within itself": (WebError(422, OF_ITSELF), 422, "{'of': {...}}"),
    "of a task": (in_group(in_group(WebError(404, "no such city"))), 404, "no such city"),
    "of Werkzeug": (werkzeug.exceptions.UnprocessableEntity("too dark"), 422, "too dark"),
    "of Werkzeug, as it is": (werkzeug.exceptions.Gone(), 410, werkzeug.exceptions.Gone.description),
}
FAILED = {
    "a plain one": ValueError("no"),
    "a client's": ClientError(),
    "a status of the platform's": WebError(401, "sign in"),
    "another status of the platform's": WebError(499, "left"),
    "not the caller's fault": WebError(503, "busy"),
    "no error": WebError(200, "fine"),
    "a text": WebError("404", "no such city"),
    "a truth": WebError(True, "yes"),
    "one whose attributes fail": Broken(),
    "the end": SystemExit(404),
    "of several tasks": in_group(WebError(404, "one"), WebError(422, "another"))
    if hasattr(builtins, "ExceptionGroup")
    else ValueError(),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_refuses(case: str) -> None:
    error, status, detail = REFUSED[case]
    problem = refusal_of(error)
    assert problem is not None
    assert (problem.kind.status, problem.kind.slug, problem.detail) == (status, "function-refused", detail)
    assert problem.headers == ()  # nothing of theirs becomes a header
    document = json.loads(problem.body("1"))
    assert document["exception"]["message"] == detail


@pytest.mark.parametrize("case", FAILED)
def test_what_fails(case: str) -> None:
    assert refusal_of(FAILED[case]) is None


def test_every_status_has_its_words() -> None:
    assert http1.REASONS.keys() >= STATUSES
    assert all(http1.REASONS[status] for status in STATUSES)


def test_a_title_of_ones_own() -> None:
    problem = refusal_of(NoFace())
    assert problem is not None
    assert problem.kind.title == "No face"


@given(st.text(max_size=50) | st.just("x\r\nSet-Cookie: a=1\r\n\r\n" * 1000))
def test_nothing_of_it_reaches_the_header_and_its_size_is_bounded(words: str) -> None:
    error = WebError(422, words, {"Set-Cookie": words})
    error.title = words  # type: ignore[attr-defined]
    problem = refusal_of(error)
    assert problem is not None
    head, _, body = http1.render(http1.problem_response(problem, "1"), "1", close=True).partition(b"\r\n\r\n")
    assert b"set-cookie" not in head.lower()
    document = json.loads(body)
    assert len(document["detail"]) <= LONGEST
    assert "\n" not in document["title"]
    assert len(document["title"]) <= 200


# --- through a server --------------------------------------------------------------------------------------------

BEFORE = """class Refusal(Exception):
    def __init__(self, status_code, detail):
        self.status_code, self.detail = status_code, detail
"""
GIVEN = 'given = inputs[0]["data"]\n'
PLAIN = text_function(
    f'{GIVEN}if given == "bad":\n    raise Refusal(422, "bad words")\nreturn {{"text": given}}', before=BEFORE
)
STREAM = text_function(f'{GIVEN}yield {{"text": "one"}}\nraise Refusal(409, given)', before=BEFORE)
BATCH = text_function(
    'texts = [call[0]["data"] for call in inputs]\n'
    'if "worst" in texts:\n    raise Refusal(404, "worst words")\n'
    'return [Refusal(422, "bad words") if one == "bad" else {"text": one} for one in texts]',
    before=BEFORE,
)


def refused(reply: Reply, status: int, detail: str) -> None:
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert (reply.json["type"], reply.json["detail"]) == ("urn:prichal:problem:function-refused", detail)
    assert reply.json["status"] == status


@pytest.fixture
def plain(serve: Serve) -> Server:
    return serve(PLAIN).ready()


def test_a_call_is_refused_and_counted_as_the_caller_s_fault(plain: Server) -> None:
    refused(plain.post(text("bad")), 422, "bad words")
    assert plain.post(text("good")).outputs == {"text": "good"}
    metrics = plain.get("/metrics").body.decode()
    assert 'requests_total{route="inference",code="422"} 1' in metrics
    assert 'code="500"' not in metrics
    assert plain.lines("refused a call with 422 (Refusal)")
    assert not plain.lines("Traceback")


def test_below_v2(plain: Server) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["bad"]}
    reply = plain.post({"inputs": [tensor]}, "/v2/models/echo/infer")
    refused(reply, 422, "bad words")
    assert reply.json["error"] == "bad words"


def test_within_a_stream(serve: Serve) -> None:
    reply = serve(STREAM).ready().post(text("in use"), Accept="text/event-stream")
    first, last = parse_events(reply.body)
    assert (reply.status, first.kind, last.kind) == (200, "message", "error")
    document = json.loads(last.data)
    assert (document["status"], document["detail"]) == (409, "in use")


def test_in_batches_each_call_for_itself(serve: Serve) -> None:
    server = serve(BATCH, batch_size=8, batch_delay=0.2, batch_queue=100).ready()
    calls = {word: server.in_background(text(word)) for word in ("good", "bad", "worst", "better")}
    replies = {word: call.reply() for word, call in calls.items()}
    refused(replies["bad"], 422, "bad words")
    refused(replies["worst"], 404, "worst words")
    assert [replies[word].outputs["text"] for word in ("good", "better")] == ["good", "better"]


# --- in the description ------------------------------------------------------------------------------------------

DECLARED = PLAIN.replace(
    ":type inputs.text: str",
    ":type inputs.text: str\n    :raises 422: the words are bad,\n        or worse\n    :raises 404: there are none\n"
    "    :raises ValueError: never",
)


def test_what_the_docstring_declares_is_described(serve: Serve) -> None:
    document = serve(DECLARED).ready().get("/openapi.json").json
    responses = document["paths"]["/predict"]["post"]["responses"]
    assert responses["404"]["description"] == "The function refuses the call: there are none"
    assert responses["422"]["description"].endswith(
        "every fault. The function refuses the call: the words are bad, or worse"
    )
    assert "application/problem+json" in responses["404"]["content"]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (":raises 422: no face", {"422": "no face"}),
        (":raises 422:", {"422": ""}),
        (":raise 404: a\n:raises 404: b", {"404": "a b"}),
        (":raises 500: never\n:raises 42: x\n:raises: y\n:raises ValueError: z", {}),
        (":raises 409: a\n\n   b", {"409": "a"}),
        (":raises 409: a\n:returns: b", {"409": "a"}),
        (None, {}),
    ],
)
def test_the_lines_of_a_docstring(lines: str | None, found: dict[str, str]) -> None:
    assert docstring.refusals(lines) == found


@given(st.text())
def test_any_text_is_read(words: str) -> None:
    assert isinstance(docstring.refusals(words), dict)
