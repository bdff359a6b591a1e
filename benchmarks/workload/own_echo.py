"""The least server of one's own with WebSockets: it sends each message back. A thread a connection; messages are short
and come in one frame."""

from __future__ import annotations

import base64
import hashlib
import os
import socketserver

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)
READY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
MASKED, SHORT = 0x80, 126


class Echo(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while self.rfile.readline():
            key = b""
            while (field := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = field.partition(b":")
                key = value.strip() if name.lower() == b"sec-websocket-key" else key
            if not key:
                self.wfile.write(READY)
                continue
            accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
            self.wfile.write(SWITCH + accept + b"\r\n\r\n")
            self.echo()
            return

    def echo(self) -> None:
        while len(head := self.rfile.read(6)) == 6 and head[1] & MASKED:
            length = head[1] & ~MASKED
            assert length < SHORT
            mask = int.from_bytes((head[2:] * 32)[:length], "big")
            message = int.from_bytes(self.rfile.read(length), "big") ^ mask
            self.wfile.write(head[:1] + bytes([length]) + message.to_bytes(length, "big"))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


if __name__ == "__main__":
    Server(("", int(os.environ.get("UNIP_PORT", "8002"))), Echo).serve_forever()
