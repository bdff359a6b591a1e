"""Status for machines and people below `/-/`: health, metrics, apps, events, and the four requests of
administrators and developers. Views read the store and put requests into it; `admission` decides who may call them."""

from __future__ import annotations

import logging
import time
from contextlib import closing

from flask import Blueprint, Response, current_app, redirect, request
from flask.typing import ResponseReturnValue

from controller import __version__
from controller.client.platform.api import AppRequest, Document
from controller.config import Settings
from controller.domain.apps.spec import ComponentKind
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.errors import ControllerError, Stalled
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName
from controller.domain.people.roles import Act, Verdict, decide
from controller.domain.units import rfc3339
from controller.ports import Store
from controller.store.backup_record import load_record
from controller.store.calls import CallTable
from controller.web.api.platform.admission import FORM, note
from controller.web.api.platform.calling import answer_stalled, callers_platform
from controller.web.api.platform.documents import summary_document
from controller.web.api.platform.metrics import CONTENT_TYPE, CallCounts, render
from controller.web.api.platform.refusals import require_app
from controller.web.api.platform.stored import approved_revision
from controller.web.bodies import read_json
from controller.web.context import (
    context,
    principal,
    query,
    storage_client,
)
from controller.web.gpus import gpu_document, read_gpus
from controller.web.pages.app import after, app_page
from controller.web.pages.app_history import difference_page
from controller.web.pages.apps import apps_page
from controller.web.pages.rendering import wants_page
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

log = logging.getLogger(__name__)

status = Blueprint("status", __name__)
status.register_error_handler(Stalled, answer_stalled)

FRESH = 15.0  # seconds since the daemon's control loop was last alive
MAX_REVISION = 200  # characters


@status.get("/")
def front() -> ResponseReturnValue:
    return redirect("/-/", 307)


@status.get("/-/healthz")
def healthz() -> ResponseReturnValue:
    return {"status": "ok"}


@status.get("/-/readyz")
def readyz() -> ResponseReturnValue:
    """Return each check with its problem; "" means that it passed."""
    store, _ = context(current_app)
    checks = readiness(store, time.time())
    ready = not any(checks.values())
    return {"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503


def readiness(store: Store, now: float) -> dict[str, str]:
    """Return the checks of readiness. An unknown schema is refused when the store is opened, so it needs no check."""
    try:
        beat = store.last_heartbeat()
        store.routes.version()
    except ControllerError as error:
        return {"database": error.message, "daemon": Localizable("not known without the database")}
    if beat is None:
        return {"database": "", "daemon": Localizable("it has never run")}
    age = now - beat
    return {
        "database": "",
        "daemon": Localizable("its control loop was last alive {age} s ago", age=round(age))
        if age > FRESH
        else "",
    }


def checks_of(store: Store, now: float) -> dict[str, str]:
    """Return further checks for operators. They do not affect readiness, since calls need no links."""
    settings, storage = context(current_app).settings.storage, storage_client(current_app)
    lacking = settings.backend != "none" and not storage.serves_links
    links = (
        Localizable(
            "not served: another program listens at storage.listen, {address}", address=settings.listen
        )
        if lacking
        else ""
    )
    return {**readiness(store, now), "links": links}


@status.get("/-/metrics")
def metrics() -> ResponseReturnValue:
    store, settings = context(current_app)
    now = time.time()
    gpus = read_gpus(store, settings, now)
    backups = load_record(settings.backup_record) if settings.backup.to else None
    page = render(store, settings.request_counts, now, gpus, _async_calls(settings), backups)
    return Response(page, content_type=CONTENT_TYPE)


def _async_calls(settings: Settings) -> CallCounts:
    """Return the numbers of async calls; none if they cannot be read, since all else still counts."""
    if not settings.async_calls.exists():
        return ()
    try:
        with closing(CallTable(settings.async_calls, settings.call_limits, time.time)) as table:
            return table.counts()
    except ControllerError as error:
        log.warning("async calls cannot be counted: %s", error)
        return ()


@status.get("/-/status")
def overview() -> ResponseReturnValue:
    store, settings = context(current_app)
    now, who = time.time(), principal()
    return {
        "version": __version__,
        "heartbeat": rfc3339(store.last_heartbeat()),
        "checks": _checks(store, now),
        "routes": store.routes.version(),
        "gpus": [gpu_document(gpu, who.sees) for gpu in read_gpus(store, settings, now)],
        "apps": [summary_document(app) for app in _seen(store)],
    }


@status.get("/-/apps")
def apps() -> ResponseReturnValue:
    return apps_page() if wants_page() else callers_platform().apps()


@status.get("/-/apps/<name>")
def app(name: str) -> ResponseReturnValue:
    known_app(context(current_app).store, name)
    return app_page(name) if wants_page() else callers_platform().app(name)


@status.get("/-/apps/<name>/events")
def events(name: str) -> ResponseReturnValue:
    return _events(name)


@status.get("/-/apps/<name>/history")
def history(name: str) -> ResponseReturnValue:
    return callers_platform().history(name, query().number("limit", 20))


@status.get("/-/apps/<name>/diff")
def diff(name: str) -> ResponseReturnValue:
    found = callers_platform().diff(name, query().text("from"), query().text("to"))
    return (
        difference_page(name, found, context(current_app).store.history.list(AppName(name)))
        if wants_page()
        else found
    )


@status.get("/-/events")
def all_events() -> ResponseReturnValue:
    return _events(None)


@status.get("/-/apps/<name>/requests/<int:request>")
def progress(name: str, request: int) -> ResponseReturnValue:
    return callers_platform().progress(name, request, query().number("after", 0), 0.0)


@status.post("/-/apps/<name>/reconcile")
def reconcile(name: str) -> ResponseReturnValue:
    return _ask(name, AppRequest.RECONCILE)


@status.post("/-/apps/<name>/retry")
def retry(name: str) -> ResponseReturnValue:
    callers_platform().known(name)
    return _ask(name, AppRequest.RETRY)


@status.post("/-/apps/<name>/suspend")
def suspend(name: str) -> ResponseReturnValue:
    return _ask(name, AppRequest.SUSPEND)


@status.post("/-/apps/<name>/resume")
def resume(name: str) -> ResponseReturnValue:
    return _ask(name, AppRequest.RESUME)


@status.post("/-/apps/<name>/rollback")
def rollback(name: str) -> ResponseReturnValue:
    """Go back to the revision that the JSON body or the form names, or to the newest good one."""
    revision = request.form.get("revision", "") if request.mimetype == FORM else _named_revision()
    asked = callers_platform().roll_back(name, revision or None)
    note(name, f"to {asked['rollback']['revision'][:12]}")
    return _accepted(asked, "rollback")


@status.post("/-/apps/<name>/approve")
def approve(name: str) -> ResponseReturnValue:
    """Approve the revision that was attempted last, or the one that the JSON body names."""
    revision = _named_revision() or approved_revision(callers_platform().known(name))
    note(name, revision)
    return _accepted(callers_platform().approve(name, revision), "approve")


def _seen(store: Store) -> list[AppStatus]:
    """The apps that the caller may see."""
    who = principal()
    return [app for app in store.apps.all() if who.sees(app.app)]


def _checks(store: Store, now: float) -> dict[str, str]:
    """They tell about this machine, so they are for those who watch the platform as a whole."""
    return checks_of(store, now) if decide(principal(), Act.WATCH) is Verdict.ALLOWED else {}


def _named_revision() -> str:
    """Return the revision in the body, which may be empty or of another type."""
    content = request.get_data(cache=False)
    body = read_json(content) if content and request.is_json else {}
    named = body.get("revision", "") if isinstance(body, dict) else None
    if not isinstance(named, str) or len(named) > MAX_REVISION:
        raise RequestRefused(
            HttpProblem(
                ProblemKind.BAD_REQUEST, 'The body must be a mapping such as {"revision": "1f0c9a2e"}.'
            )
        )
    return named


def _events(app: str | None) -> ResponseReturnValue:
    asked = query()
    return {"events": callers_platform().events(app, asked.number("after", 0), asked.number("limit", 100))}


def _ask(app: str, what: AppRequest) -> ResponseReturnValue:
    return _accepted(callers_platform().request(app, what), what.value)


def _accepted(asked: Document, act: str) -> ResponseReturnValue:
    """Tell a program about its request, or lead a person back to the page."""
    if request.mimetype == FORM:
        return after(act, AppName(asked["app"]))
    return {**asked, "request": asked["id"]}, 202


def known_app(store: Store, name: str) -> AppStatus:
    """Return the app. Raises RequestRefused."""
    return store.apps.status(require_app(store, name))


def component_in(store: Store, app: str, component: str) -> tuple[AppStatus, ComponentStatus]:
    """Return a component that runs as containers. Raises RequestRefused."""
    known = known_app(store, app)
    found = known.component(ComponentName(component))
    if found is None or found.kind != ComponentKind.ML_COMPONENT:
        raise RequestRefused(
            HttpProblem(ProblemKind.NOT_FOUND, f"{app} has no component {component[:80]} that takes calls.")
        )
    return known, found
