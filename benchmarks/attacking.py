"""`python -m benchmarks.attacking NAME PORT APP`: callers who mean ill, until they are ended. Says `under
way` when all has begun.

A separate process that runs only when nothing else has to: the processor time of attackers themselves is not a cost of
the platform. They are as quick as callers from elsewhere can be: each sends its next request on a new connection, which
takes two round trips of `TRIP`.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

TRIP = 0.025  # seconds; from one country to the next
CONNECTIONS = 150  # that send a body byte by byte
SILENT = 2300  # that announce one and send nothing
SIGN_INS = 32  # callers at once
RUNS = 6  # callers at once
VALUE = 900_000  # characters of an input of theirs
NESTED = 15 * 2**20  # bytes of JSON
ANNOUNCED = "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


@contextmanager
def under_way(name: str, port: int, app: str) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.attacking", name, str(port), app]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def slow_bodies(port: int, app: str) -> None:
    """To a webhook, before anything is verified."""
    head = f"POST /-/hooks/{app} HTTP/1.1\r\nHost: x\r\n{ANNOUNCED}"
    open_all(port, [head.encode() + b"{"] * CONNECTIONS, drip=True)


def silent_calls(port: int, app: str) -> None:
    """Of an open API."""
    head = f"POST /{app}/api/predict HTTP/1.1\r\nHost: x\r\n{ANNOUNCED}"
    open_all(port, [head.encode()] * SILENT, drip=False)


def open_all(port: int, requests: list[bytes], drip: bool) -> None:
    """Each on a connection of its own; another one for each that is closed."""
    connections = [opened(port, request) for request in requests]
    print("under way", flush=True)
    while True:
        for place, request in enumerate(requests):
            try:
                connections[place].setblocking(False)
                if drip:
                    connections[place].send(b" ")
                if connections[place].recv(65536) == b"":
                    raise ConnectionError
            except BlockingIOError:
                continue
            except OSError:
                connections[place].close()
                with suppress(OSError):
                    connections[place] = opened(port, request)
        time.sleep(1)


def opened(port: int, request: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(request)
    return connection


def sign_ins(port: int, app: str) -> None:
    """With wrong passwords, each of which costs what a hash may cost."""
    in_threads(SIGN_INS, port, lambda number: ("GET", f"/{app}/closed/x", b"", basic(f"user-{number % 8}")))


def basic(user: str) -> dict[str, str]:
    password = os.urandom(6).hex()
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def nested_json(port: int, app: str) -> None:
    """To a component, and to the runs of a pipeline."""
    body = b'{"inputs": ' + b'[{"a":' * (NESTED // 6)
    paths = (f"/{app}/api/predict", f"/{app}/train/runs")
    in_threads(4, port, lambda number: ("POST", paths[number % 2], body, {}))


def queued_runs(port: int, app: str) -> None:
    value = {"name": "text", "datatype": "str", "data": "x" * VALUE}
    body = json.dumps({"inputs": [value]}).encode()
    in_threads(RUNS, port, lambda number: ("POST", f"/{app}/train/runs", body, {}))


Call = tuple[str, str, bytes, dict[str, str]]


def in_threads(count: int, port: int, call: Callable[[int], Call]) -> None:
    """Each asks again as soon as it has an answer, and as its way there is long."""
    begun = threading.Semaphore(0)

    def go_on(number: int) -> None:
        while True:
            time.sleep(2 * TRIP)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with suppress(OSError, http.client.HTTPException):
                method, path, body, headers = call(number)
                begun.release()
                connection.request(method, path, body, {"Content-Type": "application/json", **headers})
                connection.getresponse().read()
            connection.close()

    for number in range(count):
        threading.Thread(target=go_on, args=(number,), daemon=True).start()
    for _ in range(count):
        begun.acquire()
    print("under way", flush=True)
    threading.Event().wait()


ATTACKS: dict[str, Callable[[int, str], None]] = {
    "slow bodies to a webhook": slow_bodies,
    "calls without their body": silent_calls,
    "costly passwords": sign_ins,
    "nested JSON": nested_json,
    "queued runs": queued_runs,
}


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    ATTACKS[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
