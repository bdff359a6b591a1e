"""Upstreams that take no connections are left out for a while, unless there are no others."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from controller.web.gateway.forward import Forwarder
from controller.web.gateway.outliers import LONGEST_PAUSE, PAUSE, Outliers
from controller.web.gateway.pool import ConnectionPool
from controller.web.gateway.upstream import UpstreamConnection, UpstreamSilent
from controller.web.problems import ProblemKind, RequestRefused
from tests.support.clock import FakeClock
from tests.support.gateway import component, read_request, response
from tests.support.loops import run
from tests.unit.web.gateway.test_forward import Bench, answering, free_endpoint, target_of

BOTH = ("a", "b")


def test_it_is_left_out_until_its_pause_is_over_and_then_tried_by_one_call() -> None:
    clock = FakeClock()
    outliers = Outliers(clock.monotonic)
    assert not outliers
    outliers.failed("a")
    assert outliers.admitted(BOTH) == ("b",)
    clock.advance(PAUSE)
    assert outliers.admitted(BOTH) == BOTH
    outliers.chosen("a")
    assert outliers.admitted(BOTH) == ("b",), "the others wait for what becomes of that call"
    outliers.succeeded("a")
    assert outliers.admitted(BOTH) == BOTH
    assert not outliers


def test_each_failure_doubles_the_pause() -> None:
    clock = FakeClock()
    outliers = Outliers(clock.monotonic)
    pauses = []
    for _ in range(8):
        outliers.failed("a")
        begun = clock.monotonic()
        while outliers.admitted(BOTH) == ("b",):
            clock.advance(PAUSE)
        pauses.append(clock.monotonic() - begun)
        outliers.chosen("a")
    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


def test_calls_that_had_begun_before_say_nothing_new() -> None:
    clock = FakeClock()
    outliers = Outliers(clock.monotonic)
    for _ in range(100):
        outliers.failed("a")
    clock.advance(PAUSE)
    assert outliers.admitted(BOTH) == BOTH


def test_where_all_take_no_connections_all_are_tried() -> None:
    outliers = Outliers(FakeClock().monotonic)
    for endpoint in BOTH:
        outliers.failed(endpoint)
    assert outliers.admitted(BOTH) == BOTH


def test_what_left_the_table_is_forgotten() -> None:
    outliers = Outliers(FakeClock().monotonic)
    outliers.failed("a")
    outliers.keep(frozenset("b"))
    assert not outliers


EVENTS = st.sampled_from(["a fails", "b fails", "c fails", "a left", "time passes", "long"])


@given(st.lists(EVENTS, max_size=40))
def test_there_is_always_one_that_gets_calls(events: list[str]) -> None:
    clock = FakeClock()
    pool = ConnectionPool(1.0, clock=clock.monotonic)
    for event in events:
        match event.split():
            case [endpoint, "fails"]:
                pool.eject(endpoint)
            case [endpoint, "left"]:
                pool.sweep(frozenset("abc") - {endpoint}, clock.now())
            case ["time", _]:
                clock.advance(0.4)
            case _:
                clock.advance(LONGEST_PAUSE)
        assert pool.choose(("a", "b", "c")) in ("a", "b", "c")
        assert pool.choose(("a",)) == "a"
        assert pool.choose(("a", "b"), tried=["b"]) == "a"


def test_calls_go_to_the_other_replica_and_do_not_even_try() -> None:
    async def scenario() -> None:
        dead = await free_endpoint()
        async with component(answering(response())) as endpoint:
            bench = Bench(target_of(dead, endpoint))
            for _ in range(20):
                assert (await bench.call()).body == b"ok"
            assert bench.idle.count(dead) == 1

    run(scenario())


def test_it_gets_calls_again_once_it_takes_connections() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        dead = await free_endpoint()
        port = int(dead.rpartition(":")[2])
        async with component(answering(response(b"other"))) as endpoint:
            bench = Bench(target_of(dead, endpoint))
            bench.pool = ConnectionPool(1.0, clock=clock.monotonic)
            bench.forwarder = Forwarder(bench.pool, lambda _: bench.target, bench.idle.append, bench)
            assert {(await bench.call()).body for _ in range(4)} == {b"other"}
            async with component(answering(response(b"back")), port=port) as back:
                assert back == dead
                assert {(await bench.call()).body for _ in range(4)} == {b"other"}
                clock.advance(PAUSE)
                assert {(await bench.call()).body for _ in range(4)} == {b"other", b"back"}

    run(scenario())


class DeafConnection(UpstreamConnection):
    """What is sent over it arrives nowhere: its node is gone, and nobody has closed it."""

    async def head(self) -> None:
        raise UpstreamSilent("it acknowledges nothing")


class DeafPool(ConnectionPool):
    """Connections to `deaf` are kept from better times."""

    deaf = ""

    def idle(self, endpoint: str) -> UpstreamConnection | None:
        if endpoint == self.deaf:
            return DeafConnection(endpoint, asyncio.get_running_loop())
        return super().idle(endpoint)


def test_an_upstream_that_takes_not_a_byte_is_left_out() -> None:
    async def scenario() -> None:
        dead = await free_endpoint()
        async with component(answering(response())) as endpoint:
            bench = Bench(target_of(dead, endpoint))
            pool = DeafPool(1.0)
            pool.deaf = dead
            bench.pool = pool
            bench.forwarder = Forwarder(pool, lambda _: bench.target, bench.idle.append, bench)
            kinds: list[int | ProblemKind] = []
            for _ in range(6):
                try:
                    kinds.append((await bench.call()).status)
                except RequestRefused as refused:
                    kinds.append(refused.problem.kind)
            assert kinds.count(ProblemKind.UPSTREAM_DIED) == 1, (
                "it may have been taken, so it is not repeated"
            )
            assert kinds.count(200) == 5

    run(scenario())


def test_kept_connections_are_closed_with_it() -> None:
    async def scenario() -> None:
        gone = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(response())
            await reader.read()
            gone.set()

        async with component(handler) as endpoint:
            bench = Bench(target_of(endpoint))
            await bench.call()
            bench.pool.eject(endpoint)
            await gone.wait()

    run(scenario())
