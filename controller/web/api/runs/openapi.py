"""The OpenAPI 3.1 description of a run API: of one pipeline, made from the `apiSpec` of its APIComponent, or of all
pipelines of an app. Pure; served as `openapi.json` and shown on the page for people. A test sends requests made from
it, and holds their answers to its schemas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller import __version__
from controller.domain.apps.spec import ApiVariable, Overlap
from controller.domain.runs.run import RunCause, RunState
from controller.domain.runs.webhooks import MAX_URL
from controller.serving.docstring import Datatype
from controller.serving.shapes import MAX_RANK
from controller.web.api.runs.access import DEFAULT_PAGE, MAX_WAIT, PAGE
from controller.web.api.runs.submission import ANY_DATATYPE, LEAST_PRIORITY, RunInterface
from controller.web.problems import CONTENT_TYPE

Json = dict[str, Any]

_ABOUT = (
    "A run takes files out of a box, works on them for as long as it takes, and puts what it made into a box. It is "
    "submitted here and goes on by itself: ask for it, wait for it, follow its log, cancel it."
)
_EXAMPLES: Json = {"FILE": "group/file", "str": "text", "dict": {}, "INT32": 1, "FP64": 0.5, "FP32": 0.5}


def of_one(prefix: str, pipeline: str, interface: RunInterface) -> Json:
    """`prefix` is the path that the API is published at."""
    return _document(prefix, f"Runs of {pipeline} at {prefix}", _run_paths("", []), _submission(interface))


def of_all(prefix: str, pipelines: Sequence[str]) -> Json:
    name = _path("pipeline", "Name of a pipeline", {"type": "string", "enum": list(pipelines)})
    if not pipelines:
        name["schema"] = {"type": "string"}
    paths = {
        "/": {
            "get": _operation(
                "pipelines", "All pipelines, with their inputs and outputs", {"200": "Pipelines"}
            )
        },
        "/runs": {"get": _operation("allRuns", "Runs of all pipelines", {"200": "Runs"}, *_LISTING)},
        **_run_paths("/{pipeline}", [name]),
    }
    return _document(prefix, f"Pipelines at {prefix}", paths, _any_submission())


def _document(prefix: str, title: str, paths: Json, submission: Json) -> Json:
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": _ABOUT},
        "servers": [{"url": prefix}],
        "paths": paths,
        "components": {"schemas": {"Submission": submission, **_SCHEMAS}, "responses": {"Problem": _PROBLEM}},
    }


# --- paths ------------------------------------------------------------------------------------------------------


def _run_paths(below: str, parameters: list[Json]) -> Json:
    one = [*parameters, _ID]
    return {
        f"{below}/runs": {
            **_common(parameters),
            "post": {
                **_operation("submit", "Start a run", _STARTED, _KEY, _PREFER),
                "requestBody": {"content": _json({"$ref": "#/components/schemas/Submission"})},
            },
            "get": _operation("runs", "Your runs, newest first", {"200": "Runs"}, *_LISTING),
        },
        f"{below}/runs/{{id}}": {
            **_common(one),
            "get": _operation("run", "One run", {"200": "Run", "304": ""}, _WAIT, _KNOWN),
        },
        f"{below}/runs/{{id}}/logs": {**_common(one), "get": _LOGS},
        f"{below}/runs/{{id}}/events": {**_common(one), "get": _EVENTS},
        f"{below}/runs/{{id}}/cancel": {
            **_common(one),
            "post": _operation("cancel", "Stop the run; a finished run does not change", _STARTED, _PREFER),
        },
        f"{below}/runs/{{id}}/retry": {
            **_common(one),
            "post": _operation(
                "retry", "Start a new run that reuses the stages that succeeded", _STARTED, _KEY, _PREFER
            ),
        },
    }


def _common(parameters: list[Json]) -> Json:
    return {"parameters": parameters} if parameters else {}


def _operation(name: str, summary: str, answers: dict[str, str], *parameters: Json) -> Json:
    """`answers` maps a status to the name of its schema, "" for an answer without content."""
    operation: Json = {"operationId": name, "summary": summary, "parameters": list(parameters)}
    operation["responses"] = {status: _answer(schema) for status, schema in answers.items()}
    operation["responses"]["default"] = {"$ref": "#/components/responses/Problem"}
    return operation


def _answer(schema: str) -> Json:
    if not schema:
        return {"description": "Not modified"}
    return {"description": schema, "content": _json({"$ref": f"#/components/schemas/{schema}"})}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _text(description: str, *types: str) -> Json:
    return {"description": description, "content": {kind: {"schema": {"type": "string"}} for kind in types}}


def _parameter(place: str, name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": place, "description": description, "schema": schema}


def _path(name: str, description: str, schema: Json) -> Json:
    return {**_parameter("path", name, description, schema), "required": True}


def _query(name: str, description: str, schema: Json) -> Json:
    return _parameter("query", name, description, schema)


def _integer(least: int, most: int | None = None, **more: Any) -> Json:
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most}), **more}


_TEXT: Json = {"type": "string"}
_STARTED = {"200": "Run", "202": "Run"}
_ID = _path("id", "Id of a run", {"type": "string", "pattern": "^[0-9a-f]{19}$"})
_KEY = _parameter(
    "header", "Idempotency-Key", "A repeated request with the same key finds the same run", _TEXT
)
_PREFER = _parameter(
    "header",
    "Prefer",
    f"`wait=N`: answer when the run is over, after N seconds ({MAX_WAIT:.0f}) at most",
    _TEXT,
)
_WAIT = _query("wait", "Wait for a change, at most this many seconds", _integer(0, int(MAX_WAIT)))
_KNOWN = _parameter("header", "If-None-Match", "The `ETag` of the run that you know", _TEXT)
_RESUME = _parameter("header", "Last-Event-ID", "Resume after this event", _TEXT)
_LISTING = (
    _query("state", "Only runs in this state", {"enum": [state.value for state in RunState]}),
    _query("limit", "Maximum number of runs", _integer(1, PAGE, default=DEFAULT_PAGE)),
    _query("after", "`next` of the page before", _TEXT),
)
_LOGS: Json = {
    "operationId": "logs",
    "summary": "The log of a stage",
    "parameters": [
        _query("stage", "Name of the stage; may be left out where there is only one", _TEXT),
        _query("attempt", "Only this attempt", _integer(1)),
        _query("offset", "Offset of the first byte", _integer(0)),
        _query("follow", "1: as events, until the stage is over", {"enum": ["0", "1"]}),
        _RESUME,
    ],
    "responses": {
        "200": _text("The log", "text/plain", "text/event-stream"),
        "204": {"description": "Nothing more will come"},
        "206": _text("What `Range` asks for", "text/plain"),
        "default": {"$ref": "#/components/responses/Problem"},
    },
}
_EVENTS: Json = {
    "operationId": "events",
    "summary": "All transitions, as they happen",
    "parameters": [_RESUME],
    "responses": {
        "200": _text("Events, whose data are JSON", "text/event-stream"),
        "204": {"description": "Nothing more will come"},
        "default": {"$ref": "#/components/responses/Problem"},
    },
}


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
    anything = ApiVariable("", datatypes=ANY_DATATYPE)
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


# --- what is answered -------------------------------------------------------------------------------------------


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _nullable(schema: Json) -> Json:
    return {**schema, "type": [schema["type"], "null"]}


_TIME: Json = {"type": "string", "format": "date-time"}
_STATE: Json = {"enum": [state.value for state in RunState]}
_WHY = {"reason": _TEXT, "message": _TEXT}
_HEAD: Json = {
    "id": _TEXT,
    "pipeline": _TEXT,
    "state": _STATE,
    **_WHY,
    "created": _TIME,
    "started": _nullable(_TIME),
    "ended": _nullable(_TIME),
    "user": _nullable(_TEXT),
    "public": {
        "type": "boolean",
        "description": "The run has no owner: everybody who may call the pipeline sees it",
    },
    "priority": {"type": "integer"},
    "cause": {"enum": [cause.value for cause in RunCause]},
    "origin": {**_nullable(_TEXT), "description": "The run that it repeats or continues"},
}
_LINKS = dict.fromkeys(("self", "logs", "events", "cancel", "retry"), _TEXT)
_AREA: Json = {"const": "developer", "description": "Present if it lies in the developer area"}
_PLACE: Json = {
    "type": "object",
    "required": ["name", "data"],
    "properties": {"name": _TEXT, "data": {}, "box": _TEXT, "area": _AREA},
}
_SCHEDULE: Json = _object(
    cron=_TEXT,
    timezone=_TEXT,
    concurrencyPolicy={"enum": [policy.value for policy in Overlap]},
    next={**_nullable(_TIME), "description": "When the next run is due"},
)
_SCHEMAS: Json = {
    "Run": _object(
        **_HEAD,
        inputs=_array(_PLACE),
        outputs=_array(_PLACE),
        stages=_array(_ref("Stage")),
        history=_array(_ref("Transition")),
        links=_object(**_LINKS),
    ),
    "Stage": _object(
        name=_TEXT,
        state=_STATE,
        **_WHY,
        exitCode=_nullable({"type": "integer"}),
        attempt=_nullable({"type": "integer"}),
        attempts=_array(_ref("Attempt")),
        progress={**_nullable(_TEXT), "description": "N/M, as the stage reports it"},
        history=_array(_ref("Transition")),
    ),
    "Attempt": _object(
        number=_integer(1),
        started=_TIME,
        ended=_nullable(_TIME),
        exitCode=_nullable({"type": "integer"}),
        **_WHY,
    ),
    "Transition": _object(state=_STATE, at=_TIME, **_WHY),
    "Runs": _object(runs=_array(_object(**_HEAD, links=_object(self=_TEXT))), next=_nullable(_TEXT)),
    "Pipelines": _object(
        pipelines=_array(
            _object(
                name=_TEXT,
                revision=_TEXT,
                inputs=_array(
                    _object(
                        name=_TEXT, description=_TEXT, required={"type": "boolean"}, datatypes=_array(_TEXT)
                    )
                ),
                outputs=_array(_object(name=_TEXT, description=_TEXT)),
                stages=_array(_object(name=_TEXT, inputs=_array(_TEXT), outputs=_array(_TEXT))),
                schedule=_nullable(_SCHEDULE),
            )
        )
    ),
    "Problem": {
        **_object(type=_TEXT, title=_TEXT, status=_integer(400, 599), detail=_TEXT, instance=_TEXT),
        "description": "RFC 9457; a 422 has all faults, with JSON pointers, as errors",
    },
}
_PROBLEM: Json = {
    "description": "An error (RFC 9457)",
    "content": {CONTENT_TYPE: {"schema": _ref("Problem")}},
}
