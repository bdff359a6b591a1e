"""The same words as the least server of one's own sends them: a thread a connection, server-sent events, and no look
at the request but for its end. The image's own command."""

from __future__ import annotations

import json
import os
import socketserver

WORDS = ("to ", "be ", "or ", "not ")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
READY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Words(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while line := self.rfile.readline():
            length = 0
            while (field := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = field.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.rfile.read(length)
            if line.startswith(b"GET"):
                self.wfile.write(READY)
                continue
            head = HEAD
            for word in WORDS:
                event = b"data: %b\n\n" % json.dumps({"content": word}).encode()
                self.wfile.write(head + b"%x\r\n%b\r\n" % (len(event), event))
                head = b""
            self.wfile.write(b"0\r\n\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


if __name__ == "__main__":
    Server(("", int(os.environ.get("UNIP_PORT", "8002"))), Words).serve_forever()
