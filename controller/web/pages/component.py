"""The page of one component: its versions and replicas, live; charts of what it did and used; and a form by which a
person calls its APIs. Charts and form are made by modules in `web/static/` from the series and from the API's own
description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from flask import Response, current_app, request

from controller.domain.apps.observed import WorkloadState
from controller.domain.apps.status import ComponentStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.people.roles import Principal
from controller.domain.routing.routes import Api, Route, ServiceKind
from controller.ports import Store
from controller.web.api.platform.status import component_in
from controller.web.auth.call_passes import may_call
from controller.web.context import client_info, context, people_context, principal, query
from controller.web.pages.app import word_of
from controller.web.pages.files import storage_origin
from controller.web.pages.languages import N_, Language, patterns_of
from controller.web.pages.live import live_page
from controller.web.pages.rendering import language, render
from controller.web.pages.words import told_about
from controller.web.query import QueryParameters

STATES: Final[Mapping[WorkloadState, tuple[str, str]]] = {
    WorkloadState.CREATED: (N_("created"), "calm"),
    WorkloadState.PENDING: (N_("waits for its start"), "busy"),
    WorkloadState.RUNNING: (N_("is running"), "good"),
    WorkloadState.STOPPED: (N_("has ended"), "bad"),
    WorkloadState.REFUSED: (N_("refused"), "bad"),
    WorkloadState.LOST: (N_("lost"), "bad"),
}
WINDOWS: Final = (("1h", N_("an hour")), ("1d", N_("a day")))


@dataclass(frozen=True)
class Chart:
    """Lines of one unit: names of values of a series (api/platform/components.py), and what each is called. An
    `optional` one is not shown where nothing is known."""

    title: str
    unit: str
    names: tuple[str, ...]
    labels: tuple[str, ...]
    optional: bool = False


CHARTS: Final = (
    Chart(
        N_("Calls per second"),
        "number",
        ("requests", "refused", "failed"),
        (N_("all"), N_("refused"), N_("failed")),
    ),
    Chart(N_("Latency"), "seconds", ("p50", "p99"), (N_("p50"), N_("p99"))),
    Chart(N_("Calls in progress"), "number", ("inFlight",), (N_("in progress"),)),
    Chart(N_("CPU"), "number", ("cpu",), (N_("all replicas"),)),
    Chart(N_("Memory"), "bytes", ("memory",), (N_("all replicas"),)),
    Chart(N_("GPUs"), "share", ("gpu",), (N_("use"),), optional=True),
    Chart(N_("Memory of GPUs"), "bytes", ("gpuMemory",), (N_("use"),), optional=True),
    Chart(
        N_("Slots of the serving library"),
        "number",
        ("callsRunning", "callsQueued", "callsOverdue", "workerRestarts"),
        (N_("run"), N_("wait"), N_("overdue"), N_("workers replaced")),
        optional=True,
    ),
)

#: What the form's module says; the keys are its own.
WORDS: Final[Mapping[str, str]] = {
    "method": N_("Method"),
    "path": N_("Path below the address"),
    "body": N_("Body"),
    "body-hint": N_("JSON; it is not sent with GET."),
    "type": N_("Type"),
    "optional": N_("optional"),
    "needed": N_("required"),
    "json-hint": N_("A JSON object."),
    "number-hint": N_("A number, numbers between commas, or lists in lists such as [[1, 2], [3, 4]]."),
    "file": N_("A file of yours"),
    "file-path": N_("Path in your area"),
    "file-hint": N_("A file that is there already; it does not count if you choose one of yours."),
    "uploading": N_("The file is being uploaded…"),
    "not-stored": N_("The file could not be stored."),
    "not-read": N_("The file could not be read."),
    "seconds": N_("s"),
    "answer": N_("Answer"),
    "json": N_("The whole answer as JSON"),
    "save": N_("Save"),
    "too-large": N_("The answer is too large to be shown here."),
    "no-answer": N_(
        "There is no answer that this page may read: the connection broke, or the API redirects."
    ),
    "wrong-missing": N_("this is required."),
    "wrong-json": N_("this cannot be read."),
    "wrong-object": N_("this must be a JSON object."),
    "wrong-number": N_("this must be numbers."),
    "wrong-integer": N_("this must be whole numbers."),
    "wrong-range": N_("this must be within"),
    "wrong-ragged": N_("the lists must have equal lengths."),
}


@dataclass(frozen=True)
class TryApi:
    """An API that the reader may call. `kind` is `own` for a server that describes itself; `auth` is how programs sign
    in: `basic`, `bearer`, or "" for an open one."""

    path: str
    kind: str
    auth: str


@dataclass(frozen=True)
class ComponentLive:
    app: AppName
    component: ComponentName

    @classmethod
    def of(
        cls, store: Store, who: Principal, names: Mapping[str, str], asked: QueryParameters
    ) -> ComponentLive:
        """Raises RequestRefused for a component that does not exist."""
        app, found = component_in(store, names["name"], names["component"])
        return cls(app.app, found.name)

    def read(self, store: Store) -> ComponentStatus | None:
        return store.apps.status(self.app).component(self.component)

    def fragments(self, found: Any, language: Language) -> Mapping[str, str]:
        status: ComponentStatus = found or ComponentStatus(self.component, "MLComponent")
        word, tone = word_of(status.conditions)
        values = {
            "status": status,
            "word": word,
            "tone": tone,
            "says": told_about(status),
            "states": STATES,
        }
        return {name: render(f"component/{name}.html", language, values) for name in ("head", "replicas")}


def component_page(name: str, component: str) -> Response:
    """The page for the present request. Its scripts may use all that is below the component's path."""
    store, who = context(current_app).store, principal()
    live = ComponentLive.of(store, who, {"name": name, "component": component}, query())
    routes = [route for route in store.routes.of(live.app) if route.component == live.component]
    files = [
        service.api.path
        for service in store.routes.services(live.app)
        if service.kind is ServiceKind.FILES
        and service.api.published
        and may_call(who, live.app, service.api)
    ]
    boxes = [box for route in routes for box in route.boxes]
    place = f"/-/apps/{quote(live.app)}/components/{quote(live.component)}"
    base = _base(live.app)
    return live_page(
        "component/page.html",
        live,
        scope=place,
        writes=place,
        connect=(base, storage_origin()),
        name=live.app,
        component=live.component,
        place=place,
        base=base,
        apis=_apis(who, live.app, routes),
        files=files[0] if files else "",
        box=boxes[0] if boxes else "",
        charts=CHARTS,
        patterns=patterns_of(language(), "calls"),
        windows=WINDOWS,
        words=WORDS,
    )


def _apis(who: Principal, app: AppName, routes: list[Route]) -> list[TryApi]:
    return [
        TryApi(api.path, "own" if route.any_path else "predict", _auth(api))
        for route in routes
        for api in route.apis
        if api.published and may_call(who, app, api)
    ]


def _auth(api: Api) -> str:
    if api.tokens or api.oidc_issuer:
        return "bearer"
    return "basic" if api.users else ""


def _base(app: AppName) -> str:
    """Return the origin at which the app is served, if it has one of its own, else ""."""
    domain = context(current_app).settings.web.app_domain
    if not domain:
        return ""
    scheme = "https" if people_context(current_app).callers.is_https(client_info()) else "http"
    _, colon, port = request.host.rpartition(":")
    return (
        f"{scheme}://{app}.{domain}{colon}{port}"
        if colon and port.isdecimal()
        else f"{scheme}://{app}.{domain}"
    )
