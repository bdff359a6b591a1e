"""Batches with the real library: calls that are under way together, and each kind of fault in one of them."""

from __future__ import annotations

import functools
import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.pages import ROOT, blocks
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import (
    WAIT_LIMIT,
    Background,
    Reply,
    Server,
    load,
    read_response,
    text,
    text_function,
    wait_until,
)

pytestmark = pytest.mark.slow

#: Writes what each batch holds into the file ``batches``. A batch with "hold" waits for the file ``go``.
RECORDS = """
texts = [call[0]["data"] for call in inputs]
with open("batches", "a") as file: file.write(" ".join(texts) + chr(10))
while "hold" in texts and not os.path.exists("go"): time.sleep(0.005)
"""
ECHOES = RECORDS + 'return [{"text": text.upper()} for text in texts]'


def batches(server: Server) -> list[list[str]]:
    file = server.folder / "batches"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def _waits(server: Server, number: int, running: int = 1) -> bool:
    return load(server) == (running, number)


def _begun(server: Server, number: int) -> bool:
    return len(batches(server)) == number


def together(server: Server, *bodies: Any, **headers: str) -> list[Background]:
    """Calls that collect, in this order, while the function is held by another one, and then go as one."""
    held = server.in_background(text("hold"))
    wait_until(lambda: batches(server), server)
    calls = []
    for number, body in enumerate(bodies, 1):
        calls.append(server.in_background(body, **headers))
        wait_until(functools.partial(_waits, server, number), server)
    server.release()
    assert held.reply().status == 200
    return calls


def send(server: Server, value: str, tell: bool = False) -> socket.socket:
    """A call whose reply is not read yet. ``tell``: as the gateway, which asks what becomes of it."""
    sock = server.connect()
    body = json.dumps(text(value)).encode()
    fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    fields += "X-Prichal-Call: tell\r\n" if tell else ""
    sock.sendall(f"POST /predict HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode() + body)
    return sock


def receive(sock: socket.socket) -> Reply:
    with sock, sock.makefile("rb") as stream:
        return read_response(stream)


def assert_problem(reply: Reply, status: int, slug: str, words: str = "") -> None:
    assert (reply.status, reply.json["type"]) == (status, f"urn:prichal:problem:{slug}"), reply.body
    assert words in reply.json["detail"]


def test_calls_that_wait_go_as_one_and_each_gets_its_own_result(serve: Serve) -> None:
    server = serve(text_function(ECHOES), batch_size=8, batch_delay=0).ready()
    calls = together(server, *map(text, "abc"))
    assert [call.reply().outputs["text"] for call in calls] == ["A", "B", "C"]
    assert batches(server) == [["hold"], ["a", "b", "c"]]
    metrics = server.get("/metrics").body.decode()
    for line in ('size_bucket{le="1"} 1', 'size_bucket{le="4"} 2', "size_sum 4.0", "size_count 2"):
        assert f"prichal_serving_batch_{line}" in metrics


def test_no_more_go_together_than_may(serve: Serve) -> None:
    server = serve(text_function(ECHOES), batch_size=2, batch_delay=0).ready()
    calls = together(server, *map(text, "abcde"))
    assert [call.reply().outputs["text"] for call in calls] == list("ABCDE")
    assert [len(batch) for batch in batches(server)[1:]] == [2, 2, 1]


def test_the_first_call_waits_for_company(serve: Serve) -> None:
    """As nothing is known yet, it waits for as many as may go; the delay would time out the test."""
    server = serve(
        text_function(ECHOES), batch_size=3, batch_delay=WAIT_LIMIT / 2, timeout=2 * WAIT_LIMIT
    ).ready()
    calls = [server.in_background(text(value)) for value in "abc"]
    assert {call.reply().outputs["text"] for call in calls} == set("ABC")
    assert [sorted(batch) for batch in batches(server)] == [["a", "b", "c"]]


def test_every_argument_is_a_list_but_the_model(serve: Serve) -> None:
    body = RECORDS + (
        "seen = zip(parameters, output_fields, context)\n"
        'return [{"text": f"{model} {p} {o} {c.request_id} {c.parameters == p}"} for p, o, c in seen]'
    )
    source = text_function(body, "inputs, parameters, output_fields, context, model")
    server = serve(source, batch_size=8, batch_delay=0, model_path="weights").ready()
    bodies = [{**text("a"), "parameters": [1]}, {**text("b"), "output_fields": [{"name": "text"}]}]
    one, other = [call.reply().outputs["text"] for call in together(server, *bodies, X_Request_ID="me")]
    assert one == "weights [1] [] me True"
    assert other == "weights [] [{'name': 'text'}] me True"


def test_a_request_that_does_not_fit_never_joins_a_batch(serve: Serve) -> None:
    server = serve(text_function(ECHOES), batch_size=8, batch_delay=0).ready()
    held = server.in_background(text("hold"))
    wait_until(lambda: batches(server), server)
    good = server.in_background(text("good"))
    wait_until(lambda: load(server) == (1, 1), server)
    bad = {"inputs": [{"name": "text", "datatype": "str", "data": 7}]}
    assert_problem(server.post(bad), 422, "invalid-request", "/inputs/0/data")
    assert_problem(server.post(b"{"), 400, "malformed-json")
    server.release()
    assert [call.reply().status for call in (held, good)] == [200, 200]
    assert batches(server) == [["hold"], ["good"]]


@pytest.mark.parametrize("place", range(4))
def test_an_input_for_which_the_function_raises_fails_its_own_call(serve: Serve, place: int) -> None:
    raises = 'if "bad" in texts: raise ValueError("bad is in " + str(len(texts)))'
    body = ECHOES.replace("return", f"{raises}\nreturn")
    server = serve(text_function(body), batch_size=8, batch_delay=0).ready()
    values = [*"abc"]
    values.insert(place, "bad")
    replies = [call.reply() for call in together(server, *map(text, values))]
    assert_problem(replies[place], 500, "function-failed", "raised ValueError: bad is in 1")
    assert replies[place].json["exception"] == {"type": "ValueError", "message": "bad is in 1"}
    good = [reply for reply in replies if reply is not replies[place]]
    assert [reply.outputs["text"] for reply in good] == list("ABC")
    server.wait_for("raised ValueError for 4 calls, which are tried again in halves")
    server.wait_for("Traceback")
    assert len(server.lines("Traceback")) == 1


def test_two_bad_inputs_fail_two_calls(serve: Serve) -> None:
    body = ECHOES.replace("return", 'if "bad" in texts: sys.exit("bad")\nreturn')
    server = serve(text_function(body), batch_size=8, batch_delay=0).ready()
    calls = together(server, *map(text, ["a", "bad", "b", "bad", "c"]))
    assert [call.reply().status for call in calls] == [200, 500, 200, 500, 200]


def test_an_exception_in_place_of_a_result_is_that_calls_error(serve: Serve) -> None:
    body = RECORDS + 'return [KeyError(text) if text == "bad" else {"text": text} for text in texts]'
    server = serve(text_function(body), batch_size=8, batch_delay=0).ready()
    good, bad, other = (call.reply() for call in together(server, text("a"), text("bad"), text("b")))
    assert_problem(bad, 500, "function-failed", "raised KeyError: 'bad'")
    assert (good.outputs, other.outputs) == ({"text": "a"}, {"text": "b"})
    assert [len(batch) for batch in batches(server)] == [1, 3]


def test_a_function_that_raises_for_the_whole_batch_fails_each_call(serve: Serve) -> None:
    raises = 'if "hold" not in texts: raise RuntimeError("no GPU for " + " ".join(texts))'
    body = ECHOES.replace("return", f"{raises}\nreturn")
    server = serve(text_function(body), batch_size=8, batch_delay=0).ready()
    for value, call in zip("abc", together(server, *map(text, "abc")), strict=True):
        assert_problem(call.reply(), 500, "function-failed", f"raised RuntimeError: no GPU for {value}")
    assert load(server) == (0, 0)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("good[:-1]", "returned 2 results for 3 calls"),
        ("[]", "returned 0 results for 3 calls"),
        ("good + good[:1]", "returned 4 results for 3 calls"),
        ("None", "returned nothing for a batch, not a list with one result a call"),
        ('{"text": "a"}', "returned a value of type dict for a batch"),
        ('"abc"', "returned a value of type str for a batch"),
        ("7", "returned a value of type int for a batch"),
        ("iter(good)", "yields its results, which cannot be done in a batch"),
        ("(one for one in good)", "yields its results, which cannot be done in a batch"),
    ],
)
def test_results_that_are_not_one_a_call_fail_all_of_the_batch(serve: Serve, result: str, words: str) -> None:
    """Nobody gets the result of another: which is whose cannot be known."""
    body = RECORDS + (
        'good = [{"text": text} for text in texts]\n'
        f'return good if "hold" in texts or len(texts) == 1 else {result}'
    )
    server = serve(text_function(body), batch_size=8, batch_delay=0).ready()
    for call in together(server, *map(text, "abc")):
        assert_problem(call.reply(), 500, "bad-output", words)
    assert server.post(text("again")).outputs == {"text": "again"}


def test_a_result_that_cannot_be_answered_fails_its_own_call(serve: Serve) -> None:
    body = RECORDS + 'return [{"a": {"text": 1}, "b": None}.get(text, {"text": text}) for text in texts]'
    server = serve(text_function(body), batch_size=8, batch_delay=0).ready()
    number, nothing, good = (call.reply() for call in together(server, *map(text, "abc")))
    assert_problem(number, 500, "bad-output", "output 'text' cannot be written as str")
    assert_problem(nothing, 500, "bad-output", "returned nothing")
    assert good.outputs == {"text": "c"}


def test_a_caller_who_leaves_while_they_wait_gives_up_the_place(serve: Serve) -> None:
    server = serve(text_function(ECHOES), batch_size=4, batch_delay=0, batch_queue=3).ready()
    held = send(server, "hold")
    wait_until(lambda: batches(server), server)
    stays = send(server, "stays")
    wait_until(lambda: load(server) == (1, 1), server)
    leave = [send(server, "left") for _ in range(2)]
    wait_until(lambda: load(server) == (1, 3), server)
    for sock in leave:
        sock.close()
    others = [send(server, value) for value in "ab"]  # no place would be left for them
    server.release()
    assert receive(held).status == 200
    assert [receive(sock).outputs["text"] for sock in (stays, *others)] == ["STAYS", "A", "B"]
    assert sorted(value for batch in batches(server) for value in batch) == ["a", "b", "hold", "stays"]
    wait_until(lambda: 'code="499"} 2' in server.get("/metrics").body.decode(), server)


def test_the_first_of_a_batch_leaves_before_it_begins(serve: Serve) -> None:
    server = serve(text_function(ECHOES), batch_size=4, batch_delay=0).ready()
    held = send(server, "hold")
    wait_until(lambda: batches(server), server)
    first = send(server, "left")
    wait_until(lambda: load(server) == (1, 1), server)
    stays = send(server, "stays")
    wait_until(lambda: load(server) == (1, 2), server)
    first.close()
    server.release()
    assert [receive(sock).status for sock in (held, stays)] == [200, 200]
    assert batches(server) == [["hold"], ["stays"]]


@pytest.mark.parametrize("place", range(3))
def test_a_caller_who_leaves_while_the_batch_runs_takes_nothing_from_the_others(
    serve: Serve, place: int
) -> None:
    server = serve(
        text_function(ECHOES), batch_size=3, batch_delay=WAIT_LIMIT / 2, timeout=2 * WAIT_LIMIT
    ).ready()
    calls = []
    for value in ("hold", "a", "b"):
        calls.append(send(server, value))
        if value != "b":
            wait_until(lambda: load(server) == (0, len(calls)), server)
    wait_until(lambda: batches(server), server)
    calls.pop(place).close()
    server.release()
    assert [receive(sock).status for sock in calls] == [200, 200]
    assert len(batches(server)) == 1
    wait_until(lambda: load(server) == (0, 0), server)


def test_a_full_queue_is_told(serve: Serve) -> None:
    server = serve(text_function(ECHOES), batch_size=2, batch_delay=0, batch_queue=1).ready()
    held = server.in_background(text("hold"))
    wait_until(lambda: batches(server), server)
    waiting = server.in_background(text("a"))
    wait_until(lambda: load(server) == (1, 1), server)
    for path, body in (("/predict", text("b")), ("/v2/models/echo/infer", tensor("b"))):
        reply = server.post(body, path)
        assert_problem(reply, 503, "queue-full", "component echo: 1 calls wait for the next batch")
        assert reply.headers["retry-after"] == "1"
    server.release()
    assert [call.reply().status for call in (held, waiting)] == [200, 200]
    assert server.post(text("c")).outputs == {"text": "C"}


def test_nobody_may_wait(serve: Serve) -> None:
    """While nothing runs, a batch collects all the same."""
    settings = {"batch_size": 2, "batch_queue": 0, "batch_delay": WAIT_LIMIT / 2, "timeout": 2 * WAIT_LIMIT}
    server = serve(text_function(ECHOES), **settings).ready()
    calls = [server.in_background(text(value)) for value in ("hold", "a")]
    wait_until(lambda: batches(server), server)
    assert_problem(server.post(text("b")), 503, "queue-full", "0 calls wait for the next batch")
    server.release()
    assert [call.reply().status for call in calls] == [200, 200]


def assert_states(sock: socket.socket, *states: str) -> None:
    """What the gateway is told ahead of the response, which is a good one."""
    told = "".join(f"HTTP/1.1 102 Processing\r\nX-Prichal-Call: {state}\r\n\r\n" for state in states)
    found = b""
    with sock:
        while b"outputs" not in found:
            piece = sock.recv(1000)
            assert piece, found
            found += piece
    assert found.startswith(f"{told}HTTP/1.1 200 OK\r\n".encode()), found


@pytest.mark.parametrize("processes", [1, 2])
def test_the_gateway_is_told_when_a_call_waits_for_a_batch_and_when_it_begins(
    serve: Serve, processes: int
) -> None:
    """A call that waits is sent again if the container ends; one that has begun is not."""
    settings = {"batch_size": 1, "batch_delay": 0, "batch_queue": 10, "processes": processes}
    server = serve(text_function(ECHOES), **settings).ready(processes)
    held = []
    for number in range(1, processes + 1):
        held.append(send(server, "hold", tell=True))
        wait_until(functools.partial(_begun, server, number), server)
    waiting = []
    for number in range(1, 4):
        waiting.append(send(server, "a", tell=True))
        wait_until(functools.partial(_waits, server, number, processes), server)
        assert waiting[-1].recv(1000, socket.MSG_PEEK).endswith(b"X-Prichal-Call: waiting\r\n\r\n")
    silent = send(server, "a")
    wait_until(lambda: load(server) == (processes, 4), server)
    server.release()
    for sock in held:
        assert_states(sock)
    for sock in waiting:
        assert_states(sock, "waiting", "running")
    assert_states(silent)


@pytest.mark.parametrize("queue", [0, 3])
@pytest.mark.parametrize("preload", [False, True])
def test_one_bound_holds_for_the_calls_that_wait_in_all_processes(
    serve: Serve, queue: int, preload: bool
) -> None:
    """Each process could hold four of them, and two processes would hold more than may wait."""
    settings = {"batch_size": 4, "batch_delay": 0, "batch_queue": queue, "preload": preload}
    server = serve(text_function(ECHOES), processes=2, **settings).ready(2)
    running = []
    for number in (1, 2):
        running.append(send(server, "hold"))
        wait_until(functools.partial(_begun, server, number), server)
    waiting = []
    for number in range(1, queue + 1):
        waiting.append(send(server, "a"))
        wait_until(functools.partial(_waits, server, number, 2), server)
    for _ in range(3):
        words = f"component echo: {queue} calls wait for the next batch"
        assert_problem(receive(send(server, "b")), 503, "queue-full", words)
    assert load(server) == (2, queue)
    server.release()
    assert {receive(sock).status for sock in (*running, *waiting)} == {200}
    for _ in range(10):
        assert server.post(text("c")).outputs == {"text": "C"}


def test_no_caller_who_may_be_in_the_next_batches_is_refused(serve: Serve) -> None:
    """Eight callers call again at once, and eight calls may wait: whatever runs alone, there is always a place, unless
    calls that are over are taken for waiting ones."""
    settings = {"batch_size": 4, "batch_delay": 0.001, "batch_queue": 8, "timeout": 2 * WAIT_LIMIT}
    server = serve(text_function(ECHOES), processes=2, **settings).ready(2)

    def call(name: str) -> set[int]:
        return {server.post(text(name)).status for _ in range(25)}

    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(call, "abcdefgh")) == {200}
    wait_until(lambda: load(server) == (0, 0), server)


def test_calls_time_out_while_they_wait_and_while_they_run(serve: Serve) -> None:
    server = serve(text_function(ECHOES), batch_size=4, batch_delay=0, timeout=0.5, replace_after=1e6).ready()
    running = server.in_background(text("hold"))
    wait_until(lambda: batches(server), server)
    waiting = [server.in_background(text(value)) for value in "ab"]
    assert_problem(running.reply(), 504, "function-timeout", "did not return after 0.5 s")
    for call in waiting:
        assert_problem(call.reply(), 504, "function-timeout", "was still busy with earlier calls after 0.5 s")
    assert_problem(server.get("/health/ready"), 503, "not-ready", "hold every slot")
    server.release()
    server.wait_for("after its timeout")
    assert server.post(text("c")).outputs == {"text": "C"}
    assert batches(server) == [["hold"], ["c"]]
    assert len(server.lines("a call waited 0.5 s for app:predict")) == 2


def test_a_worker_whose_batch_never_ends_is_replaced(serve: Serve) -> None:
    body = ECHOES.replace("return", 'if "block" in texts: threading.Event().wait()\nreturn')
    server = serve(text_function(body), batch_size=4, batch_delay=0, timeout=0.3, replace_after=0.1).ready()
    assert_problem(server.post(text("block")), 504, "function-timeout")
    waiting = [server.in_background(text(value)) for value in "ab"]
    assert "calls of a batch of app:predict past 0.3 s hold every slot" in server.wait_for("was replaced")
    assert {call.reply().status for call in waiting} <= {503, 504}
    server.ready(times=2)
    assert server.post(text("c")).outputs == {"text": "C"}


def test_a_drain_answers_all_who_run_and_wait(serve: Serve) -> None:
    server = serve(text_function(ECHOES), batch_size=2, batch_delay=0).ready()
    calls = [server.in_background(text("hold"))]
    wait_until(lambda: batches(server), server)
    calls += [server.in_background(text(value)) for value in "abc"]
    wait_until(lambda: load(server) == (1, 3), server)
    server.process.send_signal(signal.SIGTERM)
    server.release()
    assert [call.reply().status for call in calls] == [200] * 4
    assert server.wait_ended() == 0


ASYNC = """
import asyncio
try:
    while "block" in texts and not os.path.exists("go"): await asyncio.sleep(0.005)
except asyncio.CancelledError:
    open("cancelled", "a").write("x")
    raise
"""


def test_an_async_batch_is_cancelled_when_the_last_caller_has_left(serve: Serve) -> None:
    body = ECHOES.replace("return", f"{ASYNC}\nreturn")
    source = text_function(body).replace("def predict", "async def predict")
    server = serve(source, batch_size=2, batch_delay=WAIT_LIMIT / 2, timeout=2 * WAIT_LIMIT).ready()
    one = send(server, "block")
    wait_until(lambda: load(server) == (0, 1), server)
    other = send(server, "a")
    wait_until(lambda: load(server) == (2, 0), server)
    one.close()
    other.close()
    wait_until(lambda: load(server) == (0, 0), server)
    assert (server.folder / "cancelled").read_text() == "x"
    assert not server.lines("raised")


def test_an_async_batch(serve: Serve) -> None:
    source = text_function(ECHOES).replace("def predict", "async def predict")
    server = serve(source, batch_size=4, batch_delay=0).ready()
    assert [call.reply().outputs["text"] for call in together(server, *map(text, "ab"))] == ["A", "B"]
    assert batches(server) == [["hold"], ["a", "b"]]


@pytest.mark.parametrize("asynchronous", ["", "async "])
def test_a_function_that_yields_is_refused(serve: Serve, asynchronous: str) -> None:
    source = text_function('yield {"text": ""}').replace("def predict", f"{asynchronous}def predict")
    server = serve(source, batch_size=4)
    assert server.wait_ended() == 3
    assert (
        "app:predict yields its results, so its calls cannot go together: remove mlService.batch"
        in (server.lines("set-up failed")[0])
    )


def test_a_function_that_is_described_by_type_hints_is_refused(serve: Serve) -> None:
    server = serve("def predict(text: str) -> str:\n    return text", batch_size=4)
    assert server.wait_ended() == 3
    assert "is described by type hints, which are those of one call" in server.lines("set-up failed")[0]


def test_several_batches_at_once(serve: Serve) -> None:
    server = serve(text_function(ECHOES), batch_size=1, batch_delay=0, batch_concurrency=2).ready()
    held = server.in_background(text("hold"))
    wait_until(lambda: batches(server), server)
    assert server.post(text("a")).outputs == {"text": "A"}
    server.release()
    assert held.reply().status == 200


def test_a_function_that_ends_the_process_loses_its_batch_alone(serve: Serve) -> None:
    body = ECHOES.replace("return", 'if "end" in texts: os._exit(7)\nreturn')
    server = serve(text_function(body), batch_size=4, batch_delay=0).ready()
    assert isinstance(server.in_background(text("end")).result(), Exception)
    server.ready(times=2)
    assert server.post(text("a")).outputs == {"text": "A"}


def tensor(value: str) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [value]}]}


def test_calls_of_both_protocols_go_together(serve: Serve) -> None:
    server = serve(
        text_function(ECHOES), batch_size=2, batch_delay=WAIT_LIMIT / 2, timeout=2 * WAIT_LIMIT
    ).ready()
    ours = server.in_background(text("a"))
    theirs = server.post(tensor("b"), "/v2/models/echo/infer").json["outputs"]
    assert theirs == [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["B"]}]
    assert ours.reply().outputs == {"text": "A"}
    assert len(batches(server)) == 1


def test_files_of_a_batch_are_each_calls_own(serve: Serve) -> None:
    source = '''
import os
def predict(inputs, context):
    """Copy.

    :param inputs.file: A file
    :type inputs.file: FILE
    :param outputs.copy: Its copy
    :type outputs.copy: FILE
    :param outputs.size: Of the batch
    :type outputs.size: INT32
    """
    results = []
    for call, one in zip(inputs, context):
        path = os.path.join(one.folder, "copy")
        with open(path, "wb") as copy, open(call[0]["data"], "rb") as file:
            copy.write(file.read())
        results.append({"copy": path, "size": len(inputs)})
    return results
'''
    settings = {"batch_size": 2, "batch_delay": WAIT_LIMIT / 2, "timeout": 2 * WAIT_LIMIT}
    server = serve(source, files_root=".", **settings).ready()
    for name in ("one", "two"):
        (server.folder / name).write_text(name)
    bodies = [{"inputs": [{"name": "file", "datatype": "FILE", "data": name}]} for name in ("one", "two")]
    replies = [call.reply().outputs for call in [server.in_background(body) for body in bodies]]
    assert [(server.folder / reply["copy"]).read_text() for reply in replies] == ["one", "two"]
    assert [reply["size"] for reply in replies] == [[2], [2]]


STACKED = '''
import time
def predict(inputs):
    """Add up rows.

    :type inputs: stacked arrays
    :param inputs.rows: Numbers
    :type inputs.rows: FP32
    :param inputs.label: A text
    :type inputs.label: str, optional
    :param outputs.total: Their sum
    :type outputs.total: FP32
    :param outputs.shape: Of the batch
    :type outputs.shape: INT32
    :param outputs.label: The same text
    :type outputs.label: str, optional
    """
    given = {item["name"]: item["data"] for item in inputs}
    rows = given["rows"]
    assert inputs[0]["shape"] == list(rows.shape) and str(rows.dtype) == "float32"
    labels = given.get("label", [None] * len(rows))
    totals = rows.reshape(len(rows), -1).sum(axis=1)
    shape = [list(rows.shape)] * len(rows)
    BODY
'''
COLUMNS = 'return {"total": totals, "shape": shape, "label": labels}'


def rows(*numbers: float, shape: list[int] | None = None, label: str | None = None) -> dict[str, Any]:
    items: list[dict[str, Any]] = [
        {"name": "rows", "datatype": "FP32", "data": numbers, "shape": shape or [len(numbers)]}
    ]
    return {
        "inputs": items if label is None else [{"name": "label", "datatype": "str", "data": label}, *items]
    }


def stacking(serve: Serve, size: int, body: str = COLUMNS) -> Server:
    settings = {"batch_size": size, "batch_delay": WAIT_LIMIT / 2, "timeout": 2 * WAIT_LIMIT}
    return serve(STACKED.replace("BODY", body), **settings).ready()


def outputs(calls: list[Background]) -> list[dict[str, Any]]:
    return [call.reply().outputs for call in calls]


@pytest.mark.parametrize(
    "body",
    [COLUMNS, 'return [{"total": t, "shape": s, "label": l} for t, s, l in zip(totals, shape, labels)]'],
    ids=["columns", "list"],
)
def test_arrays_of_a_batch_are_stacked(serve: Serve, body: str) -> None:
    server = stacking(serve, 3, body)
    bodies = [rows(1, 2, label="a"), rows(3, 4, label="b"), rows(5, 6, label="c")]
    found = outputs([server.in_background(body) for body in bodies])
    assert found == [
        {"total": [total], "shape": [3, 2], "label": label}
        for total, label in ((3.0, "a"), (7.0, "b"), (11.0, "c"))
    ]


def test_only_calls_of_equal_shapes_are_stacked(serve: Serve) -> None:
    hold = 'import os\n    while rows.size == 1 and not os.path.exists("go"): time.sleep(0.005)\n    '
    server = serve(STACKED.replace("BODY", hold + COLUMNS), batch_size=4, batch_delay=0).ready()
    held = server.in_background(rows(7))
    wait_until(lambda: load(server) == (1, 0), server)
    bodies = [
        *(rows(1, 2), rows(1, 2, 3), rows(1, 2, 3, 4, shape=[2, 2]), rows(1, 2, label="a")),
        *(rows(3, 4), rows(4, 5, 6), rows(5, 6, 7, 8, shape=[2, 2]), rows(3, 4, label="b")),
    ]
    calls = [server.in_background(body) for body in bodies]
    wait_until(lambda: load(server) == (1, 8), server)
    server.release()
    found = outputs([held, *calls])
    assert [reply["shape"] for reply in found[1:]] == 2 * [[2, 2], [2, 3], [2, 2, 2], [2, 2]]
    assert [reply["total"] for reply in found] == [[7], [3], [6], [10], [3], [7], [15], [26], [7]]


def test_a_tensors_own_batch_dimension_is_one_of_its_dimensions(serve: Serve) -> None:
    server = stacking(serve, 2)
    path = "/v2/models/echo/infer"
    first = server.in_background(rows(1, 2, shape=[1, 2]))
    reply = server.post(rows(3, 4, shape=[1, 2]), path).json["outputs"]
    assert [output["data"] for output in reply if output["name"] == "shape"] == [[2, 1, 2]]
    assert first.reply().outputs["total"] == [3.0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('return {"total": totals[:1], "shape": shape}', "output 'total' has 1 value for 2 calls"),
        ('return {"total": totals, "shape": shape * 2}', "output 'shape' has 4 values for 2 calls"),
        ('return {"total": totals.sum()}', "output 'total' is a value of type float32 for a batch"),
        ('return {"total": 7.0}', "output 'total' is a value of type float for a batch"),
        ('return {"total": totals, "label": "ab"}', "output 'label' is a value of type str for a batch"),
        ("return totals", "returned a value of type ndarray for a batch"),
    ],
)
def test_columns_that_are_not_one_value_a_call(serve: Serve, body: str, words: str) -> None:
    server = stacking(serve, 2, body)
    for call in [server.in_background(rows(1, 2)), server.in_background(rows(3, 4))]:
        assert_problem(call.reply(), 500, "bad-output", words)


def test_an_exception_among_the_values_is_that_calls_error(serve: Serve) -> None:
    body = 'return {"total": [ValueError("no") if t == 7 else t for t in totals], "shape": shape}'
    server = stacking(serve, 2, body)
    good, bad = server.in_background(rows(1, 2)), server.in_background(rows(3, 4))
    assert good.reply().outputs["total"] == [3.0]
    assert_problem(bad.reply(), 500, "function-failed", "raised ValueError: no")


def test_stacked_arrays_need_batches(serve: Serve) -> None:
    server = serve(STACKED.replace("BODY", COLUMNS))
    assert server.wait_ended() == 3
    assert "which are those of the calls of a batch: add mlService.batch" in server.lines("set-up failed")[0]


def shown(summary: str) -> str:
    """The function with this summary in the chapter on batches."""
    found = [block.text for block in blocks(ROOT / "docs" / "reference" / "serving.md", "python")]
    return next(text for text in found if f'"""{summary}' in text)


def test_the_functions_of_the_page(serve: Serve) -> None:
    server = serve(shown("Count letters."), batch_size=16).ready()
    assert server.post(text("abc")).outputs == {"count": [3]}
    assert_problem(server.post(text("")), 500, "function-failed", "raised ValueError: the text is empty")


def test_the_stacking_function_of_the_page(serve: Serve) -> None:
    server = serve(shown("Tell how bright pictures are."), batch_size=16).ready()
    image = {"name": "image", "datatype": "FP32", "data": [1, 2, 3, 6], "shape": [2, 2]}
    assert server.post({"inputs": [image]}).outputs == {"brightness": [3.0]}
