"""`python -m benchmarks.relay HOST PORT`: passes bytes on between a caller and what listens at HOST:PORT, by splice(2),
with nothing of HTTP: what no program in between can undercut on a machine. Prints the port that it listens on."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading

PIPE = 2**20  # bytes


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    outlet, inlet = os.pipe()
    fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, PIPE)
    try:
        while count := os.splice(source.fileno(), inlet, PIPE):
            while count:
                count -= os.splice(outlet, sink.fileno(), count)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
    finally:
        os.close(outlet)
        os.close(inlet)


def serve(address: tuple[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            caller, _ = server.accept()
            behind = socket.create_connection(address)
            for end in (caller, behind):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
            for ends in ((caller, behind), (behind, caller)):
                threading.Thread(target=pass_on, args=ends, daemon=True).start()


if __name__ == "__main__":
    serve((sys.argv[1], int(sys.argv[2])))
