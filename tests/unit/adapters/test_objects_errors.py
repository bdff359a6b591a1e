"""Every way in which the S3 SDK fails becomes a decision of ours."""

from __future__ import annotations

import inspect
import io
from xml.etree.ElementTree import ParseError

import minio.error
import pytest
import urllib3.exceptions
from urllib3 import HTTPResponse

from controller.adapters.objects.error_rules import (
    CLASSES,
    CODES,
    STATUS,
    WORDS,
    from_response,
    translate,
    translated,
)
from controller.domain.errors import ControllerError, Stalled, Transient

SDK = [
    cls
    for module in (minio.error, urllib3.exceptions)
    for _, cls in inspect.getmembers(module, inspect.isclass)
    if issubclass(cls, Exception) and not issubclass(cls, Warning) and cls.__module__ == module.__name__
]


def answer(status: int, code: str, message: str) -> minio.error.S3Error:
    response = HTTPResponse(status=status)
    return minio.error.S3Error(response, code, message, "/bucket", "id", "host")


@pytest.mark.parametrize("cls", SDK, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_class_of_the_sdk_has_a_verdict_of_its_own(cls: type[Exception]) -> None:
    assert cls in CLASSES


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (urllib3.exceptions.ProtocolError("torn"), Transient, "StorageUnreachable"),
        (urllib3.exceptions.ReadTimeoutError(None, "", "slow"), Transient, "StorageUnreachable"),  # type: ignore[arg-type]
        (ConnectionResetError("reset"), Transient, "StorageUnreachable"),
        (urllib3.exceptions.LocationParseError("http://["), Stalled, "StorageRefused"),
        (ParseError("not well-formed"), Stalled, "StorageRefused"),
        (ValueError("invalid bucket name"), Stalled, "StorageRefused"),
        (minio.error.InvalidResponseError(404, "text/html", "<html>"), Stalled, "StorageRefused"),
        (minio.error.InvalidResponseError(502, "text/html", "<html>"), Transient, "StorageUnreachable"),
        (minio.error.ServerError("busy", 503), Transient, "StorageUnreachable"),
        (minio.error.MinioException("odd"), Stalled, "StorageRefused"),
        (minio.error.MinioAdminException("403", "<html>"), Stalled, "StorageDenied"),
        (
            minio.error.MinioAdminException("503", '{"Code": "X", "Message": "y"}'),
            Transient,
            "StorageUnreachable",
        ),
    ],
)
def test_classes(error: Exception, kind: type[ControllerError], reason: str) -> None:
    found = translate(error, "cannot do it")
    assert (type(found), found.reason) == (kind, reason)
    assert found.message.startswith("cannot do it: ")


@pytest.mark.parametrize("code", CODES)
def test_codes_decide_whatever_the_status(code: str) -> None:
    found = translate(answer(500, code, "no space left on device"), "cannot do it")
    assert (type(found), found.reason) == (CODES[code].kind, CODES[code].reason)


#: The words of real servers.
SAID = {
    "We encountered an internal error, please try again.: cause(no space left on device)": "StorageFull",  # MinIO
    "We encountered an internal error, please try again.: cause(input/output error)": "StorageFull",  # JuiceFS
    "cause(disk quota exceeded)": "StorageFull",  # JuiceFS
    "We encountered an internal error, please try again.: cause(is a directory)": "StorageRefused",  # JuiceFS
    "We encountered an internal error, please try again.: cause(not a directory)": "StorageRefused",  # JuiceFS
    "We encountered an internal error, please try again.": "StorageUnreachable",
}


@pytest.mark.parametrize(("words", "reason"), SAID.items())
def test_then_words(words: str, reason: str) -> None:
    assert translate(answer(500, "InternalError", words), "cannot do it").reason == reason


def test_every_rule_about_words_is_tried() -> None:
    assert {verdict.reason for _, verdict in WORDS} <= set(SAID.values())


@pytest.mark.parametrize(
    ("status", "reason"),
    [(status, verdict.reason) for status, verdict in STATUS.items()]
    + [(400, "StorageRefused"), (500, "StorageUnreachable"), (503, "StorageUnreachable")],
)
def test_then_the_status(status: int, reason: str) -> None:
    found = translate(answer(status, "SomethingNew", "What the fish."), "cannot do it")
    assert found.reason == reason
    assert found.message.startswith("cannot do it: What the fish (SomethingNew)")


def test_answers_to_requests_without_the_sdk() -> None:
    xml = b"<Error><Code>XMinioStorageFull</Code><Message>Full</Message></Error>"
    assert from_response(HTTPResponse(xml, status=507), "cannot do it").reason == "StorageFull"
    torn = from_response(HTTPResponse(b"<html>Bad gateway", status=502), "cannot do it")
    assert (torn.reason, torn.message) == ("StorageUnreachable", "cannot do it: HTTP status 502")
    assert from_response(HTTPResponse(io.BytesIO(), status=403), "cannot do it").reason == "StorageDenied"


def test_faults_of_ours_are_not_hidden() -> None:
    with pytest.raises(KeyError), translated("cannot do it"):
        raise KeyError("a bug")
