"""Requests and answers: to the files API with the caller's credentials, to links without. Every request is sent once;
`patience` tries again. Redirects are not followed: credentials stay with the server that the person named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from urllib3 import BaseHTTPResponse, PoolManager, Timeout

from controller import __version__
from controller.adapters.files_client.errors import (
    NOT_FILES,
    STORAGE_AWAY,
    UNREACHABLE,
    from_server,
    from_storage,
    reached,
)
from controller.domain.secret import Secret

CONNECTIONS: Final = 16  # to one host; more are made and not kept
CONNECT: Final = 10.0  # seconds
SILENCE: Final = 60.0  # seconds without a byte
LONG: Final = 600.0  # seconds that joining parts or deleting a group may take
BLOCK: Final = 256 * 1024  # bytes that are sent and read at once


class Body(Protocol):
    def read(self, amount: int) -> bytes: ...


class Wire:
    """Shared by the threads of one command. `authorization` is the header's whole value, empty for no credentials."""

    def __init__(self, authorization: Secret) -> None:
        self._http = PoolManager(
            maxsize=CONNECTIONS,
            retries=False,
            blocksize=BLOCK,
            headers={"User-Agent": f"prichal/{__version__}", "Accept-Encoding": "identity"},
        )
        self._authorization = authorization

    def ask(self, method: str, url: str, query: Mapping[str, str], doing: str, long: bool = False) -> Any:
        """The JSON that the files API answers, None where it answers nothing. Raises Transient `ServerBusy`,
        `ServerUnreachable`; Stalled `CredentialsRefused`, `AccessDenied`, `FileNotFound`, `BoxFull`,
        `RequestRefused`, `NotAFilesApi`, `CertificateInvalid`."""
        headers = {**self._http.headers, "Accept": "application/json"}
        if self._authorization:
            headers["Authorization"] = self._authorization.reveal()
        with reached(url, UNREACHABLE):
            answer = self._http.urlopen(
                method,
                f"{url}?{urlencode(query)}" if query else url,
                headers=headers,
                redirect=False,
                timeout=Timeout(connect=CONNECT, read=LONG if long else SILENCE),
            )
        if not 200 <= answer.status < 300:
            raise from_server(answer, doing)
        try:
            return json.loads(answer.data) if answer.data else None
        except ValueError as error:
            raise NOT_FILES.error(f"{doing}: the server's answer is no JSON") from error

    def put(self, link: str, content: Body, size: int, md5: str, doing: str) -> Mapping[str, str]:
        """Send `size` bytes to a link; the answer's headers. `md5` in base64 is what the storage checks. Raises
        Transient `StorageUnreachable`, `LinkRefused`, `ChecksumMismatch`; Stalled `StorageRefused`,
        `FileNotFound`."""
        headers = {**self._http.headers, "Content-Length": str(size), "Content-MD5": md5}
        with reached(link, STORAGE_AWAY):
            answer = self._http.urlopen(
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
        with reached(link, STORAGE_AWAY):
            answer = self._http.urlopen(
                "GET",
                link,
                headers={**self._http.headers, **headers},
                redirect=False,
                preload_content=False,
                timeout=Timeout(connect=CONNECT, read=SILENCE),
            )
        try:
            if answer.status not in (200, 206, 412, 416):
                with reached(link, STORAGE_AWAY):
                    answer.read(cache_content=True)
                raise from_storage(answer, doing)
            yield answer
        finally:
            answer.close()  # what was not read would be taken for the next answer

    def pieces(self, answer: BaseHTTPResponse, link: str) -> Iterator[bytes]:
        """The body, as it comes. Raises Transient `StorageUnreachable` if it ends before its end."""
        with reached(link, STORAGE_AWAY):
            yield from answer.stream(BLOCK, decode_content=False)

    def close(self) -> None:
        self._http.clear()
