"""Transfers bytes to and from the links of the files API, without credentials, since the links are
credentials. Every request is sent once; `retry` retries. Redirects are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from urllib3 import BaseHTTPResponse, PoolManager, Timeout

from controller.client.files.errors import from_storage, storage_reached
from controller.client.server import BLOCK, CONNECT, SILENCE


class UploadBody(Protocol):
    def read(self, amount: int) -> bytes: ...


class LinkTransport:
    """Shared by the threads of one command."""

    def __init__(self, pool: PoolManager) -> None:
        self._pool = pool

    def put(
        self, link: str, content: UploadBody, size: int, md5: str, doing: str, content_type: str = ""
    ) -> Mapping[str, str]:
        """Send `size` bytes to a link; return the response's headers. The storage checks `md5`, which is in
        base64. A part of an upload has no content type. Raises Transient `StorageUnreachable`, `LinkRefused`,
        `ChecksumMismatch`; Stalled `StorageRefused`, `FileNotFound`.
        """
        headers = {**self._pool.headers, "Content-Length": str(size), "Content-MD5": md5}
        if content_type:
            headers["Content-Type"] = content_type
        with storage_reached(link):
            answer = self._pool.urlopen(
                "PUT",
                link,
                body=content,
                headers=headers,
                redirect=False,
                # The time for connecting limits what a new connection sends: urllib3 sets the other one when
                # it begins to read.
                timeout=Timeout(connect=SILENCE, read=SILENCE),
            )
        if answer.status != 200:
            raise from_storage(answer, doing)
        return answer.headers

    @contextmanager
    def get(self, link: str, headers: Mapping[str, str], doing: str) -> Iterator[BaseHTTPResponse]:
        """Yield the response of a link: 200, 206, or a failed condition (412, 416). `pieces` reads its body.
        Raises errors as `put`.
        """
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
            answer.close()  # unread bytes would be taken for the next response

    def pieces(self, answer: BaseHTTPResponse, link: str) -> Iterator[bytes]:
        """Yield the body as it comes. Raises Transient `StorageUnreachable` if it is incomplete."""
        with storage_reached(link):
            yield from answer.stream(BLOCK, decode_content=False)
