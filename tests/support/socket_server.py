"""`python -m tests.support.socket_server`: a component with WebSockets, as a process that a test may kill. Prints its
port. What a connection does depends on its path; `SocketComponent` is the same in a thread of the test."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

PIECE = b"x" * 2**16


@dataclass
class SocketComponent:
    """`/echo` sends back, `/flood` sends as long as somebody reads, `/count` counts bytes once `reads` is set, `/bye`
    closes with 4000, `/refuse` answers 403. `seen` are the header fields of handshakes, `ends` the close codes that
    connections ended with."""

    seen: list[dict[str, str]] = field(default_factory=list)
    ends: list[int | None] = field(default_factory=list)
    sent: int = 0
    counted: int = 0
    reads: threading.Event = field(default_factory=threading.Event)
    server: Server | None = None

    def start(self) -> None:
        self.server = serve(
            self._serve, "127.0.0.1", 0, process_request=self._refuse, subprotocols=[Subprotocol("chat")],
            select_subprotocol=_select, close_timeout=5,
        )  # fmt: skip
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        assert self.server is not None
        self.reads.set()
        self.server.shutdown()

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.socket.getsockname()[1])

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _refuse(self, connection: ServerConnection, request: Any) -> Any:
        self.seen.append(
            {"path": request.path, **{name.lower(): value for name, value in request.headers.raw_items()}}
        )
        if request.path.startswith("/refuse"):
            return connection.respond(HTTPStatus.FORBIDDEN, "not here\n")
        return None

    def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        try:
            match connection.request.path.partition("?")[0]:
                case "/flood":
                    while True:
                        connection.send(PIECE)
                        self.sent += len(PIECE)
                case "/count":
                    self.reads.wait(60)
                    for message in connection:
                        self.counted += len(message)
                case "/bye":
                    connection.close(4000, "that is all")
                case _:
                    for message in connection:
                        connection.send(message)
        except ConnectionClosed:
            pass
        finally:
            connection.close()
            self.ends.append(connection.close_code)


def _select(_: ServerConnection, offered: Any) -> Any:
    return "chat" if "chat" in offered else None


if __name__ == "__main__":
    component = SocketComponent()
    component.start()
    print(component.port, flush=True)
    threading.Event().wait()
