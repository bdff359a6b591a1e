"""What the description says about calls whose answer is fetched later. The platform keeps such calls, so this is said
only where the description is read through it, and not where a container is asked without the platform.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_STATES = ["QUEUED", "RUNNING", "CANCELING", "SUCCEEDED", "FAILED", "ERROR", "CANCELED", "EXPIRED"]
_TIME: Json = {"type": ["string", "null"], "format": "date-time"}
_CALL: Json = {
    "type": "object",
    "required": [
        "id",
        "component",
        "state",
        "reason",
        "message",
        "created",
        "started",
        "ended",
        "result",
        "links",
    ],
    "properties": {
        "id": {"type": "string"},
        "component": {"type": "string"},
        "state": {"type": "string", "enum": _STATES},
        "reason": {"type": "string", "description": "Why it is in this state, for machines"},
        "message": {"type": "string", "description": "The same for people"},
        "created": _TIME,
        "started": _TIME,
        "ended": _TIME,
        "user": {"type": "string"},
        "result": {
            "type": ["object", "null"],
            "properties": {
                "status": {"type": "integer"},
                "contentType": {"type": "string"},
                "size": {"type": "integer"},
            },
        },
        "links": {
            "type": "object",
            "properties": {"self": {"type": "string"}, "result": {"type": "string"}},
        },
    },
}
_CONTENT: Json = {"application/json": {"schema": {"$ref": "#/components/schemas/AsyncCall"}}}
_PROBLEM: Json = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_ID: Json = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_WAIT: Json = {
    "name": "wait",
    "in": "query",
    "description": "Answer when the call is over, at the latest after so many seconds",
    "schema": {"type": "integer", "minimum": 0, "maximum": 60},
}


_PAGE: Json = {
    "type": "object",
    "required": ["calls", "next"],
    "properties": {
        "calls": {"type": "array", "items": {"$ref": "#/components/schemas/AsyncCall"}},
        "next": {"type": ["string", "null"], "description": "`after` of the next page; null on the last one"},
    },
}
_FILTERS: list[Json] = [
    {"name": "state", "in": "query", "schema": {"type": "string", "enum": _STATES}},
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    },
    {
        "name": "after",
        "in": "query",
        "description": "`next` of the page before",
        "schema": {"type": "string"},
    },
]


def _header(name: str, description: str) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


_PREFERENCES: list[Json] = [
    _header(
        "Prefer",
        "`respond-async`: answer 202 at once, the result is fetched later; `wait=N`: after N seconds",
    ),
    _header(
        "Idempotency-Key", "With `respond-async`: the same key with the same body stands for the same call"
    ),
    _header("X-Prichal-Webhook", "With `respond-async`: a URL that is notified when the call is over"),
]
_ACCEPTED: Json = {
    "description": "With `Prefer: respond-async`: the call, whose result is fetched later",
    "headers": {
        "Location": {"schema": {"type": "string"}},
        "Preference-Applied": {"schema": {"type": "string"}},
        "Retry-After": {"schema": {"type": "integer"}},
    },
    "content": _CONTENT,
}
_GONE: Json = {
    "404": {"description": "You have no such call here", "content": _PROBLEM},
    "410": {"description": "The call was removed with its result", "content": _PROBLEM},
}


def _operation(id: str, summary: str, parameters: list[Json], responses: Json) -> Json:
    return {"operationId": id, "summary": summary, "parameters": parameters, "responses": responses}


def _paths(reply: Json) -> Json:
    """Return the paths of calls; `reply` is the content of the answer to one that was waited for."""
    return {
        "/calls": {"get": _LIST},
        "/calls/{id}/events": {"get": _FOLLOW},
        "/calls/{id}": {"get": _GET, "delete": _CANCEL},
        "/calls/{id}/result": {"get": _result(reply)},
    }


_LIST = _operation(
    "listCalls",
    "List your calls, newest first",
    _FILTERS,
    {
        "200": {"description": "A page of calls", "content": {"application/json": {"schema": _PAGE}}},
        "400": {"description": "A parameter is wrong", "content": _PROBLEM},
        "404": {"description": "The caller has no name", "content": _PROBLEM},
    },
)
_FOLLOW = _operation(
    "followCall",
    "Follow a call until it is over",
    [_ID],
    {
        "200": {
            "description": "The call, and again after each change; the last event is `end`",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        "204": {"description": "There are no more events (`Last-Event-ID: end`)"},
        **_GONE,
    },
)
_THE_CALL: Json = {"200": {"description": "The call", "content": _CONTENT}}
_CANCELING: Json = {"202": {"description": "It is being canceled", "content": _CONTENT}}
_GET = _operation("getCall", "Tell the state of a call", [_ID, _WAIT], {**_THE_CALL, **_GONE})
_CANCEL = _operation("cancelCall", "Cancel a call", [_ID], {**_THE_CALL, **_CANCELING, **_GONE})


def _result(reply: Json) -> Json:
    responses = {
        "200": {"description": "The function's outputs", "content": reply},
        "202": {"description": "The call is not over", "content": _CONTENT},
        "409": {"description": "The call was canceled or has expired", "content": _PROBLEM},
        "default": {"description": "What the function or the platform answered", "content": _PROBLEM},
        **_GONE,
    }
    return _operation("getResult", "Get the result of a call", [_ID, _WAIT], responses)


def with_later_answers(document: Json) -> Json:
    """Return the description with what the platform adds to it."""
    predict = document["paths"]["/predict"]["post"]
    responses = {**predict["responses"], "202": _ACCEPTED}
    later = {**predict, "parameters": [*predict.get("parameters", ()), *_PREFERENCES], "responses": responses}
    reply = {"application/json": predict["responses"]["200"]["content"]["application/json"]}
    paths = {**document["paths"], "/predict": {"post": later}, **_paths(reply)}
    components = document["components"]
    schemas = {**components["schemas"], "AsyncCall": _CALL}
    return {**document, "paths": paths, "components": {**components, "schemas": schemas}}
