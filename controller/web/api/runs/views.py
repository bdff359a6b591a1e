"""The run API's requests that change or list runs: submit, list, cancel, retry, and the API's description.
Runs are only stored here; the daemon executes them. Requests that read or follow one run are answered on the
event loop (`live`), which also waits for callers who want to wait for the end.

The gateway hands over calls that it has admitted, with the caller's name, below the kind of their API:
`/pipeline/runs…` of one pipeline, `/pipelines/<name>/runs…` of all.
"""

from __future__ import annotations

import time

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.names import ComponentName
from controller.domain.routing.routes import ServiceKind
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import Run, RunFilter, RunState, is_run_id
from controller.ports import Store
from controller.web.api.descriptions import Json
from controller.web.api.runs import openapi as runs_openapi
from controller.web.api.runs.access import (
    DEFAULT_PAGE,
    PAGE,
    RETRY_AFTER,
    api_of,
    base_of,
    check_run,
    etag,
    pipeline_of,
)
from controller.web.api.runs.documents import (
    interface_document,
    pipeline_document,
    run_document,
    run_link,
    summary_document,
)
from controller.web.api.runs.start import RunCaller, repeat_run, submit_run
from controller.web.api.runs.submission import RunInterface, interface_of
from controller.web.auth.schemes import secured
from controller.web.bodies import read_json, require_json
from controller.web.context import context, query, service_call
from controller.web.preferences import idempotency_key
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.responses import description_page

runs = Blueprint("runs", __name__)

ONE, ALL = f"/{ServiceKind.PIPELINE}", f"/{ServiceKind.PIPELINES}"


# --- submit -----------------------------------------------------------------------------------------------------


@runs.post(f"{ONE}/runs")
@runs.post(f"{ALL}/<name>/runs")
def submit(name: str | None = None) -> ResponseReturnValue:
    pipeline = _pipeline(name)
    call = service_call()
    caller = RunCaller(call.user, call.service.api.pass_identity, _key(), call.trace)
    return _answer(submit_run(pipeline, _interface(pipeline), _body(), caller))


@runs.post(f"{ONE}/runs/<id>/retry")
@runs.post(f"{ALL}/<name>/runs/<id>/retry")
def retry(id: str, name: str | None = None) -> ResponseReturnValue:
    """Start a new run that reuses the stages that succeeded."""
    call = service_call()
    return _answer(repeat_run(_find(id, name), RunCaller(call.user, key=_key(), trace=call.trace)))


def _key() -> str:
    return idempotency_key(request.headers.get("Idempotency-Key"))


def _body() -> object:
    """Return the JSON body; an empty body counts as an empty object."""
    content = request.get_data(cache=False)
    if not content:
        return {}
    require_json(request.mimetype, "Send JSON, with Content-Type: application/json.")
    document: object = read_json(content)
    return document


# --- list and cancel --------------------------------------------------------------------------------------------


@runs.get(f"{ONE}/runs")
@runs.get(f"{ALL}/<name>/runs")
def listing(name: str | None = None) -> ResponseReturnValue:
    pipeline = pipeline_of(service_call(), name)
    page = _page(pipeline)
    if not page["runs"] and name is not None:
        _pipeline(name)  # a pipeline that does not exist has no list, either
    return page


@runs.get(f"{ALL}/runs")
def listing_of_all() -> ResponseReturnValue:
    return _page(None)


def _page(pipeline: ComponentName | None) -> dict[str, object]:
    """Return a page of the runs that the caller may see, newest first."""
    call, asked = service_call(), query()
    after, limit = asked.text("after") or "", asked.number("limit", DEFAULT_PAGE, least=1, most=PAGE)
    if after and not is_run_id(after):
        raise RequestRefused(
            HttpProblem(ProblemKind.BAD_REQUEST, "after must be the id of a run, as next of the page before.")
        )
    app = call.service.app
    wanted = RunFilter(pipeline, _state(asked.text("state")), after, call.user)
    found = _store().runs.list(app, wanted, limit + 1)
    more, found = len(found) > limit, found[:limit]
    return {
        "runs": [summary_document(run, base_of(call, run.name)) for run in found],
        "next": found[-1].id if more else None,
    }


def _state(text: str | None) -> RunState | None:
    try:
        return RunState(text.upper()) if text else None
    except ValueError:
        states = ", ".join(RunState)
        raise RequestRefused(
            HttpProblem(ProblemKind.BAD_REQUEST, f"state must be one of {states}.")
        ) from None


@runs.post(f"{ONE}/runs/<id>/cancel")
@runs.post(f"{ALL}/<name>/runs/<id>/cancel")
def stop(id: str, name: str | None = None) -> ResponseReturnValue:
    run = _find(id, name)
    return _answer(_store().runs.cancel(run.app, id, time.time()) or _find(id, name))


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


def _declared() -> RunInterface:
    """Return the declaration of the API's pipeline, even while it cannot be run."""
    call = service_call()
    pipeline = _store().runs.pipeline(call.service.app, pipeline_of(call, None))
    if pipeline is None:
        return RunInterface(call.service.inputs, call.service.outputs)
    return interface_of(pipeline, call.service)


def _description() -> Json:
    call = service_call()
    document = runs_openapi.of_one(call.prefix, pipeline_of(call, None), _declared())
    return secured(document, call.service.api)


def _description_of_all() -> Json:
    call = service_call()
    names = [pipeline.name for pipeline in _store().runs.pipelines(call.service.app)]
    return secured(runs_openapi.of_all(call.prefix, names), call.service.api)


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
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, f"The app has no pipeline {name[:63]!r}."))
    detail = f"Pipeline {wanted} cannot be run yet; the status of the app says why."
    raise RequestRefused(HttpProblem(ProblemKind.NOT_READY, detail, retry_after=5))


def _interface(pipeline: Pipeline) -> RunInterface:
    return interface_of(pipeline, api_of(_store(), service_call(), pipeline.name))


def _find(id: str, name: str | None) -> Run:
    call, store = service_call(), _store()
    found = store.runs.get(call.service.app, id)
    return check_run(found, call, pipeline_of(call, name), id, store)


def _answer(run: Run) -> ResponseReturnValue:
    """Answer 200 with a run that is over, else 202."""
    base = base_of(service_call(), run.name)
    headers = {"Location": run_link(base, run), "ETag": etag(run), "Cache-Control": "no-store"}
    if run.state.terminal:
        return run_document(run, base), 200, headers
    return run_document(run, base), 202, {**headers, "Retry-After": str(RETRY_AFTER)}
