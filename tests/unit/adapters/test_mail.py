"""Mail to a real server over SMTP: TLS, logins, refusals, and servers that are not well."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from controller.adapters.mail import SmtpSender
from controller.config import NotificationSettings
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import DeliveryDecision, DeliveryOutcome
from controller.domain.secret import Secret
from tests.support.issuer import make_certificate
from tests.support.mail_server import PASSWORD, USER, MailServer, mail_server

pytestmark = pytest.mark.slow

FROM, TO = "prichal@example.org", ("team@example.org", "boss@example.org")
TIMEOUT = 60.0


@pytest.fixture(scope="module", name="certificate")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


def settings(address: str, tls: str = "none", ca: Path | None = None) -> NotificationSettings:
    return NotificationSettings(smtp=address, smtp_tls=tls, smtp_from=FROM, smtp_ca=ca)


def send(
    there: MailServer | str,
    tls: str = "none",
    ca: Path | None = None,
    password: str | None = None,
    timeout: float = TIMEOUT,
    text: str = "It is broken.\n",
) -> DeliveryDecision:
    address = there if isinstance(there, str) else there.address
    login = (USER, Secret(password)) if password is not None else None
    sender = SmtpSender(settings(address, tls, ca), lambda: login)
    return sender.send("note_1", TO, "demo: Degraded – kaputt", text, 1_790_000_000.0, timeout)


def test_a_mail_has_what_mail_programs_show() -> None:
    with mail_server() as there:
        assert send(there) == DeliveryDecision(DeliveryOutcome.DELIVERED)
        assert send(there).outcome is DeliveryOutcome.DELIVERED
    first, again = there.mails
    assert there.envelopes[0] == (FROM, list(TO))
    assert first["Subject"] == "demo: Degraded – kaputt"
    assert (first["From"], first["To"]) == (FROM, ", ".join(TO))
    assert first["Message-ID"] == again["Message-ID"] == "<note_1@example.org>"
    assert first["Auto-Submitted"] == "auto-generated"
    assert first.get_content().strip() == "It is broken."


def test_what_modules_wrote_adds_no_header_and_no_recipient() -> None:
    hostile = "\n.\r\nRCPT TO:<other@example.org>\r\nBcc: x@example.org\x00\ud83d\n" + "x" * 5000
    with mail_server() as there:
        assert send(there, text=hostile).outcome is DeliveryOutcome.DELIVERED
    assert there.envelopes == [(FROM, list(TO))]
    assert there.mails[0]["Bcc"] is None


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_the_login_is_sent_over_tls(tls: str, certificate: Path) -> None:
    with mail_server(tls, certificate, login=True) as there:
        assert send(there, tls, certificate, PASSWORD).outcome is DeliveryOutcome.DELIVERED
        wrong = send(there, tls, certificate, "guessed")
    assert there.logins[0] is True
    assert wrong.outcome is DeliveryOutcome.FAILED
    assert wrong.why == "the mail server answers 535: it does not accept the credentials"


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_certificate_of_somebody_else_is_refused(tls: str, certificate: Path) -> None:
    with mail_server(tls, certificate) as there:
        found = send(there, tls)
    assert found.outcome is DeliveryOutcome.FAILED
    assert found.why == "the certificate of the mail server is not valid: self-signed certificate"
    assert there.mails == []


def test_without_starttls_nothing_is_sent() -> None:
    with mail_server() as there:
        found = send(there, "starttls", password=PASSWORD)
    assert found.why == "the mail server offers no STARTTLS, or no login"
    assert (there.mails, there.logins) == ([], [])


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("451 4.3.0 try again later", DeliveryOutcome.FAILED),
        ("554 5.7.1 this is spam", DeliveryOutcome.REFUSED),
        ("421 4.3.2 closing", DeliveryOutcome.FAILED),
    ],
)
def test_a_refused_content(reply: str, outcome: DeliveryOutcome) -> None:
    with mail_server() as there:
        there.answer = lambda: reply
        assert send(there) == DeliveryDecision(outcome, f"the mail server answers {reply[:3]}: {reply[4:]}")


def test_recipients_that_are_refused() -> None:
    with mail_server() as there:
        there.recipient = lambda address: "550 no such user" if address.startswith("boss") else None
        assert send(there) == DeliveryDecision(DeliveryOutcome.DELIVERED, "refused for boss@example.org")
        there.recipient = lambda address: "550 no such user"
        assert send(there) == DeliveryDecision(
            DeliveryOutcome.REFUSED, "the mail server answers 550: no such user"
        )
        there.recipient = lambda a: "450 greylisted" if a.startswith("boss") else "550 no such user"
        assert send(there).outcome is DeliveryOutcome.FAILED
    assert len(there.mails) == 1


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = send(f"127.0.0.1:{port}")
    assert found == DeliveryDecision(
        DeliveryOutcome.FAILED, "the mail server cannot be used: Connection refused"
    )


def test_a_server_that_does_not_answer_is_left() -> None:
    with mail_server() as there:
        there.pause = lambda: asyncio.sleep(3600)
        found = send(there, timeout=1.0)
    assert found == DeliveryDecision(DeliveryOutcome.FAILED, "the mail server did not answer within 1 s")


@contextmanager
def talkative(reply: bytes, greeting: bytes = b"220 hello\r\n") -> Iterator[str]:
    """A server that greets, and then sends this again and again, byte by byte, without an end of the line."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                client, _ = server.accept()
                with client:
                    client.sendall(greeting)
                    while not done.wait(0.05):
                        client.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            done.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("greeting", [b"220 hello\r\n", b"2"], ids=["greeted", "not greeted"])
@pytest.mark.parametrize("tls", ["none", "starttls"])
def test_a_server_that_sends_single_bytes_is_left(tls: str, greeting: bytes) -> None:
    with talkative(b"x", greeting) as address:
        found = send(address, tls, timeout=1.0)
    assert found == DeliveryDecision(DeliveryOutcome.FAILED, "the mail server did not answer within 1 s")


def test_a_server_that_is_no_mail_server() -> None:
    with talkative(b"x" * 10_000) as address:
        found = send(address)
    assert found.outcome is DeliveryOutcome.FAILED
    assert found.why.startswith("the mail server answers 500: Line too long")


def test_without_a_server_the_message_says_what_is_missing() -> None:
    assert "notifications.smtp" in send("").why


def test_credentials_that_cannot_be_read() -> None:
    def login() -> tuple[str, Secret]:
        raise Stalled(Reason.CONFIG_INVALID, "/etc/prichal/smtp.yaml: cannot be read")

    found = SmtpSender(settings("127.0.0.1:1"), login).send("note_1", TO, "x", "y", 0.0, TIMEOUT)
    assert found == DeliveryDecision(DeliveryOutcome.FAILED, "/etc/prichal/smtp.yaml: cannot be read")


@pytest.mark.parametrize(
    ("smtp", "tls", "address"),
    [
        ("mail.example.org", "starttls", ("mail.example.org", 587)),
        ("mail.example.org", "tls", ("mail.example.org", 465)),
        ("mail.example.org", "none", ("mail.example.org", 25)),
        ("mail.example.org:2525", "tls", ("mail.example.org", 2525)),
        ("[::1]:2525", "none", ("::1", 2525)),
        ("[::1]", "none", ("::1", 25)),
    ],
)
def test_the_port_follows_from_the_way_of_encryption(smtp: str, tls: str, address: tuple[str, int]) -> None:
    assert NotificationSettings(smtp=smtp, smtp_tls=tls).smtp_address == address
