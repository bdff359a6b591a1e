"""A session: a connection to the engine on which we serve, by gRPC, the files and secrets of one build.

The engine takes the connection of `POST /session` for HTTP/2 and is the client on it. One thread serves it, and reads
no more of the context than the engine takes. See https://github.com/moby/buildkit/tree/master/session.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from docker.utils import parse_host

from controller.adapters.docker.buildkit.files import FileTree, Sending
from controller.adapters.docker.buildkit.wire import decoded, encoded, text
from controller.domain.secret import Secret

log = logging.getLogger(__name__)

#: Names by which the builder asks for folders.
CONTEXT, DOCKERFILE = "context", "dockerfile"
_FILES = "/moby.filesync.v1.FileSync/DiffCopy"
_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"  # noqa: S105 - no password: a method
_HEALTH = "/grpc.health.v1.Health/Check"
_METHODS = (_FILES, _SECRET, _HEALTH)
_OK, _UNKNOWN, _NOT_FOUND, _UNIMPLEMENTED = 0, 2, 5, 12  # https://grpc.io/docs/guides/status-codes/
_SERVING = 1
_MOST_OF_REQUEST = 1 << 20  # bytes of a message of the engine: names and numbers
_HANDSHAKE = 64 * 1024
_READ = 256 * 1024
_ACCEPT_TIMEOUT = 60.0  # seconds for the engine to accept the session

Headers = Mapping[str, list[str]]


class _Call(Protocol):
    """A call of the engine. `status` is set at its end."""

    status: int | None

    def receive(self, message: bytes) -> None: ...
    def next_message(self) -> bytes | None: ...


@dataclass
class _Unary:
    """Answers the first message."""

    answer: Callable[[bytes], tuple[int, bytes]]
    status: int | None = None
    _reply: bytes | None = None
    _result: int | None = None

    def receive(self, message: bytes) -> None:
        self._result, reply = self.answer(message)
        self._reply = reply if self._result == _OK else None

    def next_message(self) -> bytes | None:
        reply, self._reply = self._reply, None
        if reply is None:
            self.status = self._result
        return reply


class _Refused(_Unary):
    def next_message(self) -> bytes | None:
        self.status, _ = self.answer(b"")
        return None


class _Transfer:
    def __init__(self, tree: FileTree) -> None:
        self._sending = Sending(tree)
        self.status: int | None = None

    def receive(self, message: bytes) -> None:
        try:
            self._sending.receive(message)
        except ValueError as error:
            log.debug("the engine has ended a transfer of files: %s", error)
            self.status = _UNKNOWN

    def next_message(self) -> bytes | None:
        packet = self._sending.next_packet()
        if packet is None and self._sending.finished:
            self.status = _OK
        return packet


@dataclass
class _Stream:
    call: _Call
    received: bytearray = field(default_factory=bytearray)
    waiting: bytes = b""  # of a message that is being sent


class BuildSession:
    """Serves from `__enter__` to `__exit__`. `secrets` has the values by id."""

    def __init__(
        self, host: str, version: str, folders: Mapping[str, FileTree], secrets: Mapping[str, Secret]
    ) -> None:
        self.id = uuid4().hex
        self._host = host
        self._version = version
        self._folders = folders
        self._secrets = secrets
        self._streams: dict[int, _Stream] = {}
        self._http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )

    def __enter__(self) -> BuildSession:
        """Connect. Raises OSError."""
        self._socket = _connected(self._host)
        try:
            self._socket.settimeout(_ACCEPT_TIMEOUT)
            first = self._opened()
            self._socket.settimeout(None)  # the engine is silent as long as a step runs
        except BaseException:
            self._socket.close()
            raise
        self._thread = threading.Thread(
            target=self.serve, args=(self._socket, first), name="build-session", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _opened(self) -> bytes:
        """Hand the connection over to the engine, and return what it has sent since."""
        lines = [
            f"POST /v{self._version}/session HTTP/1.1",
            "Host: docker",
            "Connection: Upgrade",
            "Upgrade: h2c",
            "Content-Length: 0",
            f"X-Docker-Expose-Session-Uuid: {self.id}",
            "X-Docker-Expose-Session-Name: prichal",
            f"X-Docker-Expose-Session-Sharedkey: {self.id}",  # nothing of another build is to be reused unread
            *(f"X-Docker-Expose-Session-Grpc-Method: {method}" for method in _METHODS),
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = self._socket.recv(_READ)
            if not more or len(answer) > _HANDSHAKE:
                raise ConnectionError("the engine did not accept a session for the build")
            answer += more
        head, _, rest = answer.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n", 1)[0] + b" ":
            raise ConnectionError(
                f"the engine refused a session for the build: {head[:200].decode(errors='replace')}"
            )
        return rest

    # --- HTTP/2 ------------------------------------------------------------------------------------------------

    def serve(self, connection: socket.socket, received: bytes = b"") -> None:
        """Answer the engine until the connection ends; `received` is what it has said already."""
        self._socket = connection
        try:
            self._http.initiate_connection()
            self._socket.sendall(self._http.data_to_send())
            while True:
                self._take_all(self._http.receive_data(received) if received else [])
                self._send()
                received = self._socket.recv(_READ)
                if not received:
                    return
        except (OSError, h2.exceptions.ProtocolError, ValueError) as error:
            log.debug("the session of a build has ended: %s", error)
        finally:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # the engine ends the build then

    def _take_all(self, events: list[h2.events.Event]) -> None:
        """A call may be canceled in the same packet in which it begins: nothing can be sent to it then."""
        canceled = {each.stream_id for each in events if isinstance(each, h2.events.StreamReset)}
        for event in events:
            if not isinstance(event, h2.events.RequestReceived) or event.stream_id not in canceled:
                self._take(event)

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream), headers=headers):
                self._streams[stream] = _Stream(self._call(_by_name(headers or [])))
                self._http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            case h2.events.DataReceived(stream_id=int(stream), data=content, flow_controlled_length=size):
                self._http.acknowledge_received_data(size or 0, stream)
                self._receive(stream, content or b"")
            case h2.events.StreamReset(stream_id=int(stream)):
                self._streams.pop(stream, None)

    def _receive(self, number: int, content: bytes) -> None:
        """Cut into messages, each of which has a byte about compression and four of its length before it."""
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.received += content
        while len(stream.received) >= 5:
            compressed, size = struct.unpack(">BI", stream.received[:5])
            if compressed or size > _MOST_OF_REQUEST:
                raise ValueError("the engine has sent a message that is compressed or too large")
            if len(stream.received) < 5 + size:
                return
            message = bytes(stream.received[5 : 5 + size])
            del stream.received[: 5 + size]
            stream.call.receive(message)

    def _send(self) -> None:
        """Send what the engine has room for. It is asked again when there is more."""
        for number in list(self._streams):
            while self._send_some(number):
                self._socket.sendall(self._http.data_to_send())
        self._socket.sendall(self._http.data_to_send())

    def _send_some(self, number: int) -> bool:
        """Send a frame of a stream; return False if there is nothing to send, or no room."""
        stream = self._streams[number]
        if not stream.waiting:
            message = stream.call.next_message()
            if message is None:
                self._end_if_done(number)
                return False
            stream.waiting = struct.pack(">BI", 0, len(message)) + message
        room = min(self._http.local_flow_control_window(number), self._http.max_outbound_frame_size)
        if room <= 0:
            return False
        self._http.send_data(number, stream.waiting[:room])
        stream.waiting = stream.waiting[room:]
        return True

    def _end_if_done(self, number: int) -> None:
        status = self._streams[number].call.status
        if status is None:
            return
        self._http.send_headers(number, [("grpc-status", str(status))], end_stream=True)
        del self._streams[number]

    # --- calls -------------------------------------------------------------------------------------------------

    def _call(self, headers: Headers) -> _Call:
        match headers.get(":path"):
            case [path] if path == _HEALTH:
                return _Unary(lambda _: (_OK, encoded([(1, _SERVING)])))
            case [path] if path == _SECRET:
                return _Unary(self._secret)
            case [path] if path == _FILES:
                return self._transfer(headers)
        return _Refused(lambda _: (_UNIMPLEMENTED, b""))

    def _secret(self, message: bytes) -> tuple[int, bytes]:
        value = self._secrets.get(text(decoded(message), 1))
        if value is None:
            return _NOT_FOUND, b""
        return _OK, encoded([(1, value.reveal().encode("utf-8", "surrogateescape"))])

    def _transfer(self, headers: Headers) -> _Call:
        """The `.dockerignore` is applied already, so the builder, which asks for it first, gets none."""
        name = (headers.get("dir-name") or [""])[0]
        if headers.get("followpaths") == [".dockerignore"]:
            return _Transfer(FileTree(()))
        tree = self._folders.get(name)
        return _Transfer(tree) if tree is not None else _Refused(lambda _: (_NOT_FOUND, b""))


def _by_name(headers: list[tuple[str, str]] | list[tuple[bytes, bytes]]) -> Headers:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(str(name), []).append(str(value))
    return found


def _connected(host: str) -> socket.socket:
    """Return a connection to the engine. Raises OSError."""
    parts = urlsplit(parse_host(host))
    if parts.scheme == "http+unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_ACCEPT_TIMEOUT)
            connection.connect(parts.path)
        except BaseException:
            connection.close()
            raise
        return connection
    if parts.hostname is None or parts.scheme == "https":
        raise ConnectionError(f"builds by BuildKit cannot reach an engine at {host}")
    return socket.create_connection((str(parts.hostname), parts.port or 2375), _ACCEPT_TIMEOUT)
