"""Translates errors of the S3 SDK into ours. Data: tables, and one context manager that applies them.

A response has a code (`CODES`); if that is unknown, its words decide (`WORDS`: the JuiceFS gateway answers
many failures of its file system with a bare 500), then its status. Errors without a response are decided by
their class (`CLASSES`); the SDK lets errors of urllib3 through from any call.
"""

from __future__ import annotations

import http.client
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import ParseError

import minio.error
import urllib3.exceptions
from urllib3 import BaseHTTPResponse

from controller.domain.error_table import ErrorRule, ErrorTable, Words
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason


@dataclass(frozen=True)
class ErrorResponse:
    """A server's response. `code` is S3's word for it, "" if there is none."""

    status: int
    code: str
    text: str


UNREACHABLE = ErrorRule(Transient, Reason.STORAGE_UNREACHABLE)
FULL = ErrorRule(
    Transient,
    Reason.STORAGE_FULL,
    Localizable("Free some space on the disk of the storage, or raise its quota"),
)
DENIED = ErrorRule(
    Stalled, Reason.STORAGE_DENIED, Localizable("Check the storage's credentials and their rights")
)
REFUSED = ErrorRule(Stalled, Reason.STORAGE_REFUSED)
NOT_S3 = ErrorRule(
    Stalled,
    Reason.STORAGE_REFUSED,
    Localizable("Is this the address of an S3 endpoint? See `storage.endpoint`"),
)
BUCKET_MISSING = ErrorRule(Stalled, Reason.BUCKET_MISSING)
OBJECT_MISSING = ErrorRule(Stalled, Reason.OBJECT_MISSING)
OBJECT_CHANGED = ErrorRule(Stalled, Reason.OBJECT_CHANGED)
UPLOAD_MISSING = ErrorRule(Stalled, Reason.UPLOAD_MISSING, Localizable("Start the upload again"))
UPLOAD_INCOMPLETE = ErrorRule(Stalled, Reason.UPLOAD_INCOMPLETE)

CODES: dict[str, ErrorRule] = {
    "NoSuchBucket": BUCKET_MISSING,
    "NoSuchKey": OBJECT_MISSING,
    "PreconditionFailed": OBJECT_CHANGED,
    "NoSuchUpload": UPLOAD_MISSING,
    "InvalidPart": UPLOAD_INCOMPLETE,
    "InvalidPartOrder": UPLOAD_INCOMPLETE,
    "EntityTooSmall": UPLOAD_INCOMPLETE,
    "AccessDenied": DENIED,
    "InvalidAccessKeyId": DENIED,
    "SignatureDoesNotMatch": DENIED,
    "RequestTimeTooSkewed": ErrorRule(
        Stalled, Reason.STORAGE_DENIED, Localizable("Set the clocks of this host and of the storage")
    ),
    "XMinioStorageFull": FULL,
    "XMinioAdminBucketQuotaExceeded": FULL,
    "QuotaExceeded": FULL,
    # MinIO's word if its disk fills up while it reads; later it finds the right one
    "IncompleteBody": UNREACHABLE,
    "RequestTimeout": UNREACHABLE,
    "OperationAborted": UNREACHABLE,
}

#: The first match wins, without regard to case.
WORDS: Words = (
    (r"no space left|quota exceeded", FULL),
    # The JuiceFS gateway's word for a block that could not be written.
    (
        r"input/output error",
        ErrorRule(
            Transient,
            Reason.STORAGE_FULL,
            Localizable("The disk of the storage is full or broken: see the storage's log"),
        ),
    ),
    (
        r"is a directory|not a directory|file exists",
        ErrorRule(
            Stalled,
            Reason.STORAGE_REFUSED,
            Localizable("This storage cannot have both a file `a` and a file `a/b`"),
        ),
    ),
)

STATUS: dict[int, ErrorRule] = {401: DENIED, 403: DENIED, 429: UNREACHABLE, 501: REFUSED, 507: FULL}

#: The nearest class in the method resolution order of an exception decides.
CLASSES: dict[type[BaseException], ErrorRule] = {
    minio.error.MinioException: REFUSED,
    minio.error.S3Error: REFUSED,
    minio.error.ServerError: UNREACHABLE,
    minio.error.InvalidResponseError: NOT_S3,
    minio.error.MinioAdminException: REFUSED,
    urllib3.exceptions.HTTPError: UNREACHABLE,
    urllib3.exceptions.PoolError: UNREACHABLE,
    urllib3.exceptions.EmptyPoolError: UNREACHABLE,
    urllib3.exceptions.FullPoolError: UNREACHABLE,
    urllib3.exceptions.ClosedPoolError: UNREACHABLE,
    urllib3.exceptions.RequestError: UNREACHABLE,
    urllib3.exceptions.MaxRetryError: UNREACHABLE,
    urllib3.exceptions.HostChangedError: NOT_S3,
    urllib3.exceptions.SSLError: ErrorRule(
        Transient,
        Reason.STORAGE_UNREACHABLE,
        Localizable("Its certificate must be one that this host trusts"),
    ),
    urllib3.exceptions.ProxyError: UNREACHABLE,
    urllib3.exceptions.ProxySchemeUnknown: NOT_S3,
    urllib3.exceptions.ProxySchemeUnsupported: NOT_S3,
    urllib3.exceptions.ProtocolError: UNREACHABLE,
    urllib3.exceptions.ResponseNotChunked: NOT_S3,
    urllib3.exceptions.DecodeError: NOT_S3,
    urllib3.exceptions.TimeoutError: UNREACHABLE,
    urllib3.exceptions.TimeoutStateError: UNREACHABLE,
    urllib3.exceptions.ReadTimeoutError: UNREACHABLE,
    urllib3.exceptions.ConnectTimeoutError: UNREACHABLE,
    urllib3.exceptions.NewConnectionError: UNREACHABLE,
    urllib3.exceptions.NameResolutionError: UNREACHABLE,
    urllib3.exceptions.LocationValueError: NOT_S3,
    urllib3.exceptions.LocationParseError: NOT_S3,
    urllib3.exceptions.URLSchemeUnknown: NOT_S3,
    urllib3.exceptions.ResponseError: UNREACHABLE,
    urllib3.exceptions.BodyNotHttplibCompatible: NOT_S3,
    urllib3.exceptions.IncompleteRead: UNREACHABLE,
    urllib3.exceptions.InvalidChunkLength: UNREACHABLE,
    urllib3.exceptions.InvalidHeader: NOT_S3,
    urllib3.exceptions.HeaderParsingError: NOT_S3,
    urllib3.exceptions.UnrewindableBodyError: UNREACHABLE,
    http.client.HTTPException: UNREACHABLE,
    OSError: UNREACHABLE,
    ParseError: NOT_S3,
    ValueError: REFUSED,  # the SDK's own checks of names, and incomplete responses
}
_TABLE = ErrorTable(REFUSED, UNREACHABLE, CODES, WORDS, STATUS, CLASSES)


def translated(doing: str) -> AbstractContextManager[None]:
    """Translate errors of the SDK to Stalled or Transient; `doing` begins their text ("cannot read x")."""
    return _TABLE.translated(partial(translate, doing=doing))


def translate(error: BaseException, doing: str) -> ControllerError:
    answer = _answer(error)
    if answer is not None:
        return from_answer(answer, doing)
    return _TABLE.of_exception(error).error(doing, str(error) or type(error).__name__)


def from_answer(answer: ErrorResponse, doing: str) -> ControllerError:
    text = f"{answer.text.rstrip('.')} ({answer.code})" if answer.code else answer.text
    return _TABLE.of_response(answer.status, answer.code, answer.text).error(doing, text)


def from_response(response: BaseHTTPResponse, doing: str) -> ControllerError:
    """Return the error of a request that was made without the SDK; `response` has been read."""
    try:
        return translate(minio.error.S3Error.fromxml(response), doing)
    except (ParseError, ValueError):
        return from_answer(
            ErrorResponse(response.status, "", Localizable("HTTP status {status}", status=response.status)),
            doing,
        )


def from_body(status: int, body: bytes, doing: str) -> ControllerError:
    """Return the error of a request that others made with a link."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - from the storage; expat bounds what entities expand to
    except ParseError:
        return from_answer(
            ErrorResponse(status, "", Localizable("HTTP status {status}", status=status)), doing
        )
    said = {element.tag.rpartition("}")[2]: element.text or "" for element in root}
    return from_answer(ErrorResponse(status, said.get("Code", ""), said.get("Message", "no message")), doing)


def _answer(error: BaseException) -> ErrorResponse | None:
    match error:
        case minio.error.S3Error():
            return ErrorResponse(
                error.response.status, error.code or "", error.message or Localizable("no message")
            )
        case minio.error.ServerError():
            return ErrorResponse(
                error.status_code, "", Localizable("HTTP status {status}", status=error.status_code)
            )
        case minio.error.InvalidResponseError() if (status := _fields(error)[0]) >= 500:
            return ErrorResponse(status, "", Localizable("HTTP status {status}", status=status))
        case minio.error.MinioAdminException():
            return admin_answer(error)
    return None


def admin_answer(error: minio.error.MinioAdminException) -> ErrorResponse:
    """Parse the admin API's JSON: `{"Code": …, "Message": …}`."""
    code, body = _fields(error)
    status = int(code)
    try:
        said = json.loads(body)
        return ErrorResponse(status, str(said["Code"]), str(said["Message"]))
    except (ValueError, KeyError, TypeError):
        return ErrorResponse(status, "", Localizable("HTTP status {status}", status=status))


def _fields(error: minio.error.InvalidResponseError | minio.error.MinioAdminException) -> tuple[Any, ...]:
    """Return what the exception was made of, as pickle reads it: it has no public attributes."""
    _, fields = error.__reduce__()  # type: ignore[no-untyped-call]
    return tuple(fields)
