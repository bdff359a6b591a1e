"""The meaning of responses of the files API, and of the storage that its links lead to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from urllib3 import BaseHTTPResponse

from controller.client.errors import WORDS, ErrorMeanings, reached, retry_after
from controller.domain.error_table import ErrorRule, ErrorTable
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason

NOT_FILES: Final = ErrorRule(
    Stalled, Reason.NOT_A_FILES_API, "Is this the address of a prichal server? See --server"
)
LINK_DENIED: Final = ErrorRule(Transient, Reason.LINK_REFUSED)  # expired: the next attempt has a new one
STORAGE_AWAY: Final = ErrorRule(Transient, Reason.STORAGE_UNREACHABLE)
MISMATCH: Final = ErrorRule(Transient, Reason.CHECKSUM_MISMATCH)
CHANGED: Final = ErrorRule(Transient, Reason.FILE_CHANGED)

FILES: Final = ErrorMeanings.of(
    NOT_FILES, {404: ErrorRule(Stalled, Reason.FILE_NOT_FOUND), 507: ErrorRule(Stalled, Reason.BOX_FULL)}
)
_REFUSED: Final = ErrorRule(Stalled, Reason.STORAGE_REFUSED)
#: For what a link leads to. S3's codes say more than their status.
_STORAGE: Final = ErrorTable(
    _REFUSED,
    STORAGE_AWAY,
    codes={"BadDigest": MISMATCH, "IncompleteBody": STORAGE_AWAY, "RequestTimeout": STORAGE_AWAY},
    status={
        403: LINK_DENIED,
        404: ErrorRule(Stalled, Reason.FILE_NOT_FOUND),
        408: STORAGE_AWAY,
        429: STORAGE_AWAY,
        507: _REFUSED,
    },
)


def from_storage(answer: BaseHTTPResponse, doing: str) -> ControllerError:
    """Return the error of a response, whose body has been read. Links give the reason as a problem, S3 as
    XML.
    """
    text = answer.data[:WORDS].decode("utf-8", "replace")
    code, words = _problem(text) if text.startswith("{") else _error(text)
    rule = _STORAGE.of_response(answer.status, code)
    return rule.error(doing, words or f"the storage answers {answer.status}", retry_after=retry_after(answer))


@contextmanager
def storage_reached(link: str) -> Iterator[None]:
    with reached(link, STORAGE_AWAY, NOT_FILES):
        yield


def _error(text: str) -> tuple[str, str]:
    return _element("Code", text), _element("Message", text)


def _problem(text: str) -> tuple[str, str]:
    try:
        document = json.loads(text)
    except ValueError:
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    return str(document.get("code", "")), " ".join(str(document.get("detail", "")).split())


def _element(name: str, text: str) -> str:
    """Return an element's text by a pattern: an XML parser would be an additional attack surface."""
    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return " ".join(found[1].split()) if found else ""
