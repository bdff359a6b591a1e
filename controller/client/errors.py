"""The meaning of a server's response, or of its absence, as our errors."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import urllib3.exceptions

from controller.domain.error_table import ErrorRule, ErrorTable
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason

WORDS: Final = 64 * 1024  # bytes of a response that are searched for its reason


class ErrorAnswer(Protocol):
    """A response that is an error; its body has been read, at least its beginning."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def data(self) -> bytes: ...


class Stopped(Exception):
    """The work was stopped from this side."""


UNREACHABLE: Final = ErrorRule(Transient, Reason.SERVER_UNREACHABLE)
BUSY: Final = ErrorRule(Transient, Reason.SERVER_BUSY)
REFUSED: Final = ErrorRule(Stalled, Reason.REQUEST_REFUSED)

#: For all APIs.
_COMMON: Final[dict[int, ErrorRule]] = {
    401: ErrorRule(
        Stalled,
        Reason.CREDENTIALS_REFUSED,
        "Give --user NAME and its password, or --token-file FILE, or sign in with: prichal login URL",
    ),
    403: ErrorRule(Stalled, Reason.ACCESS_DENIED),
    408: BUSY,
    429: BUSY,
}


@dataclass(frozen=True)
class ErrorMeanings:
    """The meaning of the responses of one API: `stranger` is used for what is not a response of such an API."""

    stranger: ErrorRule
    table: ErrorTable

    @classmethod
    def of(cls, stranger: ErrorRule, own: Mapping[int, ErrorRule]) -> ErrorMeanings:
        """`own`: of statuses that all APIs have, or that have a special meaning here."""
        return cls(stranger, ErrorTable(REFUSED, BUSY, status={**_COMMON, **own}))

    def error(self, answer: ErrorAnswer, doing: str) -> ControllerError:
        """Return the error of a response, whose body has been read; its problem+json gives the reason."""
        if 300 <= answer.status < 400:
            place = urlsplit(answer.headers.get("Location", ""))
            return self.stranger.error(doing, f"the server redirects to {place.scheme}://{place.netloc}")
        rule = self.table.of_response(answer.status)
        return rule.error(doing, _problem(answer), retry_after=retry_after(answer))

    @contextmanager
    def understood(self, what: str) -> Iterator[None]:
        """Translate errors of reading a document, about `what`, that may come from another kind of server."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.stranger.error(what, "the response does not come from such an API") from error


@contextmanager
def reached(url: str, away: ErrorRule, stranger: ErrorRule) -> Iterator[None]:
    """Translate errors of the network to `away`, and those of a URL or certificate to Stalled. Only the host
    of `url` is shown: the rest of a link is a secret.
    """
    host = urlsplit(url).netloc
    try:
        yield
    except (ValueError, urllib3.exceptions.DecodeError) as error:  # many of the library's own are ValueErrors
        raise stranger.error(host, "the request is not valid, or its response cannot be read") from error
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            message = (
                f"{host}: its certificate is not trusted on this machine; set SSL_CERT_FILE to trust others"
            )
            raise Stalled(Reason.CERTIFICATE_INVALID, message) from error
        raise away.error(f"{host} cannot be reached", _cause(error)) from error


def _cause(error: BaseException) -> str:
    """Return the system's message, without the names of Python's classes around it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    is_late = isinstance(error, urllib3.exceptions.TimeoutError)
    return "no answer in time" if is_late else "the connection broke"


def problem_of(answer: ErrorAnswer) -> Mapping[str, Any]:
    """Return the members of problem+json; none if it is anything else."""
    try:
        problem = json.loads(answer.data[:WORDS])
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _problem(answer: ErrorAnswer) -> str:
    """Return `errors` with their pointers, `detail` or `title` of problem+json (RFC 9457), or the status, as
    one line.
    """
    problem = problem_of(answer)
    said = _faults(problem.get("errors")) or problem.get("detail") or problem.get("title")
    return " ".join(said.split()) if isinstance(said, str) else f"HTTP status {answer.status}"


def _faults(errors: Any) -> str:
    """Return all that is wrong with a request, with positions."""
    if not isinstance(errors, list) or not all(isinstance(error, dict) for error in errors):
        return ""
    return "; ".join(f"{error.get('pointer') or 'the body'}: {error.get('detail')}" for error in errors)


def retry_after(answer: ErrorAnswer) -> float:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
