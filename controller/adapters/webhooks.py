"""Sends webhooks, behind the port `Sender`. Called by the daemon's `webhooks`, several at once.

Who may start runs chooses where this host connects to, so the name is looked up once, all that it stands for must be
public, and the connection goes to the very address that was looked at: another answer of the name server a moment later
changes nothing. No redirects, no proxies; of what is answered only the status and one header are looked at.
"""

from __future__ import annotations

import errno
import http.client
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from urllib.parse import SplitResult, urlsplit

from controller.adapters.deadline import ended_after
from controller.domain.errors import Stalled, Transient
from controller.domain.webhooks import Answer, is_public

#: The addresses of a name, as numbers, the best one first. OSError if it has none.
Resolve = Callable[[str], Sequence[str]]

ANSWER_LIMIT = (
    16 * 1024
)  # bytes of a body that are received, and thrown away, so that the receiver can end in peace
CONNECT_TIMEOUT = 5.0  # seconds for each address


def resolve(name: str) -> Sequence[str]:
    """As the host does it."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class HttpSender:
    """`private`: addresses that are not public are let through. `context`: whose certificates are trusted; by default
    all that the host trusts."""

    def __init__(
        self, private: bool = False, resolve: Resolve = resolve, context: ssl.SSLContext | None = None
    ) -> None:
        self._private = private
        self._resolve = resolve
        self._context = context or ssl.create_default_context()

    def send(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        try:
            return self._send(urlsplit(url), headers, body, time.monotonic() + timeout)
        except TimeoutError:
            raise _unreachable(f"no answer within {timeout:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise _unreachable(f"its certificate is not valid: {error.verify_message}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _unreachable(_words(error)) from None

    def _send(self, url: SplitResult, headers: Mapping[str, str], body: bytes, deadline: float) -> Answer:
        host, port = url.hostname or "", url.port or {"http": 80, "https": 443}[url.scheme]
        with closing(_connect(self._vetted(host, deadline), port, deadline)) as plain:
            sock = plain
            if url.scheme == "https":
                sock = self._context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            with closing(sock):
                return _post(sock, url, headers, body, deadline)

    def _vetted(self, host: str, deadline: float) -> Sequence[str]:
        addresses = _in_time(lambda: self._resolve(host), deadline)
        if not self._private and not all(map(is_public, addresses)):
            message = "the address is not public; only with runs.webhookPrivate webhooks may lead there"
            raise Stalled("WebhookAddressRefused", message)
        return addresses


def _in_time(look_up: Callable[[], Sequence[str]], deadline: float) -> Sequence[str]:
    """Raises what `look_up` does, and TimeoutError. The resolver of the host cannot be interrupted, only left."""
    answers: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(look_up())
        except (OSError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        found = answers.get(timeout=_left(deadline))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    return found


def _connect(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    """To the first address that takes it."""
    failure = OSError(errno.EHOSTUNREACH, "its name has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), min(CONNECT_TIMEOUT, _left(deadline)))
        except TimeoutError:
            failure = OSError(errno.EHOSTUNREACH, "it takes no connections")
        except OSError as error:
            failure = error
    _left(deadline)
    raise failure


def _post(
    sock: socket.socket, url: SplitResult, headers: Mapping[str, str], body: bytes, deadline: float
) -> Answer:
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80)
    connection.sock = sock
    connection.auto_open = 0  # or it would look the name up once more, if it could
    answer: Answer | None = None
    sock.settimeout(_left(deadline))
    try:
        with ended_after(_left(deadline), sock):
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", path, body, {"Host": url.netloc, **headers})
            with closing(connection.getresponse()) as response:
                _left(deadline)  # the end of the connection also ends the headers, which then look complete
                answer = Answer(response.status, response.getheader("Retry-After", ""))
                with suppress(OSError, http.client.HTTPException):
                    response.read(ANSWER_LIMIT)
    except TimeoutError:
        if answer is None:
            raise
    return answer


def _left(deadline: float) -> float:
    """Seconds. Raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _unreachable(message: str) -> Transient:
    return Transient("WebhookUnreachable", message)


def _words(error: Exception) -> str:
    """Nothing that the receiver has chosen: errors of HTTP quote what was answered."""
    match error:
        case socket.gaierror():
            return "its name is not known"
        case ssl.SSLError():
            return f"no TLS: {error.reason or type(error).__name__}"
        case OSError():
            return error.strerror or type(error).__name__
        case ValueError():
            return "its address is none"
        case _:
            return "no HTTP answer"
