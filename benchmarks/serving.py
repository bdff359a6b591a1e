"""Measures throughput and latency of the serving library alone and of the whole path through the gateway,
each compared with other servers with the same function and client in the same run."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial

from benchmarks.environment import Adder, Environment, bare_process, empty_server, running_platform
from benchmarks.figures import Section, in_turns
from benchmarks.load import Load, Target, run
from benchmarks.peers import NoPeer, fastapi, litserve, mlserver
from controller.tracing import OFF, span
from tests.support.ports import free_port

Peer = Callable[[Environment], AbstractContextManager[Target]]

ROUNDS = 5
SECONDS = 3
CONNECTIONS = (1, 16)
#: What stands beside the serving library, and beside the whole path, with the aim of the ratio.
PEERS: Mapping[str, Peer] = {"MLServer": mlserver, "LitServe": litserve, "FastAPI": fastapi}
LIBRARY = {"MLServer": "4 ×", "LitServe": "", "FastAPI": "1.5 ×"}
PATH = {"MLServer": "3 ×"}
TRACED = "whole path, traces on"
SPANS = 20_000


def measure_library(ground: Environment) -> Section:
    """As processes on this host, both: no container is in the way of either."""
    section = Section("serving", "the serving library called directly, beside other servers")
    with ExitStack() as stack:
        targets = {"serving library": stack.enter_context(bare_process(ground, free_port()))}
        targets |= _peers(ground, stack, section, LIBRARY)
        for connections in CONNECTIONS:
            loads = _loads(ground, targets, connections)
            _report(section, loads, connections, "serving library", LIBRARY)
    return section


def measure_path(ground: Environment) -> Section:
    """Through the gateway to a container, that container called directly, and MLServer; at one connection also through
    another gateway that records each call as spans."""
    section = Section("gateway", "the whole path: client → gateway → container, beside MLServer")
    with ExitStack() as stack:
        module = Adder(stack.enter_context(running_platform(ground)), ground)
        targets = {"whole path": module.deploy(0), "container directly": module.direct_target(0)}
        targets |= _peers(ground, stack, section, PATH)
        receiver = f"http://127.0.0.1:{stack.enter_context(empty_server(200))}"
        traced = Adder(stack.enter_context(running_platform(ground, tracing={"endpoint": receiver})), ground)
        for connections in CONNECTIONS:
            every = {**targets, TRACED: traced.deploy(0)} if connections == 1 else targets
            loads = _loads(ground, every, connections)
            _report(section, loads, connections, "whole path", PATH)
            if connections == 1:
                _report_traces(section, loads)
                pairs = zip(loads["whole path"], loads["container directly"], strict=True)
                added = [1e3 * (path.p50 - direct.p50) for path, direct in pairs]
                section.add("the gateway's own p50", "ms", added, aim="0.15 ms")
    return section


def _report_traces(section: Section, loads: Mapping[str, list[Load]]) -> None:
    off, on = ([load.rate for load in loads[name]] for name in ("whole path", TRACED))
    section.compare("traces on beside off, 1 connection", on, off)
    spans = timeit.repeat(
        "with span(OFF, 'x'): pass", number=SPANS, globals={"span": span, "OFF": OFF}, repeat=ROUNDS
    )
    section.add("a span while traces are off", "µs", [1e6 * each / SPANS for each in spans], aim="1 µs")


def _peers(
    ground: Environment, stack: ExitStack, section: Section, names: Iterable[str]
) -> dict[str, Target]:
    found = {}
    for name in names:
        try:
            found[name] = stack.enter_context(PEERS[name](ground))
        except NoPeer as error:
            section.notes.append(f"{name} is not measured: {error}")
    return found


def _loads(ground: Environment, targets: Mapping[str, Target], connections: int) -> dict[str, list[Load]]:
    seconds = ground.count(SECONDS)
    calls = {name: partial(run, target, connections, seconds) for name, target in targets.items()}
    return in_turns(calls, ground.count(ROUNDS))


def _report(
    section: Section, loads: Mapping[str, list[Load]], connections: int, ours: str, peers: Mapping[str, str]
) -> None:
    """`peers`: what `ours` is compared with, and the aim of each ratio."""
    at = f"{connections} connection{'s' if connections > 1 else ''}"
    for name, measured in loads.items():
        section.add(f"{name}, {at}", "req/s", [load.rate for load in measured])
        section.add("  p50", "ms", [1e3 * load.p50 for load in measured])
        section.add("  p99", "ms", [1e3 * load.p99 for load in measured])
    rates = {name: [load.rate for load in measured] for name, measured in loads.items()}
    for peer, aim in peers.items():
        if peer in rates:
            section.compare(f"{ours} beside {peer}, {at}", rates[ours], rates[peer], aim)
