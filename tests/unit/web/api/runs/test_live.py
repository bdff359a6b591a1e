"""What is answered on the event loop: one run and who waits for it, logs, transitions; with a caller made of ASGI
messages, over a real store and real files."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from controller.config import Settings
from controller.domain.names import AppName
from controller.domain.runs.run import Run, RunInput, RunState, new_run, new_run_id
from controller.store import SqliteStore
from controller.web.api.runs import live as runs_live
from controller.web.api.runs import streams as run_streams
from controller.web.api.runs.live import LiveRunApi
from controller.web.api.runs.logs import PIECE
from controller.web.api.runs.streams import transitions
from controller.web.context import CALL, ServiceCall
from controller.web.gateway.body import IncomingBody, Message, Receive, RequestBody, Send
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.watch import RouteWatch
from controller.web.problems import ProblemKind, RequestRefused
from tests.support.events import Event, parse_events
from tests.support.gateway import Caller
from tests.support.runs import RunDriver, all_pipelines, make_pipeline, one_pipeline

SERVICE = one_pipeline()
Change = Callable[[], object]


@dataclass
class Bench:
    """The part of a worker that answers runs, and those who call it."""

    store: SqliteStore
    player: RunDriver
    watch: RouteWatch
    live: LiveRunApi
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    answer: tuple[int, str] = (202, "")

    def submit(self, user: str = "ann", number: int = 1, inputs: Iterable[RunInput] = ()) -> str:
        pipeline = make_pipeline()
        return self.store.runs.submit(
            new_run(new_run_id(1.0, number), pipeline, 1.0, user or None, inputs)
        ).id

    async def call(
        self,
        path: str,
        query: str = "",
        method: str = "GET",
        user: str = "ann",
        caller: Caller | None = None,
        service: Any = SERVICE,
        **headers: str,
    ) -> Caller:
        """Raises Refused."""
        caller = caller or Caller()
        call = ServiceCall(service, user, f"/demo/{service.api.path}")
        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"method": method, "query_string": query.encode(), "headers": given, CALL: call}
        size = sum(map(len, caller._parts))
        special = {b"content-length": b"%d" % size} if size else {}
        body = RequestBody(IncomingBody(caller.receive, special), special, 100)
        if not await self.live.answer(path, scope, body, caller.send):
            self.asked.append((path, b""))
        return caller

    async def refused(self, *args: Any, **kwargs: Any) -> ProblemKind:
        with pytest.raises(RequestRefused) as caught:
            await self.call(*args, **kwargs)
        return caught.value.problem.kind

    async def flask(self, scope: Message, receive: Receive, send: Send) -> None:
        """Stands in for the application."""
        content = (await receive())["body"]
        self.asked.append((scope["method"], content))
        status, location = self.answer
        headers = [(b"Location", location.encode())] if location else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"from flask", "more_body": False})

    def start(self, path: str, query: str = "", **fields: str) -> tuple[Caller, asyncio.Task[Caller]]:
        """A call that goes on while the test does."""
        caller = Caller()
        return caller, asyncio.create_task(self.call(path, query, caller=caller, **fields))


Scenario = Callable[[Bench], Coroutine[Any, Any, None]]


@pytest.fixture
def run(store: SqliteStore, settings: Settings) -> Callable[[Scenario], None]:
    """Plays a scenario on the loop that gunicorn's workers use; one that hangs is a failure."""

    @asynccontextmanager
    async def bench() -> AsyncIterator[Bench]:
        watch = RouteWatch(store, ConnectionPool(1.0))
        await watch.start()
        made = Bench(store, RunDriver(store, settings.run_files), watch, None)  # type: ignore[arg-type]
        made.live = LiveRunApi(store, settings.run_files, watch, made.flask)
        try:
            yield made
        finally:
            await watch.stop()
            made.live.close()

    def play(scenario: Scenario) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20), bench() as made:
                await scenario(made)

        uvloop.run(bounded())

    return play


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def waiting(bench: Bench, id: str, count: int = 1) -> None:
    """Until so many wait for news, all having seen the run as it is now."""
    version = bench.store.runs.versions([id])[id]
    waiters = bench.live._news._waiters
    await until(lambda: [waiter.version for waiter in waiters] == [version] * count)


async def aside(change: Change) -> None:
    """As another process does it: from another connection."""
    await asyncio.to_thread(change)


def events(caller: Caller) -> list[Event]:
    return list(parse_events(caller.body))


def text(caller: Caller) -> str:
    """Return all that was sent of a log."""
    return "\n".join(event.data for event in events(caller) if event.kind == "message")


# --- one run ------------------------------------------------------------------------------------------------------


def test_a_run_and_its_etag(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        answer = await bench.call(f"runs/{id}")
        document = json.loads(answer.body)
        assert (answer.status, document["id"], document["state"]) == (200, id, "QUEUED")
        assert document["links"]["self"] == f"/demo/train/runs/{id}"
        etag = answer.headers["etag"]
        for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
            same = await bench.call(f"runs/{id}", if_none_match=known)
            assert (same.status, same.body, same.headers["etag"]) == (304, b"", etag)
        assert (await bench.call(f"runs/{id}", if_none_match='"x"')).status == 200
        head = await bench.call(f"runs/{id}", method="HEAD")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(answer.body)))
        bench.player.begin(id)
        changed = await bench.call(f"runs/{id}", if_none_match=etag)
        assert (changed.status, json.loads(changed.body)["state"]) == (200, "RUNNING")

    run(scenario)


def test_a_run_with_large_inputs_is_told_whole_and_kept_in_brief(run: Any) -> None:
    """Who follows hundreds of runs must not fill the worker with their inputs."""

    async def scenario(bench: Bench) -> None:
        note = RunInput("note", "str", json.dumps("x" * 200_000))
        small = bench.submit()
        for number in range(2, 8):
            id = bench.submit(number=number, inputs=(note, RunInput("rate", "FP64", "0.5")))
            answer = await bench.call(f"runs/{id}")
            given = json.loads(answer.body)["inputs"]
            assert [each["data"] for each in given] == ["x" * 200_000, 0.5]
            head = await bench.call(f"runs/{id}", method="HEAD")
            assert (head.headers["content-length"], head.body) == (str(len(answer.body)), b"")
            same = await bench.call(f"runs/{id}", if_none_match=answer.headers["etag"])
            assert (same.status, same.body) == (304, b"")
        assert (await bench.call(f"runs/{small}")).status == 200
        kept = [given.data for each in bench.live._news._known.values() for given in each.inputs]
        assert len(kept) == 12
        assert max(map(len, kept)) < 100

    run(scenario)


def test_a_run_that_is_removed_before_its_inputs_are_read_is_gone(run: Any) -> None:
    """Those who follow it know it without them."""

    async def scenario(bench: Bench) -> None:
        id = bench.submit(inputs=[RunInput("note", "str", json.dumps("x" * 200_000))])
        bench.player.finish(id)
        find = bench.live._news.run

        def removed_at_once(app: AppName, id: str) -> Run | None:
            found = find(app, id)
            bench.player.forget(id)
            return found

        bench.live._news.run = removed_at_once  # type: ignore[method-assign]
        assert await bench.refused(f"runs/{id}") is ProblemKind.RUN_GONE

    run(scenario)


def test_waiting_for_the_end(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        caller, call = bench.start(f"runs/{id}", "wait=30")
        await aside(lambda: bench.player.begin(id))
        await waiting(bench, id)
        assert not caller.messages, "it goes on, so the answer waits"
        await aside(lambda: bench.player.finish(id))
        await call
        assert json.loads(caller.body)["state"] == "SUCCEEDED"
        assert (await bench.call(f"runs/{id}", "wait=30")).status == 200, "at once"
        same = await bench.call(f"runs/{id}", "wait=30", if_none_match=caller.headers["etag"])
        assert same.status == 304, "at once: nothing more will come"

    run(scenario)


def test_waiting_for_any_news(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        etag = (await bench.call(f"runs/{id}")).headers["etag"]
        assert (await bench.call(f"runs/{id}", "wait=30", if_none_match='"x"')).status == 200, (
            "it is news already"
        )
        caller, call = bench.start(f"runs/{id}", "wait=30", if_none_match=etag)
        await waiting(bench, id)
        assert not caller.messages
        await aside(lambda: bench.player.to(id, RunState.STARTING))
        await call
        assert (caller.status, json.loads(caller.body)["state"]) == (200, "STARTING")

    run(scenario)


def test_no_news_in_time(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        etag = (await bench.call(f"runs/{id}", "wait=0")).headers["etag"]
        assert json.loads((await bench.call(f"runs/{id}", "wait=1")).body)["state"] == "QUEUED"
        assert (await bench.call(f"runs/{id}", "wait=1", if_none_match=etag)).status == 304

    run(scenario)


def test_a_stopping_worker_lets_all_go(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        calls = [
            bench.start(f"runs/{id}", "wait=60"),
            bench.start(f"runs/{id}/logs", "stage=fit&follow=1"),
            bench.start(f"runs/{id}/events"),
        ]
        await until(lambda: len(calls[2][0].messages) > 2)
        bench.watch.end_waits()
        for caller, call in calls:
            await call
            assert caller.complete
        assert json.loads(calls[0][0].body)["state"] == "RUNNING"
        assert not any(event.kind == "end" for event in events(calls[2][0])), "it is to come back"

    run(scenario)


def test_a_run_that_is_removed_while_it_is_waited_for(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        _, call = bench.start(f"runs/{id}", "wait=30")
        await waiting(bench, id)
        await aside(lambda: bench.player.forget(id))
        with pytest.raises(RequestRefused) as caught:
            await call
        assert caught.value.problem.kind is ProblemKind.RUN_GONE

    run(scenario)


@pytest.mark.parametrize("part", ["", "/logs", "/events"])
def test_whose_run_it_is(run: Any, part: str) -> None:
    async def scenario(bench: Bench) -> None:
        id, open_to_all = bench.submit(), bench.submit(user="", number=2)
        for user in ("bob", ""):
            assert await bench.refused(f"runs/{id}{part}", user=user) is ProblemKind.NOT_FOUND
        assert await bench.refused(f"runs/{open_to_all}{part}") is ProblemKind.NOT_FOUND
        everything = all_pipelines()
        assert await bench.refused(f"other/runs/{id}{part}", service=everything) is ProblemKind.NOT_FOUND
        assert await bench.refused(f"runs/nonsense{part}") is ProblemKind.NOT_FOUND
        bench.player.finish(id)
        bench.player.forget(id)
        assert await bench.refused(f"runs/{id}{part}") is ProblemKind.RUN_GONE
        assert await bench.refused(f"runs/{id}{part}", user="bob") is ProblemKind.NOT_FOUND

    run(scenario)


def test_below_all_pipelines(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        answer = await bench.call(f"train/runs/{id}", service=all_pipelines())
        assert json.loads(answer.body)["links"]["self"] == f"/demo/pipelines/train/runs/{id}"

    run(scenario)


def test_what_is_left_to_the_application(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        paths = [
            "runs",
            "docs",
            f"train/runs/{id}",
            f"runs/{id}/x",
            f"runs/{id}/logs/x",
            f"runs/{id}/cancel",
            "",
        ]
        for path in paths:
            assert not (await bench.call(path)).messages
        assert not (await bench.call(f"runs/{id}", service=all_pipelines())).messages
        assert len(bench.asked) == len(paths) + 1

    run(scenario)


def test_other_methods(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            for part in ("", "/logs", "/events"):
                assert await bench.refused(f"runs/{id}{part}", method=method) is ProblemKind.METHOD

    run(scenario)


@pytest.mark.parametrize("query", ["wait=x", "wait=-1", "wait=1.5", "wait=", "wait=1e1", "wait=" + "9" * 17])
def test_malformed_waits(run: Any, query: str) -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.refused(f"runs/{bench.submit()}", query) is ProblemKind.BAD_REQUEST

    run(scenario)


def test_a_caller_too_many(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        calls = [bench.start(f"runs/{id}", "wait=60") for _ in range(runs_live.LIMIT)]
        await waiting(bench, id, runs_live.LIMIT)
        assert await bench.refused(f"runs/{id}") is ProblemKind.OVERLOADED
        await aside(lambda: bench.player.finish(id))
        for caller, call in calls:
            await call
            assert json.loads(caller.body)["state"] == "SUCCEEDED"
        assert (await bench.call(f"runs/{id}")).status == 200

    run(scenario)


def test_a_caller_who_leaves_gives_his_place_back(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        for path, query in (
            (f"runs/{id}", "wait=60"),
            (f"runs/{id}/events", ""),
            (f"runs/{id}/logs", "stage=fit&follow=1"),
        ):
            _, call = bench.start(path, query)
            await waiting(bench, id)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert bench.live._open == 0
        assert not bench.live._news._waiters

    run(scenario)


# --- submit and wait ----------------------------------------------------------------------------------------------


def test_a_caller_who_prefers_the_end_gets_it(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.answer = (202, f"/demo/train/runs/{id}")
        caller = Caller(b'{"inputs"', b": {}}")
        call = asyncio.create_task(
            bench.call("runs", method="POST", caller=caller, prefer="respond-async, wait=30")
        )
        await until(lambda: bool(bench.asked))
        assert bench.asked == [("POST", b'{"inputs": {}}')]
        await waiting(bench, id)
        assert not caller.messages
        await aside(lambda: bench.player.finish(id, RunState.FAILED, "ExitCode"))
        await call
        assert (caller.status, json.loads(caller.body)["reason"]) == (200, "ExitCode")
        assert caller.headers["etag"]

    run(scenario)


@pytest.mark.parametrize(
    "prefer", ["", "respond-async", "wait=0", "wait=x", "wait", "await=60", 'wait="', "wait=-5", "wait=1"]
)
def test_else_he_gets_what_there_is(run: Any, prefer: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.answer = (202, f"/demo/train/runs/{bench.submit()}")
        answer = await bench.call("runs", method="POST", prefer=prefer)
        assert (answer.status, answer.body) == (202, b"from flask")

    run(scenario)


def test_what_is_no_run_is_not_waited_for(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        for status in (200, 404, 422):
            bench.answer = (status, "")
            assert (await bench.call("runs", method="POST", prefer="wait=60")).status == status

    run(scenario)


def test_a_body_too_large(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.refused("runs", method="POST", caller=Caller(b"x" * 101)) is ProblemKind.TOO_LARGE
        assert bench.asked == []

    run(scenario)


def test_a_full_queue_reads_no_body_for_a_moment(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it may be a repetition, which is answered with the run that there is."""

    async def scenario(bench: Bench) -> None:
        bench.answer = (429, "")
        assert (await bench.call("runs", method="POST", caller=Caller(b"1"))).status == 429
        assert await bench.refused("runs", method="POST", caller=Caller(b"2")) is ProblemKind.QUEUE_FULL
        assert [content for _, content in bench.asked] == [b"1"]
        bench.answer = (202, "")
        others: tuple[tuple[str, dict[str, Any]], ...] = (
            ("runs", {"idempotency_key": "k"}),
            ("runs/x/cancel", {}),
            ("runs", {"user": "bob"}),
        )
        for path, fields in others:
            assert (await bench.call(path, method="POST", **fields)).status == 202
        monkeypatch.setattr(runs_live, "FULL", -1.0)
        bench.live._remember_full((SERVICE.app, "ann"))
        assert (await bench.call("runs", method="POST")).status == 202

    run(scenario)


# --- the log as text ----------------------------------------------------------------------------------------------


def test_the_log_as_text(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        empty = await bench.call(f"runs/{id}/logs", "stage=fit")
        assert (empty.status, empty.body, empty.headers["content-length"]) == (200, b"", "0")
        bench.player.begin(id)
        bench.player.write(id, "fit", 1, b"one\n\xff\r\nhalf")
        for query, expected in (
            ("stage=fit", b"one\n\xff\r\nhalf"),
            ("stage=fit&offset=4", b"\xff\r\nhalf"),
            ("stage=fit&offset=0&follow=0", b"one\n\xff\r\nhalf"),
            ("stage=fit&offset=11&attempt=1", b""),
            ("stage=tell", b""),
        ):
            answer = await bench.call(f"runs/{id}/logs", query)
            assert (answer.status, answer.body) == (200, expected)
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["content-length"] == str(len(expected))
            assert answer.headers["x-content-type-options"] == "nosniff"
        head = await bench.call(f"runs/{id}/logs", "stage=fit", method="HEAD")
        assert (head.body, head.headers["content-length"]) == (b"", "11")

    run(scenario)


@pytest.mark.parametrize(
    ("ranges", "status", "body", "content_range"),
    [
        ("bytes=0-2", 206, b"012", "bytes 0-2/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-99", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=3-2", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
        ("bytes=x", 200, b"0123456789", None),
    ],
)
def test_ranges(run: Any, ranges: str, status: int, body: bytes, content_range: str | None) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        bench.player.write(id, "fit", 1, b"0123456789")
        answer = await bench.call(f"runs/{id}/logs", "stage=fit", range=ranges)
        assert (answer.status, answer.body, answer.headers.get("content-range")) == (
            status,
            body,
            content_range,
        )
        whole = await bench.call(f"runs/{id}/logs", "stage=fit", range=ranges, if_range='"x"')
        assert (whole.status, whole.body) == (200, b"0123456789")

    run(scenario)


def test_offsets_where_there_is_nothing(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        bench.player.write(id, "fit", 1, b"0123456789")
        logs = f"runs/{id}/logs"
        for query in ("stage=fit&offset=11", "stage=fit&follow=1&offset=11", "stage=fit&offset=" + "9" * 16):
            assert await bench.refused(logs, query) is ProblemKind.RANGE
        for ranges in ("bytes=10-", "bytes=11-12", "bytes=-0"):
            assert await bench.refused(logs, "stage=fit", range=ranges) is ProblemKind.RANGE
        assert await bench.refused(logs, "stage=tell", range="bytes=-5") is ProblemKind.RANGE
        assert await bench.refused(logs, "stage=fit&offset=1", range="bytes=0-1") is ProblemKind.BAD_REQUEST

    run(scenario)


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("", ProblemKind.BAD_REQUEST),
        ("stage=", ProblemKind.BAD_REQUEST),
        ("stage=nope", ProblemKind.NOT_FOUND),
        ("stage=../../../etc/passwd", ProblemKind.NOT_FOUND),
        ("stage=fit&attempt=0", ProblemKind.NOT_FOUND),
        ("stage=fit&attempt=2", ProblemKind.NOT_FOUND),
        ("stage=fit&attempt=x", ProblemKind.BAD_REQUEST),
        ("stage=fit&offset=-1", ProblemKind.BAD_REQUEST),
        ("stage=fit&offset=1.5", ProblemKind.BAD_REQUEST),
        ("stage=fit&follow=1&offset=%FF", ProblemKind.BAD_REQUEST),
    ],
)
def test_malformed_questions_for_logs(run: Any, query: str, kind: ProblemKind) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        assert await bench.refused(f"runs/{id}/logs", query) is kind
        follow = f"{query}&follow=1" if query else "follow=1"
        assert await bench.refused(f"runs/{id}/logs", follow) is kind

    run(scenario)


def test_the_only_stage_need_not_be_named(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        pipeline = make_pipeline(stages=make_pipeline().stages[:1])
        id = bench.store.runs.submit(new_run(new_run_id(1.0, 1), pipeline, 1.0, "ann")).id
        bench.player.begin(id)
        bench.player.write(id, "fit", 1, b"x")
        assert (await bench.call(f"runs/{id}/logs")).body == b"x"

    run(scenario)


class Hesitant(Caller):
    """Takes one part and nothing more until `reads` is set."""

    async def send(self, message: Message) -> None:
        await super().send(message)
        if len(self.messages) == 2:
            self.reads.clear()


def test_a_run_that_is_removed_while_its_log_is_read(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        bench.player.write(id, "fit", 1, b"x" * (3 * PIECE))
        caller = Hesitant()
        call = asyncio.create_task(bench.call(f"runs/{id}/logs", "stage=fit", caller=caller))
        await until(lambda: bool(caller.body))
        bench.player.log(id, "fit", 1).unlink()
        caller.reads.set()
        await call
        assert not caller.complete, "the connection is closed, so the caller sees that it is short"
        assert len(caller.body) < 3 * PIECE

    run(scenario)


def test_a_log_that_cannot_be_read(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        bench.player.log(id, "fit", 1).mkdir()
        for query in ("stage=fit", "stage=fit&follow=1"):
            assert await bench.refused(f"runs/{id}/logs", query) is ProblemKind.INTERNAL

    run(scenario)


# --- the log as events --------------------------------------------------------------------------------------------


def test_a_log_is_followed_to_its_end(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        caller, call = bench.start(f"runs/{id}/logs", "stage=fit&follow=1")
        await until(lambda: bool(caller.messages))
        assert caller.headers["content-type"] == "text/event-stream"
        await aside(lambda: bench.player.begin(id))
        bench.player.write(id, "fit", 1, b"one\ntw")
        await until(lambda: b"one" in caller.body)
        assert b"tw" not in caller.body, "the line is not complete"
        bench.player.write(id, "fit", 1, b"o\nend")
        await until(lambda: b"two" in caller.body)
        await aside(lambda: bench.player.end_attempt(id, "fit", 0, RunState.SUCCEEDED))
        await call
        *lines, end = events(caller)
        assert lines == [
            Event("message", "4", "one"),
            Event("message", "8", "two"),
            Event("message", "11", "end"),
        ]
        assert (end.kind, end.id) == ("end", "end")
        assert json.loads(end.data) == {
            "stage": "fit",
            "state": "SUCCEEDED",
            "attempt": 1,
            "exitCode": 0,
            "reason": "",
        }
        assert caller.complete

    run(scenario)


def test_attempts_are_followed_one_after_another(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        caller, call = bench.start(f"runs/{id}/logs", "stage=fit&follow=1")
        first, first_call = bench.start(f"runs/{id}/logs", "stage=fit&follow=1&attempt=1")
        bench.player.write(id, "fit", 1, b"one\n")
        await aside(lambda: bench.player.end_attempt(id, "fit", 3, RunState.QUEUED, "ExitCode"))
        await first_call
        assert json.loads(events(first)[-1].data) == {
            "stage": "fit",
            "state": "QUEUED",
            "attempt": 1,
            "exitCode": 3,
            "reason": "ExitCode",
        }
        await aside(lambda: bench.player.begin(id))
        bench.player.write(id, "fit", 2, b"two\n")
        await until(lambda: b"two" in caller.body)
        await aside(lambda: bench.player.end_attempt(id, "fit", 0, RunState.SUCCEEDED))
        await call
        assert [(event.id, event.data) for event in events(caller)[:-1]] == [("4", "one"), ("8", "two")]
        assert json.loads(events(caller)[-1].data)["attempt"] == 2
        resumed = await bench.call(f"runs/{id}/logs", "stage=fit&follow=1", last_event_id="4")
        assert text(resumed) == "two", "the offset means the same, whatever attempts there are"
        old = await bench.call(f"runs/{id}/logs", "stage=fit&follow=1&attempt=1", last_event_id="0")
        assert text(old) == "one"

    run(scenario)


def test_a_follower_who_comes_back_misses_and_repeats_nothing(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        lines = [f"line {n} {'é' * (n % 7)}" for n in range(2000)]
        whole = "".join(line + "\n" for line in lines).encode()
        seen: list[str] = []
        last = "0"
        for n in range(10):
            bench.player.write(id, "fit", 1, whole[n * len(whole) // 10 : (n + 1) * len(whole) // 10])
            caller, call = bench.start(f"runs/{id}/logs", "stage=fit&follow=1", last_event_id=last)
            await until(lambda caller=caller: bool(events(caller)))  # type: ignore[misc]
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            seen += [line for event in events(caller) for line in event.data.split("\n")]
            last = events(caller)[-1].id
        bench.player.end_attempt(id, "fit", 0, RunState.SUCCEEDED)
        rest = await bench.call(f"runs/{id}/logs", "stage=fit&follow=1", last_event_id=last)
        assert seen + text(rest).split("\n")[: len(lines) - len(seen)] == lines
        assert events(rest)[-1].kind == "end"
        over = await bench.call(f"runs/{id}/logs", "stage=fit&follow=1", last_event_id="end")
        assert (over.status, over.body) == (204, b""), "a browser stops coming back"

    run(scenario)


def test_the_end_of_a_log_that_is_written_again(run: Any) -> None:
    """After the daemon's death the file is cut back, and the same bytes come again."""

    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        bench.player.write(id, "fit", 1, b"one\ntwo\n")
        caller, call = bench.start(f"runs/{id}/logs", "stage=fit&follow=1")
        await until(lambda: b"two" in caller.body)
        os.truncate(bench.player.log(id, "fit", 1), 4)
        again, again_call = bench.start(f"runs/{id}/logs", "stage=fit&follow=1", last_event_id="8")
        await waiting(bench, id, 2)
        bench.player.write(id, "fit", 1, b"two\n")
        bench.player.write(id, "fit", 1, b"three\n")
        await aside(lambda: bench.player.end_attempt(id, "fit", 0, RunState.SUCCEEDED))
        await asyncio.gather(call, again_call)
        assert text(caller) == "one\ntwo\nthree"
        assert text(again) == "three"

    run(scenario)


@pytest.mark.parametrize("state", [RunState.CANCELED, RunState.ERROR])
def test_a_stage_that_never_begins_has_an_end_too(run: Any, state: RunState) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        caller, call = bench.start(f"runs/{id}/logs", "stage=tell&follow=1")
        await until(lambda: bool(caller.messages))
        await aside(lambda: bench.player.finish(id, state, "Why"))
        await call
        (end,) = events(caller)
        assert json.loads(end.data) == {
            "stage": "tell",
            "state": state,
            "attempt": None,
            "exitCode": None,
            "reason": "Why",
        }

    run(scenario)


def test_a_run_that_is_removed_while_it_is_followed(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        bench.player.write(id, "fit", 1, b"one\n")
        log, log_call = bench.start(f"runs/{id}/logs", "stage=fit&follow=1")
        steps, steps_call = bench.start(f"runs/{id}/events")
        await until(lambda: bool(events(log)) and bool(events(steps)))
        await aside(lambda: bench.player.forget(id))
        bench.player.log(id, "fit", 1).unlink()
        for caller, call in ((log, log_call), (steps, steps_call)):
            await call
            assert events(caller)[-1].kind == "gone"
            assert caller.complete
        assert (
            await bench.refused(f"runs/{id}/logs", "stage=fit&follow=1", last_event_id="4")
            is ProblemKind.RUN_GONE
        )

    run(scenario)


@pytest.mark.parametrize("last", ["x", "-1", "4.5", "", "9" * 17, "1-2"])
def test_ids_that_no_log_event_has(run: Any, last: str) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        kind = await bench.refused(f"runs/{id}/logs", "stage=fit&follow=1", last_event_id=last)
        assert kind is ProblemKind.BAD_REQUEST

    run(scenario)


def test_silence_is_filled_with_comments(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_streams, "KEEP_ALIVE", 0.02)

    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        for path, query in ((f"runs/{id}/logs", "stage=fit&follow=1"), (f"runs/{id}/events", "")):
            caller, call = bench.start(path, query)
            await until(lambda caller=caller: caller.body.count(b"\n:\n") >= 2)  # type: ignore[misc]
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert all(event.kind == "message" for event in events(caller))

    run(scenario)


def test_a_slow_reader_holds_one_piece(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        bench.player.write(id, "fit", 1, b"x" * 99 + b"\n")
        slow, slow_call = bench.start(f"runs/{id}/logs", "stage=fit&follow=1")
        quick, quick_call = bench.start(f"runs/{id}/logs", "stage=fit&follow=1")
        await until(lambda: bool(events(slow)))
        slow.reads.clear()
        for _ in range(20):
            bench.player.write(id, "fit", 1, (b"y" * 99 + b"\n") * 1000)
        await until(lambda: quick.body.count(b"y" * 99) == 20_000)
        assert len(events(slow)) == 1
        slow.reads.set()
        await aside(lambda: bench.player.end_attempt(id, "fit", 0, RunState.SUCCEEDED))
        await slow_call
        await quick_call
        assert text(slow) == text(quick)
        assert max(len(message["body"]) for message in slow.messages[1:]) < 2 * PIECE

    run(scenario)


def test_many_followers_look_together(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        bench.player.begin(id)
        calls = [bench.start(f"runs/{id}/logs", "stage=fit&follow=1") for _ in range(100)]
        await waiting(bench, id, 100)
        assert bench.live._news._looking is not None
        bench.player.write(id, "fit", 1, b"one\n")
        await until(lambda: all(events(caller) for caller, _ in calls))
        await aside(lambda: bench.player.finish(id))
        for caller, call in calls:
            await call
            assert [event.kind for event in events(caller)] == ["message", "end"]
        await until(lambda: bench.live._news._looking is None)

    run(scenario)


# --- transitions --------------------------------------------------------------------------------------------------


def test_transitions_as_they_happen(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        caller, call = bench.start(f"runs/{id}/events")
        await until(lambda: len(events(caller)) == 3)
        await aside(lambda: bench.player.begin(id))
        await aside(lambda: bench.player.end_attempt(id, "fit", 0, RunState.SUCCEEDED))
        await aside(lambda: bench.player.finish(id, RunState.FAILED, "ExitCode"))
        await call
        *steps, end = events(caller)
        told = [(json.loads(step.data)["stage"], json.loads(step.data)["state"]) for step in steps]
        assert told[:3] == [(None, "QUEUED"), ("fit", "QUEUED"), ("tell", "QUEUED")]
        assert told[3:] == [
            (None, "STARTING"),
            (None, "RUNNING"),
            ("fit", "STARTING"),
            ("fit", "RUNNING"),
            ("fit", "SUCCEEDED"),
            ("tell", "FAILED"),
            (None, "FAILED"),
        ]
        assert json.loads(steps[-1].data) | {"at": ""} == {
            "stage": None,
            "state": "FAILED",
            "at": "",
            "reason": "ExitCode",
            "message": "",
        }
        assert (end.kind, json.loads(end.data)) == ("end", {"state": "FAILED", "reason": "ExitCode"})
        for n, step in enumerate(steps):
            resumed = await bench.call(f"runs/{id}/events", last_event_id=step.id)
            assert events(resumed) == [*steps[n + 1 :], end]
        assert (await bench.call(f"runs/{id}/events", last_event_id=end.id)).status == 204

    run(scenario)


@pytest.mark.parametrize(
    "last", ["x", "1", "1-1", "1-1-1-1", "1--1", "-1-1-1", "1-1-x", "", "1-1-1000000000"]
)
def test_ids_that_no_transition_has(run: Any, last: str) -> None:
    async def scenario(bench: Bench) -> None:
        assert (
            await bench.refused(f"runs/{bench.submit()}/events", last_event_id=last)
            is ProblemKind.BAD_REQUEST
        )

    run(scenario)


def test_a_clock_that_was_set_back_changes_no_order() -> None:
    run = new_run("0" * 19, make_pipeline(), 100.0)
    run = run.to(RunState.STARTING, 50.0).to(RunState.RUNNING, 49.0)
    told = [(stage, step) for _, stage, step in transitions(run, (0, 0, 0))]
    assert [step for stage, step in told if stage is None] == list(run.history)
    assert len(told) == 5
    cursors = [cursor for cursor, _, _ in transitions(run, (0, 0, 0))]
    assert cursors[-1] == (3, 1, 1)
    assert list(transitions(run, (99, 99, 99))) == []


def test_an_event_stream_can_be_asked_for_its_head(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        id = bench.submit()
        for path, query in ((f"runs/{id}/logs", "stage=fit&follow=1"), (f"runs/{id}/events", "")):
            head = await bench.call(path, query, method="HEAD")
            assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
            assert head.complete

    run(scenario)
