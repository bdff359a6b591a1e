"""Large JSON of strangers is read elsewhere: meanwhile the event loop goes on, and too much time or memory ends it."""

from __future__ import annotations

import asyncio
import json
import math
import time

import pytest

from controller.domain.names import ComponentName
from controller.domain.storage.keys import parse_path
from controller.web import isolated_json
from controller.web.api.platform.signatures import refs_of
from controller.web.call_files import variables
from controller.web.call_files.variables import FileInput, WantedOutputs
from controller.web.problems import ProblemKind, RequestRefused
from tests.support.loops import in_loop

BOX = ComponentName("tables")
WISH = {"name": "a", "datatype": "FILE", "data": "x/y.csv"}
#: What the parser takes longest for: seconds for 15 MiB.
LISTS = b"[" + b"[]," * (5 * 2**20) + b"[]]"


async def ticks(until: asyncio.Future[WantedOutputs]) -> int:
    """Turns of the event loop, one each hundredth of a second."""
    count = 0
    while not until.done():
        await asyncio.sleep(0.01)
        count += 1
    return count


@in_loop
async def test_the_loop_goes_on_meanwhile() -> None:
    content = b'{"inputs": [%b], "x": %b}' % (json.dumps(WISH).encode(), LISTS)
    reading = asyncio.ensure_future(isolated_json.read(len(content), variables.read_request, content, (BOX,)))
    turns = await ticks(reading)
    assert reading.result() == WantedOutputs((FileInput(0, BOX, parse_path("x/y.csv")),))
    assert turns > 10  # one at the most, if it is read by the loop or by a thread


@pytest.mark.parametrize("filler", [0, isolated_json.MEDIUM, isolated_json.LARGE])
@in_loop
async def test_what_is_found_and_refused_is_the_same_wherever_it_is_read(filler: int) -> None:
    wrong = {"inputs": [{**WISH, "box": "other"}], "filler": "x" * filler}
    content = json.dumps(wrong).encode()
    with pytest.raises(RequestRefused) as caught:
        await isolated_json.read(len(content), variables.read_request, content, (BOX,))
    assert caught.value.problem.kind is ProblemKind.INVALID
    assert caught.value.problem.extra["errors"] == [
        {
            "pointer": "/inputs/0/box",
            "detail": "no box 'other' is connected to this component; connected are tables",
        }
    ]
    reply = json.dumps({"outputs": [{"name": "o", "data": "n.txt"}], "filler": "x" * filler}).encode()
    outputs = await isolated_json.read(len(reply), variables.read_reply, reply, [(0, 5)])
    told = await isolated_json.read(len(reply), variables.with_paths, reply, outputs, [parse_path("p/n.txt")])
    assert json.loads(told)["outputs"][0]["data"] == "p/n.txt"
    with pytest.raises(ValueError, match="does not fit its outputs"):
        await isolated_json.read(len(reply), variables.read_reply, reply, [(7, 5)])


@pytest.mark.parametrize("filler", [0, isolated_json.LARGE])
def test_payloads_of_webhooks(filler: int) -> None:
    payload = json.dumps({"ref": "refs/heads/main", "filler": "x" * filler}).encode()
    assert isolated_json.read_here(len(payload), refs_of, payload) == {"refs/heads/main"}
    with pytest.raises(RequestRefused, match="The body is not JSON"):
        isolated_json.read_here(len(payload), refs_of, payload[:-1])


@in_loop
async def test_a_busy_host_is_no_fault_of_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated_json, "DEADLINE", 1.0)
    with pytest.raises(RequestRefused, match="too busy") as caught:
        await isolated_json.read(isolated_json.LARGE, time.sleep, 3600)
    assert caught.value.problem.kind is ProblemKind.OVERLOADED
    assert caught.value.problem.retry_after == isolated_json.RETRY_AFTER


@in_loop
async def test_it_has_so_much_time_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated_json, "CPU_TIME", 1)
    with pytest.raises(RequestRefused, match="too much time or memory"):
        await isolated_json.read(isolated_json.LARGE, sum, range(10**12))


@in_loop
async def test_it_has_so_much_memory() -> None:
    with pytest.raises(RequestRefused, match="too much time or memory"):
        await isolated_json.read(isolated_json.LARGE, bytes, 2 * isolated_json.MEMORY)
    assert await isolated_json.read(isolated_json.LARGE, math.sqrt, 4) == 2.0
