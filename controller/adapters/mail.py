"""Sends mail through the server of the configuration, behind the port `MailSender`. Called by the dispatcher, several
at once.

A server is bounded in time as a whole, not only between two bytes. The login is sent over TLS alone, whose certificate
is checked; a server that offers no TLS gets nothing.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from controller.config import NotificationSettings
from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.runs.webhooks import DeliveryDecision, DeliveryOutcome
from controller.domain.secret import Secret
from controller.domain.text import excerpt, printable
from controller.domain.units import in_utc
from controller.fetch import network_words, seconds_left
from controller.threads import running_beside

#: Returns user name and password, or None without a login. Raises ControllerError.
Login = Callable[[], tuple[str, Secret] | None]

_MAX_REPLY: Final = 200  # characters of a server's reply
_CUT_EVERY: Final = 0.1  # seconds between two attempts to cut a connection that takes too long


class SmtpSender:
    def __init__(
        self,
        settings: NotificationSettings,
        login: Login = lambda: None,
    ) -> None:
        self._settings = settings
        self._login = login

    def send(
        self, id: str, to: Sequence[str], title: str, text: str, at: float, timeout: float
    ) -> DeliveryDecision:
        if not self._settings.smtp:
            return _failed(
                Localizable("there is no mail server: the operator names one under notifications.smtp")
            )
        try:
            refused = self._send(self._message(id, to, title, text, at), to, time.monotonic() + timeout)
        except ControllerError as error:
            return _failed(error.message)
        except smtplib.SMTPAuthenticationError as error:
            return _failed(
                Localizable(
                    "the mail server answers {code}: it does not accept the credentials",
                    code=error.smtp_code,
                )
            )
        except smtplib.SMTPNotSupportedError:
            return _failed(Localizable("the mail server offers no STARTTLS, or no login"))
        except smtplib.SMTPRecipientsRefused as error:
            return _of_recipients(error.recipients)
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            return _of_reply(error.smtp_code, error.smtp_error)
        except smtplib.SMTPResponseException as error:  # before it knew what the mail is
            return _failed(_of_reply(error.smtp_code, error.smtp_error).why)
        except ssl.SSLCertVerificationError as error:
            return _failed(
                Localizable(
                    "the certificate of the mail server is not valid: {error}",
                    error=error.verify_message,
                )
            )
        except TimeoutError:
            return _failed(Localizable("the mail server did not answer within {timeout} s", timeout=timeout))
        except (OSError, smtplib.SMTPException) as error:
            return _failed(Localizable("the mail server cannot be used: {error}", error=_words(error)))
        why = Localizable("refused for {names}", names=", ".join(sorted(refused))) if refused else ""
        return DeliveryDecision(DeliveryOutcome.DELIVERED, why)

    def _message(self, id: str, to: Sequence[str], title: str, text: str, at: float) -> EmailMessage:
        sender = self._settings.smtp_from
        message = EmailMessage(policy=SMTP)
        message["From"] = sender
        message["To"] = ", ".join(to)
        message["Subject"] = printable(title)
        message["Date"] = format_datetime(in_utc(at))
        message["Message-ID"] = f"<{id}@{sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(printable(text), cte="quoted-printable")
        return message

    def _send(self, message: EmailMessage, to: Sequence[str], deadline: float) -> frozenset[str]:
        """Return the recipients that the server refuses, if it takes the mail for others."""
        login = self._login()
        host, port = self._settings.smtp_address
        context = self._trusted() if self._settings.smtp_tls != "none" else None
        left = seconds_left(deadline)
        if self._settings.smtp_tls == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(timeout=left, context=context)
        else:
            smtp = smtplib.SMTP(timeout=left)
        with closing(smtp), _cut_after(deadline, smtp):
            # The name that the certificate is checked for is otherwise set by the constructor, which cannot be cut.
            smtp._host = host  # type: ignore[attr-defined]
            smtp.connect(host, port)
            if self._settings.smtp_tls == "starttls":
                smtp.starttls(context=context)
            if login:
                smtp.login(login[0], login[1].reveal())
            refused = smtp.send_message(message, self._settings.smtp_from, list(to))
            with suppress(smtplib.SMTPException, OSError):  # the mail is accepted already
                smtp.quit()
        return frozenset(refused)

    def _trusted(self) -> ssl.SSLContext:
        """Trust the authorities of the configuration, by default those of the host."""
        return ssl.create_default_context(cafile=self._settings.smtp_ca)


@contextmanager
def _cut_after(deadline: float, smtp: smtplib.SMTP) -> Iterator[None]:
    """Raise TimeoutError if the block, which uses `smtp`, is not over by then. Its socket is another one after
    STARTTLS, so the present one is shut down again and again."""

    def watch(over: threading.Event) -> None:
        pause = max(0.0, deadline - time.monotonic())
        while not over.wait(pause):
            pause = _CUT_EVERY
            if (sock := smtp.sock) is not None:
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    try:
        with running_beside(watch, "mail"):
            yield
    except (OSError, smtplib.SMTPException) as error:
        if time.monotonic() >= deadline:
            raise TimeoutError from error
        raise


def _of_recipients(refused: dict[str, tuple[int, bytes]]) -> DeliveryDecision:
    """All were refused. It is tried again if the server says of one that it may take it later."""
    code, reply = min(refused.values(), key=lambda each: each[0])
    return _of_reply(code, reply)


def _of_reply(code: int, reply: bytes | str) -> DeliveryDecision:
    text = reply if isinstance(reply, str) else reply.decode("utf-8", "replace")
    why = Localizable(
        "the mail server answers {code}: {text}",
        code=code,
        text=excerpt(printable(" ".join(text.split())), _MAX_REPLY),
    )
    outcome = DeliveryOutcome.REFUSED if 500 <= code < 600 else DeliveryOutcome.FAILED
    return DeliveryDecision(outcome, why)


def _failed(why: str) -> DeliveryDecision:
    return DeliveryDecision(DeliveryOutcome.FAILED, why)


def _words(error: Exception) -> str:
    return network_words(error) or Localizable("it ended the connection")
