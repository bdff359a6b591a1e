"""Pipelines and runs of an app below `/-/apps/<app>/pipelines/`, for people with a role and their programs: documents,
or pages for browsers. Callers of a module use the module's own run API.

A person starts runs under the name that they have when they try an API (`person:NAME`). Who sees the app sees all of
its runs; its developers cancel and repeat them.
"""

from __future__ import annotations

import time
from typing import Final

from flask import Blueprint, current_app, redirect, request
from flask.typing import ResponseReturnValue

from controller.domain.names import ComponentName
from controller.domain.routing.caller_names import name_of_person
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import Run, RunFilter
from controller.ports import Store
from controller.web.api.platform.admission import FORM, note
from controller.web.api.platform.status import known_app
from controller.web.api.runs.access import DEFAULT_PAGE, PAGE, declaring_api
from controller.web.api.runs.documents import pipeline_document, run_document, summary_document
from controller.web.api.runs.logs import PIECE, StoredStageLog, whole_lines
from controller.web.api.runs.start import RunCaller, repeat_run, submit_run
from controller.web.api.runs.submission import RunInterface, interface_of
from controller.web.auth.call_passes import ADMIN
from controller.web.bodies import read_json
from controller.web.context import context, principal, query
from controller.web.pages.rendering import wants_page
from controller.web.pages.run_words import body_of
from controller.web.pages.runs import find_run, pipeline_page, place_of, run_page, unknown_pipeline
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

pipelines = Blueprint("pipelines", __name__)

TAIL: Final = PIECE  # bytes of a log that are given first


@pipelines.get("/-/apps/<name>/pipelines")
def listing(name: str) -> ResponseReturnValue:
    app = known_app(_store(), name).app
    found = _store().runs.pipelines(app)
    return {"pipelines": [pipeline_document(each, _interface(each)) for each in found]}


@pipelines.get("/-/apps/<name>/pipelines/<pipeline>")
def one(name: str, pipeline: str) -> ResponseReturnValue:
    app = known_app(_store(), name).app
    found = _store().runs.pipeline(app, ComponentName(pipeline))
    if wants_page():
        return pipeline_page(app, pipeline, _interface(found) if found else None)
    if found is None:
        raise RequestRefused(unknown_pipeline(app, pipeline))
    asked = query()
    limit, after = asked.number("limit", DEFAULT_PAGE, least=1, most=PAGE), asked.text("after") or ""
    listed = _store().runs.list(app, RunFilter(found.name, None, after, None), limit + 1)
    shown, place = listed[:limit], place_of(app, pipeline)
    return {
        **pipeline_document(found, _interface(found)),
        "runs": [summary_document(each, place) for each in shown],
        "next": shown[-1].id if len(listed) > limit else None,
    }


@pipelines.post("/-/apps/<name>/pipelines/<pipeline>/runs")
def start(name: str, pipeline: str) -> ResponseReturnValue:
    app = known_app(_store(), name).app
    found = _store().runs.pipeline(app, ComponentName(pipeline))
    if found is None:
        raise RequestRefused(unknown_pipeline(app, pipeline))
    interface = _interface(found)
    if request.mimetype == FORM:
        return _start_by_form(found, interface)
    body = read_json(content) if (content := request.get_data(cache=False)) else {}
    return _answer(submit_run(found, interface, body, _caller()))


def _start_by_form(pipeline: Pipeline, interface: RunInterface) -> ResponseReturnValue:
    """A form that is refused comes back with what was filled in, and says what is wrong where it is."""
    try:
        return _answer(submit_run(pipeline, interface, body_of(request.form, interface.inputs), _caller()))
    except RequestRefused as refused:
        if refused.problem.kind is not ProblemKind.INVALID:
            raise
        return pipeline_page(pipeline.app, pipeline.name, interface, request.form, refused.problem)


@pipelines.get("/-/apps/<name>/pipelines/<pipeline>/runs/<id>")
def run(name: str, pipeline: str, id: str) -> ResponseReturnValue:
    app = known_app(_store(), name).app
    if wants_page():
        return run_page(app, pipeline, id)
    return run_document(find_run(_store(), app, pipeline, id), place_of(app, pipeline))


@pipelines.post("/-/apps/<name>/pipelines/<pipeline>/runs/<id>/cancel")
def cancel(name: str, pipeline: str, id: str) -> ResponseReturnValue:
    app = known_app(_store(), name).app
    find_run(_store(), app, pipeline, id)
    return _answer(_store().runs.cancel(app, id, time.time()) or find_run(_store(), app, pipeline, id))


@pipelines.post("/-/apps/<name>/pipelines/<pipeline>/runs/<id>/retry")
def retry(name: str, pipeline: str, id: str) -> ResponseReturnValue:
    app = known_app(_store(), name).app
    return _answer(repeat_run(find_run(_store(), app, pipeline, id), _caller()))


@pipelines.get("/-/apps/<name>/pipelines/<pipeline>/runs/<id>/logs/<stage>")
def log(name: str, pipeline: str, id: str, stage: str) -> ResponseReturnValue:
    """A piece of the log of a stage, of at most 64 KiB: `text` begins at `offset`, the next piece at `next`. Without an
    offset it is the last piece, so that a large log costs no more than a small one."""
    found = find_run(_store(), known_app(_store(), name).app, pipeline, id)
    if not any(each.name == stage for each in found.pipeline.stages):
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, f"{pipeline} has no stage {stage[:63]!r}."))
    stored = StoredStageLog.of(context(current_app).settings.run_files, found, stage)
    size = stored.size()
    offset = min(size, query().number("offset", max(0, size - TAIL), 0, 2**62))
    data = stored.read(offset)
    is_over = found.stage(stage).state.terminal
    data = data if is_over and offset + len(data) >= size else data[: whole_lines(data, len(data) == PIECE)]
    return {
        "text": data.decode("utf-8", "replace"),
        "offset": offset,
        "next": offset + len(data),
        "size": size,
        "isComplete": is_over and offset + len(data) >= size,
    }


def _store() -> Store:
    return context(current_app).store


def _interface(pipeline: Pipeline) -> RunInterface:
    return interface_of(pipeline, declaring_api(_store(), pipeline.app, pipeline.name))


def _caller() -> RunCaller:
    return RunCaller(name_of_person(principal().name or ADMIN))


def _answer(found: Run) -> ResponseReturnValue:
    """Lead a person to the page of the run, and tell a program about it."""
    note(f"{found.app}/{found.name}/{found.id}")
    place = place_of(found.app, found.name)
    if request.mimetype == FORM:
        return redirect(place_of(found.app, found.name, found.id), 303)
    return run_document(found, place), 200 if found.state.terminal else 202
