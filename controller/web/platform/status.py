"""Status for machines and people below `/-/`: health, metrics, apps, events, and the four things an administrator may
ask for. Views read the store and put requests into it; nothing is done here."""

from __future__ import annotations

import time

from flask import Blueprint, Response, current_app, redirect, render_template, request
from flask.typing import ResponseReturnValue

from controller import __version__
from controller.domain.errors import ControllerError
from controller.domain.names import PLATFORM, AppName
from controller.domain.status import AppStatus
from controller.ports import Store
from controller.web.access.admin import is_admin
from controller.web.context import context, visitor
from controller.web.platform.deliveries import event_document
from controller.web.platform.documents import app_document, runs_document, summary_document
from controller.web.platform.metrics import CONTENT_TYPE, render
from controller.web.platform.page import app_rows, event_rows
from controller.web.problems import Kind, Problem, Refused

status = Blueprint("status", __name__)

FRESH = 15.0  # seconds since the daemon's control loop was last alive
PUBLIC = frozenset(("status.healthz", "status.readyz", "status.front"))
MAX_EVENTS = 1000


@status.before_request
def admit() -> None:
    if request.endpoint in PUBLIC:
        return
    _, settings = context(current_app)
    who = visitor()
    if is_admin(who, settings.web):
        return
    detail = (
        "Send the admin token as a bearer token, or call from the host itself (docs/reference/http-api.md)."
    )
    raise Refused(
        Problem(Kind.UNAUTHORIZED, detail, challenge='Bearer realm="prichal", Basic realm="prichal"')
    )


@status.get("/")
def front() -> ResponseReturnValue:
    return redirect("/-/", 307)


@status.get("/-/healthz")
def healthz() -> ResponseReturnValue:
    return {"status": "ok"}


@status.get("/-/readyz")
def readyz() -> ResponseReturnValue:
    """Each check with what is wrong, empty if nothing is."""
    store, _ = context(current_app)
    checks = readiness(store, time.time())
    ready = not any(checks.values())
    return {"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503


def readiness(store: Store, now: float) -> dict[str, str]:
    """A schema that this program does not know is refused when the store is opened, so an answer covers it."""
    try:
        beat = store.last_heartbeat()
        store.routes.version()
    except ControllerError as error:
        return {"database": error.message, "daemon": "not known without the database"}
    if beat is None:
        return {"database": "", "daemon": "it has never run"}
    age = now - beat
    return {
        "database": "",
        "daemon": f"its control loop was last alive {age:.0f} s ago" if age > FRESH else "",
    }


@status.get("/-/metrics")
def metrics() -> ResponseReturnValue:
    store, settings = context(current_app)
    return Response(render(store, settings.state / "web", time.time()), content_type=CONTENT_TYPE)


@status.get("/-/status")
def overview() -> ResponseReturnValue:
    store, _ = context(current_app)
    return {
        "version": __version__,
        "heartbeat": store.last_heartbeat(),
        "checks": readiness(store, time.time()),
        "routes": store.routes.version(),
        "apps": [summary_document(app) for app in store.apps.all()],
    }


@status.get("/-/apps")
def apps() -> ResponseReturnValue:
    store, _ = context(current_app)
    return {"apps": [summary_document(app) for app in store.apps.all()]}


@status.get("/-/apps/<name>")
def app(name: str) -> ResponseReturnValue:
    store, _ = context(current_app)
    found = _known(store, name)
    routes, services = store.routes.of(found.app), store.routes.services(found.app)
    runs = runs_document(store.runs.counts(found.app), store.runs.last_ended(found.app))
    return app_document(found, routes, services, store.requests.queued(found.app), runs)


@status.get("/-/apps/<name>/events")
def events(name: str) -> ResponseReturnValue:
    store, _ = context(current_app)
    found = _known(store, name)
    after, limit = _number("after", 0), min(_number("limit", 100), MAX_EVENTS)
    return {"events": [event_document(event) for event in store.events.list(found.app, after, limit)]}


@status.post("/-/apps/<name>/reconcile")
def reconcile(name: str) -> ResponseReturnValue:
    return _ask(_known(context(current_app).store, name).app)


@status.post("/-/apps/<name>/suspend")
def suspend(name: str) -> ResponseReturnValue:
    return _set_suspended(name, True)


@status.post("/-/apps/<name>/resume")
def resume(name: str) -> ResponseReturnValue:
    return _set_suspended(name, False)


@status.post("/-/apps/<name>/approve")
def approve(name: str) -> ResponseReturnValue:
    """Of the revision that was attempted last, or the one that the JSON body names."""
    store, _ = context(current_app)
    found = _known(store, name)
    body = request.get_json(silent=True) or {}
    named = body.get("revision") if isinstance(body, dict) else None
    # A platform folder that is no Git repository has no revision: any word will do, and it is good for one time.
    revision = str(named or found.attempted_revision or ("confirmed" if found.app == PLATFORM else ""))
    if not revision:
        raise Refused(Problem(Kind.CONFLICT, f"{name} has no revision yet that could be approved."))
    store.apps.approve(found.app, revision)
    return _ask(found.app)


@status.get("/-/")
def page() -> ResponseReturnValue:
    store, _ = context(current_app)
    now = time.time()
    response = Response(
        render_template(
            "status.html",
            version=__version__,
            checks=readiness(store, now),
            apps=[row for app in store.apps.all() for row in app_rows(app, store.routes.of(app.app), now)],
            events=event_rows(store.events.list(None, 0, 50), now),
        ),
        content_type="text/html; charset=utf-8",
    )
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


def _set_suspended(name: str, suspended: bool) -> ResponseReturnValue:
    store, _ = context(current_app)
    found = _known(store, name)
    store.apps.set_suspended(found.app, suspended)
    return _ask(found.app)


def _ask(app: AppName) -> ResponseReturnValue:
    store, _ = context(current_app)
    return {"app": app, "request": store.requests.enqueue(app, "manual")}, 202


def _known(store: Store, name: str) -> AppStatus:
    if name == PLATFORM:
        return store.apps.status(PLATFORM)
    found = next((app for app in store.apps.all() if app.app == name), None)
    if found is None:
        raise Refused(Problem(Kind.NOT_FOUND, f"No app is called {name}."))
    return found


def _number(name: str, default: int) -> int:
    text = request.args.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise Refused(Problem(Kind.BAD_REQUEST, f"{name} must be a whole number, not {text!r}."))
    return int(text)
