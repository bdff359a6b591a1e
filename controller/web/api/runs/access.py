"""Finds the run that a call of the run API is about, and checks that its caller may see it. Used by the views
and by the answers on the event loop, so that both apply the same rule: a caller cannot see or detect the runs
of others, and runs without an owner are visible to all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Service, ServiceKind
from controller.domain.runs.run import Run, is_run_id
from controller.ports import Store
from controller.web.context import ServiceCall
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.query import QueryParameters

MAX_WAIT = 60.0  # seconds that one request may wait for a run
PAGE = 100  # runs of one list at most
DEFAULT_PAGE = 20
RETRY_AFTER = 1  # seconds, in the answer for a run that is not over


@dataclass(frozen=True)
class RunRequest:
    """A request for a run. `headers` has one value for each name, in lower case."""

    call: ServiceCall
    pipeline: ComponentName
    id: str
    head: bool
    query: QueryParameters
    headers: Mapping[str, str]


def pipeline_of(call: ServiceCall, named: str | None) -> ComponentName:
    """Return the pipeline of the API, or the one `named` in the path of an API of all pipelines."""
    return call.service.pipeline or ComponentName(named or "")


def base_of(call: ServiceCall, pipeline: ComponentName) -> str:
    """Return the path in this API below which the runs of the pipeline are."""
    return call.prefix if call.service.pipeline else f"{call.prefix}/{pipeline}"


def api_of(store: Store, call: ServiceCall, pipeline: ComponentName) -> Service | None:
    """Return the API whose `apiSpec` declares the pipeline's inputs, also for calls of the API of all pipelines."""
    if call.service.kind is ServiceKind.PIPELINE:
        return call.service
    return declaring_api(store, call.service.app, pipeline)


def declaring_api(store: Store, app: AppName, pipeline: ComponentName) -> Service | None:
    """Return the API of this pipeline alone, which declares its inputs."""
    return next((s for s in store.routes.services(app) if s.pipeline == pipeline), None)


def check_run(found: Run | None, call: ServiceCall, pipeline: ComponentName, id: str, store: Store) -> Run:
    """Return the run if the caller may see it and it belongs to this pipeline. Raises RequestRefused, with
    410 if it was removed."""
    if found is not None and found.name == pipeline and found.is_visible_to(call.user):
        return found
    if found is None and is_run_id(id) and store.runs.is_gone(call.service.app, id, call.user):
        detail = Localizable("Run {id} ended long ago and was removed; its outputs stay in the box.", id=id)
        raise RequestRefused(HttpProblem(ProblemKind.RUN_GONE, detail))
    raise RequestRefused(
        HttpProblem(ProblemKind.NOT_FOUND, Localizable("You have no run {id!r} here.", id=id[:40]))
    )


def etag(run: Run) -> str:
    """Return a tag that changes with every change of the run."""
    return f'"{run.version}"'
