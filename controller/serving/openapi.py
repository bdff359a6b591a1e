"""Signature -> the OpenAPI 3.1 description of one component's requests. Pure.

The schemas say the same as ``validate``: what the one refuses the other does not describe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from .datatypes import NUMBERS, Datatype
from .forms import Form
from .plain_json import loads
from .refusals import STATUSES
from .shapes import MAX_RANK
from .signature import Signature, Variable
from .values import SchemaPlace

Json = dict[str, Any]
MAX_DEPTH = 20  # of an example


def _element(datatype: Datatype) -> Json:
    """Return the schema of one element."""
    if datatype is Datatype.BOOL:
        return {"type": "boolean"}
    if datatype is Datatype.FP64:
        return {"type": "number"}
    if datatype.numeric:
        numbers = NUMBERS[datatype]
        kind = "integer" if datatype.whole else "number"
        return {"type": kind, "minimum": numbers.low, "maximum": numbers.high}
    if datatype is Datatype.DICT:
        return {"type": "object"}
    return {"type": "string"} if datatype is Datatype.STR else {"type": "string", "minLength": 1}


_ELEMENTS = {datatype: _element(datatype) for datatype in Datatype}
_FILE_INPUT = (
    "Path of a file in your area of the component's box, such as group/cat.png: bring it there by the files API "
    "before the call"
)
_FILE_OUTPUT = "Path in your area of the component's default box under which the file was stored"
_FILE_TARGET = "Path in your area under which to store the file; else one below predictions/ is made up"
_ASKED = "Which one to prefer if the output may come in several; another one is passed over"
MOST_IN_EXAMPLE = 1000  # values in the example of one input
_OTHER_EXAMPLES = {
    Datatype.STR: "text",
    Datatype.DICT: {},
    Datatype.FILE: "group/file",
    Datatype.BOOL: [True],
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
_EVENTS: Json = {
    "type": "string",
    "description": "With `Accept: text/event-stream`: an event for each result that the function yields, whose data is"
    " a reply; an event `error`, whose data is a problem, ends the stream",
}
_ERRORS = {
    "400": "The body is not JSON, or the request is not well-formed HTTP",
    "413": "The body is larger than this component takes",
    "415": "The body must be application/json",
    "422": "The request does not fit this description; errors[] points at every fault",
    "500": "The inference function failed",
    "503": "Too many calls wait, or the component is not ready; try again after Retry-After",
    "504": "The inference function did not answer in time",
}


def document(
    signature: Signature,
    title: str,
    prefix: str = ".",
    version: str = "1",
    yields: bool = False,
    chat: bool = False,
    refusals: Optional[Mapping[str, str]] = None,
) -> Json:
    """The description as a JSON value. ``prefix`` is the URL that /predict lies under; ``.`` means: beside
    this document. ``yields``: callers may have results as events. ``chat``: they may speak OpenAI's API.
    ``refusals``: statuses with which the function refuses calls, and when.
    """
    paths: Json = {"/predict": {"post": _operation(signature, yields, _errors(refusals or {}))}}
    schemas = _schemas(signature)
    if chat:
        paths |= _CHAT_PATHS
        schemas |= _CHAT_SCHEMAS
    return {
        "openapi": "3.1.0",
        "info": _info(signature, title, version),
        "servers": [{"url": prefix.rstrip("/") or "/"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def secured(document: Json, schemes: bytes) -> Json:
    """Return the description with the API's security schemes. ``schemes`` is the field ``X-Prichal-Security``
    from the gateway: JSON that maps names to OpenAPI Security Scheme Objects. Without it the document does
    not change."""
    try:
        found = loads(schemes)
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


def _errors(refusals: Mapping[str, str]) -> dict[str, str]:
    """Statuses of errors, and when they come: those of the library, and those of the function."""
    told = {
        status: f"The function refuses the call: {when}" if when else "The function refuses the call"
        for status, when in refusals.items()
        if int(status) in STATUSES
    }
    both = {status: f"{_ERRORS[status]}. {text}" for status, text in told.items() if status in _ERRORS}
    return dict(sorted({**_ERRORS, **told, **both}.items()))


def _operation(signature: Signature, yields: bool, errors: Mapping[str, str]) -> Json:
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
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Reply"}},
                    **({"text/event-stream": {"schema": _EVENTS}} if yields else {}),
                },
            },
            **{code: {"description": text, "content": problem} for code, text in errors.items()},
        },
    }


def _schemas(signature: Signature) -> Json:
    schemas: Json = {"Request": _request(signature), "Reply": _reply(signature), "Problem": _PROBLEM}
    for prefix, variables in (("Input", signature.inputs), ("Output", signature.outputs)):
        for variable in variables:
            place = _place(f"{prefix}.{variable.name}", prefix == "Output", schemas, variable)
            forms = [_form(variable, datatype, place) for datatype in variable.datatypes]
            schemas[f"{prefix}.{variable.name}"] = forms[0] if len(forms) == 1 else {"oneOf": forms}
    return schemas


def _place(name: str, is_output: bool, models: Json, variable: Variable) -> SchemaPlace:
    forms = (variable.form(datatype) for datatype in variable.datatypes)
    return SchemaPlace.of(name, is_output, models, [form.value for form in forms if form and form.value])


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


def _form(variable: Variable, datatype: Datatype, place: SchemaPlace) -> Json:
    """Return the schema of one variable with one datatype."""
    form = variable.form(datatype) or Form()
    element = _element_of(form, datatype, place)
    properties: Json = {"name": {"const": variable.name}, "datatype": {"const": datatype.value}}
    required = ["name", "datatype", "data"]
    if datatype is Datatype.FILE:
        properties["content_type"] = {"type": ["string", "null"]}
        properties["data"] = {**element, "description": _FILE_OUTPUT if place.is_output else _FILE_INPUT}
        if not place.is_output:
            description = "Which of the component's boxes the file lies in, if not in the default one"
            properties["box"] = {"type": ["string", "null"], "description": description}
    else:
        properties["data"] = _data(form, element, datatype, place)
        properties["shape"] = _shape(form, datatype)
        required += ["shape"] if _needs_shape(form) else []
    if variable.default is not None and (datatype.numeric or isinstance(variable.default, (str, list))):
        properties["data"]["default"] = variable.default
    described: Json = {
        "type": "object",
        "description": variable.description,
        "required": required,
        "properties": properties,
    }
    if datatype is not Datatype.FILE and (datatype.numeric or not form.rank):
        described.update(_list_with_shape(datatype, element))
    return described


def _element_of(form: Form, datatype: Datatype, place: SchemaPlace) -> Json:
    if form.choices:
        return {"enum": list(form.choices)}
    return _ELEMENTS[datatype] if form.value is None else form.value.schema(place)


def _data(form: Form, element: Json, datatype: Datatype, place: SchemaPlace) -> Json:
    missing = place.is_output and datatype.numeric and not form.choices
    listed: Json = {"type": "array", "items": _or_null(element) if missing else element}
    if form.yielded or form.rank is None:
        return {"oneOf": [element, listed]}
    if form.rank == 0:
        return {"oneOf": [element, {**listed, "minItems": 1, "maxItems": 1}]}
    return listed


def _needs_shape(form: Form) -> bool:
    return form.rank is not None and form.rank > 1 and not form.yielded


def _shape(form: Form, datatype: Datatype) -> Json:
    if not datatype.numeric and not _needs_shape(form):
        return _ANY_SHAPE
    schema = {**_SHAPE, "type": "array" if _needs_shape(form) else ["array", "null"]}
    if form.rank == 0 and not form.yielded:
        return {**schema, "items": {"const": 1}}
    return (
        {**schema, "minItems": form.rank, "maxItems": form.rank} if form.rank and not form.yielded else schema
    )


def _or_null(element: Json) -> Json:
    """Return the schema of an element of an output, which NaN leaves out."""
    return {"type": ["boolean" if element["type"] == "boolean" else "number", "null"]}


def _list_with_shape(datatype: Datatype, element: Json) -> Json:
    """Numbers with a shape are a flat list; a str or dict without one is one value."""
    if datatype.numeric:
        return {
            "if": {"required": ["shape"], "properties": {"shape": {"type": "array", "items": {}}}},
            "then": {"properties": {"data": {"type": "array", "items": {}}}},
        }
    return {
        "if": {"properties": {"shape": {"type": "null"}}},
        "then": {"properties": {"data": element}},
    }


def example(signature: Signature) -> Json:
    """Return a request that fits the datatypes."""
    inputs = [_example_input(variable) for variable in signature.inputs if not variable.optional]
    return {"inputs": inputs}


def _example_input(variable: Variable) -> Json:
    datatype = variable.datatypes[0]
    form = variable.form(datatype) or Form()
    data: Any = _OTHER_EXAMPLES.get(datatype, [1] if datatype.whole else [0.5])
    if form.choices or form.value is not None:
        models: Json = {}
        element = _element_of(form, datatype, _place("", False, models, variable))
        data = _Example(models).of(element)
        data = [data] if form.rank or datatype.numeric else data
    elif form.rank and not datatype.numeric:
        data = [data]
    item = {"name": variable.name, "datatype": datatype.value, "data": data}
    if form.rank == 0 and datatype.numeric:
        return {**item, "data": data[0]}
    return {**item, "shape": [1] * (form.rank or 1)} if datatype.numeric or _needs_shape(form) else item


class _Example:
    """Makes a small value that fits a schema of ours, or nearly one of pydantic's. Classes within classes may need more
    than anybody reads; then what is left over is empty."""

    def __init__(self, models: Json) -> None:
        self._models = models
        self._left = MOST_IN_EXAMPLE

    def of(self, schema: Json, depth: int = 0) -> Any:
        self._left -= 1
        within = depth < MAX_DEPTH and self._left > 0
        if "$ref" in schema and within:
            return self.of(self._models.get(schema["$ref"].rpartition("/")[2], {}), depth + 1)
        for known in ("default", "const"):
            if known in schema:
                return schema[known]
        for several in ("examples", "enum"):
            if schema.get(several):
                return schema[several][0]
        if schema.get("anyOf") and within:
            return self.of(schema["anyOf"][0], depth + 1)
        if schema.get("type") == "object" and within:
            members = schema.get("properties", {})
            return {name: self.of(members[name], depth + 1) for name in schema.get("required", [])}
        if schema.get("type") == "array" and within:
            return [self.of(schema.get("items", {}), depth + 1)] * schema.get("minItems", 0)
        if schema.get("type") in ("integer", "number"):
            return schema.get("minimum", 1)
        return {"string": "text", "boolean": True, "null": None}.get(schema.get("type", ""), {})


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

_MESSAGE: Json = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
        "content": {"description": "A text, or parts of type text"},
    },
}
_CHAT_SCHEMAS: Json = {
    "ChatRequest": {
        "type": "object",
        "description": "A request of OpenAI's chat API. Members that the function has no input for become parameters",
        "required": ["model", "messages"],
        "properties": {
            "model": {"type": "string", "description": "The component's name"},
            "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
            "stream": {"type": ["boolean", "null"]},
            "stream_options": {
                "type": ["object", "null"],
                "properties": {"include_usage": {"type": "boolean"}},
            },
            "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
            "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "max_tokens": {"type": ["integer", "null"], "minimum": 1},
            "max_completion_tokens": {"type": ["integer", "null"], "minimum": 1},
        },
    },
    "ChatCompletion": {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices"],
        "properties": {
            "id": {"type": "string"},
            "object": {"type": "string"},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {"type": "array", "items": {"type": "object"}},
            "usage": {"type": "object"},
        },
    },
}
_CHAT_EVENTS: Json = {
    "type": "string",
    "description": "With `stream`: an event for each chunk, then `[DONE]`; an event whose data has `error` ends it",
}
_CHAT_ERRORS: Json = {
    code: {
        "description": text,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for code, text in (("400", "The request is not as described"), ("404", "There is no such model"))
}
_CHAT_PATHS: Json = {
    "/v1/chat/completions": {
        "post": {
            "operationId": "chat",
            "summary": "Answer a chat, as OpenAI's API does",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
            },
            "responses": {
                "200": {
                    "description": "The completion, or its chunks",
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/ChatCompletion"}},
                        "text/event-stream": {"schema": _CHAT_EVENTS},
                    },
                },
                **_CHAT_ERRORS,
            },
        }
    },
    "/v1/models": {
        "get": {
            "operationId": "models",
            "summary": "The component as the one model of OpenAI's API",
            "responses": {
                "200": {
                    "description": "A list of one",
                    "content": {"application/json": {"schema": {"type": "object"}}},
                }
            },
        }
    },
}
