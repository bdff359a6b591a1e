"""What the answers of the files API mean, and those of the storage that its links lead to. Data, and what applies
it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from urllib3 import BaseHTTPResponse

from controller.adapters.server_client.errors import WORDS, Fault, Meaning, reached, retry_after
from controller.domain.errors import ControllerError, Stalled, Transient

NOT_FILES: Final = Fault(Stalled, "NotAFilesApi", "Is this the address of a prichal server? See --server")
LINK_DENIED: Final = Fault(Transient, "LinkRefused")  # expired: the next attempt has a new one
STORAGE_AWAY: Final = Fault(Transient, "StorageUnreachable")
MISMATCH: Final = Fault(Transient, "ChecksumMismatch")
CHANGED: Final = Fault(Transient, "FileChanged")

FILES: Final = Meaning(NOT_FILES, {404: Fault(Stalled, "FileNotFound"), 507: Fault(Stalled, "BoxFull")})
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


def from_storage(answer: BaseHTTPResponse, doing: str) -> ControllerError:
    """`answer` is read and no success; S3 tells why in XML."""
    text = answer.data[:WORDS].decode("utf-8", "replace")
    code, words = (_element(name, text) for name in ("Code", "Message"))
    default = STORAGE_AWAY if answer.status >= 500 else Fault(Stalled, "StorageRefused")
    fault = CODES.get(code) or STORAGE.get(answer.status, default)
    return fault.error(f"{doing}: {words or f'the storage answers {answer.status}'}", retry_after(answer))


@contextmanager
def storage_reached(link: str) -> Iterator[None]:
    with reached(link, STORAGE_AWAY, NOT_FILES):
        yield


def _element(name: str, text: str) -> str:
    """By a pattern: an XML parser would be one more way in for whoever answers in the storage's place."""
    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return " ".join(found[1].split()) if found else ""
