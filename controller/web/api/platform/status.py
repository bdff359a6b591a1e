"""Status for machines and people below `/-/`: health, metrics, apps, events, and the four requests of
administrators and developers. Views read the store and put requests into it; `admission` decides who may call them."""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path

from flask import Blueprint, Response, current_app, redirect, render_template, request
from flask.typing import ResponseReturnValue

from controller import __version__
from controller.domain.apps.requests import Trigger
from controller.domain.apps.status import AppStatus, Event
from controller.domain.errors import ControllerError
from controller.domain.names import PLATFORM, AppName
from controller.domain.people.roles import ALL, Act, Verdict, decide
from controller.domain.units import rfc3339
from controller.ports import Store
from controller.web.api.platform.admission import note, unknown_app
from controller.web.api.platform.deliveries import event_document
from controller.web.api.platform.documents import app_document, runs_document, summary_document
from controller.web.api.platform.metrics import CONTENT_TYPE, render
from controller.web.bodies import read_json
from controller.web.context import context, principal, query, storage_client
from controller.web.pages.status_page import app_rows, event_rows
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

status = Blueprint("status", __name__)

FRESH = 15.0  # seconds since the daemon's control loop was last alive
MAX_EVENTS = 1000
MAX_SHOWN = 50  # events on the page
MAX_REVISION = 200  # characters
#: The only script that the page may run, and its digest for the page's Content-Security-Policy.
SCRIPT = (Path(__file__).parents[2] / "templates" / "status.js").read_text()
SCRIPT_DIGEST = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()


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
        return {"database": error.message, "daemon": "not known without the database"}
    if beat is None:
        return {"database": "", "daemon": "it has never run"}
    age = now - beat
    return {
        "database": "",
        "daemon": f"its control loop was last alive {age:.0f} s ago" if age > FRESH else "",
    }


def checks_of(store: Store, now: float) -> dict[str, str]:
    """Return further checks for operators. They do not affect readiness, since calls need no links."""
    settings, storage = context(current_app).settings.storage, storage_client(current_app)
    lacking = settings.backend != "none" and not storage.serves_links
    links = f"not served: another program listens at storage.listen, {settings.listen}" if lacking else ""
    return {**readiness(store, now), "links": links}


@status.get("/-/metrics")
def metrics() -> ResponseReturnValue:
    store, settings = context(current_app)
    return Response(render(store, settings.state / "web", time.time()), content_type=CONTENT_TYPE)


@status.get("/-/status")
def overview() -> ResponseReturnValue:
    store, _ = context(current_app)
    return {
        "version": __version__,
        "heartbeat": rfc3339(store.last_heartbeat()),
        "checks": _checks(store, time.time()),
        "routes": store.routes.version(),
        "apps": [summary_document(app) for app in _seen(store)],
    }


@status.get("/-/apps")
def apps() -> ResponseReturnValue:
    store, _ = context(current_app)
    return {"apps": [summary_document(app) for app in _seen(store)]}


@status.get("/-/apps/<name>")
def app(name: str) -> ResponseReturnValue:
    store, _ = context(current_app)
    found = _known(store, name)
    routes, services = store.routes.of(found.app), store.routes.services(found.app)
    runs = runs_document(store.runs.counts(found.app), store.runs.last_ended(found.app))
    queued, uses = store.requests.queued(found.app), store.usage(found.app)
    return app_document(found, routes, services, queued, runs, uses)


@status.get("/-/apps/<name>/events")
def events(name: str) -> ResponseReturnValue:
    store, _ = context(current_app)
    found = _known(store, name)
    asked = query()
    after, limit = asked.number("after", 0), min(asked.number("limit", 100), MAX_EVENTS)
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
    """Approve the revision that was attempted last, or the one that the JSON body names."""
    store, _ = context(current_app)
    found = _known(store, name)
    named = _named_revision()
    # A platform folder outside of Git has no revision: the approval then counts once.
    revision = named or (found.attempted_revision or ("confirmed" if found.app == PLATFORM else ""))
    if not revision:
        raise RequestRefused(
            HttpProblem(ProblemKind.CONFLICT, f"{name} has no revision yet that could be approved.")
        )
    store.apps.approve(found.app, revision)
    note(name, revision)
    return _ask(found.app)


@status.get("/-/")
def page() -> ResponseReturnValue:
    store, _ = context(current_app)
    now = time.time()
    response = Response(
        render_template(
            "status.html",
            version=__version__,
            script=SCRIPT,
            who=principal().name,
            checks=_checks(store, now),
            apps=[row for app in _seen(store) for row in app_rows(app, store.routes.of(app.app), now)],
            events=event_rows(_seen_events(store, MAX_SHOWN), now),
        ),
        content_type="text/html; charset=utf-8",
    )
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'sha256-{SCRIPT_DIGEST}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts"
    )
    return response


def _seen(store: Store) -> list[AppStatus]:
    """The apps that the caller may see."""
    who = principal()
    return [app for app in store.apps.all() if who.sees(app.app)]


def _seen_events(store: Store, limit: int) -> tuple[Event, ...]:
    """The newest events of apps that the caller may see."""
    if principal().sees(ALL):
        return store.events.list(None, 0, limit)
    found = [event for app in _seen(store) for event in store.events.list(app.app, 0, limit)]
    return tuple(sorted(found, key=lambda event: event.id)[-limit:])


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


def _set_suspended(name: str, suspended: bool) -> ResponseReturnValue:
    store, _ = context(current_app)
    found = _known(store, name)
    store.apps.set_suspended(found.app, suspended)
    return _ask(found.app)


def _ask(app: AppName) -> ResponseReturnValue:
    store, _ = context(current_app)
    return {"app": app, "request": store.requests.enqueue(app, Trigger.MANUAL)}, 202


def _known(store: Store, name: str) -> AppStatus:
    if name == PLATFORM:
        return store.apps.status(PLATFORM)
    found = next((app for app in store.apps.all() if app.app == name), None)
    if found is None:
        raise RequestRefused(unknown_app(name))
    return found
