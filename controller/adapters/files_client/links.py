"""Bytes to and from the links that the files API hands out: without credentials, the links are them. Every request is
sent once; `patience` tries again. Redirects are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from urllib3 import BaseHTTPResponse, PoolManager, Timeout

from controller.adapters.files_client.errors import from_storage, storage_reached
from controller.adapters.server_client.server import BLOCK, CONNECT, SILENCE


class Body(Protocol):
    def read(self, amount: int) -> bytes: ...


class Links:
    """Shared by the threads of one command."""

    def __init__(self, pool: PoolManager) -> None:
        self._pool = pool

    def put(self, link: str, content: Body, size: int, md5: str, doing: str) -> Mapping[str, str]:
        """Send `size` bytes to a link; the answer's headers. `md5` in base64 is what the storage checks. Raises
        Transient `StorageUnreachable`, `LinkRefused`, `ChecksumMismatch`; Stalled `StorageRefused`,
        `FileNotFound`."""
        headers = {**self._pool.headers, "Content-Length": str(size), "Content-MD5": md5}
        with storage_reached(link):
            answer = self._pool.urlopen(
                "PUT",
                link,
                body=content,
                headers=headers,
                redirect=False,
                # What a new connection sends is bound by the time for connecting: urllib3 sets the other one when it
                # begins to read.
                timeout=Timeout(connect=SILENCE, read=SILENCE),
            )
        if answer.status != 200:
            raise from_storage(answer, doing)
        return answer.headers

    @contextmanager
    def get(self, link: str, headers: Mapping[str, str], doing: str) -> Iterator[BaseHTTPResponse]:
        """The answer of a link, 200 or 206 or a condition that does not hold (412, 416); its body is read by
        `pieces`. Errors as of `put`."""
        with storage_reached(link):
            answer = self._pool.urlopen(
                "GET",
                link,
                headers={**self._pool.headers, **headers},
                redirect=False,
                preload_content=False,
                timeout=Timeout(connect=CONNECT, read=SILENCE),
            )
        try:
            if answer.status not in (200, 206, 412, 416):
                with storage_reached(link):
                    answer.read(cache_content=True)
                raise from_storage(answer, doing)
            yield answer
        finally:
            answer.close()  # what was not read would be taken for the next answer

    def pieces(self, answer: BaseHTTPResponse, link: str) -> Iterator[bytes]:
        """The body, as it comes. Raises Transient `StorageUnreachable` if it ends before its end."""
        with storage_reached(link):
            yield from answer.stream(BLOCK, decode_content=False)
