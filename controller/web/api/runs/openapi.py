"""The OpenAPI 3.1 description of a run API: of one pipeline, or of all pipelines of an app. `openapi.yaml` has what all
have in common; what may be submitted is made from the `apiSpec` of the APIComponent. Served as `openapi.json` and shown
on the page for people. A test sends requests made from it, and holds their answers to its schemas.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller import __version__
from controller.domain.apps.spec import ApiVariable
from controller.domain.runs.webhooks import MAX_URL
from controller.serving.datatypes import Datatype
from controller.serving.shapes import MAX_RANK
from controller.web.api.descriptions import Json, description
from controller.web.api.runs.submission import ANY_DATATYPE, LEAST_PRIORITY, RunInterface

_TEXT: Json = {"type": "string"}
_EXAMPLES: Json = {"FILE": "group/file", "str": "text", "dict": {}, "INT32": 1, "FP64": 0.5, "FP32": 0.5}


def of_one(prefix: str, pipeline: str, interface: RunInterface) -> Json:
    """`prefix` is the path that the API is published at."""
    common = description(__package__)
    return _document(
        prefix, f"Runs of {pipeline} at {prefix}", common, common["runs"], _submission(interface)
    )


def of_all(prefix: str, pipelines: Sequence[str]) -> Json:
    common = description(__package__)
    known = {"enum": list(pipelines)} if pipelines else {}
    name = {
        "name": "pipeline",
        "in": "path",
        "description": "Name of a pipeline",
        "schema": {"type": "string", **known},
        "required": True,
    }
    one = {
        f"/{{pipeline}}{path}": {**item, "parameters": [name, *item.get("parameters", ())]}
        for path, item in common["runs"].items()
    }
    paths = {**common["pipelines"], **one}
    return _document(prefix, f"Pipelines at {prefix}", common, paths, _any_submission())


def _document(prefix: str, title: str, common: Json, paths: Json, submission: Json) -> Json:
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": common["about"]},
        "servers": [{"url": prefix}],
        "paths": paths,
        "components": {
            "schemas": {"Submission": submission, **common["schemas"]},
            "responses": {"Problem": common["problem"]},
        },
    }


def _integer(least: int, most: int | None = None) -> Json:
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})}


# --- what is submitted ------------------------------------------------------------------------------------------


def _submission(interface: RunInterface) -> Json:
    """Return the schema of a submission. The API refuses everything that the schema refuses."""
    required = [variable.name for variable in interface.inputs if variable.required]
    properties = {
        "inputs": {"oneOf": [_input_list(interface, required), _input_mapping(interface, required)]},
        "outputs": {"oneOf": [_output_list(interface), _output_mapping(interface)]},
        **_SETTINGS,
        **({} if interface.signs else {"webhook": _NO_WEBHOOK}),
    }
    return {
        "type": "object",
        "properties": properties,
        "required": ["inputs"] if required else [],
        "additionalProperties": False,
        "example": _example(interface),
    }


def _any_submission() -> Json:
    """Return the schema for any pipeline: the list of pipelines has the inputs and outputs."""
    anything = ApiVariable("", required=True, datatypes=ANY_DATATYPE)
    listed, group = _input(anything, ()), _output(anything, ())
    listed["properties"]["name"] = group["properties"]["name"] = _TEXT
    properties = {
        "inputs": {"oneOf": [{"type": "array", "items": listed}, {"type": "object"}]},
        "outputs": {"oneOf": [{"type": "array", "items": group}, _mapping({}, _GROUP)]},
        **_SETTINGS,
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _input_list(interface: RunInterface, required: list[str]) -> Json:
    once: list[Json] = [
        {"contains": _named(v.name), "minContains": int(v.name in required), "maxContains": 1}
        for v in interface.inputs
    ]
    items = [_input(variable, interface.boxes) for variable in interface.inputs]
    return {
        "type": "array",
        **_items(items),
        **({"allOf": once} if once else {}),
    }


def _input_mapping(interface: RunInterface, required: list[str]) -> Json:
    datas = {v.name: {"description": v.description, **_data(v)} for v in interface.inputs}
    return {**_mapping(datas, False), "required": required}


def _output_list(interface: RunInterface) -> Json:
    items = [_output(variable, interface.boxes) for variable in interface.outputs]
    return {"type": "array", **_items(items)}


def _items(forms: list[Json]) -> Json:
    """Return the schema of the items, which generators of clients need."""
    return {"items": {"oneOf": forms}} if forms else {"items": {}, "maxItems": 0}


def _output_mapping(interface: RunInterface) -> Json:
    return _mapping({v.name: {**_GROUP, "description": v.description} for v in interface.outputs}, False)


def _mapping(properties: Json, others: Json | bool) -> Json:
    return {"type": "object", "properties": properties, "additionalProperties": others}


def _named(name: str) -> Json:
    return {"type": "object", "required": ["name"], "properties": {"name": {"const": name}}}


def _input(variable: ApiVariable, boxes: tuple[str, ...]) -> Json:
    properties = {
        "name": {"const": variable.name},
        "datatype": {"enum": [*variable.datatypes, None]},
        "data": _data(variable),
        "shape": _shape(variable),
        "content_type": {"type": ["string", "null"]},
        "box": _box(boxes),
    }
    described = {"description": variable.description, "required": ["name", "data"]}
    return {"type": "object", **described, "properties": properties, "additionalProperties": False}


def _shape(variable: ApiVariable) -> Json:
    """Return the schema of `shape`. It is checked only for numbers; existing clients send others in many forms."""
    if not all(Datatype(name).numeric for name in variable.datatypes):
        return {"description": "Dimensions of flat data; of any form if the data are not numbers"}
    items = {"items": _integer(0), "maxItems": MAX_RANK}
    return {"type": ["array", "null"], **items, "description": "Dimensions of flat data"}


def _output(variable: ApiVariable, boxes: tuple[str, ...]) -> Json:
    properties = {"name": {"const": variable.name}, "data": _GROUP, "box": _box(boxes)}
    described = {"description": variable.description, "required": ["name"]}
    return {"type": "object", **described, "properties": properties, "additionalProperties": False}


def _data(variable: ApiVariable) -> Json:
    forms = [_DATA[name] for name in variable.datatypes]
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _box(boxes: tuple[str, ...]) -> Json:
    known: Json = {"enum": [*boxes, None]} if boxes else {"type": ["string", "null"]}
    return {**known, "description": "Left out: the default box"}


def _example(interface: RunInterface) -> Json:
    inputs = [
        {"name": v.name, "datatype": v.datatypes[0], "data": _EXAMPLES[v.datatypes[0]]}
        for v in interface.inputs
        if v.required
    ]
    return {
        "inputs": inputs,
        "outputs": [{"name": v.name, "data": f"results/{v.name}"} for v in interface.outputs],
    }


def _or_list(element: Json) -> Json:
    return {"oneOf": [element, {"type": "array", "items": element}]}


_GROUP: Json = {"type": ["string", "null"], "minLength": 1, "description": "Group that it is put into"}
_DATA: Json = {
    "FILE": {"type": "string", "minLength": 1, "description": "Path of a file or group in your area"},
    "str": _or_list({"type": "string"}),
    "dict": _or_list({"type": "object"}),
    "INT32": _or_list(_integer(-(2**31), 2**31 - 1)),
    "FP64": _or_list({"type": "number"}),
    "FP32": _or_list({"type": "number"}),
}
_SETTINGS: Json = {
    "priority": {
        **_integer(LEAST_PRIORITY, 0),
        "type": ["integer", "null"],
        "description": "Negative values yield to other runs",
    },
    "webhook": {
        "type": ["string", "null"],
        "format": "uri",
        "maxLength": MAX_URL,
        "description": "Receives a signed POST request when the run ends",
    },
}
_NO_WEBHOOK: Json = {"type": "null", "description": "The pipeline has no secret to sign it with"}
