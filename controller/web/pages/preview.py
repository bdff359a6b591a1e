"""Shows the beginning of a stored file to people: as a picture, a table, JSON or text. Pages of files and of runs call
`preview_of(objects, bucket, stored)`, and `shown(preview, name)` of the template `preview.html`.

What is shown runs nothing: a picture is a `data:` URL in an `<img>`, everything else is escaped text. Files were
written by others, so a preview reads a bounded part of one, and costs no more than that.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from typing import Final

from controller.domain.storage.box import StoredObject
from controller.domain.text import printable
from controller.ports import Objects
from controller.web.pages.languages import N_

MOST_PICTURE: Final = 4 * 2**20  # bytes; a picture is shown as a whole or not at all
MOST_TEXT: Final = 256 * 2**10  # bytes that are read of other files
MOST_ROWS: Final = 200
MOST_COLUMNS: Final = 50
MOST_CELL: Final = 500  # characters

_PICTURES: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "avif": "image/avif",
    "svg": "image/svg+xml",
}
_TABLES: Final = {"csv": ",;\t|", "tsv": "\t"}  # what may be between two cells
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BINARY: Final = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")


class PreviewKind(StrEnum):
    PICTURE = "picture"
    TABLE = "table"
    JSON = "json"
    TEXT = "text"
    NONE = "none"


@dataclass(frozen=True)
class Preview:
    """`picture` is a `data:` URL. `is_cut`: the file has more than is shown. `why` says why nothing is shown."""

    kind: PreviewKind
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()
    picture: str = ""
    is_cut: bool = False
    why: str = ""


def preview_of(objects: Objects, bucket: str, stored: StoredObject) -> Preview:
    """Return what is shown of a file. Raises as `Objects.open` does."""
    most = MOST_PICTURE if _ending(stored.key) in _PICTURES else MOST_TEXT
    if not stored.size or (most == MOST_PICTURE and stored.size > most):
        return preview_of_content(stored.key, b"", stored.size)
    with objects.open(bucket, stored.key, stored.etag) as pieces:
        return preview_of_content(stored.key, _beginning(pieces, most), stored.size)


def preview_of_content(name: str, content: bytes, size: int) -> Preview:
    """`content` is the beginning of the file, `size` that of all of it. Pure."""
    ending = _ending(name)
    if not size:
        return Preview(PreviewKind.NONE, why=N_("The file is empty."))
    if ending in _PICTURES:
        return _picture(content, size, _PICTURES[ending])
    text = _text(content)
    if text is None:
        return Preview(PreviewKind.NONE, why=N_("This kind of file is not shown here. Save it to open it."))
    is_cut = len(content) < size
    if ending in _TABLES and (rows := _table(text, _TABLES[ending], is_cut)):
        narrow = tuple(tuple(cell[:MOST_CELL] for cell in row[:MOST_COLUMNS]) for row in rows[:MOST_ROWS])
        return Preview(PreviewKind.TABLE, rows=narrow, is_cut=is_cut or narrow != tuple(map(tuple, rows)))
    if ending == "json" and not is_cut and (laid_out := _json(text)):
        return Preview(PreviewKind.JSON, laid_out)
    return Preview(PreviewKind.TEXT, printable(text), is_cut=is_cut)


def _ending(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2].lower()


def _beginning(pieces: Iterable[bytes], most: int) -> bytes:
    found = bytearray()
    for piece in pieces:
        found += piece[: most - len(found)]
        if len(found) >= most:
            break
    return bytes(found)


def _picture(content: bytes, size: int, type: str) -> Preview:
    if len(content) < size:
        return Preview(
            PreviewKind.NONE, why=N_("The picture is too large to be shown here. Save it to open it.")
        )
    return Preview(PreviewKind.PICTURE, picture=f"data:{type};base64,{b64encode(content).decode()}")


def _text(content: bytes) -> str | None:
    """Return the text in its encoding, without half a character at its end; None for bytes that are not text. Bytes
    that are not Unicode are read as Windows-1251."""
    mark, encoding = next((each for each in _MARKS if content.startswith(each[0])), (b"", "utf-8"))
    body = content[len(mark) :]
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(body)
    except UnicodeDecodeError:
        text = body.decode("cp1251", "replace")
    return None if _BINARY.search(text) else text


def _table(text: str, separators: str, is_cut: bool) -> list[list[str]]:
    """Return the rows, or none for what is not a table: the last one only if it is whole."""
    first = text.partition("\n")[0]
    separator = max(separators, key=first.count)
    rows: list[list[str]] = []
    try:
        for row in csv.reader(StringIO(text, newline=""), delimiter=separator):
            rows.append([printable(cell) for cell in row])
            if len(rows) > MOST_ROWS:
                break
    except csv.Error:
        return []
    return rows[:-1] if is_cut and 1 < len(rows) <= MOST_ROWS else rows


def _json(text: str) -> str:
    """Return the document with a line for each value; "" for what is not JSON, or would become too long."""
    found: list[str] = []
    length = 0
    try:
        for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(json.loads(text)):
            found.append(piece)
            length += len(piece)
            if length > 4 * MOST_TEXT:
                return ""
    except (ValueError, RecursionError):
        return ""
    return printable("".join(found))
