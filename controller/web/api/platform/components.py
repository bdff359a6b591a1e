"""One component below `/-/apps/<app>/components/<component>`: its versions and replicas, its series, and passes to try
its APIs. Views read the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.apps.samples import (
    COARSE,
    FINE,
    Sample,
    SeriesGrid,
    grid,
    quantile,
    resolution_for,
)
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Api, ServiceKind
from controller.domain.units import parse_duration, render_duration, rfc3339
from controller.web.api.platform.admission import note
from controller.web.api.platform.documents import component_document
from controller.web.api.platform.status import component_in
from controller.web.auth.call_passes import may_call
from controller.web.bodies import read_json
from controller.web.context import context, passes, principal, query
from controller.web.pages.component import component_page
from controller.web.pages.rendering import wants_page
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

components = Blueprint("components", __name__)

DIGITS: Final = 6  # significant ones of a number


@components.get("/-/apps/<name>/components/<component>")
def one_component(name: str, component: str) -> ResponseReturnValue:
    if wants_page():
        return component_page(name, component)
    app, found = find_component(name, component)
    return {"app": app.app, **component_document(found)}


@components.get("/-/apps/<name>/components/<component>/series")
def series(name: str, component: str) -> ResponseReturnValue:
    app, found = find_component(name, component)
    return series_document(app.app, found.name, read_series(app.app, found.name, _window()))


@components.post("/-/apps/<name>/components/<component>/passes")
def make_pass(name: str, component: str) -> ResponseReturnValue:
    """Make a pass for an API of the component, or for the files of the app that it is called with."""
    path, (app, found) = _named_path(), find_component(name, component)
    api = next((each for each in apis_to_try(app.app, found.name) if each.path == path), None)
    if api is None:
        raise RequestRefused(
            HttpProblem(
                ProblemKind.NOT_FOUND,
                Localizable("{component} has no published API at this path.", component=component),
            )
        )
    label = f"{app.app}/{api.path}"
    if not may_call(principal(), app.app, api):
        raise RequestRefused(
            HttpProblem(
                ProblemKind.NOT_ALLOWED, Localizable("Your role does not allow to call {label}.", label=label)
            )
        )
    made = passes(current_app).make(principal(), label)
    if made is None:
        detail = Localizable(
            "Passes are for pages, for as long as a session lasts: programs call the API with its own credentials."
        )
        raise RequestRefused(HttpProblem(ProblemKind.NOT_ALLOWED, detail))
    note(label)
    text, expires = made
    return {"pass": text, "api": f"/{label}", "expires": rfc3339(expires)}, 201


def apis_to_try(app: AppName, component: ComponentName) -> list[Api]:
    """Return the published APIs of the component, and that of the app's files."""
    store = context(current_app).store
    routes = [route for route in store.routes.of(app) if route.component == component]
    files = [each for each in store.routes.services(app) if each.kind is ServiceKind.FILES]
    found = [api for route in routes for api in route.apis] + [service.api for service in files if routes]
    return [api for api in found if api.published]


def _named_path() -> str:
    content = request.get_data(cache=False)
    body = read_json(content) if request.is_json else None
    path = body.get("path") if isinstance(body, dict) else None
    if not isinstance(path, str):
        raise RequestRefused(
            HttpProblem(
                ProblemKind.BAD_REQUEST, Localizable('The body must be a mapping such as {"path": "image"}.')
            )
        )
    return path


def find_component(app: str, component: str) -> tuple[AppStatus, ComponentStatus]:
    return component_in(context(current_app).store, app, component)


def read_series(app: AppName, component: ComponentName, window: float) -> SeriesGrid:
    resolution = resolution_for(window)
    stored = context(current_app).store.series.of(app, component, resolution)
    return grid(stored, resolution, window, time.time())


def _window() -> float:
    text = query().text("window")
    try:
        seconds = parse_duration(text) if text is not None else float(FINE.window)
    except ValueError:
        seconds = 0.0
    if not FINE.step <= seconds <= COARSE.window:
        least, most = render_duration(FINE.step), render_duration(COARSE.window)
        detail = Localizable(
            "window is {text!r}: it must be a duration, {least} to {most}, such as 1h.",
            text=(text or "")[:40],
            least=least,
            most=most,
        )
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
    return seconds


#: What a sample says, by its name in documents.
VALUES: Final[dict[str, Callable[[Sample], float | None]]] = {
    "requests": lambda sample: _per_second(sample.requests, sample),
    "refused": lambda sample: _per_second(sample.refused, sample),
    "failed": lambda sample: _per_second(sample.failed, sample),
    "p50": lambda sample: quantile(sample.buckets, 0.5),
    "p99": lambda sample: quantile(sample.buckets, 0.99),
    "inFlight": lambda sample: sample.in_flight,
    "cpu": lambda sample: sample.cpu,
    "memory": lambda sample: sample.memory,
    "gpu": lambda sample: sample.gpu,
    "gpuMemory": lambda sample: sample.gpu_memory,
    "callsRunning": lambda sample: sample.running,
    "callsQueued": lambda sample: sample.queued,
    "callsOverdue": lambda sample: sample.overdue,
    "workerRestarts": lambda sample: sample.restarted,
}


def series_document(app: AppName, component: ComponentName, found: SeriesGrid) -> dict[str, object]:
    return {
        "app": app,
        "component": component,
        "start": rfc3339(found.start),
        "step": found.step,
        "values": {name: values_of(found, name) for name in VALUES},
    }


def values_of(found: SeriesGrid, name: str) -> list[float | None]:
    """Return the values of one name, None where nothing is known."""
    value = VALUES[name]
    return [_short(value(sample)) if sample is not None else None for sample in found.samples]


def _per_second(count: float | None, sample: Sample) -> float | None:
    return None if count is None or not sample.seconds else count / sample.seconds


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
