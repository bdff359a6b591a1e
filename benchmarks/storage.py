"""Measures the cost that the platform adds to the storage. Links, transfers and listings are compared with
the storage's SDK, and FILE variables of a call with a download of the file."""

from __future__ import annotations

import http.client
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from benchmarks.environment import Environment, RunningPlatform, running_platform
from benchmarks.figures import Section, in_turns
from benchmarks.generated_s3 import generated_bucket
from benchmarks.idle import memory_of
from benchmarks.load import LoadFailed
from controller.adapters.objects import S3Objects
from controller.adapters.objects.client import PIECE
from controller.store import open_store
from tests.support.engines import BASE_IMAGE, unique
from tests.support.platform import Module

ROUNDS = 5
CALLS = 400  # of one kind in one round
LARGE = 128 * 2**20  # bytes of one transfer
AT_ONCE = 4
IMAGE = 10 * 2**20  # bytes of a FILE variable
LISTED = 10_000
GENERATED = 300_000
HTTP = urllib3.PoolManager(blocksize=256 * 1024)  # as the SDK has its own

LENGTH = '''
def predict(inputs):
    """How long a file is.

    :param inputs.file: any file
    :type inputs.file: FILE
    :param outputs.size: in bytes
    :type outputs.size: INT32
    """
    with open(inputs[0]["data"], "rb") as file:
        return {"size": len(file.read())}
'''


def measure_files(ground: Environment) -> Section:
    section = Section("files", "the files API on the embedded storage, beside the storage itself")
    with running_platform(ground) as platform:
        box = Box(platform)
        _links(section, box, ground)
        _transfers(section, box, ground)
        _staging(section, box, ground)
        _listing(section, box, ground)
    return section


class Box:
    """An app with a box, a files API that is open to all, and a function that takes a file. `objects` is the
    storage's SDK with the keys of the web process."""

    def __init__(self, platform: RunningPlatform) -> None:
        self.platform = platform
        self.app = unique("bench")
        module = Module(platform.home / self.app)
        module.write("app.py", LENGTH).write(
            "Dockerfile", f"FROM {BASE_IMAGE}\nWORKDIR /srv\nCOPY app.py .\n"
        )
        module.component(
            "model",
            image={"build": {"context": "."}},
            mlService={"inference": "app:predict"},
            connectedBoxes=[{"name": "data", "default": True}],
            resources={"cpus": 2, "memory": "256Mi"},
        )
        module.api().box("data", capacity="20G").files_api()
        revision = module.push()
        platform.connect(module, self.app)
        platform.until_ready(self.app, revision)
        store = open_store(platform.database)
        record, access = store.boxes.all()[0], store.boxes.access()
        store.close()
        assert access is not None
        self.bucket = record.bucket
        self.access = access
        self.objects = S3Objects.of(access)
        self.area = "users/%anonymous/file_groups/"
        self._connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=60)

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            self._connection.request(method, path, body, headers)
            reply = self._connection.getresponse()
        except http.client.RemoteDisconnected:  # it was idle for longer than the gateway keeps one
            self._connection.close()
            self._connection.request(method, path, body, headers)
            reply = self._connection.getresponse()
        content = reply.read()
        assert reply.status == 200, content
        return content

    def file(self, name: str) -> str:
        return f"/{self.app}/files/data/{name}"

    def link(self, method: str, name: str, query: str = "") -> str:
        document = json.loads(self.ask(method, self.file(name) + query))
        return str(document[f"presigned_{method.lower()}_url"])


def timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


# --- links ------------------------------------------------------------------------------------------------------


def _links(section: Section, box: Box, ground: Environment) -> None:
    """One caller, one connection, as the caller of a predict would be."""
    box.objects.put(box.bucket, f"{box.area}links/file", io.BytesIO(b"x"), 1)
    calls = {
        "an empty reply": partial(box.ask, "GET", "/-/healthz"),
        "a link for a download": partial(box.ask, "GET", box.file("links/file")),
        "a link for an upload": partial(box.ask, "PUT", box.file("links/other") + "?size=1"),
    }
    rounds = {name: partial(_latencies, call, ground.count(CALLS, 3)) for name, call in calls.items()}
    measured = in_turns(rounds, ground.count(ROUNDS))
    for name, values in measured.items():
        section.add(f"{name}, p50", "ms", [1e3 * statistics.median(times) for times in values])
        section.add("  p99", "ms", [1e3 * _p99(times) for times in values])
    empty = [_p99(times) for times in measured["an empty reply"]]
    for name in list(calls)[1:]:
        added = [1e3 * (_p99(times) - floor) for times, floor in zip(measured[name], empty, strict=True)]
        section.add(f"{name}: p99 above the empty reply's", "ms", added, aim="5 ms")


def _latencies(call: Callable[[], object], count: int) -> list[float]:
    return [timed(call) for _ in range(count)]


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


# --- transfers --------------------------------------------------------------------------------------------------


def _transfers(section: Section, box: Box, ground: Environment) -> None:
    content = Path(box.platform.home / "content")
    size = ground.count(LARGE, 2**20)
    content.write_bytes(b"\x5a" * size)
    calls = {
        "upload through a link": lambda: _upload(box, content),
        "upload by the SDK": lambda: _sdk_upload(box, content),
        "download through a link": lambda: _download(box.link("GET", "big/link")),
        "download by the SDK": lambda: _sdk_download(box, f"{box.area}big/sdk"),
    }
    with _relayed(box) as relayed:
        calls["download through a loop of splice"] = lambda: _sdk_download(relayed, f"{box.area}big/sdk")
        calls["4 downloads at once through links"] = lambda: _at_once(
            partial(_download, box.link("GET", "big/link"))
        )
        calls["4 downloads at once by the SDK"] = partial(
            _at_once, lambda: _sdk_download(box, f"{box.area}big/sdk")
        )
        measured = in_turns(
            {name: partial(timed, call) for name, call in calls.items()}, ground.count(ROUNDS)
        )
    for name, values in measured.items():
        bytes_moved = size * (AT_ONCE if name.startswith(f"{AT_ONCE} ") else 1)
        section.add(name, "MB/s", [bytes_moved / 1e6 / seconds for seconds in values])
    for way, link, sdk in (
        ("upload: speed through a link", "upload through a link", "upload by the SDK"),
        ("download: speed through a link", "download through a link", "download by the SDK"),
        (
            "4 downloads: speed through links",
            "4 downloads at once through links",
            "4 downloads at once by the SDK",
        ),
        (
            "download: speed through a loop of splice",
            "download through a loop of splice",
            "download by the SDK",
        ),
    ):
        aim = "" if "loop" in way else "0.9 ×"
        section.compare(f"{way} beside the SDK", measured[sdk], measured[link], aim=aim)


@contextmanager
def _relayed(box: Box) -> Iterator[Box]:
    """The same box, its storage behind the least that can stand between."""
    there = urlsplit(box.access.internal_url)
    command = [sys.executable, "-m", "benchmarks.relay", str(there.hostname), str(there.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdout is not None
        try:
            url = f"http://127.0.0.1:{relay.stdout.readline().strip()}"
            found = copy(box)
            found.objects = S3Objects.of(replace(box.access, internal_url=url))
            yield found
        finally:
            relay.kill()


def _at_once(call: Callable[[], object]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for done in [threads.submit(call) for _ in range(AT_ONCE)]:
            done.result()


def _upload(box: Box, content: Path) -> None:
    """By the HTTP client that the SDK uses, too: what is compared is the way, not the client."""
    size = content.stat().st_size
    url = box.link("PUT", "big/link", f"?size={size}")
    with content.open("rb") as file:
        reply = HTTP.request("PUT", url, body=file, headers={"Content-Length": str(size)})
    assert reply.status == 200


def _download(url: str) -> None:
    reply = HTTP.request("GET", url, preload_content=False)
    try:
        assert reply.status == 200
        for _ in reply.stream(PIECE):
            pass
    finally:
        reply.release_conn()


def _sdk_upload(box: Box, content: Path) -> None:
    with content.open("rb") as file:
        box.objects.put(box.bucket, f"{box.area}big/sdk", file, content.stat().st_size)


def _sdk_download(box: Box, key: str) -> None:
    with box.objects.open(box.bucket, key) as pieces:
        for _ in pieces:
            pass


# --- FILE variables ---------------------------------------------------------------------------------------------


def _staging(section: Section, box: Box, ground: Environment) -> None:
    box.objects.put(box.bucket, f"{box.area}images/one", io.BytesIO(b"\x5a" * IMAGE), IMAGE)
    body = json.dumps({"inputs": [{"name": "file", "datatype": "FILE", "data": "images/one"}]}).encode()
    path = f"/{box.app}/api/predict"
    assert json.loads(box.ask("POST", path, body))["outputs"][0]["data"] == [IMAGE]
    calls: dict[str, Callable[[], object]] = {
        "predict with a FILE input of 10 MiB": partial(box.ask, "POST", path, body),
        "downloading it once": lambda: _download(box.link("GET", "images/one")),
    }
    measured = in_turns(
        {name: partial(_best, call, ground.count(10)) for name, call in calls.items()}, ground.count(ROUNDS)
    )
    for name, values in measured.items():
        section.add(name, "ms", [1e3 * seconds for seconds in values])
    call, download = measured.values()
    section.compare("FILE input beside a download", call, download, aim="1.3 ×")


def _best(call: Callable[[], object], count: int) -> float:
    """The median of some: one transfer of 10 MiB is short."""
    return statistics.median(timed(call) for _ in range(count))


# --- listings ---------------------------------------------------------------------------------------------------


def _listing(section: Section, box: Box, ground: Environment) -> None:
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(partial(_put_small, box), range(ground.count(LISTED, 20))):
            pass
    calls: dict[str, Callable[[], object]] = {
        "first page of 10,000 files": partial(box.ask, "GET", box.file("many/")),
        "the storage's own first page": partial(
            box.objects.page, box.bucket, f"{box.area}many/", limit=1000, folders=True
        ),
    }
    measured = in_turns(
        {name: partial(_best, call, ground.count(10)) for name, call in calls.items()}, ground.count(ROUNDS)
    )
    for name, values in measured.items():
        section.add(name, "ms", [1e3 * seconds for seconds in values])
    ours, floor = measured.values()
    section.compare("first page beside the storage's own", ours, floor, aim="1.2 ×")


def _put_small(box: Box, number: int) -> None:
    box.objects.put(box.bucket, f"{box.area}many/{number:05}", io.BytesIO(b"x"), 1)


def measure_large_listing(ground: Environment) -> Section:
    """A storage that makes up its keys: 300,000 real objects would take the better part of an hour to put there."""
    generated = ground.count(GENERATED, 3000)
    section = Section("listing", f"listing {generated:,} files, generated by a stand-in for the storage")
    with (
        generated_bucket(ground.home, generated) as settings,
        running_platform(ground, storage=settings) as platform,
    ):
        module = Module(platform.home / "module").box("data").files_api()
        revision = module.push()
        app = unique("bench")
        platform.connect(module, app)
        platform.until_ready(app, revision)
        before = memory_of(platform.processes["web"])
        peak, listed, seconds = before, 0, []
        cursor: str | None = ""
        while cursor is not None:
            begun = time.perf_counter()
            page = platform.get(f"/{app}/files/data/many/?after={cursor}").json
            seconds.append(time.perf_counter() - begun)
            listed, cursor = listed + len(page["files"]), page["next"]
            if listed > generated:
                raise LoadFailed(f"there are {generated} files, and the listing goes on behind them")
            peak = max(peak, memory_of(platform.processes["web"]))
        if listed != generated:
            raise LoadFailed(f"{listed} files were listed instead of {generated}")
        section.add("pages of 1,000", "", [len(seconds)])
        section.add("a page", "ms", [1e3 * took for took in seconds])
        section.add("memory of the web process before", "MiB", [before])
        section.add("  the most while listing", "MiB", [peak])
        section.add("  growth", "MiB", [peak - before], aim="flat")
    return section
