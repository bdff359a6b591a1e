"""Signature -> the OpenAPI 3.1 description of one component's requests. Pure.

The schemas say the same as ``validate``: what the one refuses the other does not describe.
"""

from __future__ import annotations

import json
from typing import Any, Optional

from .docstring import Datatype, Signature, Variable
from .shapes import MAX_RANK
from .validate import FP32_MAX, INT32_MAX

Json = dict[str, Any]

_ELEMENTS: dict[Datatype, Json] = {
    Datatype.FP32: {"type": "number", "minimum": -FP32_MAX, "maximum": FP32_MAX},
    Datatype.FP64: {"type": "number"},
    Datatype.INT32: {"type": "integer", "minimum": -INT32_MAX - 1, "maximum": INT32_MAX},
    Datatype.STR: {"type": "string"},
    Datatype.DICT: {"type": "object"},
    Datatype.FILE: {"type": "string", "minLength": 1},
}
_FILE_INPUT = (
    "Path of a file in your area of the component's box, such as group/cat.png: bring it there by the files API "
    "before the call"
)
_FILE_OUTPUT = "Path in your area of the component's default box under which the file was stored"
_FILE_TARGET = "Path in your area under which to store the file; else one below predictions/ is made up"
_ASKED = "Which one to prefer if the output may come in several; another one is passed over"
_EXAMPLES: dict[Datatype, Any] = {
    Datatype.FP32: [0.5],
    Datatype.FP64: [0.5],
    Datatype.INT32: [1],
    Datatype.STR: "text",
    Datatype.DICT: {},
    Datatype.FILE: "group/file",
}
_SHAPE: Json = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0},
    "maxItems": MAX_RANK,
    "description": "Dimensions of the flat data, outermost first",
}
_ANY_SHAPE: Json = {
    "description": "Dimensions of the flat data, if there are several; of any form, it is passed on and not checked"
}
#: Generators of clients cannot work with an array that does not say what its items are.
_EMPTY: Json = {"type": "array", "items": {}, "maxItems": 0}
_ERRORS = {
    "400": "The body is not JSON, or the request is not well-formed HTTP",
    "413": "The body is larger than this component takes",
    "415": "The body must be application/json",
    "422": "The request does not fit this description; errors[] points at every fault",
    "500": "The inference function failed",
    "503": "Too many calls wait, or the component is not ready; try again after Retry-After",
    "504": "The inference function did not answer in time",
}


def document(signature: Signature, title: str, prefix: str = ".", version: str = "1") -> Json:
    """The description as a JSON value. ``prefix`` is the URL that /predict lies under; ``.`` means: beside
    this document.
    """
    return {
        "openapi": "3.1.0",
        "info": _info(signature, title, version),
        "servers": [{"url": prefix.rstrip("/") or "/"}],
        "paths": {"/predict": {"post": _operation(signature)}},
        "components": {"schemas": _schemas(signature)},
    }


def secured(document: Json, schemes: bytes) -> Json:
    """Return the description with the API's security schemes. ``schemes`` is the field ``X-Prichal-Security``
    from the gateway: JSON that maps names to OpenAPI Security Scheme Objects. Without it the document does
    not change."""
    try:
        found = json.loads(schemes)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not found:
        return document
    components = {**document["components"], "securitySchemes": found}
    return {**document, "components": components, "security": [{name: []} for name in found]}


def _info(signature: Signature, title: str, version: str) -> Json:
    info: Json = {"title": title, "version": version}
    if signature.summary:
        info["summary"] = signature.summary
    if signature.description:
        info["description"] = signature.description
    return info


def _operation(signature: Signature) -> Json:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "operationId": "predict",
        "summary": signature.summary or "Call the inference function",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Request"},
                    "example": example(signature),
                }
            },
        },
        "responses": {
            "200": {
                "description": "The function's outputs",
                "headers": {"X-Request-ID": {"schema": {"type": "string"}}},
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Reply"}}},
            },
            **{code: {"description": text, "content": problem} for code, text in _ERRORS.items()},
        },
    }


def _schemas(signature: Signature) -> Json:
    schemas: Json = {"Request": _request(signature), "Reply": _reply(signature), "Problem": _PROBLEM}
    for prefix, variables in (("Input", signature.inputs), ("Output", signature.outputs)):
        for variable in variables:
            forms = [_form(variable, datatype, prefix == "Output") for datatype in variable.datatypes]
            schemas[f"{prefix}.{variable.name}"] = forms[0] if len(forms) == 1 else {"oneOf": forms}
    return schemas


def _request(signature: Signature) -> Json:
    required = [variable.name for variable in signature.inputs if not variable.optional]
    inputs = _list_of("Input", signature.inputs)
    inputs["maxItems"] = len(signature.inputs)
    once: list[Json] = [
        {"contains": _named(variable.name), "minContains": 0 if variable.optional else 1, "maxContains": 1}
        for variable in signature.inputs
    ]
    if once:
        inputs["allOf"] = once
    fields = {
        "type": "array",
        "items": {"oneOf": [_output_field(variable) for variable in signature.outputs]},
    }
    return {
        "type": "object",
        "required": ["inputs"] if required else [],
        "properties": {
            "id": {"type": ["string", "null"], "description": "Echoed in the reply"},
            "model_key": {"type": ["string", "null"], "default": "default"},
            "parameters": {"type": ["array", "null"], "items": {}, "default": []},
            "inputs": inputs,
            "output_fields": {"oneOf": [{"type": "null"}, fields if signature.outputs else _EMPTY]},
        },
    }


def _reply(signature: Signature) -> Json:
    return {
        "type": "object",
        "required": ["outputs"],
        "properties": {
            "id": {"type": "string"},
            "outputs": _list_of("Output", signature.outputs),
        },
    }


def _list_of(prefix: str, variables: tuple[Variable, ...]) -> Json:
    if not variables:
        return dict(_EMPTY)
    refs = [{"$ref": f"#/components/schemas/{prefix}.{variable.name}"} for variable in variables]
    return {"type": "array", "items": {"oneOf": refs}}


def _named(name: str) -> Json:
    return {"type": "object", "required": ["name"], "properties": {"name": {"const": name}}}


def _output_field(variable: Variable) -> Json:
    field = _named(variable.name)
    field["properties"]["datatype"] = {"description": _ASKED}
    if Datatype.FILE in variable.datatypes:
        field["properties"]["data"] = {"type": ["string", "null"], "description": _FILE_TARGET}
    return field


def _form(variable: Variable, datatype: Datatype, is_output: bool) -> Json:
    """Return the schema of one variable with one datatype."""
    element = _ELEMENTS[datatype]
    listed: Json = {
        "type": "array",
        "items": {"type": ["number", "null"]} if is_output and datatype.numeric else element,
    }
    properties: Json = {"name": {"const": variable.name}, "datatype": {"const": datatype.value}}
    if datatype is Datatype.FILE:
        properties["content_type"] = {"type": ["string", "null"]}
        properties["data"] = {**element, "description": _FILE_OUTPUT if is_output else _FILE_INPUT}
        if not is_output:
            description = "Which of the component's boxes the file lies in, if not in the default one"
            properties["box"] = {"type": ["string", "null"], "description": description}
    else:
        properties["data"] = {"oneOf": [element, listed]}
        properties["shape"] = {**_SHAPE, "type": ["array", "null"]} if datatype.numeric else _ANY_SHAPE
    form: Json = {
        "type": "object",
        "description": variable.description,
        "required": ["name", "datatype", "data"],
        "properties": properties,
    }
    if datatype is not Datatype.FILE:
        form.update(_list_with_shape(datatype))
    return form


def _list_with_shape(datatype: Datatype) -> Json:
    """Numbers with a shape are a flat list; a str or dict without one is one value."""
    if datatype.numeric:
        return {
            "if": {"required": ["shape"], "properties": {"shape": {"type": "array", "items": {}}}},
            "then": {"properties": {"data": {"type": "array", "items": {}}}},
        }
    return {
        "if": {"properties": {"shape": {"type": "null"}}},
        "then": {"properties": {"data": _ELEMENTS[datatype]}},
    }


def example(signature: Signature) -> Json:
    """Return a request that fits the datatypes."""
    inputs = [_example_input(variable) for variable in signature.inputs if not variable.optional]
    return {"inputs": inputs}


def _example_input(variable: Variable, data: Optional[Any] = None) -> Json:
    datatype = variable.datatypes[0]
    item = {"name": variable.name, "datatype": datatype.value, "data": _EXAMPLES[datatype]}
    return {**item, "shape": [1]} if datatype.numeric else item


_PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
