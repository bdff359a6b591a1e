"""Requests to one API of a platform, with a person's credentials. Every request is sent once; `patience` tries again.
Redirects are not followed: credentials stay with the server that the person named.
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
from controller.adapters.server_client.errors import UNREACHABLE, Meaning, reached
from controller.domain.secret import Secret

CONNECTIONS: Final = 16  # to one host; more are made and not kept
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
class Answer:
    """`document` is the JSON, None where nothing was answered."""

    status: int
    document: Any
    etag: str = ""


class Server:
    """Shared by the threads of one command. `authorization` is the header's whole value, empty for no credentials."""

    def __init__(self, pool: PoolManager, authorization: Secret, meaning: Meaning) -> None:
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
    ) -> Answer:
        """What the API answers, 2xx, or 304 to a condition. `content`, if any, is sent as JSON. Raises Transient
        `ServerBusy`, `ServerUnreachable`; Stalled `CredentialsRefused`, `AccessDenied`, `RequestRefused`,
        `CertificateInvalid`, and what the API's `Meaning` has."""
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
            raise self.meaning.stranger.error(f"{doing}: the server's answer is no JSON") from error
        return Answer(answer.status, document, answer.headers.get("ETag", ""))

    @contextmanager
    def stream(
        self, url: str, doing: str, query: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Iterator[Iterator[bytes]]:
        """The body of an answer, piece by piece as it comes. Raises as `ask`, also within the block, where the body
        ends before its end."""
        with self._reached(url):
            answer = self._send("GET", url, query, headers or {}, SILENCE, preload_content=False)
        try:
            if answer.status != 200:
                with self._reached(url):
                    answer.read(cache_content=True)
                raise self.meaning.error(answer, doing)
            yield self._pieces(answer, url)
        finally:
            answer.close()  # what was not read would be taken for the next answer

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
