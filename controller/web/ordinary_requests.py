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

from gunicorn.asgi.parser import (
    CHUNK_EXT_RE,
    CallbackRequest,
    InvalidHeader,
    PythonProtocol,
    UnsupportedTransferCoding,
)

from controller.web.gateway.headers import RequestFields

LONGEST: Final = 8000  # bytes of a header, so that none of its lines exceeds a limit of gunicorn's
#: Bytes and fields of a header that an idle connection may keep, where it takes up to 9 KiB; the longest would take 32.
KEPT, KEPT_FIELDS = 2000, 30
DIGITS: Final = 1000  # of a length at most; Python reads some thousands of them

#: Names have no underscore here, about which servers do not agree. The quantifiers are possessive: no part of a header
#: is looked at twice.
_HEAD = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*+) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9!#$%&'*+.^`|~-]++:[\t -~\x80-\xff]*+\r\n){1,100}+)\r\n"
)
#: The line before a chunk that is not the last one; what gunicorn says of the extensions is asked for.
_CHUNK = re.compile(rb"(0*+[1-9A-Fa-f][0-9A-Fa-f]{0,14}+)(?:[\t ]*+(;[^\r\n]*+))?+\r\n")
_FIELD = re.compile(rb"([^:]++):[\t ]*+([^\r]*+)\r\n")  # of such a header
_OTHER_CODING = "The only transfer coding that is understood is chunked, not {!r}."
_LENGTH = re.compile(rb"[0-9]{1,15}")
#: Fields that change how a message is read.
_UNUSUAL = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"))
#: Fields that gunicorn believes trusted proxies only.
_OF_PROXIES = frozenset((b"x-forwarded-protocol", b"x-forwarded-proto", b"x-forwarded-ssl"))
_KEPT_ALIVE = (None, b"keep-alive", b"Keep-Alive")


class RequestHead:
    """The header of an ordinary request. `length` is None without a body's length; `is_final`: gunicorn has nothing to
    add to it."""

    __slots__ = ("fields", "is_final", "length", "method", "path", "query", "raw_path", "target", "text")

    def __init__(
        self, text: bytes, method: bytes, target: bytes, fields: RequestFields, known: dict[bytes, bytes]
    ) -> None:
        path, _, query = target.partition(b"?")
        self.text = text
        self.method = method
        self.target = target
        self.raw_path = path
        self.path = (unquote_to_bytes(path) if b"%" in path else path).decode("utf-8", "replace")
        self.query = query
        self.fields = fields
        length = known.get(b"content-length")
        self.length = None if length is None else int(length)
        self.is_final = _OF_PROXIES.isdisjoint(known)

    @property
    def is_small(self) -> bool:
        """Return True if a connection may keep it."""
        return len(self.text) <= KEPT and len(self.fields) <= KEPT_FIELDS

    @classmethod
    def of(cls, data: bytes) -> RequestHead | None:
        """Return the header that `data` begins with if it is an ordinary one."""
        found = _HEAD.match(data)
        if found is None or found.end() > LONGEST:
            return None
        method, target, lines = found.groups()
        fields = RequestFields((name.lower(), value.rstrip(b" \t")) for name, value in _FIELD.findall(lines))
        known = dict(fields)
        if (
            len(known) < len(fields)
            or not _UNUSUAL.isdisjoint(known)
            or known.get(b"connection") not in _KEPT_ALIVE
            or _LENGTH.fullmatch(known.get(b"content-length", b"0")) is None
        ):
            return None
        return cls(found[0], method, target, fields, known)


class OrdinaryRequest(CallbackRequest):  # type: ignore[misc]
    """A request as gunicorn passes it around. Its connection stays open, and nobody asks for another protocol."""

    def __init__(self, head: RequestHead) -> None:
        self.method = head.method.decode()
        self.uri = head.target.decode("ascii")
        self.raw_path = head.raw_path
        self.path = head.path
        self.query = head.query.decode("ascii")
        self.fragment = ""
        self.version = (1, 1)
        self.scheme = "http"
        self.headers_bytes = head.fields
        self.content_length = head.length or 0
        self.chunked = self.must_close = False
        self.proxy_protocol_info = None
        self._headers = self._connection = None
        self._has_upgrade = self._expect_100_continue = False


class RequestParser(PythonProtocol):  # type: ignore[misc]
    """gunicorn's parser, which takes small chunks of a body together. `ordinary` is the request if it was read here and
    gunicorn has nothing to add to it. Those who keep a connection mostly send the same header again, which is read
    once if it is small."""

    def __init__(self, **options: Any) -> None:
        self.ordinary: OrdinaryRequest | None = None
        self._last: RequestHead | None = None
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

    def _parse_chunked_body(self) -> bool:
        """Take whole chunks together: gunicorn takes microseconds for each one, and 256 KiB may arrive at once that are
        forty thousand of them. It reads the last one, parts of one, and what is wrong."""
        if self._chunk_state == "size":
            self._take_chunks(bytes(self._buffer))
        return bool(super()._parse_chunked_body())

    def _take_chunks(self, data: bytes) -> None:
        pieces, at = [], 0
        while found := _CHUNK.match(data, at):
            size, extensions = found.groups()
            begin = found.end()
            end = begin + int(size, 16)
            if data[end : end + 2] != b"\r\n" or (extensions and not CHUNK_EXT_RE.fullmatch(extensions)):
                break
            pieces.append(data[begin:end])
            at = end + 2
        if pieces:
            del self._buffer[:at]
            self._scan_from = 0
            self._on_body(b"".join(pieces))

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
        head = self._last
        if head is None or not data.startswith(head.text):
            head = RequestHead.of(data)
            self._last = head if head is not None and head.is_small else None
        if head is None:
            return None
        if head.is_final:
            self.ordinary = OrdinaryRequest(head)
        self._take(head)
        return data[len(head.text) :]

    def _take(self, head: RequestHead) -> None:
        """Go on as gunicorn's parser does behind such a header."""
        self.method, self.path, self.http_version = head.method, head.target, (1, 1)
        self.headers = self._headers_list = head.fields
        self._header_count = len(head.fields)
        self.content_length = head.length
        self._body_remaining = head.length or 0
        self._on_headers_complete()
        if head.length:
            self._state = "body"
        else:
            self._complete()
