"""Notifications of an app, or of the platform (`@platform`): who is told about what, and a test of each."""

from __future__ import annotations

from urllib.parse import quote

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.web.api.platform.admission import note
from controller.web.api.platform.refusals import refusal
from controller.web.api.platform.stored import StoredPlatform
from controller.web.context import context, principal
from controller.web.pages.flashes import Flash, redirect_saying
from controller.web.pages.notifications import notifications_page
from controller.web.pages.rendering import wants_page
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.responses import problem_response, store_failed

notifications = Blueprint("notifications", __name__)


@notifications.get("/-/apps/<name>/notifications")
def listed(name: str) -> ResponseReturnValue:
    """A document for programs, a page for people."""
    return notifications_page(name) if wants_page() else _platform().notifications(name)


@notifications.post("/-/apps/<name>/notifications/<notification>/test")
def test(name: str, notification: str) -> ResponseReturnValue:
    """Ask for a test message; what becomes of it is in the list."""
    try:
        asked = _platform().test_notification(name, notification)
    except Transient as error:
        if error.reason != Reason.QUEUE_FULL:
            raise
        raise RequestRefused(HttpProblem(ProblemKind.QUEUE_FULL, error.message, retry_after=10)) from error
    note(f"{name}/{notification}", "")
    if wants_page():
        return redirect_saying(f"/-/apps/{quote(name)}/notifications", Flash.TEST_ASKED)
    return asked, 202


def _platform() -> StoredPlatform:
    store, settings = context(current_app)
    return StoredPlatform(store, settings, principal())


@notifications.errorhandler(Stalled)
def refused(error: Stalled) -> Response:
    problem = refusal(error, (request.view_args or {}).get("name", ""))
    return problem_response(problem) if problem else store_failed(error)
