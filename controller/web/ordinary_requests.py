"""Reads ordinary requests for gunicorn's parser: those whose whole header has arrived at once and leaves nothing to
judge. One regular expression says so; everything else is read by gunicorn's own parser, byte by byte, which refuses
what is wrong. Called by the web process' connections (`connections`) for every request.

Promises: gunicorn's parser would read such a header alike (`tests/unit/web/test_ordinary_requests.py` compares both);
it takes linear time.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from gunicorn.asgi.parser import CallbackRequest, InvalidHeader, PythonProtocol, UnsupportedTransferCoding

LONGEST: Final = 8000  # bytes of a header, so that none of its lines exceeds a limit of gunicorn's
DIGITS: Final = 1000  # of a length at most; Python reads some thousands of them

#: Names have no underscore here, about which servers do not agree. The quantifiers are possessive: no part of a header
#: is looked at twice.
_HEAD = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*+) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9!#$%&'*+.^`|~-]++:[\t -~\x80-\xff]*+\r\n){1,100}+)\r\n"
)
_OTHER_CODING = "The only transfer coding that is understood is chunked, not {!r}."
_LENGTH = re.compile(rb"[0-9]{1,15}")
#: Fields that change how a message is read.
_UNUSUAL = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"))
#: Fields that gunicorn believes trusted proxies only.
_OF_PROXIES = frozenset((b"x-forwarded-protocol", b"x-forwarded-proto", b"x-forwarded-ssl"))
_KEPT_ALIVE = (None, b"keep-alive", b"Keep-Alive")


class OrdinaryRequest(CallbackRequest):  # type: ignore[misc]
    """A request as gunicorn passes it around. Its connection stays open, and nobody asks for another protocol."""

    def __init__(self, method: str, target: bytes, headers: list[tuple[bytes, bytes]], length: int) -> None:
        path, _, query = target.partition(b"?")
        self.method = method
        self.uri = target.decode("ascii")
        self.raw_path = path
        self.path = (unquote_to_bytes(path) if b"%" in path else path).decode("utf-8", "replace")
        self.query = query.decode("ascii")
        self.fragment = ""
        self.version = (1, 1)
        self.scheme = "http"
        self.headers_bytes = headers
        self.content_length = length
        self.chunked = self.must_close = False
        self.proxy_protocol_info = None
        self._headers = self._connection = None
        self._has_upgrade = self._expect_100_continue = False


class RequestParser(PythonProtocol):  # type: ignore[misc]
    """gunicorn's parser. `ordinary` is the request if it was read here and gunicorn has nothing to add to it."""

    def __init__(self, **options: Any) -> None:
        self.ordinary: OrdinaryRequest | None = None
        super().__init__(**options)

    def reset(self) -> None:
        self.ordinary = None
        super().reset()

    def feed(self, data: bytes) -> None:
        if not self._buffer:
            if self._state == "request_line" and (rest := self._begin(data)) is not None:
                data = rest
            if self._state == "body" and len(data) <= self._body_remaining:
                self._pass_on(data)
                return
        if data:
            super().feed(data)

    def _finalize_headers(self) -> None:
        """Refuse a length that Python would not read as a number, which gunicorn does not expect of digits, and
        codings that nobody here undoes: gunicorn would pass a body of `gzip, chunked` on as if it were none."""
        for name, value in self._headers_list:
            if name == b"content-length" and len(value) > DIGITS:
                raise InvalidHeader("Invalid Content-Length value")
            if name == b"transfer-encoding" and value.lower() != b"chunked":
                raise UnsupportedTransferCoding(_OTHER_CODING.format(value[:100].decode("latin-1")))
        super()._finalize_headers()

    def _pass_on(self, data: bytes) -> None:
        """Pass on a piece of the body that is nothing else."""
        if data:
            self._body_remaining -= len(data)
            self._on_body(data)
        if not self._body_remaining:
            self._complete()

    def _complete(self) -> None:
        self._state, self.is_complete = "complete", True
        self._on_message_complete()

    def _begin(self, data: bytes) -> bytes | None:
        """Take the header if it is an ordinary one, and return what follows it; else return None."""
        found = _HEAD.match(data)
        if found is None or found.end() > LONGEST:
            return None
        method, target, lines = found.groups()
        headers = []
        for line in lines[:-2].split(b"\r\n"):
            name, _, value = line.partition(b":")
            headers.append((name.lower(), value.strip(b" \t")))
        fields = dict(headers)
        length = fields.get(b"content-length", b"0")
        if (
            len(fields) < len(headers)
            or not _UNUSUAL.isdisjoint(fields)
            or fields.get(b"connection") not in _KEPT_ALIVE
            or _LENGTH.fullmatch(length) is None
        ):
            return None
        if _OF_PROXIES.isdisjoint(fields):
            self.ordinary = OrdinaryRequest(method.decode(), target, headers, int(length))
        self._take(method, target, headers, int(length) if b"content-length" in fields else None)
        return data[found.end() :]

    def _take(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], length: int | None
    ) -> None:
        """Go on as gunicorn's parser does behind such a header."""
        self.method, self.path, self.http_version = method, target, (1, 1)
        self.headers = self._headers_list = headers
        self._header_count = len(headers)
        self.content_length = length
        self._body_remaining = length or 0
        self._on_headers_complete()
        if length:
            self._state = "body"
        else:
            self._complete()
