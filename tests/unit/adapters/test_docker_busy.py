"""An engine that is busy with a question of its disk, or with a removal, is asked again."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import docker
import docker.errors
import pytest

from controller.adapters.docker.busy import ask_again, disk_usage
from controller.adapters.docker.scratch import written

DF_BUSY = "a disk usage operation is already running"
PRUNE_BUSY = "a prune operation is already running"
VOLUMES = {
    "Volumes": [{"Name": "v", "UsageData": {"Size": 70}}, {"Name": "unknown", "UsageData": {"Size": -1}}]
}
CONTAINERS = [{"Id": "c", "SizeRw": 5, "Mounts": [{"Name": "v"}, {"Name": "unknown"}, {"Source": "/x"}]}]


Answers = dict[str, list[tuple[int, object]]]


class Engine(http.server.BaseHTTPRequestHandler):
    """Answers with what `answers` has for a path, one after the other, the last one again and again."""

    answers: Answers
    asked: list[str]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/v1.41")
        self.asked.append(f"{self.command} {self.path.removeprefix('/v1.41')}")
        prepared = self.answers[path]
        status, body = prepared.pop(0) if len(prepared) > 1 else prepared[0]
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def engine(
    answers: dict[str, list[tuple[int, object]]], timeout: float = 30.0
) -> Iterator[tuple[docker.APIClient, list[str]]]:
    handler = type("Handler", (Engine,), {"answers": answers, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            address = f"tcp://127.0.0.1:{server.server_address[1]}"
            with closing(docker.APIClient(address, version="1.41", timeout=timeout)) as client:  # type: ignore[arg-type]
                yield client, handler.asked  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [409, 500])
def test_what_containers_write_is_counted_by_a_busy_engine(status: int) -> None:
    refused = (status, {"message": f"Error response: {DF_BUSY}"})
    answers: Answers = {
        "/containers/json": [(200, CONTAINERS)],
        "/system/df": [refused, refused, (200, VOLUMES)],
    }
    with engine(answers) as (client, asked):
        ((entry, size),) = written(client, {})
    assert (entry["Id"], size) == ("c", 75)
    assert [each for each in asked if "df" in each] == ["GET /system/df?type=volume"] * 3


def test_a_busy_engine_removes_later() -> None:
    answers: Answers = {"/build/prune": [(409, {"message": PRUNE_BUSY}), (200, {"SpaceReclaimed": 1})]}
    with engine(answers) as (client, asked):
        assert ask_again(client, "POST", "build/prune", {"all": "1"}) == {"SpaceReclaimed": 1}
    assert asked == ["POST /build/prune?all=1"] * 2


def failure(client: docker.APIClient, kind: str) -> docker.errors.APIError:
    with pytest.raises(docker.errors.APIError) as caught:
        disk_usage(client, kind)
    return caught.value


def test_an_engine_that_stays_busy_is_given_up() -> None:
    with engine({"/system/df": [(409, {"message": DF_BUSY})]}, timeout=0.2) as (client, asked):
        told = failure(client, "volume")
    assert (told.status_code, told.explanation) == (409, DF_BUSY)
    assert len(asked) > 1


def test_another_refusal_is_not_repeated() -> None:
    with engine({"/system/df": [(500, {"message": "no space left on device"})]}) as (client, asked):
        told = failure(client, "build-cache")
    assert told.explanation == "no space left on device"
    assert len(asked) == 1


@pytest.mark.parametrize("told", [{}, {"Volumes": None}])
def test_an_engine_without_volumes(told: object) -> None:
    with engine({"/system/df": [(200, told)]}) as (client, _):
        assert disk_usage(client, "volume") == []
