"""`prichal serve-local` as a person uses it: the example's image, a call, Ctrl-C, and nothing is left."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.support.engines import BASE_IMAGE, unique
from tests.support.waiting import wait_for
from tests.unit.serving.server import ECHO

EXAMPLE = Path(__file__).parents[3] / "examples" / "colors"


@pytest.fixture
def colors(client: docker.APIClient) -> Iterator[str]:
    """The example's image, without its manifests and without anything of ours."""
    tag = f"{unique('prichal-test-colors')}:1"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        tar.add(EXAMPLE, ".")
    context.seek(0)
    build = client.build(
        fileobj=context, custom_context=True, tag=tag, buildargs={"BASE": BASE_IMAGE}, decode=True
    )
    log = list(build)
    assert not [entry for entry in log if "error" in entry], log
    yield tag
    client.remove_image(tag, force=True)


class Served:
    """The command in a process group of its own, as a terminal would have it; its standard error as it comes."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "controller", "serve-local", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    def port(self) -> int:
        found = wait_for(lambda: re.findall(r"http://127\.0\.0\.1:(\d+)", "".join(self.said)))
        return int(found[0])

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read() or b"null")
        except (OSError, http.client.HTTPException):
            return 0, None  # not up yet
        finally:
            connection.close()

    def end(self) -> int:
        """Ctrl-C reaches the whole group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(60)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@pytest.fixture
def served(colors: str) -> Iterator[Served]:
    served = Served(colors, str(EXAMPLE / "manifests"), "--port", "0")
    yield served
    served.end()


def containers_of(client: docker.APIClient, image: str) -> list[object]:
    return list(client.containers(all=True, filters={"ancestor": image}))


def test_serve_a_component_and_leave_nothing_behind(
    served: Served, colors: str, client: docker.APIClient
) -> None:
    wait_for(lambda: served.ask("GET", "/health/ready")[0] == 200, limit=60)
    inputs = [{"name": "rgb", "datatype": "INT32", "shape": [3], "data": [255, 0, 0]}]
    status, answer = served.ask("POST", "/predict", {"inputs": inputs})
    assert status == 200, answer
    assert isinstance(answer, dict)
    assert next(o["data"] for o in answer["outputs"] if o["name"] == "color") == "red"
    (container,) = client.containers(filters={"ancestor": colors})
    assert [(port["IP"], port["PublicPort"]) for port in container["Ports"]] == [("127.0.0.1", served.port())]
    details = client.inspect_container(container["Id"])
    assert details["Config"]["Hostname"] == "namer"
    host = details["HostConfig"]
    assert host["NanoCpus"]
    assert host["MemorySwap"] == host["Memory"] == host["ShmSize"]
    assert served.end() == 0
    assert containers_of(client, colors) == []


@pytest.fixture
def with_environment(client: docker.APIClient) -> Iterator[str]:
    """An image whose module is found by the environment of the image alone."""
    tag = f"{unique('prichal-test-path')}:1"
    dockerfile = f"FROM {BASE_IMAGE}\nENV PYTHONPATH=/code/src\nWORKDIR /work\nCOPY mymod.py /code/src/\n"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text in (("Dockerfile", dockerfile), ("mymod.py", ECHO)):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    log = list(client.build(fileobj=context, custom_context=True, tag=tag, decode=True))
    assert not [entry for entry in log if "error" in entry], log
    yield tag
    client.remove_image(tag, force=True)


def test_the_images_own_environment_holds(with_environment: str, tmp_path: Path) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        "apiVersion: unified-platform.cs.hse.ru/v1\nkind: MLComponent\nmetadata: {name: path}\n"
        'spec: {image: {build: {context: .}}, mlService: {inference: "mymod:predict"}}\n'
    )
    served = Served(with_environment, str(manifest), "--port", "0")
    try:
        wait_for(lambda: served.ask("GET", "/health/ready")[0] == 200, limit=60)
    finally:
        served.end()


def test_processes_and_shared_memory_are_those_of_the_manifest(
    with_environment: str, client: docker.APIClient, tmp_path: Path
) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        "apiVersion: unified-platform.cs.hse.ru/v1\nkind: MLComponent\nmetadata: {name: path}\n"
        "spec: {image: {build: {context: .}}, resources: {cpus: 2, memory: 256Mi, shm: 16Mi},\n"
        '  mlService: {inference: "mymod:predict", processes: 2, preload: true}}\n'
    )
    served = Served(with_environment, str(manifest), "--port", "0")
    try:
        wait_for(lambda: served.ask("GET", "/health/ready")[0] == 200, limit=60)
        (container,) = client.containers(filters={"ancestor": with_environment})
        assert client.inspect_container(container["Id"])["HostConfig"]["ShmSize"] == 16 * 2**20
        size = "import os; found = os.statvfs('/dev/shm'); print(found.f_blocks * found.f_frsize)"
        asked = client.exec_create(
            container["Id"], ["python3", "-c", size + "; print(os.environ['OMP_NUM_THREADS'])"]
        )
        assert client.exec_start(asked["Id"]).split() == [b"16777216", b"2"]
        assert len([line for line in served.said if "is ready" in line]) == 2
    finally:
        served.end()


def test_a_component_that_cannot_be_set_up_ends_with_its_code(
    colors: str, client: docker.APIClient, tmp_path: Path
) -> None:
    manifest = tmp_path / "colors.yaml"
    text = (EXAMPLE / "manifests" / "colors.yaml").read_text()
    manifest.write_text(text.replace("app.inference:predict", "app.inference:absent"))
    served = Served(colors, str(manifest), "--port", "0")
    code = served.process.wait(60)
    served.end()
    assert code == 3
    assert "absent" in "".join(served.said)
    assert containers_of(client, colors) == []


def test_a_smoke_test_is_run_and_what_comes_out_is_told(colors: str, tmp_path: Path) -> None:
    manifest = tmp_path / "colors.yaml"
    smoke = "smokeTest: {input: in.json, output: out.json, tolerance: 0.01}"
    text = (EXAMPLE / "manifests" / "colors.yaml").read_text()
    manifest.write_text(text.replace("concurrency: 4", smoke))
    rgb = {"name": "rgb", "datatype": "INT32", "shape": [3], "data": [255, 0, 0]}
    (tmp_path / "in.json").write_text(json.dumps({"inputs": [rgb]}))

    def told(name: str) -> str:
        outputs = [
            {"name": "color", "datatype": "str", "data": name},
            {"name": "distance", "datatype": "FP32", "shape": [1], "data": [57]},
        ]
        (tmp_path / "out.json").write_text(json.dumps({"outputs": outputs}))
        served = Served(colors, str(manifest), "--port", "0")
        try:
            found = wait_for(lambda: [line for line in served.said if "the smoke test" in line], limit=60)
            assert served.ask("GET", "/health/ready")[0] == 200, "it goes on serving in any case"
        finally:
            served.end()
        return found[0]

    assert told("red") == "the smoke test in.json passes\n"
    failed = told("blue")
    assert "the platform would give this version no traffic" in failed
    assert '/outputs/0/data: expected "blue", found "red"' in failed
    (tmp_path / "in.json").unlink()
    served = Served(colors, str(manifest), "--port", "0")
    assert served.process.wait(60) != 0
    served.end()
    assert "its smoke test cannot be run: there is no file in.json" in "".join(served.said)
