"""A mail server on loopback that speaks SMTP for real (aiosmtpd): it takes mail, refuses it, or is slow."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

USER, PASSWORD = "prichal", "open sesame"


@dataclass
class MailServer:
    """`answer` is the reply to the content of a mail, `recipient` that to each address; None takes it."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    logins: list[bool] = field(default_factory=list)
    answer: Callable[[], str | None] = lambda: None
    recipient: Callable[[str], str | None] = lambda address: None
    pause: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def handle_RCPT(  # noqa: N802 - the name that aiosmtpd looks for
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if refused := self.recipient(address):
            return refused
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        await self.pause()
        if refused := self.answer():
            return refused
        found = message_from_bytes(envelope.content, policy=default)
        assert isinstance(found, EmailMessage)
        self.mails.append(found)
        self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        is_right = isinstance(data, LoginPassword) and data == LoginPassword(USER.encode(), PASSWORD.encode())
        self.logins.append(is_right)
        return AuthResult(success=is_right, handled=is_right)


class _Controller(Controller):
    def __init__(
        self, there: MailServer, starttls: ssl.SSLContext | None, tls: ssl.SSLContext | None, login: bool
    ):
        self._there, self._starttls, self._login = there, starttls, login
        super().__init__(there, hostname="127.0.0.1", port=0, ssl_context=tls, ready_timeout=60.0)

    def factory(self) -> SMTP:
        return SMTP(
            self._there,
            tls_context=self._starttls,
            require_starttls=self._starttls is not None,
            authenticator=self._there.authenticate if self._login else None,
            auth_required=self._login and self._starttls is not None,
            auth_require_tls=self._starttls is not None,
        )

    def _trigger_server(self) -> None:
        """The port is known only now."""
        assert self.server is not None
        self.port = cast(asyncio.Server, self.server).sockets[0].getsockname()[1]
        self._there.port = self.port
        super()._trigger_server()  # type: ignore[no-untyped-call]


@contextmanager
def mail_server(
    tls: str = "none", certificate: Path | None = None, login: bool = False
) -> Iterator[MailServer]:
    """`tls` as in the configuration; `certificate` is a PEM file with certificate and key."""
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    there = MailServer()
    starttls, all_tls = (context if tls == each else None for each in ("starttls", "tls"))
    controller = _Controller(there, starttls, all_tls, login)
    controller.start()
    try:
        yield there
    finally:
        controller.stop()
