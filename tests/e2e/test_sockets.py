"""WebSockets of a component with a server of its own, on everything real: what a rollout and a killed container do to
them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.engines import BASE_IMAGE
from tests.support.platform import Module, Platform

#: Greets with its version, then sends frames back, as a server that has nothing but Python's own library.
SERVER = """
import base64, hashlib, os, signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        key = self.headers.get("Sec-WebSocket-Key")
        if key is None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        accept = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accept).decode())
        self.end_headers()
        self.close_connection = True
        version = os.environ["VERSION"].encode()
        self.wfile.write(bytes((0x81, len(version))) + version)
        while head := self.rfile.read(2):
            mask = self.rfile.read(4)
            data = self.rfile.read(head[1] & 127)
            self.wfile.write(bytes((head[0], len(data))) + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
            if head[0] & 15 == 8:
                return


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server = ThreadingHTTPServer(("", int(os.environ["UNIP_PORT"])), Handler)
server.daemon_threads = True
server.serve_forever()
"""


def serve(module: Module, version: str) -> str:
    module.write("server.py", SERVER)
    module.write("Dockerfile", f'FROM {BASE_IMAGE}\nCOPY server.py /\nCMD ["python3", "/server.py"]\n')
    module.component(
        image={"build": {"context": "."}},
        env=[{"name": "VERSION", "value": version}],
        mlService={"server": "own", "readyPath": "/ready", "patience": "30s"},
        rollout={"drainTimeout": "8s"},
        resources={"cpus": 0.5, "memory": "128Mi"},
    )
    return module.api().push()


@contextmanager
def opened(platform: Platform, app: str, version: str) -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{platform.port}/{app}/api/ws"
    with connect(url, compression=None, open_timeout=60) as client:
        assert client.recv(timeout=60) == version
        yield client


def closed(client: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed):
        while True:
            client.recv(timeout=60)
    return client.close_code


def test_sockets_outlive_the_switch_and_end_with_a_code(platform: Platform, module: Module, app: str) -> None:
    first = serve(module, "one")
    platform.connect(module, app)
    platform.until_ready(app, first)
    with opened(platform, app, "one") as client:
        second = serve(module, "two")
        platform.poke(app)
        # 1012 and not 1014: the old container was there until the end.
        assert closed(client) == 1012
    platform.until_ready(app, second)

    with opened(platform, app, "two") as client:
        (container,) = platform.containers(app)
        platform.docker.kill(container["Id"])
        assert closed(client) == 1014
    with opened(platform, app, "two") as client:  # it waits until the component has healed
        client.send("back again")
        assert client.recv(timeout=60) == "back again"
