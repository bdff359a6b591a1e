"""What the developer's code may do wrong: each fault is told, and the service stays or comes back."""

from __future__ import annotations

import pathlib
import signal

import pytest

from controller.serving import log
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import ECHO, Reply, load, text, text_function, wait_until

pytestmark = pytest.mark.slow


def assert_problem(reply: Reply, status: int, slug: str) -> None:
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["type"] == f"urn:prichal:problem:{slug}"
    assert reply.json["status"] == status
    assert reply.json["instance"] == f"urn:prichal:request:{reply.headers['x-request-id']}"
    assert reply.json["title"]
    assert reply.json["detail"]


def test_an_exception_is_a_500_without_traceback_and_the_log_has_it(serve: Serve) -> None:
    server = serve(text_function('raise ValueError("no such class: " + inputs[0]["data"])')).ready()
    reply = server.post(text("dog"), X_Request_ID="abc-1")
    assert_problem(reply, 500, "function-failed")
    assert reply.json["exception"] == {"type": "ValueError", "message": "no such class: dog"}
    assert "function app:predict in component echo raised ValueError" in reply.json["detail"]
    assert b"Traceback" not in reply.body
    assert "request=abc-1" in server.wait_for("raised ValueError")
    server.wait_for("ValueError: no such class: dog")
    assert any("app.py" in line for line in server.lines())


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("sys.exit(4)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()", "Odd"),
        ("raise type('Quit', (Exception,), {'__str__': lambda self: sys.exit(3)})()", "Quit"),
        ("raise type('Told', (Exception,), {'status_code': property(lambda self: sys.exit(3))})()", "Told"),
        ("raise type('Quiet', (Exception,), {'__getattr__': lambda self, name: sys.exit(3)})()", "Quiet"),
        ("raise ValueError('x' * 20_000_000)", "ValueError"),
        ("raise RecursionError('deep')", "RecursionError"),
        ("raise OSError('disk')", "OSError"),
    ],
)
def test_whatever_is_raised_the_worker_stays(serve: Serve, statement: str, kind: str) -> None:
    server = serve(text_function(f'if inputs[0]["data"] == "bad": {statement}\nreturn {{"text": "well"}}'))
    reply = server.ready().post(text("bad"))
    assert_problem(reply, 500, "function-failed")
    assert reply.json["exception"]["type"] == kind
    assert server.post(text()).outputs == {"text": "well"}
    assert "worker_restarts_total 0" in server.get("/metrics").body.decode()


ASYNC_ENDS = {
    "a task that is awaited": "await asyncio.gather(leave())",
    "a task that is not": "asyncio.ensure_future(leave()); await asyncio.sleep(0)",
    "a callback": "loop.call_soon(sys.exit); await asyncio.sleep(0)",
    "an interrupt": "asyncio.ensure_future(leave(KeyboardInterrupt)); await asyncio.sleep(0)",
    "a loop that is stopped": "loop.stop(); await asyncio.sleep(0)",
    "one that is stopped from a thread": "await asyncio.to_thread(loop.call_soon_threadsafe, loop.stop)",
}


@pytest.mark.parametrize("ends", ASYNC_ENDS)
def test_whatever_ends_the_event_loop_the_calls_go_on(serve: Serve, ends: str) -> None:
    """Also those that are under way meanwhile."""
    leave = "async def leave(kind=SystemExit):\n    raise kind(3)\n"
    body = (
        "loop, said = asyncio.get_running_loop(), inputs[0]['data']\n"
        f"if said == 'bad': {ASYNC_ENDS[ends]}\n"
        "while said == 'wait' and not os.path.exists('go'): await asyncio.sleep(0.01)\n"
        "return {'text': 'well'}"
    )
    source = text_function(body, before=f"import asyncio\n{leave}").replace(
        "def predict", "async def predict"
    )
    server = serve(source).ready()
    waiting = server.in_background(text("wait"))
    wait_until(lambda: load(server) == (1, 0), server)
    reply = server.post(text("bad"))
    assert reply.status == 200 or reply.json["exception"]["type"] == "RuntimeError"
    assert server.post(text()).outputs == {"text": "well"}
    server.release()
    assert waiting.reply().outputs == {"text": "well"}
    assert "worker_restarts_total 0" in server.get("/metrics").body.decode()


def test_a_traceback_with_a_large_message_is_cut_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("a" * 10**6 + "z")
    except ValueError as error:
        log.write_traceback(error)
    written = capfd.readouterr().err
    assert len(written) < 1.1 * log.LONGEST
    assert written.startswith("Traceback")
    assert written.endswith("az\n")
    assert "characters are left out" in written


def test_os_exit_drops_the_call_and_the_worker_is_replaced(serve: Serve) -> None:
    server = serve(
        text_function('if inputs[0]["data"] == "bad": os._exit(7)\nreturn {"text": "well"}')
    ).ready()
    assert isinstance(server.in_background(text("bad")).result(), Exception)
    line = server.wait_for("ended with exit code 7")
    assert "1 call was lost" in line
    server.ready(times=2)
    assert server.post(text()).outputs == {"text": "well"}
    assert "worker_restarts_total 1" in server.get("/metrics").body.decode()


def test_a_segmentation_fault_is_told_by_name(serve: Serve) -> None:
    server = serve(text_function("import ctypes\nctypes.string_at(0)")).ready()
    assert isinstance(server.in_background(text()).result(), Exception)
    server.wait_for("was killed by SIGSEGV")
    server.ready(times=2)


def test_ten_megabytes_of_print_pass(serve: Serve) -> None:
    server = serve(text_function('print("x" * 10_000_000)\nreturn {"text": "done"}')).ready()
    assert server.post(text()).outputs == {"text": "done"}
    server.wait_until(lambda: server.printed >= 10_000_001)


def test_a_call_that_blocks_is_answered_504_and_others_go_on(serve: Serve) -> None:
    server = serve(text_function(BLOCKS), timeout=0.3, concurrency=2).ready()
    reply = server.post(text("block"))
    assert_problem(reply, 504, "function-timeout")
    assert reply.json["detail"] == "function app:predict in component echo did not return after 0.3 s"
    assert reply.headers["connection"] == "close"
    assert server.post(text()).outputs == {"text": "well"}
    assert server.get("/health/ready").json["overdue"] == 1


BLOCKS = 'if inputs[0]["data"] == "block": threading.Event().wait()\nreturn {"text": "well"}'


def test_when_blocked_calls_hold_every_slot_it_is_not_ready(serve: Serve) -> None:
    server = serve(text_function(BLOCKS), timeout=0.2, replace_after=1e6, concurrency=2).ready()
    for call in [server.in_background(text("block")) for _ in range(2)]:
        assert_problem(call.reply(), 504, "function-timeout")
    unready = server.get("/health/ready")
    assert_problem(unready, 503, "not-ready")
    assert "hold every slot" in unready.json["detail"]
    assert server.get("/health/live").status == 200
    assert "calls_overdue 2" in server.get("/metrics").body.decode()
    reply = server.post(text())
    assert_problem(reply, 504, "function-timeout")
    assert "was still busy with earlier calls after 0.2 s" in reply.json["detail"]


def test_when_blocked_calls_hold_every_slot_the_worker_is_replaced(serve: Serve) -> None:
    server = serve(text_function(BLOCKS), timeout=0.2, replace_after=0.1, concurrency=2).ready()
    for call in [server.in_background(text("block")) for _ in range(2)]:
        assert_problem(call.reply(), 504, "function-timeout")
    assert "2 calls of app:predict past 0.2 s hold every slot" in server.wait_for("was replaced")
    server.ready(times=2)
    assert server.post(text()).outputs == {"text": "well"}


def test_a_waiting_call_is_told_503_when_its_worker_is_replaced(serve: Serve) -> None:
    server = serve(
        text_function("threading.Event().wait()"), timeout=2, replace_after=0.1, concurrency=1
    ).ready()
    assert_problem(server.post(text()), 504, "function-timeout")
    waiting = [server.in_background(text()), server.in_background(text())]
    server.wait_for("was replaced")
    assert {call.reply().status for call in waiting} <= {503, 504}
    server.ready(times=2)


def test_a_late_result_frees_the_slot_without_a_second_answer(serve: Serve) -> None:
    body = 'while not os.path.exists("go"): time.sleep(0.01)\nreturn {"text": "late"}'
    server = serve(text_function(body), timeout=0.2, concurrency=1).ready()
    with server.connect() as sock:
        payload = b'{"inputs":[{"name":"text","datatype":"str","data":""}]}'
        head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        sock.sendall(head % len(payload) + payload)
        received = sock.makefile("rb").read()
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 504 ")
    server.release()
    server.wait_for("after its timeout")
    assert server.post(text()).outputs == {"text": "late"}


def test_the_interpreter_held_for_ever_is_noticed_from_outside(serve: Serve) -> None:
    """PyDLL calls without giving up the interpreter's lock: no other thread of the worker can run."""
    body = "import ctypes\nctypes.PyDLL(None).sleep(1000)"
    server = serve(text_function(body), timeout=0.1, replace_after=0.1).ready()
    assert isinstance(server.in_background(text()).result(), Exception)
    server.wait_for("keeps the interpreter to itself")
    server.ready(times=2)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ('{"text": object()}', "output 'text' cannot be written as JSON: a value of type object is not JSON"),
        ('{"text": {1, 2}}', "output 'text' cannot be written"),
        ("None", "returned nothing"),
        ("7", "returned a value of type int"),
        ('[{"data": 1}]', "output 0 is not a mapping with a name"),
        ('[{"name": "text", "datatype": "str"}]', "output 'text' has no data"),
        ('{"texd": "x"}', "output 'texd' is not in the docstring"),
        ('{"text": (lambda d: d.update(a=d) or d)({})}', "output 'text' cannot be written"),
    ],
)
def test_a_result_that_cannot_be_answered_names_the_output(serve: Serve, result: str, words: str) -> None:
    reply = serve(text_function(f"return {result}")).ready().post(text())
    assert_problem(reply, 500, "bad-output")
    assert words in reply.json["detail"]


SETUP_ERRORS = {
    "syntax": ("def predict(:\n", "importing app failed: SyntaxError"),
    "import": (
        "import no_such_module\n",
        "importing app failed: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "exit": ("import sys; sys.exit(1)\n", "importing app failed: SystemExit: 1"),
    "no function": ("x = 1\n", "there is no 'predict'"),
    "not callable": ("predict = 1\n", "is not a function but of type int"),
    "no docstring": ("def predict(inputs): return []\n", "app.py:1: there is no docstring"),
    "bad docstring": (ECHO.replace("str", "string"), "app.py:6: unknown type 'string'"),
    "unknown argument": (
        ECHO.replace("(inputs)", "(inputs, threshold)"),
        "unknown required argument threshold",
    ),
    "death": ("import os; os._exit(9)\n", "the worker ended with exit code 9"),
    "signal": ("import os; os.kill(os.getpid(), 9)\n", "the worker was killed by SIGKILL"),
}


@pytest.mark.parametrize("case", SETUP_ERRORS)
def test_a_setup_error_ends_the_process_with_the_reason_last(serve: Serve, case: str) -> None:
    source, words = SETUP_ERRORS[case]
    server = serve(source)
    assert server.wait_ended() == 3
    assert "set-up failed: " in server.lines()[-1]
    assert words in server.lines()[-1]


def test_a_setup_that_takes_too_long_ends_the_process(serve: Serve) -> None:
    server = serve("import threading; threading.Event().wait()", setup_timeout=0.3)
    assert server.wait_ended() == 3
    assert "set-up took longer than 0.3 s" in server.lines()[-1]


def test_a_failing_loader_is_a_setup_error(serve: Serve) -> None:
    source = ECHO + '\ndef load(path):\n    raise OSError("no weights at " + path)\n'
    server = serve(source, loader="app:load", model_path="/weights")
    assert server.wait_ended() == 3
    assert "loader app:load failed for '/weights': OSError: no weights at /weights" in server.lines()[-1]


def test_while_it_is_being_set_up_it_lives_and_is_not_ready(serve: Serve) -> None:
    server = serve('import os, time\nwhile not os.path.exists("go"): time.sleep(0.01)\n' + ECHO)
    assert server.get("/health/live").status == 200
    assert server.get("/v2/health/live").status == 200
    assert "worker_restarts_total 0" in server.get("/metrics").body.decode()
    for path in ("/health/ready", "/docs", "/v2/health/ready"):
        reply = server.get(path)
        assert_problem(reply, 503, "not-ready")
        assert reply.json["detail"] == "component echo is being set up"
    assert_problem(server.post(text("x" * 1_000_000)), 503, "not-ready")
    assert server.raw(b"BAD\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert server.raw(b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000).startswith(b"HTTP/1.1 431 ")
    server.release()
    server.ready()
    assert server.post(text()).outputs == {"text": "hi"}


def test_a_worker_that_cannot_be_set_up_again_is_retried_and_the_reason_told(serve: Serve) -> None:
    check = 'if os.path.exists("broken"): raise RuntimeError("weights are gone")\nopen("broken", "w").close()'
    server = serve(text_function("os._exit(1)", before=check)).ready()
    assert isinstance(server.in_background(text()).result(), Exception)
    server.wait_for("could not be set up: inference app:predict: importing app failed: RuntimeError", times=2)
    reply = server.get("/health/ready")
    assert_problem(reply, 503, "not-ready")
    assert "weights are gone" in reply.json["detail"]
    assert "calls_in_flight 0" in server.get("/metrics").body.decode()
    (server.folder / "broken").unlink()
    server.ready(times=2)


def test_what_the_code_started_ends_with_its_worker(serve: Serve, tmp_path: pathlib.Path) -> None:
    start = 'child = subprocess.Popen(["sleep", "1000"])\nopen("pid", "w").write(str(child.pid))\nos._exit(1)'
    server = serve(text_function(start, before="import subprocess")).ready()
    assert isinstance(server.in_background(text()).result(), Exception)
    server.ready(times=2)
    server.wait_until_gone(pathlib.Path("/proc") / (tmp_path / "pid").read_text())


def test_wrong_settings_end_with_2(serve: Serve) -> None:
    server = serve(concurency=4, timeout=-1)
    assert server.wait_ended() == 2
    assert "concurency: unknown" in server.lines()[-1]
    assert "timeout: -1 is not a time" in server.lines()[-1]


def test_a_taken_port_ends_with_2(serve: Serve) -> None:
    first = serve().ready()
    second = serve(port=first.port)
    assert second.wait_ended() == 2
    assert "Address already in use" in second.lines()[-1]


def test_a_worker_whose_supervisor_was_killed_ends(serve: Serve, tmp_path: pathlib.Path) -> None:
    server = serve(text_function('return {"text": str(os.getpid())}')).ready()
    worker = pathlib.Path("/proc") / server.post(text()).outputs["text"]
    server.process.send_signal(signal.SIGKILL)
    assert server.wait_ended() == -signal.SIGKILL  # its output ends, so no process holds it any more
    server.wait_until_gone(worker)


@pytest.mark.parametrize(
    "replaced",
    [
        "json.dumps = json.loads",
        "json.JSONEncoder = json.JSONDecoder",
        "json.encoder.JSONEncoder = json.decoder.JSONDecoder",
        "json.JSONEncoder.encode = json.JSONEncoder.iterencode = json.JSONEncoder.default",
        "json.JSONDecoder.decode = json.JSONDecoder.raw_decode",
        "json.JSONEncoder.__init__ = json.JSONDecoder.__init__",
        "json._default_encoder = json._default_decoder",
    ],
)
def test_a_function_may_replace_what_is_in_json(serve: Serve, replaced: str) -> None:
    source = text_function(
        f'{replaced} = None\nreturn {{"text": inputs[0]["data"]}}', before="import json, json.encoder"
    )
    server = serve(source).ready()
    assert server.post(text()).outputs == {"text": "hi"}
    assert server.post(text(), note="again").outputs == {"text": "hi"}
    refused = server.post({"inputs": "hi"})
    assert (refused.status, refused.json["status"]) == (422, 422)
    described = server.ask("GET", "/openapi.json", headers={"x-prichal-security": "[]"})
    assert described.json["openapi"].startswith("3.")
    assert server.get("/docs").status == 200
    assert server.get("/v2/health/ready").status == 200
    assert server.get("/v2").json["name"]
