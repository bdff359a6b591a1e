"""The content type of a file by its name. Pure: the table is Python's own and some formats of data and models; the
machine's /etc/mime.types is not read, so that every machine says the same.
"""

from __future__ import annotations

import mimetypes
from typing import Final

DEFAULT: Final = "application/octet-stream"
#: Registered with IANA, or in use where the format comes from.
_MORE: Final = {
    ".7z": "application/x-7z-compressed",
    ".arrow": "application/vnd.apache.arrow.file",
    ".feather": "application/vnd.apache.arrow.file",
    ".geojson": "application/geo+json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".ndjson": "application/x-ndjson",
    ".npz": "application/zip",
    ".parquet": "application/vnd.apache.parquet",
    ".toml": "application/toml",
    ".webp": "image/webp",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zst": "application/zstd",
}
#: Types of compressed files, independent of their content, because a download must not decompress them.
_COMPRESSED: Final = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "br": "application/x-brotli",
    "compress": "application/x-compress",
}
#: Types that clients send without knowing the file, and that storages note if there is none.
_UNTOLD: Final = frozenset(
    ("", DEFAULT, "binary/octet-stream", "application/x-www-form-urlencoded", "application/unknown")
)
_TABLE: Final = mimetypes.MimeTypes()
for _suffix, _type in _MORE.items():
    _TABLE.add_type(_type, _suffix)


def content_type_of(name: str) -> str:
    """Guess the content type of a file's name or a key from its extension."""
    found, encoding = _TABLE.guess_type(name.rpartition("/")[2].replace(":", "_"), strict=True)
    if encoding is not None:
        return _COMPRESSED.get(encoding, DEFAULT)
    return found or DEFAULT


def sent_type(stored: str, name: str) -> str:
    """Return the type with which a stored file is sent: that of its upload, else the one of its name. Texts without a
    charset are taken for UTF-8."""
    told = stored.strip()
    found = content_type_of(name) if told.partition(";")[0].strip().lower() in _UNTOLD else told
    is_text = found.lower().startswith("text/") and "charset" not in found.lower()
    return f"{found.rstrip('; ')}; charset=utf-8" if is_text else found
