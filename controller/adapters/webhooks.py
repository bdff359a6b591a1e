"""Sends webhooks and commit statuses, behind the port `Sender`. Called by the runner's
`webhook_dispatcher`, several at once.

People who may start runs choose where this host connects to. So the name is resolved once, all its addresses
must be public, and the connection goes to a checked address: if the name server answers differently a moment
later, nothing changes. There are no redirects and no proxies; of the response only the status, one header and
the beginning of the body are used.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from urllib.parse import SplitResult, urlsplit

from controller.adapters.addresses import Resolve, connected, resolve, resolved_in_time
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import ReceiverResponse, is_public
from controller.fetch import ended_after, network_words, seconds_left

ANSWER_LIMIT = 16 * 1024  # bytes of a body that are received, so that the receiver can finish


class HttpSender:
    """`private` also allows addresses that are not public, and `option` is its name in the config. `context`
    decides which certificates are trusted; by default those that the host trusts.
    """

    def __init__(
        self,
        private: bool = False,
        option: str = "runs.webhookPrivate",
        *,
        resolve: Resolve = resolve,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._option = option
        self._private = private
        self._resolve = resolve
        self._context = context or ssl.create_default_context()

    def send(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> ReceiverResponse:
        try:
            return self._send(urlsplit(url), headers, body, time.monotonic() + timeout)
        except TimeoutError:
            raise _unreachable(Localizable("no answer within {timeout} s", timeout=timeout)) from None
        except ssl.SSLCertVerificationError as error:
            raise _unreachable(
                Localizable(
                    "its certificate is not valid: {verify_message}", verify_message=error.verify_message
                )
            ) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _unreachable(_words(error)) from None

    def _send(
        self, url: SplitResult, headers: Mapping[str, str], body: bytes, deadline: float
    ) -> ReceiverResponse:
        host, port = url.hostname or "", url.port or {"http": 80, "https": 443}[url.scheme]
        with closing(connected(self._vetted(host, deadline), port, deadline)) as plain:
            sock = plain
            if url.scheme == "https":
                sock = self._context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            with closing(sock):
                return _post(sock, url, headers, body, deadline)

    def _vetted(self, host: str, deadline: float) -> Sequence[str]:
        addresses = resolved_in_time(lambda: self._resolve(host), deadline)
        if not self._private and not all(map(is_public, addresses)):
            message = Localizable(
                "the address is not public; it may be used only if {option} is set", option=self._option
            )
            raise Stalled(Reason.WEBHOOK_ADDRESS_REFUSED, message)
        return addresses


def _post(
    sock: socket.socket, url: SplitResult, headers: Mapping[str, str], body: bytes, deadline: float
) -> ReceiverResponse:
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80)
    connection.sock = sock
    connection.auto_open = 0  # otherwise it might resolve the name again
    answer: ReceiverResponse | None = None
    sock.settimeout(seconds_left(deadline))
    try:
        with ended_after(seconds_left(deadline), sock):
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", path, body, {"Host": url.netloc, **headers})
            with closing(connection.getresponse()) as response:
                seconds_left(
                    deadline
                )  # the end of the connection also ends the headers, which then look complete
                answer = ReceiverResponse(response.status, response.getheader("Retry-After", ""))
                with suppress(OSError, http.client.HTTPException):
                    answer = replace(answer, body=response.read(ANSWER_LIMIT))
    except TimeoutError:
        if answer is None:
            raise
    return answer


def _unreachable(message: str) -> Transient:
    return Transient(Reason.WEBHOOK_UNREACHABLE, message)


def _words(error: Exception) -> str:
    """Describe an error without text chosen by the receiver, which errors of HTTP quote."""
    if words := network_words(error):
        return words
    match error:
        case OSError():
            return type(error).__name__
        case UnicodeEncodeError(encoding="latin-1"):  # of headers, of which only the credentials are not ours
            return Localizable("the credentials hold a character that no HTTP header can carry")
        case ValueError():
            return Localizable("its address is not valid")
        case _:
            return Localizable("it did not answer with HTTP")
