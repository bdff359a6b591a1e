"""The built-in templates on the real engine, by the commands that their README names, without a network: what each
makes is built, served or run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from controller.cli.main import main
from tests.integration.docker.test_serve_local import Served
from tests.support.engines import BASE_IMAGE, unique
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[3]
FASTAPI_IMAGE = "prichal-example-fastapi:1"


class Made:
    """An app made by `prichal new`, and its images."""

    def __init__(self, folder: Path, client: docker.APIClient) -> None:
        self.folder = folder
        self._client = client
        self._tags: list[str] = []

    def new(self, template: str, *given: str, base: str = BASE_IMAGE) -> Path:
        """By the command, in this process."""
        module = self.folder / template
        assert main(["new", template, str(module), "--set", f"base={base}", *given]) == 0
        return module

    def prichal(self, *arguments: str, cwd: Path | None = None) -> str:
        command = [sys.executable, "-P", "-m", "controller", *arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=100, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def image(self, module: Path) -> str:
        """Build it with the classic builder, which is in every engine, and without a network."""
        tag = f"{unique('prichal-test-template')}:1"
        command = ["docker", "build", "-q", "--network", "none", "-t", tag, str(module)]
        env = {**os.environ, "DOCKER_BUILDKIT": "0"}
        ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        self._tags.append(tag)
        return tag

    @contextmanager
    def served(self, module: Path, *options: str, ready: str = "/health/ready") -> Iterator[Served]:
        served = Served(self.image(module), str(module / "manifests"), "--port", "0", *options)
        try:
            wait_for(lambda: fetched(served, ready, "-o", "/dev/null", "-w", "%{http_code}") == "200")
            yield served
        finally:
            assert served.end() == 0, "".join(served.said)

    def remove(self) -> None:
        for tag in self._tags:
            self._client.remove_image(tag, force=True)


@pytest.fixture
def made(tmp_path: Path, client: docker.APIClient) -> Iterator[Made]:
    made = Made(tmp_path, client)
    yield made
    made.remove()


def fetched(served: Served, path: str, *options: str) -> str:
    command = ["curl", "-sS", *options, f"http://127.0.0.1:{served.port()}{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def outputs(reply: tuple[int, Any]) -> dict[str, Any]:
    assert reply[0] == 200, reply
    return {output["name"]: output["data"] for output in reply[1]["outputs"]}


def text_input(name: str, value: str, datatype: str = "str") -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": datatype, "data": value}]}


def test_a_function(made: Made) -> None:
    with made.served(made.new("function")) as served:
        reply = outputs(served.ask("POST", "/predict", text_input("text", "Ein schöner Tag")))
        assert reply == {"words": [3], "longest": "schöner"}
        assert served.ask("POST", "/predict", {"inputs": []})[0] == 422


def test_files_by_program_and_by_form(made: Made) -> None:
    module = made.new("files", "--set", "heading=Строки — по номерам")
    box = made.folder / "box"
    box.mkdir(mode=0o777)
    box.chmod(0o777)
    (box / "a.txt").write_text("one\ntwo\n")
    with made.served(module, "--component", "convert", "--files", str(box)) as served:
        reply = outputs(served.ask("POST", "/predict", text_input("document", "a.txt", "FILE")))
        assert (box / reply["result"]).read_text() == "    1  one\n    2  two\n"
    with made.served(module, "--component", "form", ready="/ready") as served:
        assert "<h1>Строки — по номерам</h1>" in fetched(served, "/")
        assert fetched(served, "/", "-F", f"file=@{box / 'a.txt'}") == "    1  one\n    2  two\n"
        status = ("-o", "/dev/null", "-w", "%{http_code}")
        assert fetched(served, "/", *status, "-F", "other=x") == "422"
        assert fetched(served, "/", *status, "-X", "POST") == "413"
        assert fetched(served, "/elsewhere", *status) == "404"


def test_a_server(made: Made) -> None:
    subprocess.run([ROOT / "scripts" / "example-image", "fastapi"], check=True, timeout=300)
    with made.served(made.new("server", base=FASTAPI_IMAGE), ready="/ready") as served:
        assert served.ask("GET", "/greet?name=Anna") == (200, {"greeting": "Hello, Anna"})
        assert "/demo/web/openapi.json" in fetched(served, "/docs", "-H", "X-Forwarded-Prefix: /demo/web")


def test_a_pipeline(made: Made) -> None:
    module = made.new("pipeline", "--set", "pipeline=count")
    (module / "in.txt").write_text("the cat and the dog\n")
    inputs = ("--input", "text=in.txt", "--input", "top:=1")
    made.prichal("run-local", ".", *inputs, "--output-dir", "results", cwd=module)
    report = next((module / "results").rglob("report.txt"))
    assert report.read_text().split() == ["the", "2"]


def test_training(made: Made) -> None:
    module = made.new("training", "--set", "model=law")
    options = ("--input", "table=points.csv", "--output-dir", "results")
    made.prichal("run-local", ".", *options, cwd=module)
    model = json.loads(next((module / "results").rglob("model.json")).read_text())
    assert (model["slope"], model["intercept"], model["points"]) == (2.0, 1.0, 4)
    assert next((module / "results").rglob("report.txt")).read_text() == "y = 2 x + 1, off by 0 at most\n"
