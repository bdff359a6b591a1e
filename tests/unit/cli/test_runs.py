"""`prichal run` against a server of the run API in this process; what goes wrong on the way is tested with the client
(tests/unit/client/test_runs.py)."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.cli.exits import Exit
from controller.domain.names import ComponentName
from controller.domain.runs.run import RunInput, RunOutput, RunState
from tests.support.files_server import files_server
from tests.support.gateway import APP
from tests.support.runs import make_pipeline
from tests.support.runs_server import RunsServer, runs_server
from tests.support.waiting import wait_for
from tests.unit.cli.conftest import Machine, Outcome

Run = Callable[..., Outcome]
START = ("start", "demo/train", "--input", "data=g/in.csv")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunsServer]:
    with runs_server(tmp_path) as running:
        yield running


@pytest.fixture
def run(machine: Machine, server: RunsServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`prichal run …` as anna."""
    monkeypatch.setenv("PRICHAL_SERVER", server.url)
    monkeypatch.setenv("PRICHAL_PASSWORD", "p:w")
    monkeypatch.setenv("TZ", "UTC")

    def call(*arguments: str, user: str = "anna") -> Outcome:
        return machine.run("run", *arguments, *(("--user", user) if user else ()))

    return call


@pytest.fixture
def later(server: RunsServer) -> Iterator[Callable[[Callable[[str], object]], None]]:
    """Does something with the run that is submitted next."""
    threads: list[threading.Thread] = []

    def begin(work: Callable[[str], object]) -> None:
        def turn() -> None:
            wait_for(lambda: server.store.runs.list(APP))
            work(server.newest().id)

        threads.append(threading.Thread(target=turn))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join()


# --- start ------------------------------------------------------------------------------------------------------


def test_start_prints_the_name_of_the_run(server: RunsServer, run: Run) -> None:
    started = run(*START)
    assert (started.code, started.stderr) == (Exit.OK, "")
    assert started.stdout == f"demo/train/{server.newest().id}\n"
    (headers,) = server.headers("api", "POST")
    assert len(headers["idempotency-key"]) == 38, "a UUID in quotes"
    document = json.loads(run("start", "demo/pipelines/train", "--input", "data=g/", "-o", "json").stdout)
    assert document["links"]["self"] == f"/demo/pipelines/train/runs/{server.newest().id}"


def test_start_by_url(server: RunsServer, run: Run) -> None:
    url = f"{server.url}/demo/train/runs"
    assert run("start", url, "--input", "data=g/x").stdout == f"{url}/{server.newest().id}\n"
    assert run("status", f"{url}/{server.newest().id}").code == Exit.OK


def test_what_start_sends(server: RunsServer, run: Run) -> None:
    done = run(
        *START,
        *("--input", "rate=0.5", "--input", 'note:={"a": [1]}'),
        *("--output-group", "report=results/today", "--priority", "-1"),
        *("--webhook", "https://example.org/done", "--key", "my-key"),
    )
    assert done.code == Exit.OK, done.stderr
    found = server.newest()
    assert found.inputs == (
        RunInput("data", "FILE", "g/in.csv"),
        RunInput("rate", "FP64", "0.5"),
        RunInput("note", "dict", '{"a": [1]}'),
    )
    assert found.outputs == (RunOutput("report", "results/today/"),)
    assert (found.priority, found.webhook) == (-1, "https://example.org/done")
    assert server.headers("api", "POST")[0]["idempotency-key"] == '"my-key"'
    assert run(*START, "--input", 'note:="5"').code == Exit.OK
    assert server.newest().inputs[1] == RunInput("note", "str", '"5"')


def test_the_same_key_starts_one_run(run: Run) -> None:
    first, second = (run(*START, "--key", "k").stdout for _ in range(2))
    assert first == second
    other = run("start", "demo/train", "--input", "data=g/other", "--key", "k")
    assert other.code == Exit.FAILED
    assert "Choose another key" in other.stderr


def test_files_of_this_machine_are_uploaded_first(
    server: RunsServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_bytes(b"1;2")
    server.store.runs.publish(APP, (make_pipeline(boxes=(ComponentName("userdata"), ComponentName("data"))),))
    with files_server() as server.files:
        started = run("start", "demo/train", "--input", "data=@in.csv", "--upload", "data/tables")
        assert started.code == Exit.OK, started.stderr
        assert server.files.content("tables/in.csv") == b"1;2"
    assert server.newest().inputs == (RunInput("data", "FILE", "tables/in.csv", "data"),)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "data"), "NAME=VALUE"),
        (("--input", "=x"), "NAME=VALUE"),
        (("--input", "data=a", "--input", "data=b"), "twice"),
        (("--output-group", "r=a", "--output-group", "r=b"), "twice"),
        (("--input", "data:={"), "not valid JSON"),
        (("--input", "data=@nothing.csv", "--upload", "data/g"), "no file"),
        (("--input", "data=@nothing.csv"), "--upload"),
        (("--input", "data=@config.yaml", "--upload", "data"), "BOX/GROUP"),
        (("--priority", "1"), "-10<=x<=0"),
        (("--follow", "-o", "json"), "--wait"),
    ],
)
def test_wrong_usage(
    run: Run, machine: Machine, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(machine.config.parent)
    done = run("start", "demo/train", *arguments)
    assert (done.code, words in done.stderr) == (Exit.USAGE, True), done.stderr


@pytest.mark.parametrize("name", ["demo", "/train", "demo/", "demo//x", "DEMO/x", "demo/../x", "http://h/x"])
def test_what_is_no_pipeline(run: Run, name: str) -> None:
    assert run("start", name).code == Exit.USAGE
    assert run("ls", name).code == Exit.USAGE
    assert run("status", name).code == Exit.USAGE


def test_all_faults_are_told_in_one_line(run: Run) -> None:
    done = run("start", "demo/train", "--input", "speed=1")
    assert done.code == Exit.FAILED
    assert done.stderr.count("\n") == 1
    assert "/inputs/speed: unknown input" in done.stderr
    assert "data" in done.stderr


def test_whoever_is_not_there_or_may_not(server: RunsServer, run: Run) -> None:
    assert run(*START, user="").code == Exit.FAILED
    assert "CredentialsRefused" in run(*START, user="").stderr
    assert run("start", "demo/nothing").code == Exit.NOT_FOUND
    assert run("status", f"demo/train/{'0' * 19}").code == Exit.NOT_FOUND
    id = server.submit()
    server.player.finish(id)
    server.player.forget(id)
    gone = run("status", f"demo/train/{id}")
    assert (gone.code, "was removed" in gone.stderr) == (Exit.NOT_FOUND, True)


# --- waiting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("ERROR", 1), ("CANCELED", 1)])
def test_start_waits_and_tells_how_it_ended(
    server: RunsServer, run: Run, later: Callable[..., None], state: str, code: int
) -> None:
    later(lambda id: server.player.finish(id, RunState(state), "Why"))
    done = run(*START, "--wait")
    assert done.code == code
    assert done.stdout == f"demo/train/{server.newest().id}\n"
    lines = [line.split(" ", 1)[1] for line in done.stderr.splitlines()]
    assert lines[:3] == ["QUEUED", "fit QUEUED", "tell QUEUED"]
    assert lines[-1] == f"{state} Why"
    assert f"tell {state} Why" in lines


def test_start_waits_for_scripts(server: RunsServer, run: Run, later: Callable[..., None]) -> None:
    later(lambda id: server.player.finish(id))
    done = run(*START, "--wait", "-o", "json")
    assert json.loads(done.stdout)["state"] == "SUCCEEDED"


def test_start_follows(server: RunsServer, run: Run, later: Callable[..., None]) -> None:
    def play(id: str) -> None:
        server.player.begin(id)
        server.player.write(id, "fit", 1, b"epoch 1\n")
        server.player.finish(id)

    later(play)
    done = run(*START, "--follow")
    assert (done.code, done.stdout) == (Exit.OK, "fit  | epoch 1\n")
    address = f"demo/train/{server.newest().id}"
    assert done.stderr == f"{address}\n{address}: SUCCEEDED\n"


# --- look -------------------------------------------------------------------------------------------------------


def test_ls(server: RunsServer, run: Run) -> None:
    first, second = server.submit(), server.submit()
    server.player.finish(first, RunState.FAILED, "ExitCode")
    rows = [line.split() for line in run("ls", "demo/train").stdout.splitlines()]
    assert rows[0] == ["RUN", "PIPELINE", "STATE", "REASON", "STARTED", "TOOK"]
    assert rows[1] == [f"demo/train/{second}", "train", "QUEUED", "-", "-", "-"]
    assert rows[2][:4] == [f"demo/train/{first}", "train", "FAILED", "ExitCode"]
    assert len(run("ls", "demo/train", "--state", "failed").stdout.splitlines()) == 2
    assert len(run("ls", "demo/pipelines", "--limit", "1").stdout.splitlines()) == 2
    listed = json.loads(run("ls", "demo/train", "-o", "json").stdout)
    assert [each["id"] for each in listed["runs"]] == [second, first]


def test_show(server: RunsServer, run: Run) -> None:
    id = server.submit()
    server.player.begin(id)
    server.player.end_attempt(id, "fit", 3, RunState.QUEUED, "ExitCode")
    server.player.begin(id)
    server.player.stage(id, "fit", lambda stage: replace(stage, progress="7/9"))
    shown = run("status", f"demo/train/{id}")
    assert shown.code == Exit.OK
    text = shown.stdout
    assert text.startswith(f"demo/train/{id}: RUNNING\n")
    assert "  input     data = g/in.csv\n" in text
    assert f"  output    report = runs/{id}/report/\n" in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert any(row.startswith("fit RUNNING 2 7/9 ") for row in rows)
    assert any(row.startswith("fit 1 ") and row.endswith("3 ExitCode") for row in rows)
    assert rows[-1].endswith("fit RUNNING")
    assert run("status", "demo/train").stdout.startswith(f"demo/train/{id}: "), "the newest one"
    assert json.loads(run("status", f"demo/train/{id}", "-o", "json").stdout)["id"] == id


def test_show_of_the_newest_where_there_is_none(run: Run) -> None:
    assert run("status", "demo/train").code == Exit.NOT_FOUND


def test_show_watches_line_by_line(server: RunsServer, run: Run, later: Callable[..., None]) -> None:
    id = server.submit()
    later(lambda id: server.player.finish(id))
    done = run("status", f"demo/train/{id}", "--watch")
    assert done.code == Exit.OK
    lines = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
    assert lines == sorted(set(lines), key=lines.index), "nothing is told twice"
    assert {"QUEUED", "RUNNING", "fit SUCCEEDED", "SUCCEEDED"} <= set(lines)


def test_show_draws_a_table_on_a_terminal(server: RunsServer, machine: Machine) -> None:
    id = server.submit()
    server.player.begin(id)
    main, terminal = pty.openpty()
    variables = {"PRICHAL_SERVER": server.url, "PRICHAL_PASSWORD": "p:w", "TERM": "xterm", "COLUMNS": "200"}
    command = [
        "run",
        "status",
        f"demo/train/{id}",
        "--watch",
        "--user",
        "anna",
        "--config",
        str(machine.config),
    ]
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-m", "controller", *command], stdout=terminal, env={**os.environ, **variables}
    ) as process:
        os.close(terminal)
        while b"RUNNING" not in shown:
            shown += os.read(main, 10_000)
        server.player.stage(id, "fit", lambda stage: replace(stage, progress="3/4"))
        while b"3/4" not in shown:
            shown += os.read(main, 10_000)
        server.player.finish(id)
        assert process.wait(30) == Exit.OK
        while b"SUCCEEDED" not in shown:
            shown += os.read(main, 10_000)
    os.close(main)
    assert b"\x1b[1A" in shown, "the cursor goes up, the table is drawn anew"


# --- logs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(server: RunsServer) -> str:
    """Id of a run that is over, with a log of each stage."""
    player, id = server.player, server.submit()
    player.begin(id)
    player.write(id, "fit", 1, b"bad\n")
    player.end_attempt(id, "fit", 3, RunState.QUEUED, "ExitCode")
    player.begin(id)
    player.write(id, "fit", 2, b"good\nno end")
    player.end_attempt(id, "fit", 0, RunState.SUCCEEDED)
    player.begin(id, "tell")
    player.write(id, "tell", 1, b"told\n")
    player.end_attempt(id, "tell", 0, RunState.SUCCEEDED)
    player.to(id, RunState.SUCCEEDED)
    return f"demo/train/{id}"


def test_logs(run: Run, written: str) -> None:
    every = "fit  | bad\nfit  | good\nfit  | no end\ntell | told\n"
    assert run("logs", written).stdout == every
    assert run("logs", "demo/train").stdout == every
    assert run("logs", written, "-f") == (Exit.OK, every, "")
    assert run("logs", written, "--stage", "fit").stdout == "bad\ngood\nno end"
    assert run("logs", written, "--stage", "fit", "-f") == (Exit.OK, "bad\ngood\nno end", "")
    assert run("logs", written, "--stage", "fit", "--attempt", "2").stdout == "good\nno end"
    first = run("logs", written, "--stage", "fit", "--attempt", "1", "-f")
    assert first == (Exit.FAILED, "bad\n", "")
    assert run("logs", written, "--attempt", "1").code == Exit.USAGE
    assert run("logs", written, "--stage", "nothing").code == Exit.NOT_FOUND


# --- cancel and retry -------------------------------------------------------------------------------------------


def test_cancel(server: RunsServer, run: Run) -> None:
    address = f"demo/train/{server.submit()}"
    assert run("cancel", address) == (Exit.OK, f"{address}: CANCELED\n", "")
    assert run("cancel", address, "--wait").code == Exit.OK
    assert run("cancel", "demo/train").code == Exit.USAGE, "never the newest by chance"


def test_cancel_waits(server: RunsServer, run: Run, later: Callable[..., None]) -> None:
    id = server.submit()
    server.player.begin(id)
    assert run("cancel", f"demo/train/{id}").stdout == f"demo/train/{id}: CANCELING\n"

    def stop(id: str) -> Any:
        wait_for(lambda: len(server.requests("api", "POST")) > 1)
        server.player.finish(id, RunState.CANCELED, "Canceled")

    later(stop)
    done = run("cancel", f"demo/train/{id}", "--wait")
    assert (done.code, done.stdout) == (Exit.OK, f"demo/train/{id}: CANCELED\n")


def test_cancel_that_comes_too_late(server: RunsServer, run: Run) -> None:
    id = server.submit()
    server.player.finish(id)
    assert run("cancel", f"demo/train/{id}").code == Exit.OK
    assert run("cancel", f"demo/train/{id}", "--wait").code == Exit.FAILED


def test_retry(server: RunsServer, run: Run) -> None:
    id = server.submit()
    assert run("retry", f"demo/train/{id}").code == Exit.FAILED, "it is not over"
    server.player.finish(id, RunState.FAILED, "ExitCode")
    again = run("retry", f"demo/train/{id}")
    assert (again.code, again.stdout) == (Exit.OK, f"demo/train/{server.newest().id}\n")
    assert server.newest().origin == id
    assert f"retry of {id}" in run("status", "demo/train").stdout
