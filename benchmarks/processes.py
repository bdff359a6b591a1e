"""Measures a function that holds the interpreter, in one process and in two, under 16 kept-alive connections to the
serving library; and what it costs a small function that its calls are given to several processes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial

from benchmarks.environment import Environment, bare_process
from benchmarks.figures import Section, in_turns
from benchmarks.load import Target, run
from tests.support.ports import free_port

ROUNDS, SECONDS, CONNECTIONS = 5, 3, 16
#: Functions, and the number that they get: some milliseconds each, but for the small one.
FUNCTIONS = {
    "5 ms in C code": ("holder:wait", 5_000),
    "a loop in Python": ("holder:loop", 100_000),
    "a small function": ("adder:predict", 6),
}


def measure(ground: Environment) -> Section:
    section = Section("processes", "mlService.processes: 16 kept-alive connections to the serving library")
    seconds = ground.count(SECONDS)
    for words, (inference, number) in FUNCTIONS.items():
        with ExitStack() as stack:
            targets = {count: _target(ground, stack, inference, number, count) for count in (1, 2)}
            calls = {
                f"{count}": partial(run, target, CONNECTIONS, seconds) for count, target in targets.items()
            }
            loads = in_turns(calls, ground.count(ROUNDS))
        for count, measured in loads.items():
            section.add(f"{words}, processes: {count}", "req/s", [load.rate for load in measured])
            section.add("  p50", "ms", [1e3 * load.p50 for load in measured])
            section.add("  p99", "ms", [1e3 * load.p99 for load in measured])
        one, two = ([load.rate for load in measured] for measured in loads.values())
        section.compare(f"{words}, 2 processes beside 1", two, one)
    return section


def _target(ground: Environment, stack: ExitStack, inference: str, number: int, processes: int) -> Target:
    tensor = {"name": "numbers", "datatype": "INT32", "shape": [1], "data": [number]}
    address = ("127.0.0.1", free_port())
    target = Target(address, "/predict", json.dumps({"inputs": [tensor]}).encode(), str(number).encode())
    stack.enter_context(
        bare_process(ground, address[1], inference, first=target, settings={"processes": processes})
    )
    return target
