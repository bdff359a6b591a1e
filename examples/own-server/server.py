"""Counts down as an event stream: what a function that returns once cannot do, and a server of one's own can.

The platform's side of the bargain is small: listen on $UNIP_PORT on all addresses, answer 200 at the manifest's
`readyPath` once calls can be taken, and end on SIGTERM.
"""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LONGEST = 60  # seconds


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/ready":
            self._answer(200, {"ready": True})
        elif url.path == "/countdown":
            self._count_down(parse_qs(url.query).get("from", ["3"])[0])
        else:
            self._answer(404, {"title": "Not Found", "status": 404, "detail": f"there is no {url.path}"})

    def _count_down(self, start: str) -> None:
        if not (start.isascii() and start.isdigit() and int(start) <= LONGEST):
            detail = f"'from' must be a whole number from 0 to {LONGEST}"
            self._answer(422, {"title": "Unprocessable Content", "status": 422, "detail": detail})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header(
            "Connection", "close"
        )  # its length is not known: the stream ends with the connection
        self.end_headers()
        for left in range(int(start), 0, -1):
            self.wfile.write(f"data: {left}\n\n".encode())
            time.sleep(1)
        self.wfile.write(b"data: lift-off\n\n")

    def _answer(self, status: int, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        kind = "json" if status == 200 else "problem+json"
        self.send_response(status)
        self.send_header("Content-Type", f"application/{kind}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # process 1 of a container has no default for it
    with ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("UNIP_PORT", "8002"))), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
