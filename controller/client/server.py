"""Requests to one API of a platform, with a person's credentials. Every request is sent once; `retry`
retries. Redirects are not followed: credentials go only to the server that the person named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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


def new_pool() -> PoolManager:
    return PoolManager(
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


class ServerClient:
    """Shared by the threads of one command. `authorization` is the header's whole value, empty for no
    credentials.
    """

    def __init__(self, pool: PoolManager, authorization: Secret, meaning: ErrorMeanings) -> None:
        self._pool = pool
        self._authorization = authorization
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
    ) -> ServerResponse:
        """Return the response, 2xx, or 304 to a condition. `content`, if any, is sent as JSON. Raises
        Transient `ServerBusy`, `ServerUnreachable`; Stalled `CredentialsRefused`, `AccessDenied`,
        `RequestRefused`, `CertificateInvalid`, and those of the API's `ErrorMeanings`.
        """
        given = {"Accept": "application/json", **(headers or {})}
        body = None
        if content is not None:
            body = json.dumps(content).encode()
            given["Content-Type"] = "application/json"
        with self._reached(url):
            answer = self._send(method, url, query, given, silence, body)
        if not 200 <= answer.status < 300 and answer.status != 304:
            raise self.meaning.error(answer, doing)
        try:
            document = json.loads(answer.data) if answer.data else None
        except ValueError as error:
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
            answer = self._send("GET", url, query, headers or {}, SILENCE, preload_content=False)
        try:
            if answer.status != 200:
                with self._reached(url):
                    answer.read(cache_content=True)
                raise self.meaning.error(answer, doing)
            yield self._pieces(answer, url)
        finally:
            answer.close()  # unread bytes would be taken for the next response

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
        preload_content: bool = True,
    ) -> BaseHTTPResponse:
        given = {**self._pool.headers, **headers}
        if self._authorization:
            given["Authorization"] = self._authorization.reveal()
        return self._pool.urlopen(
            method,
            f"{url}?{urlencode(query)}" if query else url,
            body=body,
            headers=given,
            redirect=False,
            preload_content=preload_content,
            timeout=Timeout(connect=CONNECT, read=silence),
        )
