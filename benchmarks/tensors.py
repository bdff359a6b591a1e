"""Measures calls of the serving library, directly, with one picture of 224 × 224 × 3 numbers, as JSON and as bytes,
beside MLServer with the same function and client, and beside the same bytes over loopback without any protocol."""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from statistics import median

from benchmarks.environment import Environment, bare_process
from benchmarks.figures import Section, in_turns
from benchmarks.load import LoadFailed, Target, connect
from benchmarks.peers import VENV, NoPeer, install, mlserver
from tests.support.ports import free_port

COUNT = 224 * 224 * 3
CALLS, ROUNDS = 15, 5
PATH = "/v2/models/pixels/infer"
PEER, LIBRARY = "MLServer", "serving library"
FAST = "  numpy and orjson in the image"
ARRAYS = "  and a function that takes arrays"
BYTES = "  tensors as bytes"
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
    """Start the serving library with nothing but Python in the image, with what MLServer's environment has, and with a
    function that takes arrays; and MLServer. Their ports."""
    ports = {LIBRARY: stack.enter_context(_library(ground, sys.executable, "pixels:predict"))}
    small = (_document({"data": [0.5], "shape": [1]}, "first"), b'"first"')
    try:
        install()
        python = str(VENV / "bin" / "python")
        ports[FAST] = stack.enter_context(_library(ground, python, "pixels:predict"))
        ports[ARRAYS] = ports[BYTES] = stack.enter_context(_library(ground, python, "pixels:predict_arrays"))
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
    """A client of its own, since that of Python takes as long as a call with a tensor as bytes. It makes a request of
    one piece, and receives the reply into memory that is there already."""
    fields = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **headers,
    }
    lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    request = "\r\n".join(lines).encode() + body
    client, used = stack.enter_context(closing(connect(("127.0.0.1", port)))), time.monotonic()
    room = memoryview(bytearray(8 * 2**20))

    def post() -> bytes:
        nonlocal client, used
        if time.monotonic() > used + 1:  # MLServer closes connections that are idle for some seconds
            client.close()
            client = stack.enter_context(closing(connect(("127.0.0.1", port))))
        client.sendall(request)
        have = end = 0
        while not end:
            got = client.recv_into(room[have:])
            if not got:
                raise LoadFailed(f"port {port} closes the connection")
            have += got
            end = bytes(room[: min(have, 2**14)]).find(b"\r\n\r\n") + 1
        head = bytes(room[: end + 3]).lower()
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        if not head.startswith(b"http/1.1 200") or length is None:
            raise LoadFailed(f"port {port} answers {bytes(room[: min(have, 500)])!r}")
        whole = end + 3 + int(length[1])
        while have < whole:
            have += client.recv_into(room[have:whole], flags=socket.MSG_WAITALL)
        used = time.monotonic()
        return bytes(room[end + 3 : min(whole, end + 1000)])

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
        section.compare(f"  with both in the image, {words}", times[PEER], times[FAST], "2 ×")
        section.compare(f"  and a function that takes arrays, {words}", times[PEER], times[ARRAYS], "2 ×")
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
