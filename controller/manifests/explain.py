"""Explains a schema's errors to the author of a manifest: the place, the mistake, and the expected value.

The schemas help: the `title` of a value is the noun that completes "must be …" and "… is not …", and the title
within a `not` is the whole sentence. Values marked `writeOnly` (JSON Schema's word for secrets) are never quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import ValidationError

from controller.domain.localizable import Localizable
from controller.manifests.reader import nearest
from controller.yaml_documents import parse

Location = tuple[str | int, ...]
Schema = Mapping[str, Any]

_TYPES = {"object": "a mapping", "array": "a list", "string": "text", "boolean": Localizable("true or false")}


def explain(error: ValidationError) -> Iterator[tuple[Location, str]]:
    """Yield path and message of each problem in one error of the validator. A problem may occur more than once."""
    path: Location = tuple(error.absolute_path)
    schema: Schema = error.schema if isinstance(error.schema, dict) else {}
    value: Any = error.instance
    bound: Any = error.validator_value
    if len(error.absolute_schema_path) > 1 and error.absolute_schema_path[-2] == "propertyNames":
        path = (*path, str(value))
    match error.validator:
        case "additionalProperties":
            known = sorted(schema.get("properties", {}))
            yield from (((*path, key), _unknown(key, known)) for key in value if key not in known)
        case "required":
            missing = [name for name in bound if name not in value]
            yield from ((path, Localizable("the field {name!r} is missing", name=name)) for name in missing)
        case "dependentRequired":
            yield from _dependent(path, value, bound)
        case "oneOf" | "anyOf":
            yield path, _choice(value, [name for branch in bound for name in branch["required"]])
        case _:
            yield path, _message(str(error.validator), value, bound, schema)


def _unknown(key: str, known: list[str]) -> str:
    if guess := nearest(key, known):
        return Localizable("unknown field{guess}", guess=guess)
    return (
        Localizable("unknown field; known here are {names}", names=", ".join(known))
        if known
        else Localizable("unknown field; none is known here")
    )


def _dependent(
    path: Location, value: Schema, needs: Mapping[str, list[str]]
) -> Iterator[tuple[Location, str]]:
    for given, needed in needs.items():
        for name in needed:
            if given in value and name not in value:
                yield (*path, given), Localizable("needs the field {name!r} beside it", name=name)


def _choice(value: Schema, names: list[str]) -> str:
    given = [name for name in names if name in value]
    if not given:
        return Localizable("one of {names} is needed", names=", ".join(names))
    return Localizable(
        "{names} and {given} exclude each other: keep one", names=", ".join(given[:-1]), given=given[-1]
    )


def _too_few(bound: Any) -> str:
    if bound == 1:
        return Localizable("must have at least 1 entry")
    return Localizable("must have at least {bound} entries", bound=bound)


def _message(keyword: str, value: object, bound: Any, schema: Schema) -> str:
    expected = schema.get("title") or _TYPES.get(str(schema.get("type")), Localizable("something else"))
    match keyword:
        case "type":
            return _wrong_type(value, bound, expected)
        case "not":
            return str(bound["title"])
        case "enum" if "title" not in schema:
            options = [str(option) for option in bound]
            return Localizable(
                "{quoted} is not one of {names}{nearest}",
                quoted=_quoted(value, schema),
                names=", ".join(options),
                nearest=nearest(str(value), options),
            )
        case "minimum" | "maximum" | "exclusiveMaximum":
            return _out_of_range(keyword, str(value), str(bound), expected)
        case "maxLength":
            return Localizable(
                "is too long: {expected}, at most {bound} characters", expected=expected, bound=bound
            )
        case "minItems" | "minProperties":
            return _too_few(bound)
        case "maxItems":
            return Localizable("must have at most {bound} entries", bound=bound)
        case "uniqueItems":
            return Localizable("has equal entries: keep one of each")
        case "enum":
            return Localizable("must be {expected}", expected=expected)
        case _:
            return Localizable(
                "{quoted} is not {expected}", quoted=_quoted(value, schema), expected=expected
            ).lstrip()


def _out_of_range(keyword: str, value: str, bound: str, expected: str) -> str:
    said = {"value": value, "expected": expected, "bound": bound}
    if keyword == "minimum":
        return Localizable("{value} is too small: must be {expected}; at least {bound}", **said)
    if keyword == "maximum":
        return Localizable("{value} is too large: must be {expected}; at most {bound}", **said)
    return Localizable("{value} is too large: must be {expected}; below {bound}", **said)


def _wrong_type(value: object, types: str | list[str], expected: str) -> str:
    if value is None:
        return Localizable("is empty; must be {expected}", expected=expected)
    if types == "string" and isinstance(value, bool | int | float):
        return Localizable("must be {expected}: write it in quotes", expected=expected)
    if types in ("integer", "number", "boolean") and isinstance(value, str) and _bare(value):
        return Localizable("must be {expected}: write it without quotes", expected=expected)
    return Localizable("must be {expected}", expected=expected)


def _bare(text: str) -> bool:
    """Return True if a text would be a number or a truth value if its quotes were left out."""
    documents = parse("", text.encode(errors="replace")).documents
    return len(documents) == 1 and isinstance(documents[0].value, bool | int | float)


def _quoted(value: object, schema: Schema) -> str:
    if schema.get("writeOnly"):
        return ""
    text = re.sub(r"://[^/\s]*@", "://***@", repr(value))  # people put passwords into URLs
    return text if len(text) <= 80 else f"{text[:77]}…{text[-1]}"
