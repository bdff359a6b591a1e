"""The OpenAPI 3.1 description of the files API of one app. Pure; served as `openapi.json` and shown on the page for
people. A test sends requests made from it, and holds their answers to its schemas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller import __version__
from controller.web.api.files.area import MAX_PUT, PAGE
from controller.web.api.files.uploads import MAX_FILE, MAX_PARTS
from controller.web.problems import CONTENT_TYPE

Json = dict[str, Any]

_DESCRIPTION = (
    "Files lie in boxes, each caller's apart from all others'. A path of one segment, or one that ends in a slash, "
    "is a group; several segments are a file. The bytes themselves go straight to and from the storage, through "
    "links that this API hands out."
)


def document(prefix: str, boxes: Sequence[str]) -> Json:
    """`prefix` is the path that the API is published at, `boxes` the names of the app's boxes."""
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Files at {prefix}", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": prefix}],
        "paths": {
            "/": {"get": _operation("boxes", "All boxes, and how full they are", {"200": "Boxes"})},
            "/{box}/": {"parameters": [_box(boxes), _AREA], "get": _listing("listBox", "List all groups")},
            "/{box}/{group}/": {"parameters": [_box(boxes), _GROUP, _AREA], **_GROUPS},
            "/{box}/{file}": {"parameters": [_box(boxes), _FILE, _AREA], **_FILES},
        },
        "components": {"schemas": _SCHEMAS, "responses": {"Problem": _PROBLEM}},
    }


def _operation(
    name: str, summary: str, answers: dict[str, str], *parameters: Json, description: str = ""
) -> Json:
    """`answers` maps a status to the name of its schema, "" for an answer without content."""
    operation: Json = {"operationId": name, "summary": summary, "parameters": list(parameters)}
    if description:
        operation["description"] = description
    operation["responses"] = {status: _answer(schema) for status, schema in answers.items()}
    operation["responses"]["default"] = {"$ref": "#/components/responses/Problem"}
    return operation


def _answer(schema: str) -> Json:
    names = schema.split(" | ") if schema else []
    if not names:
        return {"description": "Done"}
    refs = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    content = refs[0] if len(refs) == 1 else {"anyOf": refs}
    return {"description": " or ".join(names), "content": {"application/json": {"schema": content}}}


def _query(name: str, description: str, schema: Json, **more: Any) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema, **more}


def _path(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _box(boxes: Sequence[str]) -> Json:
    return _path(
        "box", "Name of a box", {"type": "string", "enum": list(boxes)} if boxes else {"type": "string"}
    )


def _integer(least: int, most: int | None = None, **more: Any) -> Json:
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most}), **more}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


_GROUP = _path("group", "One or more segments, with slashes between them", {"type": "string", "minLength": 1})
_FILE = _path("file", "Two or more segments, with slashes between them", {"type": "string", "maxLength": 900})
_AREA = _query("area", "The module's own data, for its developers", {"const": "developer"})
_SIZE = _query("size", "Bytes that will be uploaded; space is reserved for them", _integer(0, MAX_PUT))
_UPLOAD = _query("upload", "Id of an upload in parts", {"type": "string"})


def _listing(name: str, summary: str) -> Json:
    return _operation(
        name,
        summary,
        {"200": "Listing"},
        _query("limit", "Maximum number of files and groups", _integer(1, PAGE, default=PAGE)),
        _query("after", "`next` of the page before", {"type": "string"}),
        _query(
            "recursive",
            "1: the files of all groups below, with names relative to this one",
            {"enum": ["0", "1"]},
        ),
    )


_GROUPS: Json = {
    "get": _listing("list", "List a group"),
    "delete": _operation(
        "deleteGroup",
        "Delete a group",
        {"200": "Deleted"},
        description="At most 10,000 files a request: repeat while `more` is true.",
    ),
}

_FILES: Json = {
    "get": _operation(
        "download",
        "A link to download the file",
        {"200": "GetLink | Upload"},
        _UPLOAD,
        description="With `upload`: what of that upload has arrived, to resume it.",
    ),
    "put": _operation(
        "upload",
        "A link to upload the file",
        {"200": "PutLink"},
        _SIZE,
        _UPLOAD,
        _query("part", "With `upload`: number of the part", _integer(1, MAX_PARTS)),
        description="Then PUT the bytes there. With `upload` and `part`: a link for that part.",
    ),
    "post": _operation(
        "uploadInParts",
        "Begin or complete an upload in parts",
        {"200": "File", "201": "Begun"},
        _query("uploads", "Begin; needs `size`", {"type": "string"}, allowEmptyValue=True),
        _query("size", "Bytes of the whole file", _integer(1, MAX_FILE)),
        _UPLOAD,
        description="With `uploads` one begins; with `upload` it is completed of all parts that are there.",
    ),
    "delete": _operation(
        "delete", "Delete the file", {"204": ""}, _UPLOAD, description="With `upload`: give that upload up."
    ),
}

_NUMBER, _TEXT, _TIME = _integer(0), {"type": "string"}, {"type": "string", "format": "date-time"}
_URL = {"type": "string", "format": "uri"}
_STORED = {"name": _TEXT, "size": _NUMBER, "etag": _TEXT}
_SCHEMAS: Json = {
    "Box": _object(name=_TEXT, capacity=_NUMBER, used=_NUMBER, pending=_NUMBER, files=_NUMBER),
    "Boxes": _object(boxes={"type": "array", "items": {"$ref": "#/components/schemas/Box"}}),
    "File": _object(**_STORED),
    "Listing": _object(
        files={"type": "array", "items": _object(**_STORED, modified=_TIME)},
        groups={"type": "array", "items": _TEXT},
        next={"type": ["string", "null"]},
    ),
    "Deleted": _object(deleted=_NUMBER, more={"type": "boolean"}),
    "GetLink": _object(presigned_get_url=_URL, expires=_TIME, size=_NUMBER, etag=_TEXT, modified=_TIME),
    "PutLink": _object(presigned_put_url=_URL, expires=_TIME),
    "Begun": _object(upload=_TEXT, partSize=_integer(1), parts=_integer(1, MAX_PARTS)),
    "Upload": _object(
        size=_NUMBER,
        partSize=_integer(1),
        parts={"type": "array", "items": _object(number=_integer(1), size=_NUMBER, etag=_TEXT)},
    ),
    "Problem": _object(type=_TEXT, title=_TEXT, status=_integer(400, 599), detail=_TEXT, instance=_TEXT),
}
_PROBLEM: Json = {
    "description": "An error (RFC 9457)",
    "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
