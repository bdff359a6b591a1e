"""A stand-in for an S3 server whose bucket holds any number of files that are not there: it makes up the pages of a
listing (ListObjectsV2) and takes whatever else it is asked for as done. Only for measuring listings; runs as a process
of its own, so that its memory is not taken for the platform's.
"""

from __future__ import annotations

import http.client
import http.server
import json
import sys
import urllib.parse
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.environment import ended, wait_for
from tests.support.ports import free_port

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MODIFIED = "2026-01-01T00:00:00.000Z"
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>{at}</LastModified><ETag>&quot;{tag}&quot;</ETag>"
    "<Size>1</Size></Contents>"
)


@contextmanager
def generated_bucket(home: Path, files: int) -> Iterator[dict[str, object]]:
    """Settings for `storage`: every listing has `files` files below whatever prefix is asked for."""
    port = free_port()
    keys = home / "generated-keys.yaml"
    keys.write_text(json.dumps({"accessKey": "generated", "secretKey": "generated-secret"}))
    keys.chmod(0o600)
    command = [sys.executable, "-m", "benchmarks.generated_s3", str(port), str(files)]
    with ended(command, {}, home / "generated.log"):
        wait_for("the generated storage", lambda: _answers(port))
        yield {
            "backend": "s3",
            "listen": f"127.0.0.1:{free_port()}",
            "endpoint": f"http://127.0.0.1:{port}",
            "credentials": str(keys),
        }


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("HEAD", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files = 0
    buckets: set[str] = set()  # noqa: RUF012 - one server, one set

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        if path == "/":
            entries = "".join(
                f"<Bucket><Name>{name}</Name><CreationDate>{MODIFIED}</CreationDate></Bucket>"
                for name in sorted(self.buckets)
            )
            self._answer(
                f'<ListAllMyBucketsResult xmlns="{NAMESPACE}"><Buckets>{entries}</Buckets></ListAllMyBucketsResult>'
            )
        elif "list-type" in asked:
            self._answer(page(asked, self.files))
        elif "location" in asked:
            self._answer(f'<LocationConstraint xmlns="{NAMESPACE}"/>')
        else:
            self._answer("", 404)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.buckets.add(self.path.strip("/").partition("?")[0])
        self._answer("")

    def do_HEAD(self) -> None:
        self._answer("", 200 if self.path.count("/") < 2 else 404)

    def _answer(self, body: str, status: int = 200) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def page(asked: dict[str, str], files: int) -> str:
    """The page of a listing that comes after a key or a continuation token."""
    prefix, limit = asked.get("prefix", ""), int(asked.get("max-keys", 1000))
    after = asked.get("continuation-token") or asked.get("start-after", "")
    first = bisect_right(range(files), after.removeprefix(prefix), key=_name)
    last = min(first + limit, files)
    names = [escape(f"{prefix}{_name(number)}") for number in range(first, last)]
    entries = "".join(ENTRY.format(key=name, at=MODIFIED, tag="0" * 32) for name in names)
    more = f"<NextContinuationToken>{names[-1]}</NextContinuationToken>" if last < files and names else ""
    return (
        f'<ListBucketResult xmlns="{NAMESPACE}"><Name>generated</Name><Prefix>{escape(prefix)}</Prefix>'
        f"<KeyCount>{len(names)}</KeyCount><MaxKeys>{limit}</MaxKeys>"
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{entries}{more}</ListBucketResult>"
    )


def _name(number: int) -> str:
    return f"{number:08}"


if __name__ == "__main__":
    Handler.files = int(sys.argv[2])
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
