"""Webhooks over real HTTP and TLS to receivers on loopback, good ones and bad ones, and to where they must not go."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from controller.adapters.addresses import resolve
from controller.adapters.webhooks import ANSWER_LIMIT, HttpSender
from controller.domain.errors import Stalled, Transient
from controller.domain.runs.webhooks import ReceiverResponse
from tests.support.issuer import make_certificate
from tests.support.receivers import receiver

NAME = "hooks.example.org"


def send(url: str, sender: HttpSender | None = None, timeout: float = 10.0) -> ReceiverResponse:
    found = sender or HttpSender(private=True)
    return found.send(url, {"webhook-id": "msg_1", "Content-Type": "application/json"}, b'{"a":1}', timeout)


def fails(url: str, sender: HttpSender | None = None, timeout: float = 10.0) -> str:
    with pytest.raises(Transient) as failed:
        send(url, sender, timeout)
    assert failed.value.reason == "WebhookUnreachable"
    return failed.value.message


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """URL of a server that accepts one connection and does with it as it likes."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with closing(connection), suppress(OSError):
                talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield "http://127.0.0.1:{1}/".format(*listener.getsockname())
        thread.join()


def answering(raw: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(raw)

    return talk


class Names:
    """A name server. `asked` are the names it was asked for."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        return self._answers.pop(0)


# --- what is sent and answered ----------------------------------------------------------------------------------


def test_it_arrives_as_it_is() -> None:
    with receiver() as there:
        assert send(f"{there.url}?token=x") == ReceiverResponse(204)
        (received,) = there.received
    assert (received.path, received.body, received.id) == ("/done?token=x", b'{"a":1}', "msg_1")
    assert received.headers["host"] == there.url.split("/")[2]
    assert received.headers["content-type"] == "application/json"


def test_a_url_without_a_path() -> None:
    with receiver() as there:
        send(there.url.removesuffix("/done"))
        assert there.received[0].path == "/"


@pytest.mark.parametrize("status", [200, 302, 410, 429, 500])
def test_every_answer_is_one(status: int) -> None:
    with receiver() as there, receiver() as elsewhere:
        there.answer = lambda _: (status, {"Location": elsewhere.url, "Retry-After": "7"})
        assert send(there.url) == ReceiverResponse(status, "7")
        assert not elsewhere.received, "redirects are not followed"


def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with receiver() as there:
        assert send(there.url) == ReceiverResponse(204)


# --- receivers that are not well --------------------------------------------------------------------------------


def test_nobody_listens() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    assert fails(f"http://127.0.0.1:{port}/secret") == "Connection refused"


def test_a_name_that_nobody_knows() -> None:
    def unknown(name: str) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert fails(f"http://{NAME}/", HttpSender(resolve=unknown)) == "its name is unknown"
    assert fails(f"http://{NAME}/", HttpSender(resolve=Names([]))) == "its name has no address"
    assert "label" not in fails(f"http://{'a' * 100}.example/", HttpSender())


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-secret words\r\n", b"HTTP/1.1 ok secret\r\n\r\n"])
def test_what_does_not_speak_http(raw: bytes) -> None:
    with talking(answering(raw)) as url:
        assert "secret" not in fails(url)


def test_one_that_never_answers() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = "http://127.0.0.1:{1}/".format(*listener.getsockname())
        assert fails(url, timeout=0.05) == "no answer within 0.05 s"


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\n", b""])
def test_one_that_dribbles_has_as_little_time_as_all(begin: bytes) -> None:
    over = threading.Event()

    def dribble(connection: socket.socket) -> None:
        connection.sendall(begin)
        while not over.wait(0.02):
            connection.sendall(b"X: y\r\n" if begin else b"HTTP/1.1 100 Continue\r\n\r\n")

    with talking(dribble) as url:
        assert fails(url, timeout=0.3) == "no answer within 0.3 s"
        over.set()


def test_a_slow_handshake_has_as_little_time_as_all() -> None:
    over = threading.Event()

    def dribble(connection: socket.socket) -> None:
        connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB, which never comes to its end
        while not over.wait(0.02):
            connection.sendall(b"\x02")

    with talking(dribble) as url:
        assert fails(url.replace("http:", "https:"), timeout=0.3) == "no answer within 0.3 s"
        over.set()


def test_a_name_server_that_does_not_answer() -> None:
    over = threading.Event()

    def silent(name: str) -> Sequence[str]:
        over.wait(60)
        return []

    assert fails(f"http://{NAME}/", HttpSender(resolve=silent), 0.05) == "no answer within 0.05 s"
    over.set()


def test_an_answer_without_end_is_not_read_to_one() -> None:
    sent = 0

    def pour(connection: socket.socket) -> None:
        nonlocal sent
        connection.recv(65536)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent += connection.send(bytes(4096))

    with talking(pour) as url:
        begun = time.monotonic()
        assert send(url) == ReceiverResponse(200, body=bytes(ANSWER_LIMIT))
    assert time.monotonic() - begun < 10
    assert sent < 100 * ANSWER_LIMIT


def test_a_body_that_does_not_come_makes_an_answer_no_worse() -> None:
    over = threading.Event()

    def stall(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        over.wait(60)

    with talking(stall) as url:
        assert send(url, timeout=0.2) == ReceiverResponse(200)
        over.set()


# --- TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "receiver.pem")


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def test_over_tls(certificate: Path) -> None:
    with receiver(certificate=certificate) as there:
        assert send(there.url, HttpSender(private=True, context=trusting(certificate))) == ReceiverResponse(
            204
        )


def test_the_certificate_must_be_that_of_the_name_and_trusted(certificate: Path) -> None:
    with receiver(certificate=certificate) as there:
        named = HttpSender(private=True, resolve=Names(["127.0.0.1"]), context=trusting(certificate))
        assert "certificate is not valid" in fails(there.url.replace("127.0.0.1", NAME), named)
        assert "certificate is not valid" in fails(there.url)
        assert not there.received


def test_no_tls_there() -> None:
    with receiver() as there:
        assert fails(there.url.replace("http:", "https:")).startswith("TLS failed: ")


# --- where it must not go ---------------------------------------------------------------------------------------


def is_refused(url: str, sender: HttpSender | None = None) -> None:
    with pytest.raises(Stalled) as refused:
        send(url, sender or HttpSender())
    assert refused.value.reason == "WebhookAddressRefused"
    assert url not in refused.value.message


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "[::1]"]
)
def test_this_host_under_all_its_names(host: str) -> None:
    with receiver() as there:
        port = there.url.split(":")[2]
        is_refused(f"http://{host}:{port}")
        assert not there.received


@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"])
def test_addresses_that_are_not_public(host: str) -> None:
    is_refused(f"http://{host}/latest/meta-data/")


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["93.184.215.14", "127.0.0.1"], ["::1"]])
def test_names_of_addresses_that_are_not_public(answer: list[str]) -> None:
    """One that is not public among those that are is enough."""
    is_refused(f"http://{NAME}/", HttpSender(resolve=Names(answer)))


def test_a_name_that_is_another_one_a_moment_later() -> None:
    """Rebinding: it is asked for once, and where it leads then is where the request goes."""
    with receiver() as there:
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        url = there.url.replace("127.0.0.1", NAME)
        assert send(url, HttpSender(private=True, resolve=names)) == ReceiverResponse(204)
        assert names.asked == [NAME]
        assert there.received[0].headers["host"].startswith(NAME)


def test_the_next_address_is_tried_where_one_does_not_take_it() -> None:
    with receiver() as there:
        sender = HttpSender(private=True, resolve=Names(["127.0.0.9", "127.0.0.1"]))
        assert send(there.url.replace("127.0.0.1", NAME), sender) == ReceiverResponse(204)


def test_names_as_the_host_knows_them() -> None:
    found = resolve("localhost")
    assert found
    assert all(ipaddress.ip_address(address).is_loopback for address in found)
