"""The form for people: a page that sends a file, and gets the result as a download."""

import os
import signal
import sys
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from app.work import process

MOST = 16 * 2**20  # bytes of a file
PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{ heading }}</title></head>
<body><main><h1>{{ heading }}</h1>
<form method="post" enctype="multipart/form-data">
<p><label>File: <input type="file" name="file" required></label> <button>Send</button></p>
</form></main></body></html>
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/ready":
            self._answer(200, "text/plain", b"ready\n")
        elif self.path.partition("?")[0] == "/":
            self._answer(200, "text/html; charset=utf-8", PAGE.encode())
        else:
            self._answer(404, "text/plain", b"there is nothing here\n")

    def do_POST(self):
        size = int(self.headers.get("Content-Length") or 0)
        if not 0 < size <= MOST:
            self.close_connection = True
            self._answer(413, "text/plain", f"send 1 to {MOST} bytes\n".encode())
            return
        content = sent_file(self.headers.get("Content-Type", ""), self.rfile.read(size))
        if content is None:
            self._answer(422, "text/plain", b"send a form with a file called 'file'\n")
            return
        self._answer(200, "text/plain; charset=utf-8", process(content), 'attachment; filename="result.txt"')

    def _answer(self, status, kind, body, disposition=""):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if disposition:
            self.send_header("Content-Disposition", disposition)
        self.end_headers()
        self.wfile.write(body)


def sent_file(content_type, body):
    """Return the content of the field `file` of a form; None if there is none."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    form = BytesParser(policy=HTTP).parsebytes(head + body)
    for part in form.iter_parts() if form.is_multipart() else ():
        if part.get_param("name", header="Content-Disposition") == "file":
            return part.get_payload(decode=True)
    return None


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # process 1 of a container has no default for it
    with ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("UNIP_PORT", "8002"))), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
