"""The session of a build, against an engine that is played over a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h2.config
import h2.connection
import h2.events

from controller.adapters.docker.buildkit.session import BuildSession

HEALTH = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/grpc.health.v1.Health/Check"),
    (":authority", "localhost"),
]


class PlayedEngine:
    """The client of HTTP/2 on the connection that a session has opened."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))

    def accept(self) -> None:
        self.socket, _ = self._listener.accept()
        self.socket.settimeout(30.0)
        asked = b""
        while not asked.endswith(b"\r\n\r\n"):
            asked += self.socket.recv(65536)
        self.http.initiate_connection()
        self.socket.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\n" + self.http.data_to_send())

    def send(self) -> None:
        self.socket.sendall(self.http.data_to_send())

    def trailers(self, stream: int) -> dict[str, str]:
        while received := self.socket.recv(65536):
            for event in self.http.receive_data(received):
                match event:
                    case h2.events.TrailersReceived(stream_id=found, headers=headers) if found == stream:
                        return {str(name): str(value) for name, value in headers or []}
        raise AssertionError("the session has ended")


@contextmanager
def playing(folder: Path) -> Iterator[PlayedEngine]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "engine.sock"))
        listener.listen()
        engine = PlayedEngine(listener)
        accepting = threading.Thread(target=engine.accept, daemon=True)
        accepting.start()
        with BuildSession(f"unix://{folder}/engine.sock", "1.41", {}, {}):
            accepting.join()
            with engine.socket:
                yield engine


def test_a_call_that_is_canceled_as_it_begins_ends_no_other(tmp_path: Path) -> None:
    with playing(tmp_path) as engine:
        engine.http.send_headers(1, HEALTH)
        engine.http.reset_stream(1)
        engine.http.send_headers(3, HEALTH)
        engine.http.send_data(3, b"\0\0\0\0\0", end_stream=True)
        engine.send()  # at once: the session reads all of it together
        assert engine.trailers(3) == {"grpc-status": "0"}
