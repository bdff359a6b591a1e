"""A strict reader of HTTP/1.1 requests (RFC 9112) from a byte stream, and the bytes of responses.

Strict where leniency lets requests be smuggled past a proxy: bare line feeds, folded lines, blanks before a
colon, Content-Length beside Transfer-Encoding, repeated lengths and odd chunks are 400, and the connection
closes. Everything that is read is bounded. No thread and no socket here: the reader gets a ``receive``
function, so any bytes in any pieces can be tried on it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Optional, Union

from . import problems
from .json_pieces import Sinks
from .problems import ServingProblem, ServingProblemKind
from .texts import wants_messages

MAX_HEAD = 32 * 1024
MAX_TARGET = 8 * 1024
MAX_FIELDS = 100
MAX_CHUNK_LINE = 256
MAX_MEMBERS = 16  # of a gzip stream; one is usual

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/(1\.[01])\r\n")
_OTHER_VERSION = re.compile(_TOKEN + rb" [\x21-\x7e*]+ HTTP/\d(?:\.\d)?\r\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t\x20-\x7e]*)?")
_FILES = re.compile(rb"(\d{1,18})((?:; ?\d{1,4}=\d{1,18})*)")  # see staging
_FILE = re.compile(rb"(\d+)=(\d+)")
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_SINGLE = frozenset({b"content-length", b"transfer-encoding", b"host", b"content-type", b"expect"})

TELL = b"x-prichal-call"  # a field by which the gateway asks what becomes of the call
PIECE = 256 * 1024  # bytes of a file that are received at once
ALIGNMENT = 16  # of the memory of a bytearray, and more than any number needs
TENSORS = b"inference-header-content-length"  # how many bytes of the body are JSON; tensors are behind them

FIRST, GROWTH = 16 * 1024, 4  # bytes of a body for which there is room at first, and how it grows

Receive = Callable[[int], bytes]
ReceiveInto = Callable[["memoryview"], int]
Body = Union[bytes, bytearray]
Piece = Union[bytes, bytearray, "memoryview"]


class HttpRequest:
    """The head of one request; ``body`` is filled in when it has been read. Header names are in lower
    case.

    ``files`` are place and length of files behind the body (see ``call_files``), None if the sender does not know of
    them. Their bytes, ``unread`` of them, are there for the code that answers, through ``read``:
    up to that many, at least one. ``arrived`` is called when all of it is there. ``waited``: seconds that it waited
    before this process got it; ``told``: its client was told so. ``sinks``: where large arrays of numbers in its JSON
    go instead of into lists.
    """

    __slots__ = (
        "arrived", "body", "chunked", "close", "files", "headers", "http_1_0", "id", "length", "method", "path", "read",
        "sinks", "told", "unread", "waited",
    )  # fmt: skip

    def __init__(self, method: str, path: str, headers: dict[bytes, bytes], http_1_0: bool) -> None:
        self.method = method
        self.http_1_0 = http_1_0
        self.path = path  # without the query, which no route of ours has
        self.headers = headers
        self.body: Body = b""
        self.id = ""
        self.chunked = False
        self.length = 0
        self.files: Optional[list[tuple[int, int]]] = None
        self.unread = 0
        self.read: Receive = _nothing
        self.waited = 0.0
        self.sinks: Optional[Sinks] = None
        self.told = False
        self.arrived: Callable[[], None] = _done
        options = headers.get(b"connection")
        self.close = http_1_0 if options is None else http_1_0 or b"close" in options.lower()

    def header(self, name: bytes) -> Optional[str]:
        """A header field's value as text."""
        value = self.headers.get(name)
        return None if value is None else value.decode("utf-8", "replace")


def _nothing(count: int) -> bytes:
    return b""


def _done() -> None:
    pass


def parse_head(data: bytes) -> HttpRequest:
    """A request from its head, the empty line at the end left out but the last CRLF kept. Raises ServingProblem."""
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise _bad_request_line(data)
    method, target, version = line.groups()
    if len(target) > MAX_TARGET:
        raise ServingProblem(
            problems.LONG_TARGET, f"the target has {len(target)} bytes, {MAX_TARGET} are allowed"
        )
    headers = _headers(data, line.end())
    request = HttpRequest(method.decode(), _path(method, target), headers, version == b"1.0")
    if version == b"1.1" and b"host" not in headers:
        raise _bad("a Host header field is missing")
    _frame(request, version == b"1.0")
    return request


def _headers(data: bytes, start: int) -> dict[bytes, bytes]:
    whole = _FIELDS.fullmatch(data, start)
    if whole is None:
        raise _bad("a header field is malformed: write 'name: value', not folded, no blank before the colon")
    pairs = _FIELD.findall(data, start)
    if len(pairs) > MAX_FIELDS:
        raise ServingProblem(
            problems.LARGE_HEAD, f"there are {len(pairs)} header fields, {MAX_FIELDS} are allowed"
        )
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        name, value = name.lower(), value.strip(b" \t")
        if name in headers:
            if name in _SINGLE:
                raise _bad(f"the header field {name.decode()} is given twice")
            value = headers[name] + b", " + value
        headers[name] = value
    return headers


def _frame(request: HttpRequest, http_1_0: bool) -> None:
    """Return how long the body is: RFC 9112 section 6, with everything ambiguous refused."""
    coding = request.headers.get(b"transfer-encoding")
    length = request.headers.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise _bad("Content-Length and Transfer-Encoding are both given")
        if http_1_0:
            raise _bad("HTTP/1.0 has no Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise ServingProblem(problems.TRANSFER_CODING, "the only transfer coding understood is chunked")
        request.chunked = True
    elif length is not None:
        if not length.isdigit() or len(length) > 18:
            raise _bad("Content-Length is not a number of bytes")
        request.length = int(length)
    if b"x-prichal-files" in request.headers:
        _split_off_files(request, request.headers[b"x-prichal-files"])


def _split_off_files(request: HttpRequest, value: bytes) -> None:
    """Separate the files, so that the body is only the JSON."""
    match = _FILES.fullmatch(value)
    if match is None:
        raise _bad("X-Prichal-Files is malformed")
    files = [(int(index), int(size)) for index, size in _FILE.findall(match.group(2))]
    behind = sum(size for _, size in files)
    if request.chunked or int(match.group(1)) + behind != request.length:
        raise _bad("X-Prichal-Files does not agree with Content-Length")
    request.files, request.unread = files, behind
    request.length -= behind


def _path(method: bytes, target: bytes) -> str:
    if b"#" in target:
        raise _bad("the request target has a fragment, which clients keep to themselves")
    if not target.startswith(b"/") and not (method == b"OPTIONS" and target == b"*"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise _bad("the request target is neither a path nor an absolute URL")
        target = target[absolute.end() :]
    return target.partition(b"?")[0].decode() or "/"


def _bad(detail: str) -> ServingProblem:
    return ServingProblem(problems.BAD_HTTP, detail)


def _bad_request_line(data: bytes) -> ServingProblem:
    if _OTHER_VERSION.match(data):
        return ServingProblem(problems.HTTP_VERSION, "only HTTP/1.1 and HTTP/1.0 are understood")
    return _bad("the request line must be 'METHOD target HTTP/1.1'")


class ClientDisconnected(Exception):
    """The peer went away in the middle of a request."""


class RequestReader:
    """Requests from a stream, one after the other. ``receive(n)`` gives up to n bytes, none at the end of the
    stream. ``receive_into(view)`` writes up to so many bytes as the view has, and says how many.
    """

    def __init__(self, receive: Receive, receive_into: ReceiveInto) -> None:
        self._receive = receive
        self._receive_into = receive_into
        self._buffer = b""
        self._at = 0  # what stands before is used up; cheaper than cutting it off for every chunk of a body

    @property
    def buffered(self) -> bool:
        """Has a part of what comes next been received already?"""
        return self._at < len(self._buffer)

    def head(self) -> Optional[HttpRequest]:
        """The next request's head, or None if the stream ends before one begins. Raises ServingProblem,
        Disconnected.
        """
        buffer = self._buffer[self._at :] or self._receive(65536)
        if buffer == b"\r":
            buffer += self._receive(65536)
        if buffer.startswith(b"\r\n"):  # RFC 9112 2.2: an empty line before a request is not an error
            buffer = buffer[2:] or self._receive(65536)
        end = buffer.find(b"\r\n\r\n")
        while end < 0 and len(buffer) <= MAX_HEAD:
            more = self._receive(65536)
            if not more:
                if buffer:
                    raise ClientDisconnected
                return None
            buffer += more
            end = buffer.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD:
            raise _large_head(buffer)
        self._buffer, self._at = buffer, end + 4
        return parse_head(buffer[: end + 2])

    def body(self, request: HttpRequest, limit: int) -> Body:
        """The request's body of at most ``limit`` bytes. Raises ServingProblem (413 before the rest is read),
        Disconnected.
        """
        if request.chunked:
            return self._chunks(limit)
        if request.length > limit:
            raise _too_large(limit, request.length)
        return self._exactly(request.length, _lead(request))

    def behind(self, request: HttpRequest, most: int) -> bytes:
        """The next bytes of the files behind the body, up to ``most`` of them and at least one. Raises ServingProblem,
        Disconnected.
        """
        data = self._buffer[self._at : self._at + most]
        self._at += len(data)
        if not data:
            self._buffer, self._at = b"", 0
            data = self._some(min(most, PIECE))
        request.unread -= len(data)
        return data

    def _chunks(self, limit: int) -> bytes:
        pieces: list[Body] = []
        total = 0
        while True:
            match = _CHUNK_LINE.fullmatch(self._line(MAX_CHUNK_LINE))
            if match is None:
                raise _bad("the size of a chunk is malformed")
            size = int(match.group(1), 16)
            if size == 0:
                self._trailers()
                return b"".join(pieces)
            total += size
            if total > limit:
                raise _too_large(limit)
            piece = self._exactly(size + 2)
            if not piece.endswith(b"\r\n"):
                raise _bad("a chunk does not end where its size says")
            pieces.append(piece[:-2])

    def _trailers(self) -> None:
        """Fields after the last chunk are checked and passed over."""
        for _ in range(MAX_FIELDS):
            line = self._line(MAX_TARGET)
            if not line:
                return
            if _FIELD.fullmatch(line + b"\r\n") is None:
                raise _bad("a trailer field is malformed")
        raise ServingProblem(problems.LARGE_HEAD, f"there are more than {MAX_FIELDS} trailer fields")

    def _line(self, limit: int) -> bytes:
        """The next line without its CRLF."""
        while True:
            end = self._buffer.find(b"\r\n", self._at, self._at + limit + 2)
            if end >= 0:
                line = self._buffer[self._at : end]
                self._at = end + 2
                return line
            if len(self._buffer) - self._at >= limit + 2:
                raise _bad("a line within the chunked body is too long or not ended by CRLF")
            self._buffer = self._buffer[self._at :] + self._some(65536)
            self._at = 0

    def _exactly(self, count: int, lead: int = 0) -> Body:
        """The next ``count`` bytes. Of a large body, the first one lies ``lead`` bytes behind a multiple of 16."""
        end = self._at + count
        data = self._buffer[self._at : end]
        self._at = end
        if len(data) == count:
            return data
        self._buffer, self._at = b"", 0
        whole = bytearray(lead)  # grows in place, where joined pieces would take their memory twice
        whole += data
        have, count = len(whole), lead + count
        while have < count:
            if have == len(whole):  # a client that announces much and sends little costs little
                grown = bytearray(min(count, GROWTH * max(have, FIRST)))
                grown[:have] = whole
                whole = grown
            with memoryview(whole) as room:
                got = self._receive_into(room[have:])
            if not got:
                raise ClientDisconnected
            have += got
        del whole[:lead]  # which moves where it begins, not its bytes
        return whole

    def _some(self, count: int) -> bytes:
        data = self._receive(count)
        if not data:
            raise ClientDisconnected
        return data


def _lead(request: HttpRequest) -> int:
    """Where the body is to begin so that numbers behind its JSON are aligned, and arrays need no copy of them."""
    behind = request.headers.get(TENSORS, b"")
    return -int(behind) % ALIGNMENT if behind.isdigit() and len(behind) <= 18 else 0


def _large_head(buffer: bytes) -> ServingProblem:
    if buffer.find(b"\r\n", 0, MAX_TARGET + 64) < 0:
        return ServingProblem(problems.LONG_TARGET, f"the request line is longer than {MAX_TARGET} bytes")
    return ServingProblem(problems.LARGE_HEAD, f"the header fields are larger than {MAX_HEAD} bytes")


def _too_large(limit: int, length: Optional[int] = None) -> ServingProblem:
    size = "" if length is None else f"of {length} bytes "
    return ServingProblem(
        problems.TOO_LARGE, f"the body {size}is over the limit of {limit} bytes", limit=limit
    )


def decoded(body: Body, coding: bytes, limit: int) -> Body:
    """A body without its content coding (RFC 9110 8.4), of at most ``limit`` bytes however small it was. Raises
    ServingProblem.
    """
    if coding.lower() in (b"", b"identity"):
        return body
    if coding.lower() not in (b"gzip", b"x-gzip"):
        given = coding[:100].decode("latin-1")
        detail = f"Content-Encoding must be gzip or be left out, not {given!r}"
        raise ServingProblem(problems.CONTENT_CODING, detail, headers=[("Accept-Encoding", "gzip")])
    import zlib  # here: few bodies are coded

    pieces: list[bytes] = []
    for _ in range(MAX_MEMBERS):
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            pieces.append(member.decompress(body, limit - sum(map(len, pieces)) + 1))
        except zlib.error as error:
            raise _bad_coding(str(error)) from error
        if sum(map(len, pieces)) > limit:
            raise _too_large(limit)
        if not member.eof:
            raise _bad_coding("it ends too early")
        body = member.unused_data
        if not body:
            return b"".join(pieces)
    raise _bad_coding(f"it has more than {MAX_MEMBERS} members")


def _bad_coding(reason: str) -> ServingProblem:
    return ServingProblem(
        problems.MALFORMED_CODING, f"the body is not gzip, as its Content-Encoding says: {reason}"
    )


class HttpResponse:
    """A response. ``headers`` beside the content type, length, date and request id; ``more`` are further pieces of the
    body, which to join would copy; ``files`` with their lengths follow the body. ``sent`` is called when it has been
    sent, or cannot be. ``streamed``: all of it but its end has been sent."""

    __slots__ = ("body", "content_type", "files", "headers", "more", "sent", "status", "streamed")

    def __init__(
        self,
        status: int,
        body: Body,
        content_type: str = "application/json",
        headers: Sequence[tuple[str, str]] = (),
        files: Sequence[tuple[BinaryIO, int]] = (),
        sent: Optional[Callable[[], None]] = None,
        more: Sequence[Piece] = (),
    ) -> None:
        self.files = files
        self.more = more
        self.sent = sent
        self.streamed = False
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers

    @property
    def size(self) -> int:
        """Bytes of the body, without the files."""
        return len(self.body) + sum(map(len, self.more)) if self.more else len(self.body)


def interim(state: bytes) -> bytes:
    """What tells the gateway, ahead of the response, what becomes of the call."""
    return b"HTTP/1.1 102 Processing\r\nX-Prichal-Call: %b\r\n\r\n" % state


def problem_response(
    problem: ServingProblem,
    request_id: str,
    path: Optional[str] = None,
    request_headers: Optional[Mapping[bytes, bytes]] = None,
) -> HttpResponse:
    """``path`` and header of the request, if there is one that could be read."""
    body = problem.body(request_id, path, wants_messages(request_headers or {}))
    headers = problem.headers
    if problem.kind is problems.NOT_READY:  # so that the gateway may send the call again
        headers = (*headers, ("X-Prichal-Call", "refused"))
    return HttpResponse(problem.kind.status, body, problems.CONTENT_TYPE, headers)


def other_method(request: HttpRequest, taken: str) -> HttpResponse:
    """Answer a method that is not one of those that the path takes: OPTIONS asks for them. Raises ServingProblem."""
    allow = ("Allow", f"{taken}, OPTIONS")
    if request.method == "OPTIONS":
        return HttpResponse(204, b"", headers=[allow])
    detail = f"{request.path[:200]} takes {taken}, not {request.method[:40]}"
    raise ServingProblem(problems.METHOD, detail, headers=[allow])


REASONS = {
    200: "OK", 204: "No Content",
    400: "Bad Request", 402: "Payment Required", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    406: "Not Acceptable", 408: "Request Timeout", 409: "Conflict", 410: "Gone", 412: "Precondition Failed",
    413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable",
    417: "Expectation Failed", 418: "I'm a Teapot", 422: "Unprocessable Content", 423: "Locked",
    424: "Failed Dependency", 428: "Precondition Required", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons", 500: "Internal Server Error",
    499: "Client Closed Request",  # not registered; nginx's, counted and hardly ever read
    501: "Not Implemented", 503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
    507: "Insufficient Storage",
}  # fmt: skip
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
CLOSE = "Connection: close\r\n"
_date = (0, "")


def http_date() -> str:
    """The Date of now (RFC 9110 5.6.7). Not strftime: the developer's code may have set another locale."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        t = time.gmtime(now)
        day, month = _DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1]
        clock = f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
        _date = (now, f"{day}, {t.tm_mday:02} {month} {t.tm_year} {clock} GMT")
    return _date[1]


def render(response: HttpResponse, request_id: str, close: bool, without_body: bool = False) -> bytes:
    """A response as bytes. ``without_body``: the answer to HEAD, which keeps the length that GET's would
    have.
    """
    more = "".join([f"{name}: {value}\r\n" for name, value in response.headers]) if response.headers else ""
    length = response.size + sum([size for _, size in response.files])
    content = f"Content-Type: {response.content_type}\r\nContent-Length: {length}\r\n"
    if response.status == 204:  # RFC 9110 8.6
        content = ""
    head = (
        f"HTTP/1.1 {response.status} {REASONS[response.status]}\r\nDate: {http_date()}\r\n{content}"
        f"X-Request-ID: {request_id}\r\n{more}{CLOSE if close else ''}\r\n"
    ).encode("latin-1")
    return head if without_body else b"".join([head, response.body, *response.more])


def render_stream(content_type: str, request: HttpRequest, close: bool) -> bytes:
    """The head of a response of unknown length; the pieces of its body are ``framed``."""
    framing = "" if request.http_1_0 else "Transfer-Encoding: chunked\r\n"
    return (
        f"HTTP/1.1 200 OK\r\nDate: {http_date()}\r\nContent-Type: {content_type}\r\nCache-Control: no-store\r\n"
        f"X-Request-ID: {request.id}\r\n{framing}{CLOSE if close else ''}\r\n"
    ).encode("latin-1")


def framed(piece: bytes, request: HttpRequest) -> bytes:
    """A piece of a body of unknown length; an empty one is its end."""
    return piece if request.http_1_0 else b"%x\r\n%b\r\n" % (len(piece), piece)


def is_framing(kind: ServingProblemKind) -> bool:
    """Problems after which the rest of the stream means nothing, so the connection must close."""
    return kind in _FRAMING


_FRAMING = frozenset(
    {
        problems.BAD_HTTP, problems.SLOW_REQUEST, problems.TOO_LARGE, problems.LONG_TARGET, problems.EXPECTATION,
        problems.LARGE_HEAD, problems.TRANSFER_CODING, problems.HTTP_VERSION,
    }
)  # fmt: skip
