"""Looks at the TLS certificate of the address under which people reach the platform (`web.publicUrl`), for `prichal
doctor` and the page of health: whether it is valid, and for how long. A proxy in front mostly has it, so it is asked
from outside, as a browser does.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Final
from urllib.parse import urlsplit

from controller.config import Settings
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable

LEAST: Final = 14  # days
ANSWER: Final = 5.0  # seconds
_RENEW: Final = Localizable("renew it, and check that the proxy has loaded the new one")


def check_certificate(settings: Settings, context: ssl.SSLContext | None = None) -> str:
    """Return for how long the certificate is valid. Raises Finding."""
    url = urlsplit(settings.web.public_url)
    if url.scheme != "https":
        return Localizable("web.publicUrl is not https: there is nothing to look at")
    host, port = url.hostname or "", url.port or 443
    try:
        ends = _end_of(host, port, context or ssl.create_default_context())
    except ssl.SSLCertVerificationError as error:
        raise Finding(
            Localizable(
                "the certificate of {host} is not valid: {error}",
                host=host,
                error=error.verify_message,
            ),
            _RENEW,
        ) from error
    except (OSError, ValueError) as error:  # a host need not reach itself by its public address
        return Localizable(
            "{host}:{port} cannot be asked from this host ({error})", host=host, port=port, error=error
        )
    days = (ends - time.time()) / 86400
    if days < LEAST:
        raise Finding(
            Localizable("the certificate of {host} ends in {days} days", host=host, days=max(0, int(days))),
            _RENEW,
        )
    return Localizable("the certificate of {host} is valid for {days} days", host=host, days=int(days))


def _end_of(host: str, port: int, context: ssl.SSLContext) -> float:
    """Return when the certificate ends, in Unix seconds. Raises OSError and ValueError."""
    with (
        socket.create_connection((host, port), ANSWER) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        found = tls.getpeercert() or {}
    return ssl.cert_time_to_seconds(str(found["notAfter"]))
