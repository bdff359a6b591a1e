"""Requests to one API of a platform, with a person's credentials. Every request is sent once; `retry`
retries. Redirects are not followed: credentials go only to the server that the person named. What a server sends is
not trusted: a document is read up to `MOST`, and for `LONGEST` seconds at most.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from urllib3 import BaseHTTPResponse, PoolManager, Timeout

from controller import __version__
from controller.client.errors import UNREACHABLE, ErrorMeanings, reached
from controller.domain.secret import Secret

CONNECTIONS: Final = 16  # to one host; additional ones are not kept
CONNECT: Final = 10.0  # seconds
SILENCE: Final = 60.0  # seconds without a byte
BLOCK: Final = 256 * 1024  # bytes that are sent and read at once
MOST: Final = 64 * 2**20  # bytes of a document
LONGEST: Final = 300.0  # seconds that reading a document may take

#: The whole value of the header for a URL, empty for no credentials.
Authorization = Secret | Callable[[str], Secret]


def new_pool(ca_file: str = "") -> PoolManager:
    """`ca_file` has the certificates of the only authorities that are trusted; "" for those of the system."""
    return PoolManager(
        ca_certs=ca_file or None,
        maxsize=CONNECTIONS,
        retries=False,
        blocksize=BLOCK,
        headers={"User-Agent": f"prichal/{__version__}", "Accept-Encoding": "identity"},
    )


@dataclass(frozen=True)
class ServerResponse:
    """`document` is the JSON, or None without a body."""

    status: int
    document: Any
    etag: str = ""


@dataclass(frozen=True)
class WholeResponse:
    """A response whose body was read."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class ServerClient:
    """Shared by the threads of one command. `told` gets the headers of each response."""

    def __init__(
        self,
        pool: PoolManager,
        authorization: Authorization,
        meaning: ErrorMeanings,
        told: Callable[[Mapping[str, str]], None] = lambda headers: None,
    ) -> None:
        self._pool = pool
        self._authorization = authorization
        self._told = told
        self.meaning = meaning

    def ask(
        self,
        method: str,
        url: str,
        doing: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: Any = None,
        silence: float = SILENCE,
        form: Mapping[str, str] | None = None,
    ) -> ServerResponse:
        """Return the response, 2xx, or 304 to a condition. `content`, if any, is sent as JSON, `form` as a form.
        Raises Transient `ServerBusy`, `ServerUnreachable`; Stalled `CredentialsRefused`, `AccessDenied`,
        `RequestRefused`, `CertificateInvalid`, and those of the API's `ErrorMeanings`.
        """
        given = {"Accept": "application/json", **(headers or {})}
        body = None
        if content is not None:
            body = json.dumps(content).encode()
            given["Content-Type"] = "application/json"
        if form is not None:
            body = urlencode(form).encode()
            given["Content-Type"] = "application/x-www-form-urlencoded"
        with self._reached(url):
            answer = self._whole(self._send(method, url, query, given, silence, body), doing)
        if not 200 <= answer.status < 300 and answer.status != 304:
            raise self.meaning.error(answer, doing)
        try:
            document = json.loads(answer.data) if answer.data else None
        except (ValueError, RecursionError) as error:
            raise self.meaning.stranger.error(doing, "the server's response is not JSON") from error
        return ServerResponse(answer.status, document, answer.headers.get("ETag", ""))

    @contextmanager
    def stream(
        self, url: str, doing: str, query: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Iterator[Iterator[bytes]]:
        """Yield the body of a response as it comes. Raises errors as `ask`, also within the block if the body
        is incomplete.
        """
        with self._reached(url):
            answer = self._send("GET", url, query, headers or {}, SILENCE)
        try:
            if answer.status != 200:
                with self._reached(url):
                    refused = self._whole(answer, doing)
                raise self.meaning.error(refused, doing)
            yield self._pieces(answer, url)
        finally:
            answer.close()  # unread bytes would be taken for the next response

    def _whole(self, answer: BaseHTTPResponse, doing: str) -> WholeResponse:
        """Read the body. Raises as `ask`."""
        pieces, size, deadline = [], 0, time.monotonic() + LONGEST
        try:
            while piece := answer.read1(BLOCK):
                pieces.append(piece)
                size += len(piece)
                if size > MOST:
                    raise self.meaning.stranger.error(doing, f"the response has more than {MOST} bytes")
                if time.monotonic() > deadline:
                    raise UNREACHABLE.error(doing, f"the response was not complete after {LONGEST:g} s")
        except BaseException:
            answer.close()  # unread bytes would be taken for the next response
            raise
        return WholeResponse(answer.status, answer.headers, b"".join(pieces))

    def _pieces(self, answer: BaseHTTPResponse, url: str) -> Iterator[bytes]:
        with self._reached(url):
            while piece := answer.read1(BLOCK):  # what there is, without waiting for a whole block
                yield piece

    def _reached(self, url: str) -> Any:
        return reached(url, UNREACHABLE, self.meaning.stranger)

    def _send(
        self,
        method: str,
        url: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        silence: float,
        body: bytes | None = None,
    ) -> BaseHTTPResponse:
        given = {**self._pool.headers, **headers}
        known = self._authorization
        authorization = known if isinstance(known, Secret) else known(url)
        if authorization:
            given["Authorization"] = authorization.reveal()
        answer = self._pool.urlopen(
            method,
            f"{url}?{urlencode(query)}" if query else url,
            body=body,
            headers=given,
            redirect=False,
            preload_content=False,
            timeout=Timeout(connect=CONNECT, read=silence),
        )
        self._told(answer.headers)
        return answer
