"""Parses the subset of S3 that containers may use. Pure: from a request to an `S3Request`, or `S3Error`.

Listed is what S3's clients need to work with objects of a bucket; nothing else is passed on. Keys, prefixes and sources
to copy from are read as the storage will read them, or refused: no spelling leads out of a bucket.
"""

from __future__ import annotations

import base64
import binascii
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import quote, unquote_to_bytes
from xml.sax.saxutils import escape

from controller.domain.storage.links import LinkInvalid, check_key, path_of, read_path
from controller.web.objects.conditions import WriteCondition, condition_of
from controller.web.objects.header_fields import (
    CHECKSUMS,
    CONDITIONS,
    GET_FIELDS,
    JUDGED,
    is_acted_on,
    without_range,
)

MAX_XML = 2 * 2**20  # bytes of a body that is read whole
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class S3Error(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class S3Operation(Enum):
    LOCATION = "GetBucketLocation"
    HEAD_BUCKET = "HeadBucket"
    LIST = "ListObjects"
    LIST_UPLOADS = "ListMultipartUploads"
    DELETE_MANY = "DeleteObjects"
    GET = "GetObject"
    HEAD = "HeadObject"
    LIST_PARTS = "ListParts"
    PUT = "PutObject"
    PUT_PART = "UploadPart"
    COPY = "CopyObject"
    COPY_PART = "UploadPartCopy"
    BEGIN = "CreateMultipartUpload"
    COMPLETE = "CompleteMultipartUpload"
    ABORT = "AbortMultipartUpload"
    DELETE = "DeleteObject"
    CREATE_BUCKET = "CreateBucket"


@dataclass(frozen=True)
class OperationForm:
    """Names that a query must have, and may have."""

    operation: S3Operation
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()


def _form(operation: S3Operation, needs: str = "", takes: str = "") -> OperationForm:
    return OperationForm(operation, frozenset(needs.split()), frozenset(takes.split()))


_LISTING = "prefix delimiter max-keys encoding-type"
#: By method, and whether a key is named.
FORMS: Mapping[tuple[str, bool], tuple[OperationForm, ...]] = {
    ("GET", False): (
        _form(S3Operation.LOCATION, "location"),
        _form(
            S3Operation.LIST_UPLOADS,
            "uploads",
            "prefix delimiter key-marker upload-id-marker max-uploads encoding-type",
        ),
        _form(S3Operation.LIST, "list-type", f"{_LISTING} start-after continuation-token fetch-owner"),
        _form(S3Operation.LIST, "", f"{_LISTING} marker"),
    ),
    ("HEAD", False): (_form(S3Operation.HEAD_BUCKET),),
    ("PUT", False): (_form(S3Operation.CREATE_BUCKET),),
    ("POST", False): (_form(S3Operation.DELETE_MANY, "delete"),),
    ("GET", True): (
        _form(S3Operation.LIST_PARTS, "uploadId", "max-parts part-number-marker encoding-type"),
        _form(S3Operation.GET, "", "partNumber"),
    ),
    ("HEAD", True): (_form(S3Operation.HEAD, "", "partNumber"),),
    ("PUT", True): (_form(S3Operation.PUT_PART, "partNumber uploadId"), _form(S3Operation.PUT)),
    ("POST", True): (_form(S3Operation.BEGIN, "uploads"), _form(S3Operation.COMPLETE, "uploadId")),
    ("DELETE", True): (_form(S3Operation.ABORT, "uploadId"), _form(S3Operation.DELETE)),
}
#: Operations after which an object is another one, or none.
_CONDITIONAL = frozenset((S3Operation.PUT, S3Operation.COPY, S3Operation.COMPLETE, S3Operation.DELETE))
#: What an object in a DeleteObjects document may have to be deleted.
_DELETE_CONDITIONS = frozenset(("ETag", "LastModifiedTime", "Size"))
_COPIES = {S3Operation.PUT: S3Operation.COPY, S3Operation.PUT_PART: S3Operation.COPY_PART}
#: Names in a query that do not concern the storage: SDKs name the operation, and links are signed there.
_ASIDE = frozenset(
    f"X-Amz-{name}" for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
) | {"x-id"}

_SAYS = frozenset(
    (
        "content-type",
        "cache-control",
        "content-disposition",
        "content-language",
        "expires",
        "content-encoding",
    )
)
_WRITES = frozenset(("content-md5", "x-amz-sdk-checksum-algorithm")) | CHECKSUMS | (CONDITIONS - JUDGED)
_COPIED = frozenset(
    ("x-amz-copy-source-if-match", "x-amz-copy-source-if-none-match", "x-amz-copy-source-if-modified-since")
) | {"x-amz-copy-source-if-unmodified-since"}
_PASSED: Mapping[S3Operation, frozenset[str]] = {
    S3Operation.GET: GET_FIELDS,
    S3Operation.HEAD: GET_FIELDS,
    S3Operation.PUT: _WRITES | _SAYS,
    S3Operation.PUT_PART: _WRITES,
    S3Operation.COPY: _COPIED | _SAYS | {"x-amz-metadata-directive"},
    S3Operation.COPY_PART: _COPIED | {"x-amz-copy-source-range"},
    S3Operation.BEGIN: _SAYS,  # without checksums of the whole: those of parts may be read here, behind their content
    S3Operation.COMPLETE: frozenset(("if-none-match",)),
}
_WITH_META = frozenset((S3Operation.PUT, S3Operation.COPY, S3Operation.BEGIN))
_META = re.compile(r"x-amz-meta-[a-z0-9][a-z0-9._-]{0,100}")
#: What an S3 server acts on though it looks like the caller's own.
_ACTED_META = re.compile(r"snowball|minio|x-amz|internal")
#: Fields of SDKs that say nothing which counts here.
_READ_HERE = frozenset(
    (
        "x-amz-date",
        "x-amz-user-agent",
        "x-amz-content-sha256",
        "x-amz-decoded-content-length",
        "x-amz-trailer",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-checksum-algorithm",
    )
) | frozenset(
    f"x-amz-checksum-{name}" for name in ("mode", "type", "crc32", "crc32c", "crc64nvme", "sha1", "sha256")
)
#: Fields that ask for what is so anyhow.
_AS_IT_IS = {"x-amz-acl": ("private", "bucket-owner-full-control"), "x-amz-storage-class": ("STANDARD",)}


@dataclass(frozen=True)
class S3Request:
    """A request that may be passed on. `query` is that for the storage; `source` bucket and key to copy from;
    `condition` that of an object that is written or deleted."""

    operation: S3Operation
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: dict[str, str] = field(default_factory=dict)
    source: tuple[str, str] | None = None
    condition: WriteCondition | None = None

    @property
    def path(self) -> str:
        return path_of(self.bucket, self.key) if self.key else f"/{self.bucket}"


def read_target(target: str) -> tuple[str, str, dict[str, str]]:
    """Bucket, key and query. Raises S3Error."""
    path, _, text = target.partition("?")
    try:
        bucket, key = read_path(path)
    except LinkInvalid as error:
        raise S3Error(400, "InvalidURI", f"The path is refused: {error}.") from error
    query: dict[str, str] = {}
    for part in text.split("&") if text else ():
        name, _, value = part.partition("=")
        decoded, said = _decoded(name), _decoded(value)
        if not decoded or decoded in query:
            raise S3Error(400, "InvalidArgument", "A name in the query is empty, or comes twice.")
        query[decoded] = said
    return bucket, key, query


def _decoded(text: str) -> str:
    if "+" in text or re.search(r"%(?![0-9A-Fa-f]{2})", text) or not text.isascii():
        raise S3Error(400, "InvalidArgument", "The query is to be escaped as in signatures: a space is %20.")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise S3Error(400, "InvalidArgument", "The query must be UTF-8.") from None
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in decoded):
        raise S3Error(400, "InvalidArgument", "The query has a control character.")
    return decoded


def canonical_query(query: Mapping[str, str]) -> str:
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def read_request(
    method: str, bucket: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> S3Request:
    """Raises S3Error."""
    asked = {name: value for name, value in query.items() if name not in _ASIDE}
    names = asked.keys()
    forms = FORMS.get((method, bool(key)), ())
    form = next((f for f in forms if f.needs <= names and names <= f.needs | f.takes), None)
    if form is None:
        raise S3Error(501, "NotImplemented", "Boxes do not have this operation of S3.")
    operation, source = form.operation, None
    if "x-amz-copy-source" in headers:
        copies = _COPIES.get(operation)
        if copies is None:
            raise S3Error(400, "InvalidRequest", "Only objects and parts are copied.")
        operation, source = copies, read_source(headers["x-amz-copy-source"])
    for name in ("prefix", "marker", "start-after", "key-marker", "continuation-token"):
        check_place(asked.get(name, ""), token=name == "continuation-token")
    if asked.get("delimiter", "") not in ("", "/"):
        raise S3Error(501, "NotImplemented", "The delimiter is a slash.")
    condition = condition_of(headers) if operation in _CONDITIONAL else None
    return S3Request(operation, bucket, key, asked, _headers(operation, headers, source), source, condition)


def read_source(text: str) -> tuple[str, str]:
    """Bucket and key of `x-amz-copy-source`. Raises S3Error."""
    try:
        decoded = unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise S3Error(400, "InvalidArgument", "The source to copy from must be UTF-8.") from None
    bucket, _, key = decoded.removeprefix("/").partition("/")
    try:
        if "?" in text or not key or read_path(path_of(bucket, key)) != (bucket, key):
            raise LinkInvalid("it names no object")
    except LinkInvalid as error:
        raise S3Error(400, "InvalidArgument", f"The source to copy from is refused: {error}.") from error
    return bucket, key


def check_place(text: str, token: bool = False) -> None:
    """Check the start of a listing: the storage may treat it as a path. Raises S3Error."""
    texts = [text]
    if token:
        with suppress(binascii.Error, ValueError):
            texts.append(base64.b64decode(text, validate=True).decode("utf-8", "replace"))
    for each in texts:
        if "\\" in each or any(segment.strip() in (".", "..") for segment in each.split("/")):
            raise S3Error(400, "InvalidArgument", "Segments . and .. and backslashes are refused.")


def _headers(
    operation: S3Operation, headers: Mapping[str, str], source: tuple[str, str] | None
) -> dict[str, str]:
    passed: dict[str, str] = {}
    allowed = _PASSED.get(operation, frozenset())
    for name, value in headers.items():
        if name in allowed:
            passed[name] = value
        elif name.startswith("x-amz-meta-"):
            if operation not in _WITH_META or _META.fullmatch(name) is None or _ACTED_META.search(name, 11):
                raise S3Error(400, "InvalidRequest", f"{name} is refused.")
            passed[name] = value
        elif (
            is_acted_on(name)
            and name not in _READ_HERE
            and name != "x-amz-copy-source"
            and value not in _AS_IT_IS.get(name, ())
        ):
            raise S3Error(501, "NotImplemented", f"{name} is refused: boxes do not have it.")
    coding = [part.strip() for part in passed.pop("content-encoding", "").split(",")]
    if coding := [part for part in coding if part and part.lower() != "aws-chunked"]:
        passed["content-encoding"] = ",".join(coding)
    if passed.get("x-amz-metadata-directive", "COPY") not in ("COPY", "REPLACE"):
        raise S3Error(400, "InvalidArgument", "x-amz-metadata-directive is COPY or REPLACE.")
    if source is not None:
        passed["x-amz-copy-source"] = path_of(*source)
    if "if-range" in passed:  # which storages do not know: they would send a part of what has changed
        passed = without_range(passed)
    return passed


# --- XML --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeleteRequest:
    """A DeleteObjects request: the keys that it names, each checked; `quiet`: only what failed is told."""

    keys: tuple[str, ...]
    quiet: bool

    def document(self) -> bytes:
        objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in self.keys)
        return f'<Delete xmlns="{_NAMESPACE}"><Quiet>false</Quiet>{objects}</Delete>'.encode()

    def result(self, answer: bytes) -> bytes:
        """Build the result from the storage's answer: the embedded storage does not name objects that were gone
        already. Raises S3Error."""
        failed: dict[str, tuple[str, str]] = {}
        for child in _parsed(answer):
            if _name(child) == "Error":
                said = {_name(part): part.text or "" for part in child}
                if said.get("Code") != "NoSuchKey":
                    failed[said.get("Key", "")] = (said.get("Code", ""), said.get("Message", ""))
        if "" in failed:  # it is unknown which
            raise S3Error(500, "InternalError", "The storage could not delete all of them.")
        deleted = () if self.quiet else (key for key in self.keys if key not in failed)
        told = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in deleted)
        for key, (code, message) in failed.items():
            words = f"<Key>{escape(key)}</Key><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
            told += f"<Error>{words}</Error>"
        return f'{_XML}<DeleteResult xmlns="{_NAMESPACE}">{told}</DeleteResult>'.encode()


def read_deletion(body: bytes) -> DeleteRequest:
    """Raises S3Error."""
    root = _parsed(body)
    if _name(root) != "Delete":
        raise S3Error(400, "MalformedXML", "The body is not a Delete document.")
    keys: list[str] = []
    quiet = False
    for child in root:
        if _name(child) == "Quiet":
            quiet = (child.text or "").strip().lower() == "true"
        elif _name(child) == "Object":
            keys.append(_key_to_delete(child))
    if not 1 <= len(keys) <= 1000:
        raise S3Error(400, "MalformedXML", "1 to 1000 objects are deleted at once.")
    for key in keys:
        _check(key)
    return DeleteRequest(tuple(keys), quiet)


def _key_to_delete(entry: ElementTree.Element) -> str:
    keys = [part.text or "" for part in entry if _name(part) == "Key"]
    if len(keys) != 1 or any(_name(part) == "VersionId" for part in entry):
        raise S3Error(400, "MalformedXML", "Each object is named by one Key, and boxes keep no versions.")
    # An object that has changed meanwhile would be deleted.
    if any(_name(part) in _DELETE_CONDITIONS for part in entry):
        raise S3Error(
            501, "NotImplemented", "DeleteObjects has no conditions: use DeleteObject with If-Match."
        )
    return keys[0]


def rebuilt_completion(body: bytes) -> bytes:
    """A CompleteMultipartUpload request with its numbers and ETags. Raises S3Error."""
    root = _parsed(body)
    parts = []
    for child in root:
        if _name(child) != "Part":
            continue
        said = {_name(part): (part.text or "").strip() for part in child}
        number, etag = said.get("PartNumber", ""), said.get("ETag", "")
        if not re.fullmatch(r"[1-9][0-9]{0,4}", number) or not re.fullmatch(r'"?[A-Za-z0-9-]{1,80}"?', etag):
            raise S3Error(400, "MalformedXML", "A part has a number and an ETag.")
        parts.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>")
    if _name(root) != "CompleteMultipartUpload" or not 1 <= len(parts) <= 10_000:
        raise S3Error(400, "MalformedXML", "The body is not a CompleteMultipartUpload document.")
    document = f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{"".join(parts)}</CompleteMultipartUpload>'
    return document.encode()


def _check(key: str) -> None:
    try:
        check_key(key)
        if not key or key.startswith("/"):
            raise LinkInvalid("it is empty, or begins with a slash")
    except LinkInvalid as error:
        raise S3Error(400, "InvalidArgument", f"A key is refused: {error}.") from error


def _parsed(body: bytes) -> ElementTree.Element:
    """Parse XML, but refuse declarations of types and entities, which could expand without bounds."""
    if b"<!" in body or len(body) > MAX_XML:
        raise S3Error(400, "MalformedXML", "The body is too large, or declares what it may not.")
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - bounded, and it declares nothing: see above
    except ElementTree.ParseError as error:
        raise S3Error(400, "MalformedXML", f"The body is not XML: {error}.") from error


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def location(region: str) -> bytes:
    said = "" if region == "us-east-1" else escape(region)
    return f'{_XML}<LocationConstraint xmlns="{_NAMESPACE}">{said}</LocationConstraint>'.encode()


def error_document(error: S3Error, resource: str, request_id: str) -> bytes:
    words = {"Code": error.code, "Message": error.message, "Resource": resource, "RequestId": request_id}
    inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in words.items())
    return f"{_XML}<Error>{inner}</Error>".encode()
