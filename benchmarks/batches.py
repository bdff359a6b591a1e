"""Measures calls that go to the function in batches: the serving library, MLServer and BentoML, each with its adaptive
batching, one function with a fixed cost a call, and the same client in the same run."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial

from benchmarks.environment import Environment, bare_process
from benchmarks.figures import Section, in_turns
from benchmarks.load import Target, run
from benchmarks.peers import NoPeer, bentoml, mlserver
from tests.support.ports import free_port

ROUNDS = 5
SECONDS = 3
CALLERS = 16
SIZE = 16  # the most calls of a batch
WAIT = 0.01  # seconds, the serving library's own default
LIBRARY, ALONE = "serving library", "serving library, each call alone"
TENSOR = {"name": "number", "datatype": "INT32", "data": [7]}
EXPECTED = b"[49]"


def measure(ground: Environment) -> Section:
    title = f"{CALLERS} callers of a function that takes 2 ms, and 0.1 ms an item, in batches"
    section = Section("batches", title)
    with ExitStack() as stack:
        targets = {
            LIBRARY: _library(ground, stack, "batched:predict", batch_size=SIZE),
            ALONE: _library(ground, stack, "batched:predict_one", concurrency=1),
            **_peers(ground, stack, section),
        }
        seconds = ground.count(SECONDS)
        calls = {name: partial(run, target, CALLERS, seconds) for name, target in targets.items()}
        loads = in_turns(calls, ground.count(ROUNDS))
    rates = {name: [load.rate for load in measured] for name, measured in loads.items()}
    for name, measured in loads.items():
        section.add(name, "req/s", rates[name])
        section.add("  p50", "ms", [1e3 * load.p50 for load in measured])
        section.add("  p99", "ms", [1e3 * load.p99 for load in measured])
    section.compare("in batches beside each call alone", rates[LIBRARY], rates[ALONE])
    peers = [name for name in rates if name not in (LIBRARY, ALONE)]
    for name in peers:
        section.compare(f"in batches beside {name}", rates[LIBRARY], rates[name], "1.2 ×")
    return section


def _library(ground: Environment, stack: ExitStack, inference: str, **settings: int) -> Target:
    port = free_port()
    target = Target(("127.0.0.1", port), "/predict", _body(shape=[1]), EXPECTED)
    return stack.enter_context(bare_process(ground, port, inference, first=target, settings=settings))


def _peers(ground: Environment, stack: ExitStack, section: Section) -> dict[str, Target]:
    limits = {"max_batch_size": SIZE, "max_batch_time": WAIT}
    starts = {
        "MLServer": partial(
            mlserver, ground, "batched_mlserver.Squares", _body(shape=[1, 1]), b"49", **limits
        ),
        "BentoML": partial(bentoml, ground, "batched_bentoml:Squares", b'{"numbers": [7]}', EXPECTED),
    }
    found: dict[str, Target] = {}
    for name, start in starts.items():
        try:
            found[name] = stack.enter_context(start())
        except NoPeer as error:
            section.notes.append(f"{name} is not measured: {error}")
    return found


def _body(shape: list[int]) -> bytes:
    return json.dumps({"inputs": [{**TENSOR, "shape": shape}]}).encode()
