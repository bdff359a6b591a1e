"""The meaning of responses of the files API, and of the storage that its links lead to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from urllib3 import BaseHTTPResponse

from controller.client.errors import WORDS, ErrorMeanings, ErrorRule, reached, retry_after
from controller.domain.errors import ControllerError, Stalled, Transient

NOT_FILES: Final = ErrorRule(Stalled, "NotAFilesApi", "Is this the address of a prichal server? See --server")
LINK_DENIED: Final = ErrorRule(Transient, "LinkRefused")  # expired: the next attempt has a new one
STORAGE_AWAY: Final = ErrorRule(Transient, "StorageUnreachable")
MISMATCH: Final = ErrorRule(Transient, "ChecksumMismatch")
CHANGED: Final = ErrorRule(Transient, "FileChanged")

FILES: Final = ErrorMeanings(
    NOT_FILES, {404: ErrorRule(Stalled, "FileNotFound"), 507: ErrorRule(Stalled, "BoxFull")}
)
#: For what a link leads to. All other 5xx are `STORAGE_AWAY`, all other 4xx `StorageRefused`.
STORAGE: Final[dict[int, ErrorRule]] = {
    403: LINK_DENIED,
    404: ErrorRule(Stalled, "FileNotFound"),
    408: STORAGE_AWAY,
    429: STORAGE_AWAY,
    507: ErrorRule(Stalled, "StorageRefused"),
}
#: S3's codes that say more than their status.
CODES: Final[dict[str, ErrorRule]] = {
    "BadDigest": MISMATCH,
    "IncompleteBody": STORAGE_AWAY,
    "RequestTimeout": STORAGE_AWAY,
}


def from_storage(answer: BaseHTTPResponse, doing: str) -> ControllerError:
    """Return the error of a response, whose body has been read. Links give the reason as a problem, S3 as
    XML.
    """
    text = answer.data[:WORDS].decode("utf-8", "replace")
    code, words = _problem(text) if text.startswith("{") else _error(text)
    default = STORAGE_AWAY if answer.status >= 500 else ErrorRule(Stalled, "StorageRefused")
    fault = CODES.get(code) or STORAGE.get(answer.status, default)
    return fault.error(f"{doing}: {words or f'the storage answers {answer.status}'}", retry_after(answer))


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
