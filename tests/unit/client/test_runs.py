"""The client of the run API against a real HTTP server in this process, and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.client.retry import RetryPolicy
from controller.client.runs import LogPiece, RunsClient
from controller.client.runs.events import ServerSentEvent, read_events
from controller.client.runs.multiplex import follow_all
from controller.domain.backoff import Backoff
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.runs.addresses import PipelineAddress, RunAddress
from controller.domain.runs.run import RunState
from controller.domain.secret import Secret
from tests.support.faulty_server import cut, lose_answer, status
from tests.support.runs_server import RunsServer, runs_server

ANNA = Secret("Basic YW5uYTpwOnc=")
BODY = {"inputs": {"data": "g/in.csv"}}
TRIES = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunsServer]:
    with runs_server(tmp_path) as running:
        yield running


@pytest.fixture
def client() -> Iterator[RunsClient]:
    at_once = Backoff(0.0, 0.0)
    with RunsClient(ANNA, RetryPolicy(at_once, TRIES - 1), RetryPolicy(at_once, TRIES - 1)) as client:
        yield client


@pytest.fixture
def train(server: RunsServer) -> PipelineAddress:
    return PipelineAddress("demo/train", server.url)


@pytest.fixture
def begun(server: RunsServer, train: PipelineAddress) -> RunAddress:
    """A run that is at work on its first stage."""
    id = server.submit()
    server.player.begin(id)
    return train.run(id)


# --- starting ---------------------------------------------------------------------------------------------------


def test_a_request_whose_answer_was_lost_starts_one_run(
    server: RunsServer, client: RunsClient, train: PipelineAddress
) -> None:
    server.order("api", "POST", lose_answer, status(503))
    run = client.start(train, BODY, "some-key")
    assert [run.id] == [address.id for address, _ in client.list(train)]
    assert [headers["idempotency-key"] for headers in server.headers("api", "POST")] == ['"some-key"'] * 3
    assert (run.state, run.pipeline, run.started) == (RunState.QUEUED, "train", None)
    assert [stage.name for stage in run.stages] == ["fit", "tell"]


def test_a_repetition_whose_answer_was_lost_starts_one_run(
    server: RunsServer, client: RunsClient, begun: RunAddress
) -> None:
    server.player.finish(begun.id, RunState.FAILED, "ExitCode")
    server.order("api", "POST", lose_answer)
    again = client.retry(begun, "some-key")
    assert {address.id for address, _ in client.list(begun.pipeline)} == {begun.id, again.id}


def test_all_faults_of_a_request_are_told_in_one_line(client: RunsClient, train: PipelineAddress) -> None:
    with pytest.raises(Stalled) as refused:
        client.start(train, {"inputs": {"data": "../x", "speed": 1}, "output": {}}, "k")
    assert refused.value.reason == "RequestRefused"
    for place in ("/output: unknown member", "/inputs/speed: unknown", "/inputs/data: the path has"):
        assert place in refused.value.message
    assert "\n" not in refused.value.message


# --- looking ----------------------------------------------------------------------------------------------------


def test_lists_go_on_page_by_page(server: RunsServer, client: RunsClient, train: PipelineAddress) -> None:
    ids = sorted(server.submit() for _ in range(120))
    every = client.list(train, limit=1000)
    assert [address.id for address, _ in every] == ids[::-1]
    assert [address for address, _ in client.list(train, limit=3)] == [train.run(id) for id in ids[:-4:-1]]
    assert client.list(train, RunState.RUNNING) == ()


def test_runs_of_the_api_of_all_pipelines_are_named_by_it(server: RunsServer, client: RunsClient) -> None:
    id = server.submit()
    ((address, _),) = client.list(PipelineAddress("demo/pipelines", server.url))
    assert str(address) == f"demo/pipelines/train/{id}"
    assert client.find(address).id == id


def test_a_run_is_watched_to_its_end(server: RunsServer, client: RunsClient, begun: RunAddress) -> None:
    seen = []
    for report in client.watch(begun):
        seen.append((report.state, report.stages[0].progress))
        if len(seen) == 1:
            server.player.stage(begun.id, "fit", lambda stage: replace(stage, progress="1/2"))
        elif len(seen) == 2:
            server.order("api", "GET", status(502), cut(10))
            server.player.to(begun.id, RunState.CANCELING)
        elif report.state is RunState.CANCELING:
            server.player.finish(begun.id, RunState.CANCELED)
    assert seen[:3] == [(RunState.RUNNING, ""), (RunState.RUNNING, "1/2"), (RunState.CANCELING, "1/2")]
    assert seen[-1][0] is RunState.CANCELED


# --- logs -------------------------------------------------------------------------------------------------------


def test_a_log_is_gone_on_with_where_it_broke(
    server: RunsServer, client: RunsClient, begun: RunAddress
) -> None:
    data = b"line one\nline two \xff\n" * 100
    server.player.write(begun.id, "fit", 1, data)
    server.order("api", "GET", cut(100), cut(700), status(500), cut(100))
    pieces: list[bytes] = []
    client.log(begun, "fit", None, pieces.append)
    assert b"".join(pieces) == data


def follow(client: RunsClient, run: RunAddress, stage: str = "fit", attempt: int | None = None) -> str:
    pieces: list[LogPiece] = []
    client.follow(run, stage, attempt, pieces.append)
    return "".join(f"{piece.text}\n" if piece.ended else piece.text for piece in pieces)


@pytest.mark.parametrize("places", [(0,), (5, 0, 40, 17), tuple(range(0, 300, 7)), (66_000, 66_000)])
def test_following_loses_and_doubles_nothing(
    server: RunsServer, client: RunsClient, begun: RunAddress, places: tuple[int, ...]
) -> None:
    text = "one\n\ntwo\n" + "ö" * 40_000 + "\n" + "a" * 70_000 + "\nno end"
    server.player.write(begun.id, "fit", 1, text.encode())
    server.player.end_attempt(begun.id, "fit", 0, RunState.SUCCEEDED)
    for place in places:
        server.order("api", "GET", cut(place + 1))
    assert follow(client, begun) == text


def test_following_tells_how_the_stage_ended(
    server: RunsServer, client: RunsClient, begun: RunAddress
) -> None:
    server.player.end_attempt(begun.id, "fit", 3, RunState.QUEUED, "ExitCode")
    server.player.begin(begun.id)
    server.player.end_attempt(begun.id, "fit", 0, RunState.SUCCEEDED)
    first = client.follow(begun, "fit", 1, lambda piece: None)
    assert (first.attempt, first.exit_code, first.reason) == (1, 3, "ExitCode")
    last = client.follow(begun, "fit", None, lambda piece: None)
    assert (last.state, last.attempt, last.exit_code) == (RunState.SUCCEEDED, 2, 0)


def test_a_follower_gives_up_when_nothing_comes(
    server: RunsServer, client: RunsClient, begun: RunAddress
) -> None:
    server.order("api", "GET", *[status(502)] * TRIES)
    with pytest.raises(Transient) as failed:
        follow(client, begun)
    assert failed.value.reason == "ServerBusy"
    assert len(server.requests("api", "GET")) == TRIES


def test_stages_are_followed_together(server: RunsServer, client: RunsClient, begun: RunAddress) -> None:
    player, id, told = server.player, begun.id, []
    player.write(id, "fit", 1, b"a\n")
    for stage, piece in follow_all(client, begun):
        told.append((stage, piece.text))
        if piece.text == "a":
            player.begin(id, "tell")  # beside the other one
            player.write(id, "tell", 1, b"b\n")
        elif piece.text == "b":
            player.write(id, "fit", 1, b"c\n")
        elif piece.text == "c":
            player.finish(id)
    assert told == [("fit", "a"), ("tell", "b"), ("fit", "c")]
    assert list(follow_all(client, begun)) == [
        ("fit", LogPiece("a\nc")),
        ("tell", LogPiece("b")),
    ]


def test_whoever_follows_together_hears_of_errors(
    server: RunsServer, client: RunsClient, begun: RunAddress
) -> None:
    server.player.write(begun.id, "fit", 1, b"a\n")
    told = follow_all(client, begun)
    next(told)
    server.player.forget(begun.id)
    with pytest.raises(Stalled) as gone:
        list(told)
    assert gone.value.reason == "RunGone"


# --- what is not there, and who may not -------------------------------------------------------------------------


def test_what_is_not_there(server: RunsServer, client: RunsClient, begun: RunAddress) -> None:
    def reason(run: RunAddress) -> str:
        with pytest.raises(ControllerError) as failed:
            client.find(run)
        return failed.value.reason

    assert reason(begun.pipeline.run("0" * 19)) == "RunNotFound"
    assert reason(begun.pipeline.run(server.submit("bob"))) == "RunNotFound"
    server.player.finish(begun.id)
    server.player.forget(begun.id)
    assert reason(begun) == "RunGone"
    assert reason(PipelineAddress("demo/nothing", server.url).run("0" * 19)) == "RunNotFound"
    server.users.clear()
    assert reason(begun) == "CredentialsRefused"


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"id": 1}', b"<html>"])
def test_what_is_no_run_api_is_said_so(
    server: RunsServer, client: RunsClient, begun: RunAddress, answer: bytes
) -> None:
    server.order("api", "GET", status(200, answer))
    with pytest.raises(Stalled) as failed:
        client.find(begun)
    assert failed.value.reason == "NotARunApi"


# --- events -----------------------------------------------------------------------------------------------------


def test_events_are_read_however_they_are_cut() -> None:
    stream = (
        ": hello\nretry: 1\n\nid: 3\ndata: a\ndata:  ö\n\nevent: end\ndata: {}\n\nid: 9\ndata: half".encode()
    )
    expected = [ServerSentEvent("message", "3", "a\n ö"), ServerSentEvent("end", "", "{}")]
    for size in range(1, len(stream)):
        pieces = [stream[place : place + size] for place in range(0, len(stream), size)]
        assert list(read_events(pieces)) == expected
