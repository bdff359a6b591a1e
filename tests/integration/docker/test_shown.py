"""What pages show for trying a module without the platform is typed into a shell: the image is built, the server comes
up, and it answers."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import docker
import pytest

from tests.support.engines import unique
from tests.support.pages import ROOT, blocks
from tests.support.waiting import wait_for

COLORS, OWN = ROOT / "examples" / "colors" / "README.md", ROOT / "examples" / "own-server" / "README.md"
SERVING, MODULE = ROOT / "docs" / "reference" / "serving.md", ROOT / "docs" / "guide" / "module.md"
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def shown(page: Path, words: str, **replaced: str) -> str:
    """The text of the one block with these words; `replaced` is what is called otherwise here."""
    (text,) = (block.text for block in blocks(page, "sh", "") if words in block.text)
    for name, other in replaced.items():
        assert name in text
        text = text.replace(name, other)
    return text


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def typed(text: str, folder: Path) -> Iterator[None]:
    """Until the block is done with, as Ctrl-C ends it."""
    shell = subprocess.Popen(["bash", "-ec", text], cwd=folder, env=ENVIRONMENT, start_new_session=True)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(60)


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            return reply.status, reply.read()
        except (OSError, http.client.HTTPException):
            return 0, b""  # not up yet


def names_red(port: int) -> bool:
    wait_for(lambda: ask(port, "GET", "/health/ready")[0] == 200, limit=60)
    inputs = [{"name": "rgb", "datatype": "INT32", "shape": [3], "data": [255, 0, 0]}]
    status, body = ask(port, "POST", "/predict", {"inputs": inputs})
    return status == 200 and json.loads(body)["outputs"][0]["data"] == "red"


@pytest.fixture(scope="module")
def tag(client: docker.APIClient) -> Iterator[str]:
    name = unique("prichal-test-shown")
    yield name
    client.remove_image(name, force=True)


def test_the_example_on_its_page_and_by_plain_docker(tag: str, tmp_path: Path, port: int) -> None:
    folder = tmp_path / "colors"
    shutil.copytree(COLORS.parent, folder)
    served = shown(COLORS, "serve-local").replace("-t colors .", f"-q -t {tag} .")
    with typed(served.replace("serve-local colors", f"serve-local {tag}").replace("8002", str(port)), folder):
        assert names_red(port)
    here = f"127.0.0.1:{port}:8002"
    by_docker = shown(MODULE, "--entrypoint python3", scorer=tag).replace("127.0.0.1:8002:8002", here)
    with typed(by_docker, ROOT):
        assert names_red(port)
    function = "app.inference:predict --loader app.inference:load"
    by_docker = shown(SERVING, "--entrypoint python3", IMAGE=tag).replace("8002:8002", here)
    with typed(by_docker.replace("app:predict", function), ROOT):
        assert names_red(port)


def test_an_own_server(client: docker.APIClient, port: int) -> None:
    tag = unique("prichal-test-shown-own")
    text = (
        shown(OWN, "docker build")
        .replace("-t own-server", f"-t {tag}")
        .replace("8002 own-server", f"8002 {tag}")
    )
    text = text.replace("127.0.0.1:8002", f"127.0.0.1:{port}")
    *server, call = text.strip().splitlines()
    try:
        with typed("\n".join(server), ROOT):
            wait_for(lambda: ask(port, "GET", "/ready")[0] == 200, limit=60)
            told = subprocess.run(["bash", "-ec", call], capture_output=True, check=True, timeout=60).stdout
        assert told.decode() == blocks(OWN, "text")[0].text.rstrip("\n") + "\n\n"
    finally:
        client.remove_image(tag, force=True)
