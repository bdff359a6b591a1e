"""What a server or a storage answered, or that it did not, as decisions of ours. Data, and what applies it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
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
    """The transfer was called off from here."""


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
NOT_FILES: Final = Fault(Stalled, "NotAFilesApi", "Is this the address of a prichal server? See --server")
LINK_DENIED: Final = Fault(Transient, "LinkRefused")  # expired: the next attempt has a new one
STORAGE_AWAY: Final = Fault(Transient, "StorageUnreachable")
MISMATCH: Final = Fault(Transient, "ChecksumMismatch")
CHANGED: Final = Fault(Transient, "FileChanged")

#: Of the files API. All other 5xx are `BUSY`, all other 4xx `RequestRefused`.
SERVER: Final[dict[int, Fault]] = {
    401: Fault(Stalled, "CredentialsRefused", "Give --user NAME and its password, or --token-file FILE"),
    403: Fault(Stalled, "AccessDenied"),
    404: Fault(Stalled, "FileNotFound"),
    408: BUSY,
    429: BUSY,
    507: Fault(Stalled, "BoxFull"),
}
#: Of what a link leads to. All other 5xx are `STORAGE_AWAY`, all other 4xx `StorageRefused`.
STORAGE: Final[dict[int, Fault]] = {
    403: LINK_DENIED,
    404: Fault(Stalled, "FileNotFound"),
    408: STORAGE_AWAY,
    429: STORAGE_AWAY,
    507: Fault(Stalled, "StorageRefused"),
}
#: S3's codes that say more than their status.
CODES: Final[dict[str, Fault]] = {
    "BadDigest": MISMATCH,
    "IncompleteBody": STORAGE_AWAY,
    "RequestTimeout": STORAGE_AWAY,
}


def from_server(answer: BaseHTTPResponse, doing: str) -> ControllerError:
    """`answer` is read and no success; its problem+json tells why."""
    if 300 <= answer.status < 400:
        place = urlsplit(answer.headers.get("Location", ""))
        return NOT_FILES.error(f"{doing}: the server sends us on to {place.scheme}://{place.netloc}")
    default = BUSY if answer.status >= 500 else Fault(Stalled, "RequestRefused")
    fault = SERVER.get(answer.status, default)
    return fault.error(f"{doing}: {_problem(answer)}", _retry_after(answer))


def from_storage(answer: BaseHTTPResponse, doing: str) -> ControllerError:
    """`answer` is read and no success; S3 tells why in XML."""
    text = answer.data[:WORDS].decode("utf-8", "replace")
    code, words = (_element(name, text) for name in ("Code", "Message"))
    default = STORAGE_AWAY if answer.status >= 500 else Fault(Stalled, "StorageRefused")
    fault = CODES.get(code) or STORAGE.get(answer.status, default)
    return fault.error(f"{doing}: {words or f'the storage answers {answer.status}'}", _retry_after(answer))


@contextmanager
def reached(url: str, away: Fault) -> Iterator[None]:
    """Errors of the network leave this block as `away`, those of a URL or certificate as Stalled. Of `url` only the
    host is told: the rest of a link is a secret."""
    host = urlsplit(url).netloc
    try:
        yield
    except (ValueError, urllib3.exceptions.DecodeError) as error:  # many of the library's own are ValueErrors
        raise NOT_FILES.error(f"{host}: this cannot be asked, or its answer not be read") from error
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
    """`detail` or `title` of problem+json (RFC 9457), else the status."""
    try:
        problem = json.loads(answer.data[:WORDS])
    except ValueError:
        problem = None
    said = (problem.get("detail") or problem.get("title")) if isinstance(problem, dict) else None
    return " ".join(said.split()) if isinstance(said, str) else f"HTTP status {answer.status}"


def _element(name: str, text: str) -> str:
    """By a pattern: an XML parser would be one more way in for whoever answers in the storage's place."""
    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return " ".join(found[1].split()) if found else ""


def _retry_after(answer: BaseHTTPResponse) -> float:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
