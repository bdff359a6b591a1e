"""The header of a CGI program's answer (RFC 3875 §6), of which a status and a content type are used. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 16 * 2**10  # bytes of a header
_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS: Final = re.compile(r"([1-5][0-9]{2})(?: .*)?")


class CgiInvalid(ValueError):
    """It is not the header of an answer."""


@dataclass(frozen=True)
class CgiHeader:
    status: int
    content_type: str


def split_header(data: bytes) -> tuple[CgiHeader, bytes] | None:
    """Return the header and what follows it; None if it has not arrived completely. Raises CgiInvalid."""
    found = _END.search(data, 0, LONGEST)
    if found is not None:
        return _read(data[: found.start()]), data[found.end() :]
    if len(data) >= LONGEST:
        raise CgiInvalid(f"no header ends within {LONGEST} bytes")
    return None


def _read(head: bytes) -> CgiHeader:
    fields: dict[str, str] = {}
    for line in head.decode("latin-1").split("\n"):
        name, colon, value = line.removesuffix("\r").partition(":")
        if not colon or name.lower() in fields:
            raise CgiInvalid(f"{line[:80]!r} is not a field")
        fields[name.lower()] = value.strip()
    status = _STATUS.fullmatch(fields.get("status", "200"))
    if status is None:
        raise CgiInvalid(f"{fields['status'][:80]!r} is not a status")
    return CgiHeader(int(status[1]), fields.get("content-type", ""))
