"""Lists the header fields that pass between callers and the storage. Pure.

Nothing passes that is not listed. What a caller sends beside it and the storage would act on (Amazon's and MinIO's own
fields: a source to copy from, an archive to unpack, rights, tags, keys) is refused, since without it the request would
mean something else than the caller wants; fields that servers and programs on the way add are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.web.gateway.headers import Header

CHECKSUMS = frozenset(
    f"x-amz-checksum-{name}" for name in ("crc32", "crc32c", "crc64nvme", "sha1", "sha256", "type", "mode")
)
CONDITIONS = frozenset(("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"))
#: Conditions of writes, which are judged here (`conditions`) right before the last byte of a body. Storages do not get
#: them with a body: MinIO would lock the object as long as it comes, and not answer when it is asked for the object.
JUDGED = frozenset(("if-match", "if-none-match"))
#: Of an upload and of a download through a link.
PUT_FIELDS = (
    frozenset(("content-type", "content-md5", "x-amz-sdk-checksum-algorithm")) | CHECKSUMS | CONDITIONS
)
GET_FIELDS = frozenset(("range", "if-range", "x-amz-checksum-mode")) | CONDITIONS
#: Fields of S3's own that say nothing which counts here.
_IDLE = frozenset(("x-amz-date", "x-amz-user-agent", "x-amz-content-sha256", "x-amz-security-token"))
_OURS = ("x-amz-", "x-minio-", "x-goog-", "x-oss-")

#: Of an answer.
ANSWERED = frozenset(
    b"content-type content-length content-range content-encoding etag last-modified accept-ranges".split()
) | frozenset(name.encode() for name in CHECKSUMS)
#: What is stored is shown by no browser as a page of this host, and kept by no cache.
SAFE: tuple[Header, ...] = (
    (b"server", b"prichal"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"private, no-store"),
)
#: Of a link whose object a browser saves; it takes the name from the path.
SAVED: tuple[Header, ...] = ((b"content-disposition", b"attachment"),)
#: Who holds a link may use it from a page of any origin, as with S3.
SHARED: tuple[Header, ...] = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"etag, content-range, content-length, accept-ranges, x-request-id"),
)
PREFLIGHT: tuple[Header, ...] = (
    (b"access-control-allow-methods", b"GET, PUT"),
    (b"access-control-allow-headers", ", ".join(sorted(PUT_FIELDS | GET_FIELDS)).encode()),
    (b"access-control-max-age", b"600"),
)


def is_acted_on(name: str) -> bool:
    """Return True if storages may act on a field of this name, however it is spelled on the way."""
    return name.replace("_", "-").startswith(_OURS)


def passed(headers: Mapping[str, str], allowed: Iterable[str]) -> tuple[dict[str, str], str]:
    """The fields that go to the storage, and the name of one that must not, empty if there is none."""
    allowed = frozenset(allowed)
    found = {name: value for name, value in headers.items() if name in allowed}
    wrong = (
        name for name in headers if is_acted_on(name) and name not in allowed and not _idle(headers, name)
    )
    return found, next(wrong, "")


def with_if_range(passed: Mapping[str, str]) -> dict[str, str]:
    """Return the fields for a storage, which knows no `If-Range` and would send a part of a file that has changed
    meanwhile: if the range can be bound to the file by `If-Match` it is, and 412 then means that all of it is to be
    sent; if not, all of it is asked for at once (RFC 9110 §13.1.5)."""
    if "if-range" not in passed:
        return dict(passed)
    kept = {name: value for name, value in passed.items() if name != "if-range"}
    if "range" in kept and passed["if-range"].startswith('"') and not CONDITIONS & kept.keys():
        return {**kept, "if-match": passed["if-range"]}
    return without_range(kept)


def without_range(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a request for all of a file."""
    return {name: value for name, value in fields.items() if name not in ("range", "if-range")}


def _idle(headers: Mapping[str, str], name: str) -> bool:
    """A digest that says that the body is framed is not idle: the frames would be stored as content."""
    return name in _IDLE and not (
        name == "x-amz-content-sha256" and headers[name].upper().startswith("STREAMING")
    )


def answered(headers: Iterable[Header], more: frozenset[bytes] = frozenset()) -> list[Header]:
    """Return the fields of the storage's answer for the caller."""
    found = ((name.lower(), value) for name, value in headers)
    return [header for header in found if header[0] in ANSWERED or header[0] in more]
