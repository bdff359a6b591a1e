"""Streamlit, Jupyter and Gradio, each as it comes, behind a real gunicorn: the sockets of their pages work, and end
with a code at a rollout. Each server runs in an environment of its own, see tests/clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.support.ports import free_port
from tests.support.waiting import wait_for

from .conftest import ROOT, Web, demo_route

pytestmark = pytest.mark.timeout(
    900
)  # the environments are made first, and the servers take their time to start

STREAMLIT = """
import streamlit

streamlit.write("good day from " + "streamlit")
"""
GRADIO = """
import os
import gradio

gradio.Interface(lambda name: f"good day, {name}", "text", "text").queue().launch(
    server_name="127.0.0.1", server_port=int(os.environ["UNIP_PORT"])
)
"""
RERUN = b"\x5a\x00"  # Streamlit's protocol buffer by which a page asks for its script to run


@contextmanager
def served(web: Web, folder: Path, name: str, ready: str, *command: str) -> Iterator[None]:
    """Run a server until the end of the block; the API `open` leads to it. `ready` is a path that answers 200."""
    environment = ROOT / "build" / f"client-{name}"
    subprocess.run(
        [ROOT / "scripts" / "python-env", environment, ROOT / "tests" / "clients" / f"{name}.txt"], check=True
    )
    port = free_port()
    settings = {
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "UNIP_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    arguments = [part.format(port=port) for part in command]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [environment / "bin" / arguments[0], *arguments[1:]],
            env=settings,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        web.put(demo_route(f"127.0.0.1:{port}", drain=0.2))

        def is_up() -> bool:
            assert server.poll() is None, (folder / "log").read_text()
            return web.ask("GET", f"/demo/open{ready}").status == 200

        wait_for(is_up, limit=200)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def opened(web: Web, path: str, *protocols: str) -> Iterator[ClientConnection]:
    """A socket as a page of this host opens it."""
    host = "{}:{}".format(*web.address)
    options: dict[str, Any] = {"subprotocols": [*map(Subprotocol, protocols)] or None}
    options |= {"origin": Origin(f"http://{host}"), "max_size": None, "open_timeout": 60}
    with connect(f"ws://{host}/demo/open{path}", **options) as client:
        yield client


def ends_at_a_rollout(web: Web, client: ClientConnection) -> None:
    web.put(demo_route(web.component.endpoint, drain=0.2))
    with pytest.raises(ConnectionClosed):
        while True:
            client.recv(timeout=100)
    assert client.close_code == 1012


def messages(client: ClientConnection) -> Iterator[Any]:
    while True:
        yield json.loads(client.recv(timeout=100))


def test_streamlit(web: Web, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(STREAMLIT)
    options = ("--server.address=127.0.0.1", "--server.headless=true", "--browser.gatherUsageStats=false")
    command = ("streamlit", "run", "app.py", "--server.port={port}", *options)
    with served(web, tmp_path, "streamlit", "/_stcore/health", *command):
        assert b"<title>Streamlit" in web.ask("GET", "/demo/open/").body
        with opened(web, "/_stcore/stream", "streamlit") as client:
            assert client.subprotocol == "streamlit"
            client.send(RERUN)
            seen = b""
            while b"good day from streamlit" not in seen:
                part = client.recv(timeout=100)
                assert isinstance(part, bytes)
                seen += part
            ends_at_a_rollout(web, client)


def test_jupyter(web: Web, tmp_path: Path) -> None:
    """A kernel runs what a page sends it. The server checks the page's origin and its cookie itself."""
    options = ("--allow-root", "--no-browser", "--ServerApp.ip=127.0.0.1", "--ServerApp.port={port}")
    access = ("--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True")
    with served(web, tmp_path, "jupyter", "/api", "jupyter", "server", *options, *access):
        kernel = web.ask("POST", "/demo/open/api/kernels", b"{}").json["id"]
        with opened(web, f"/api/kernels/{kernel}/channels") as client:
            header = {
                "msg_id": "1",
                "msg_type": "execute_request",
                "session": "s",
                "username": "",
                "version": "5.3",
            }
            content = {"code": "print('good day', 6 * 7)", "silent": False}
            request = {
                "channel": "shell",
                "header": header,
                "parent_header": {},
                "metadata": {},
                "content": content,
            }
            client.send(json.dumps(request))
            said = next(each["content"] for each in messages(client) if each["msg_type"] == "stream")
            assert said == {"name": "stdout", "text": "good day 42\n"}
            ends_at_a_rollout(web, client)


def test_gradio(web: Web, tmp_path: Path) -> None:
    """Its queue. Later versions have server-sent events there."""
    (tmp_path / "app.py").write_text(GRADIO)
    with served(web, tmp_path, "gradio", "/config", "python", "app.py"):
        with opened(web, "/queue/join") as client:
            call = {"fn_index": 0, "session_hash": "x"}
            answers = {"send_hash": call, "send_data": {**call, "data": ["Ann"], "event_data": None}}
            for message in messages(client):
                if message["msg"] in answers:
                    client.send(json.dumps(answers[message["msg"]]))
                if message["msg"] == "process_completed":
                    assert message["output"]["data"] == ["good day, Ann"]
                    break
        with opened(web, "/queue/join") as client:
            assert next(messages(client)) == {"msg": "send_hash"}
            ends_at_a_rollout(web, client)
