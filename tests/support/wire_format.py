"""One format on all surfaces: keys of JSON are camelCase, times are RFC 3339 in UTC with milliseconds.

What clients of the reference framework and of other protocols need differs, and `GIVEN` and `DATA` say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

#: Keys that others have chosen. The contract is that of the framework whose modules and clients work here unchanged.
GIVEN = {
    "presigned_get_url": "the contract's files API",
    "presigned_put_url": "the contract's files API",
    "content_type": "the contract's variables of datatype FILE",
    "output_fields": "the contract's requests of predict",
    "model_key": "the contract's requests of predict",
}
#: Mappings whose keys are names that somebody has given, and values that somebody has sent. They are passed on.
DATA = {
    "images": "references of images",
    "checks": "names of checks",
    "data": "the value of a variable, as its sender wrote it",
}
#: Where a time stands. `at` is that of events and transitions.
_TIMES = "at created ended expires heartbeat measured modified notBefore restarts since started timestamp"
TIMES = frozenset(_TIMES.split())

_CAMEL_CASE = re.compile(r"[a-z][a-zA-Z0-9]*")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_LIKE_A_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")
#: Fractions of these years in Unix seconds, 2001 to 2100, are taken for times whatever their key is.
_UNIX = (1e9, 4.1e9)


def deviations(document: object, place: str = "") -> Iterator[str]:
    """Yield what in an answer has another format."""
    match document:
        case dict():
            for key, value in document.items():
                yield from _of_member(key, value, f"{place}.{key}")
        case list():
            for item in document:
                yield from deviations(item, f"{place}[]")
        case float() if _UNIX[0] <= document <= _UNIX[1] and not document.is_integer():
            yield f"{place} is in Unix seconds: {document}"
        case str() if _LIKE_A_TIME.fullmatch(document) and not _is_time(document):
            yield f"{place} is a time in another format: {document}"


def _of_member(key: str, value: object, place: str) -> Iterator[str]:
    if key not in GIVEN and not _CAMEL_CASE.fullmatch(key):
        yield f"{place} is not in camelCase"
    if key in TIMES:
        for moment in value if isinstance(value, list) else [value]:
            if moment is not None and not _is_time(moment):
                yield f"{place} is not a time in RFC 3339 with milliseconds: {moment!r}"
    elif key not in DATA:
        yield from deviations(value, place)


def _is_time(value: object) -> bool:
    return isinstance(value, str) and bool(_TIME.fullmatch(value)) and bool(datetime.fromisoformat(value))


def schema_deviations(schema: object, place: str = "") -> Iterator[str]:
    """Yield what in the schemas of an OpenAPI description has another format."""
    if isinstance(schema, list):
        for item in schema:
            yield from schema_deviations(item, f"{place}[]")
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key == "properties":
            for name, member in value.items():
                yield from _of_property(name, member, f"{place}.{name}")
        elif key != "examples":
            yield from schema_deviations(value, f"{place}.{key}")


def _of_property(name: str, schema: object, place: str) -> Iterator[str]:
    if name not in GIVEN and not _CAMEL_CASE.fullmatch(name):
        yield f"{place} is not in camelCase"
    if name in TIMES and "date-time" not in str(schema):
        yield f"{place} is not described as a time"
    if name not in DATA:
        yield from schema_deviations(schema, place)
