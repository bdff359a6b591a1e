"""Measures calls of the serving library, directly, with one picture of 224 × 224 × 3 numbers, as JSON and as bytes,
beside MLServer with the same function and client, and beside the same bytes over loopback without any protocol."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import random
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from statistics import median

from benchmarks.environment import Environment, bare_process, free_port
from benchmarks.figures import Section, in_turns
from benchmarks.load import TIMEOUT, LoadFailed, Target, connect
from benchmarks.peers import VENV, NoPeer, install, mlserver

COUNT = 224 * 224 * 3
CALLS, ROUNDS = 15, 5
PATH = "/v2/models/pixels/infer"
PEER, LIBRARY = "MLServer", "serving library"
FAST = "serving library, orjson in the image"
BYTES = "serving library, tensors as bytes"
WIRE = "the same bytes over loopback"

#: Calls once and returns the bytes of the reply.
Call = Callable[[], bytes]


def measure(ground: Environment) -> Section:
    section = Section("tensors", "150,528 FP32: the serving library called directly, beside MLServer")
    chance = random.Random(7)
    raw = struct.pack(f"<{COUNT}f", *(chance.random() for _ in range(COUNT)))
    with ExitStack() as stack:
        ports = _servers(ground, stack, section)
        wire = stack.enter_context(_wire(len(raw)))
        for output, words in (("first", "one number out"), ("image", "the same out")):
            calls = {
                name: _posting(stack, port, *(_bytes if name == BYTES else _json)(raw, output))
                for name, port in ports.items()
            }
            if output == "image":
                calls[WIRE] = partial(_there_and_back, stack.enter_context(closing(connect(wire))), raw)
            _report(section, ground, calls, words)
    return section


def _servers(ground: Environment, stack: ExitStack, section: Section) -> dict[str, int]:
    """Start the serving library with nothing but Python, with what MLServer's environment has, and with a function that
    takes arrays; and MLServer. Their ports."""
    ports = {LIBRARY: stack.enter_context(_library(ground, sys.executable, "pixels:predict"))}
    small = (_document({"data": [0.5], "shape": [1]}, "first"), b'"first"')
    try:
        install()
        python = str(VENV / "bin" / "python")
        ports[FAST] = stack.enter_context(_library(ground, python, "pixels:predict"))
        ports[BYTES] = stack.enter_context(_library(ground, python, "pixels:predict_arrays"))
        ports[PEER] = stack.enter_context(mlserver(ground, "pixels_mlserver.Pixels", *small)).address[1]
    except NoPeer as error:
        section.notes.append(f"{PEER} is not measured: {error}")
    return ports


@contextmanager
def _library(ground: Environment, python: str, inference: str) -> Iterator[int]:
    port = free_port()
    first = Target(("127.0.0.1", port), PATH, _document({"data": [0.5], "shape": [1]}, "first"), b'"first"')
    with bare_process(ground, port, inference, "pixels", python, first):
        yield port


def _document(tensor: Mapping[str, object], output: str, **parameters: object) -> bytes:
    inputs = [{"name": "image", "datatype": "FP32", **tensor}]
    return json.dumps({"inputs": inputs, "outputs": [{"name": output}], "parameters": parameters}).encode()


def _json(raw: bytes, output: str) -> tuple[bytes, dict[str, str]]:
    """Return the body of a request and its header fields."""
    numbers = struct.unpack(f"<{COUNT}f", raw)
    return _document({"data": numbers, "shape": [COUNT]}, output), {}


def _bytes(raw: bytes, output: str) -> tuple[bytes, dict[str, str]]:
    tensor = {"shape": [COUNT], "parameters": {"binary_data_size": len(raw)}}
    head = _document(tensor, output, binary_data_output=True)
    return head + raw, {"Inference-Header-Content-Length": str(len(head))}


def _posting(stack: ExitStack, port: int, body: bytes, headers: dict[str, str]) -> Call:
    client = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)))
    used = time.monotonic()

    def post() -> bytes:
        nonlocal used
        if time.monotonic() > used + 1:
            client.close()  # MLServer closes connections that are idle for some seconds
        client.request("POST", PATH, body, {"Content-Type": "application/json", **headers})
        response = client.getresponse()
        reply = response.read()
        used = time.monotonic()
        if response.status != 200:
            raise LoadFailed(f"port {port} answers {response.status}: {reply[:300]!r}")
        return reply

    return post


@contextmanager
def _wire(size: int) -> Iterator[tuple[str, int]]:
    """A process that sends each `size` bytes back, and does nothing else with them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("fork").Process(target=_echo, args=(listener, size))
        process.start()
        try:
            yield listener.getsockname()
        finally:
            process.kill()
            process.join()


def _echo(listener: socket.socket, size: int) -> None:
    with suppress(OSError):  # its caller ends as it likes
        connection, _ = listener.accept()
        while piece := connection.recv(size, socket.MSG_WAITALL):
            connection.sendall(piece)


def _there_and_back(connection: socket.socket, raw: bytes) -> bytes:
    connection.sendall(raw)
    return connection.recv(len(raw), socket.MSG_WAITALL)


def _report(section: Section, ground: Environment, calls: dict[str, Call], words: str) -> None:
    """Report the milliseconds of a call, the median of a round, and how they compare."""
    count = ground.count(CALLS, 2)
    times = in_turns(
        {name: partial(_timed, call, count) for name, call in calls.items()}, ground.count(ROUNDS)
    )
    for name, measured in times.items():
        section.add(f"{name}, {words}", "ms", measured)
    if PEER in times:
        section.compare(f"{LIBRARY} beside {PEER}, {words}", times[PEER], times[LIBRARY], "1 ×")
        section.compare(f"  with orjson beside {PEER}, {words}", times[PEER], times[FAST], "2 ×")
        section.compare(f"  as bytes beside {PEER}, {words}", times[PEER], times[BYTES], "10 ×")
        section.compare(f"  as bytes beside its own JSON, {words}", times[LIBRARY], times[BYTES], "10 ×")
        if WIRE in times:
            section.compare(f"  as bytes beside loopback, {words}", times[BYTES], times[WIRE], "at most 3 ×")


def _timed(call: Call, count: int) -> float:
    call()
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begun))
    return median(times)
