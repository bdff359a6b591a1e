"""Workers that are forked from a process that has loaded the model once: mlService.preload."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Callable

import pytest

from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import Server, load, text, text_function, wait_until
from tests.unit.serving.test_dispatching import kept
from tests.unit.serving.test_processes import receive, send

pytestmark = pytest.mark.slow

LOADER = """
def load(path):
    open("loads", "a").write(f"{os.getpid()}\\n")
    return object()
"""
#: Says who answers, and where its model lies.
ACTS = """
what = inputs[0]["data"]
if what == "exit": os._exit(7)
if what == "fork" and os.fork() == 0: return {"text": "SECRET"}
if what == "model": return {"text": str(id(model))}
while what == "block" and not os.path.exists("go"): time.sleep(0.005)
return {"text": str(os.getpid())}
"""


@pytest.fixture
def preloaded(serve: Serve) -> Callable[..., Server]:
    def start(processes: int = 2, **settings: object) -> Server:
        source = text_function(ACTS, "inputs, model", before=LOADER)
        return serve(source, loader="app:load", preload=True, processes=processes, **settings).ready(
            processes
        )

    return start


def loads(server: Server) -> list[str]:
    return (server.folder / "loads").read_text().split()


def say(server: Server, value: str) -> str:
    return str(server.post(text(value)).outputs["text"])


@pytest.mark.parametrize("processes", [1, 3])
def test_the_model_is_loaded_once_and_shared(preloaded: Callable[..., Server], processes: int) -> None:
    server = preloaded(processes)
    with kept(server, 6) as connections:
        assert len({connection.call() for connection in connections}) == processes
        assert len({connection.call("model") for connection in connections}) == 1
    (loader,) = loads(server)
    assert loader not in {say(server, "hi") for _ in range(processes)}
    assert server.get("/health/ready").status == 200


def test_a_worker_is_forked_again_without_loading_again(preloaded: Callable[..., Server]) -> None:
    server = preloaded()
    assert isinstance(server.in_background(text("exit")).result(), Exception)
    assert "ended with exit code 7" in server.wait_for("1 call was lost")
    server.ready(3)
    assert len(loads(server)) == 1
    os.kill(int(say(server, "hi")), signal.SIGKILL)
    server.wait_for("was killed by SIGKILL")
    server.ready(4)
    assert len(loads(server)) == 1
    assert "worker_restarts_total 2" in server.get("/metrics").body.decode()


def test_a_fork_server_that_dies_leaves_its_workers(preloaded: Callable[..., Server]) -> None:
    server = preloaded()
    with kept(server, 4) as connections:
        before = {connection.call() for connection in connections}
        os.kill(int(loads(server)[0]), signal.SIGKILL)
        for connection in connections:
            assert connection.call() in before
        server.wait_for("the fork server was killed by SIGKILL; starting it again")
        server.wait_for("the fork server has loaded", times=2)
        assert {connection.call() for connection in connections} == before
        assert "worker_restarts_total 0" in server.get("/metrics").body.decode()
    orphan = say(server, "hi")
    assert isinstance(server.in_background(text("exit")).result(), Exception)
    server.ready(3)
    assert len(loads(server)) == 2
    assert orphan in before
    assert server.stop() == 0


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("more", [0, 500_000])
def test_a_set_up_that_fails_ends_the_process_with_the_reason_last(
    serve: Serve, preload: bool, more: int
) -> None:
    load = f"def load(path): raise OSError('no weights' + {more} * 'x')"
    source = text_function(ACTS, "inputs, model", before=load)
    server = serve(source, loader="app:load", preload=preload, processes=2)
    assert server.wait_ended() == 3
    assert "set-up failed: loader app:load failed for None: OSError: no weights" in server.lines()[-1]


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("os._exit(9)", "set-up failed: the fork server ended with exit code 9"),
        ("os.kill(os.getpid(), 9)", "set-up failed: the fork server was killed by SIGKILL"),
        ("threading.Event().wait()", "set-up failed: set-up took longer than 0.5 s"),
    ],
)
def test_a_fork_server_that_does_not_come_up(serve: Serve, before: str, words: str) -> None:
    server = serve(text_function("return {}", before=before), preload=True, setup_timeout=0.5)
    assert server.wait_ended() == 3
    assert words in server.lines()[-1]


def test_a_fork_server_that_forks_nothing_any_more_is_replaced(serve: Serve) -> None:
    """What libraries register to be called at a fork may wait for ever."""
    stuck = "os.register_at_fork(before=lambda: os.path.exists('stuck') and time.sleep(1000))"
    source = text_function(ACTS, "inputs, model", before=stuck)
    server = serve(source, preload=True, setup_timeout=2).ready()
    pid = say(server, "hi")
    (server.folder / "stuck").touch()
    os.kill(int(pid), signal.SIGKILL)
    server.wait_for("the fork server was killed by SIGKILL; starting it again")
    (server.folder / "stuck").unlink()
    server.ready(2)
    assert say(server, "hi") != pid


def test_an_async_loader_is_refused(serve: Serve) -> None:
    source = text_function(ACTS, "inputs, model", before="async def load(path): return 1")
    server = serve(source, loader="app:load", preload=True)
    assert server.wait_ended() == 3
    assert "an async loader cannot be preloaded: set preload to false" in server.lines()[-1]


def test_an_async_function_is_not(serve: Serve) -> None:
    source = text_function("await asyncio.sleep(0)\nreturn {'text': 'well'}", before="import asyncio")
    server = serve(source.replace("def predict", "async def predict"), preload=True, processes=2).ready(2)
    assert {say(server, "hi") for _ in range(4)} == {"well"}


def test_threads_that_a_module_starts_are_told(serve: Serve) -> None:
    start = 'threading.Thread(target=threading.Event().wait, name="feeder", daemon=True).start()'
    body = "return {'text': ' '.join(thread.name for thread in threading.enumerate())}"
    server = serve(text_function(body, before=start), preload=True, processes=2).ready(2)
    assert "preload to false" in server.wait_for("the module has started threads (feeder)")
    assert "feeder" not in say(server, "hi")


def test_a_module_that_starts_none_is_not_warned_of(preloaded: Callable[..., Server]) -> None:
    assert preloaded().lines("preload:") == []


def test_a_function_that_forks_mixes_no_answers(preloaded: Callable[..., Server]) -> None:
    server = preloaded()
    with kept(server, 2) as connections:
        for _ in range(3):
            for connection in connections:
                assert connection.call("fork").isdigit()
                assert connection.call().isdigit()
        server.wait_for("forked", times=6)
    assert "worker_restarts_total 0" in server.get("/metrics").body.decode()


def test_sigterm_answers_what_runs_and_leaves_no_process(preloaded: Callable[..., Server]) -> None:
    server = preloaded()
    workers = {say(server, "hi") for _ in range(4)}
    running = send(server, "block")
    wait_until(lambda: load(server) == (1, 0), server)
    server.process.terminate()
    server.release()
    assert receive(running).status == 200
    assert server.wait_ended() == 0
    for pid in (*workers, *loads(server)):
        server.wait_until_gone(pathlib.Path("/proc") / pid)


def test_nothing_is_left_of_a_supervisor_that_was_killed(preloaded: Callable[..., Server]) -> None:
    server = preloaded()
    workers = {say(server, "hi") for _ in range(4)}
    server.process.kill()
    assert server.wait_ended() == -signal.SIGKILL
    for pid in (*workers, *loads(server)):
        server.wait_until_gone(pathlib.Path("/proc") / pid)


def test_sigterm_while_it_loads_ends_at_once(serve: Serve) -> None:
    server = serve("import threading; threading.Event().wait()", preload=True, processes=2)
    assert server.get("/health/live").status == 200
    assert server.stop() == 0
    assert server.lines()[-1] == "prichal: stopped"
