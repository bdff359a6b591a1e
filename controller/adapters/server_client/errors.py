"""What a server answered, or that it did not, as decisions of ours. Data, and what applies it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3.exceptions
from urllib3 import BaseHTTPResponse

from controller.domain.errors import ControllerError, Stalled, Transient

WORDS: Final = 64 * 1024  # bytes of an answer that are searched for its reason


class Unavailable(Transient):
    """`retry_after` in seconds, 0 where the other side did not say."""

    def __init__(self, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class Stopped(Exception):
    """What was under way was called off from here."""


@dataclass(frozen=True)
class Fault:
    """`advice` is what a person can do."""

    kind: type[Stalled] | type[Transient]
    reason: str
    advice: str = ""

    def error(self, message: str, retry_after: float = 0.0) -> ControllerError:
        text = f"{message.rstrip('.')}. {self.advice}" if self.advice else message
        return (
            Stalled(self.reason, text)
            if self.kind is Stalled
            else Unavailable(self.reason, text, retry_after)
        )


UNREACHABLE: Final = Fault(Transient, "ServerUnreachable")
BUSY: Final = Fault(Transient, "ServerBusy")
REFUSED: Final = Fault(Stalled, "RequestRefused")

#: Of all APIs.
COMMON: Final[dict[int, Fault]] = {
    401: Fault(Stalled, "CredentialsRefused", "Give --user NAME and its password, or --token-file FILE"),
    403: Fault(Stalled, "AccessDenied"),
    408: BUSY,
    429: BUSY,
}


@dataclass(frozen=True)
class Meaning:
    """What the answers of one API mean: `stranger` is what is no answer of such an API. Where no status of the API's
    own or of `COMMON` fits, 5xx is `BUSY`, and 4xx `REFUSED`."""

    stranger: Fault
    own: Mapping[int, Fault]

    def error(self, answer: BaseHTTPResponse, doing: str) -> ControllerError:
        """`answer` is read and no success; its problem+json tells why."""
        if 300 <= answer.status < 400:
            place = urlsplit(answer.headers.get("Location", ""))
            return self.stranger.error(f"{doing}: the server sends us on to {place.scheme}://{place.netloc}")
        default = BUSY if answer.status >= 500 else REFUSED
        fault = self.own.get(answer.status) or COMMON.get(answer.status, default)
        return fault.error(f"{doing}: {_problem(answer)}", retry_after(answer))

    @contextmanager
    def understood(self, what: str) -> Iterator[None]:
        """Around the reading of a document that a stranger may have sent; `what` it is about."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.stranger.error(f"{what}: what came is no answer of such an API") from error


@contextmanager
def reached(url: str, away: Fault, stranger: Fault) -> Iterator[None]:
    """Errors of the network leave this block as `away`, those of a URL or certificate as Stalled. Of `url` only the
    host is told: the rest of a link is a secret."""
    host = urlsplit(url).netloc
    try:
        yield
    except (ValueError, urllib3.exceptions.DecodeError) as error:  # many of the library's own are ValueErrors
        raise stranger.error(f"{host}: this cannot be asked, or its answer not be read") from error
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            message = f"{host}: its certificate is not trusted on this machine; SSL_CERT_FILE names others"
            raise Stalled("CertificateInvalid", message) from error
        raise away.error(f"{host} cannot be reached: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """What the system said, without the names of Python's classes around it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    is_late = isinstance(error, urllib3.exceptions.TimeoutError)
    return "no answer in time" if is_late else "the connection broke"


def _problem(answer: BaseHTTPResponse) -> str:
    """`errors` with their pointers, `detail` or `title` of problem+json (RFC 9457), else the status; one line."""
    try:
        problem = json.loads(answer.data[:WORDS])
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return f"HTTP status {answer.status}"
    said = _faults(problem.get("errors")) or problem.get("detail") or problem.get("title")
    return " ".join(said.split()) if isinstance(said, str) else f"HTTP status {answer.status}"


def _faults(errors: Any) -> str:
    """All that is wrong with a request, each with its place."""
    if not isinstance(errors, list) or not all(isinstance(error, dict) for error in errors):
        return ""
    return "; ".join(f"{error.get('pointer') or 'the body'}: {error.get('detail')}" for error in errors)


def retry_after(answer: BaseHTTPResponse) -> float:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
