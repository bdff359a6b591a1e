"""The run API's requests that change something or list: submit, list, cancel, retry, and what the API says of itself.
Runs are only written down here; the daemon takes them up when it comes to it. What reads or follows one run is
answered on the event loop (`live`), which also waits where a caller wants to wait for the end.

The gateway hands over calls that it has admitted, with the caller's name, below the kind of their API:
`/pipeline/runs…` of one pipeline, `/pipelines/<name>/runs…` of all.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
import time
from collections.abc import Callable

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.errors import Stalled
from controller.domain.names import ComponentName
from controller.domain.pipelines import Pipeline
from controller.domain.routes import ServiceKind
from controller.domain.runs import Run, RunState, cancel, is_run_id, new_run, new_run_id, retry_of
from controller.ports import Store
from controller.web.context import context, service_call
from controller.web.problems import Kind, Problem, Refused
from controller.web.responses import description_page
from controller.web.runs import openapi as runs_openapi
from controller.web.runs.calls import (
    DEFAULT_PAGE,
    PAGE,
    RETRY_AFTER,
    api_of,
    base_of,
    check_run,
    etag,
    pipeline_of,
)
from controller.web.runs.documents import (
    interface_document,
    pipeline_document,
    run_document,
    run_link,
    summary_document,
)
from controller.web.runs.submission import Interface, SubmissionInvalid, interface_of, read_submission

runs = Blueprint("runs", __name__)

ONE, ALL = f"/{ServiceKind.PIPELINE}", f"/{ServiceKind.PIPELINES}"

_KEY = re.compile(r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')


# --- submit -----------------------------------------------------------------------------------------------------


@runs.post(f"{ONE}/runs")
@runs.post(f"{ALL}/<name>/runs")
def submit(name: str | None = None) -> ResponseReturnValue:
    pipeline = _pipeline(name)
    body = _body()
    try:
        asked = read_submission(body, _interface(pipeline))
    except SubmissionInvalid as invalid:
        raise Refused(_invalid(invalid)) from None
    now = time.time()
    run = new_run(
        new_run_id(now, secrets.randbits(32)),
        pipeline,
        now,
        service_call().user or None,
        asked.inputs,
        asked.outputs,
        priority=asked.priority,
        webhook=asked.webhook,
        pass_identity=service_call().service.api.pass_identity,
    )
    return _answer(_submitted(run, json.dumps(body, sort_keys=True)))


@runs.post(f"{ONE}/runs/<id>/retry")
@runs.post(f"{ALL}/<name>/runs/<id>/retry")
def retry(id: str, name: str | None = None) -> ResponseReturnValue:
    """A new run that takes over what had succeeded."""
    before = _find(id, name)
    if not before.state.terminal:
        raise Refused(Problem(Kind.RUN_STATE, f"Run {id} is {before.state}; cancel it first, or wait."))
    if before.state is RunState.SUCCEEDED:
        detail = f"Run {id} has succeeded, nothing of it is to be repeated; submit a new one."
        raise Refused(Problem(Kind.RUN_STATE, detail))
    now = time.time()
    return _answer(_submitted(retry_of(before, new_run_id(now, secrets.randbits(32)), now), f"retry {id}"))


def _submitted(run: Run, content: str) -> Run:
    """The run, or the one that the same request with the same key had become. Whosever the run is, the key is the
    caller's."""
    key = _key()
    if key and run.public:
        key = f"{service_call().user}/{key}"
    try:
        return _store().runs.submit(run, key, hashlib.sha256(content.encode()).hexdigest())
    except Stalled as error:
        if error.reason != "IdempotencyConflict":
            raise
        raise Refused(Problem(Kind.KEY_REUSED, f"Choose another key: {error.message}.")) from error


def _key() -> str:
    """As a string of HTTP's structured fields, which the draft asks for, or plain, as many clients send it."""
    text = request.headers.get("Idempotency-Key")
    if text is None:
        return ""
    found = _KEY.fullmatch(text)
    if found is None:
        detail = "Idempotency-Key must be 1 to 255 visible ASCII characters, best of all a UUID, in quotes."
        raise Refused(Problem(Kind.BAD_REQUEST, detail))
    return found[1] or found[2]


def _body() -> object:
    """Nothing at all is as good as an empty object."""
    content = request.get_data(cache=False)
    if not content:
        return {}
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise Refused(Problem(Kind.MEDIA_TYPE, "Send JSON, with Content-Type: application/json."))
    try:
        return json.loads(content, parse_float=_finite, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(Problem(Kind.MALFORMED_JSON, f"The body is not JSON: {error}.")) from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _invalid(invalid: SubmissionInvalid) -> Problem:
    errors = [{"pointer": fault.pointer, "detail": fault.detail} for fault in invalid.faults]
    first, more = errors[0], len(errors) - 1
    place = first["pointer"] or "the body"
    detail = f"{place}: {first['detail']}" + (f", and {more} more." if more else ".")
    return Problem(Kind.INVALID, detail, extra={"errors": errors})


# --- list and cancel --------------------------------------------------------------------------------------------


@runs.get(f"{ONE}/runs")
@runs.get(f"{ALL}/<name>/runs")
def listing(name: str | None = None) -> ResponseReturnValue:
    pipeline = pipeline_of(service_call(), name)
    page = _page(pipeline)
    if not page["runs"] and name is not None:
        _pipeline(name)  # one that is not there has no list, either
    return page


@runs.get(f"{ALL}/runs")
def listing_of_all() -> ResponseReturnValue:
    return _page(None)


def _page(pipeline: ComponentName | None) -> dict[str, object]:
    """Of the runs that the caller may see, newest first."""
    call, after, limit = service_call(), request.args.get("after", ""), _limit()
    if after and not is_run_id(after):
        raise Refused(Problem(Kind.BAD_REQUEST, "after must be the id of a run, as next of the page before."))
    app = call.service.app
    found = _store().runs.list(app, pipeline, _state(), after, limit + 1, user=call.user)
    more, found = len(found) > limit, found[:limit]
    return {
        "runs": [summary_document(run, base_of(call, run.name)) for run in found],
        "next": found[-1].id if more else None,
    }


def _state() -> RunState | None:
    text = request.args.get("state")
    try:
        return RunState(text.upper()) if text else None
    except ValueError:
        states = ", ".join(RunState)
        raise Refused(Problem(Kind.BAD_REQUEST, f"state must be one of {states}.")) from None


def _limit() -> int:
    text = request.args.get("limit", str(DEFAULT_PAGE))
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= PAGE:
        raise Refused(Problem(Kind.BAD_REQUEST, f"limit must be a whole number, 1 to {PAGE}."))
    return int(text)


@runs.post(f"{ONE}/runs/<id>/cancel")
@runs.post(f"{ALL}/<name>/runs/<id>/cancel")
def stop(id: str, name: str | None = None) -> ResponseReturnValue:
    return _answer(_changed(lambda: _find(id, name), lambda run: cancel(run, time.time())))


def _changed(find: Callable[[], Run], change: Callable[[Run], Run]) -> Run:
    """Whoever changes a run at the same time, it is decided anew upon what he made of it."""
    while True:
        run = find()
        wanted = change(run)
        if wanted is run:
            return run
        saved = _store().runs.save(wanted)
        if saved is not None:
            return saved


# --- what the API says of itself --------------------------------------------------------------------------------


@runs.get(f"{ALL}/")
def pipelines() -> ResponseReturnValue:
    return _pipelines()


@runs.get(f"{ONE}/openapi.json")
def openapi() -> ResponseReturnValue:
    return _description()


@runs.get(f"{ALL}/openapi.json")
def openapi_of_all() -> ResponseReturnValue:
    return _description_of_all()


@runs.get(f"{ONE}/docs")
def docs() -> ResponseReturnValue:
    shown = {"name": pipeline_of(service_call(), None), **interface_document(_declared())}
    return description_page("runs.html", _description(), pipelines=[shown])


@runs.get(f"{ALL}/docs")
def docs_of_all() -> ResponseReturnValue:
    return description_page("runs.html", _description_of_all(), **_pipelines())


def _pipelines() -> dict[str, object]:
    app = service_call().service.app
    marks = {found.pipeline: found.followed for found in _store().schedules.all(app)}
    found = _store().runs.pipelines(app)
    return {"pipelines": [pipeline_document(p, _interface(p), marks.get(p.name)) for p in found]}


def _declared() -> Interface:
    """Of the API's pipeline, even while it cannot be run."""
    call = service_call()
    pipeline = _store().runs.pipeline(call.service.app, pipeline_of(call, None))
    if pipeline is None:
        return Interface(call.service.inputs, call.service.outputs)
    return interface_of(pipeline, call.service)


def _description() -> runs_openapi.Json:
    call = service_call()
    return runs_openapi.of_one(call.prefix, pipeline_of(call, None), _declared())


def _description_of_all() -> runs_openapi.Json:
    call = service_call()
    names = [pipeline.name for pipeline in _store().runs.pipelines(call.service.app)]
    return runs_openapi.of_all(call.prefix, names)


# --- what a request is about ------------------------------------------------------------------------------------


def _store() -> Store:
    return context(current_app).store


def _pipeline(name: str | None) -> Pipeline:
    call = service_call()
    wanted = pipeline_of(call, name)
    pipeline = _store().runs.pipeline(call.service.app, wanted)
    if pipeline is not None:
        return pipeline
    if name is not None:
        raise Refused(Problem(Kind.NOT_FOUND, f"The app has no pipeline {name[:63]!r}."))
    detail = f"Pipeline {wanted} cannot be run yet; the status of the app says why."
    raise Refused(Problem(Kind.NOT_READY, detail, retry_after=5))


def _interface(pipeline: Pipeline) -> Interface:
    return interface_of(pipeline, api_of(_store(), service_call(), pipeline.name))


def _find(id: str, name: str | None) -> Run:
    call, store = service_call(), _store()
    found = store.runs.get(call.service.app, id)
    return check_run(found, call, pipeline_of(call, name), id, store)


def _answer(run: Run) -> ResponseReturnValue:
    """200 with a run that is over, 202 with one that is not."""
    base = base_of(service_call(), run.name)
    headers = {"Location": run_link(base, run), "ETag": etag(run), "Cache-Control": "no-store"}
    if run.state.terminal:
        return run_document(run, base), 200, headers
    return run_document(run, base), 202, {**headers, "Retry-After": str(RETRY_AFTER)}
