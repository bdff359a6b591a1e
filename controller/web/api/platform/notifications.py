"""Notifications of an app, or of the platform (`@platform`): who is told about what, and a test of each."""

from __future__ import annotations

from urllib.parse import quote

from flask import Blueprint
from flask.typing import ResponseReturnValue

from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.web.api.platform.admission import note
from controller.web.api.platform.calling import answer_stalled, callers_platform
from controller.web.pages.flashes import Flash, redirect_saying
from controller.web.pages.notifications import notifications_page
from controller.web.pages.rendering import wants_page
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

notifications = Blueprint("notifications", __name__)
notifications.register_error_handler(Stalled, answer_stalled)


@notifications.get("/-/apps/<name>/notifications")
def listed(name: str) -> ResponseReturnValue:
    """A document for programs, a page for people."""
    return notifications_page(name) if wants_page() else callers_platform().notifications(name)


@notifications.post("/-/apps/<name>/notifications/<notification>/test")
def test(name: str, notification: str) -> ResponseReturnValue:
    """Ask for a test message; what becomes of it is in the list."""
    try:
        asked = callers_platform().test_notification(name, notification)
    except Transient as error:
        if error.reason != Reason.QUEUE_FULL:
            raise
        raise RequestRefused(HttpProblem(ProblemKind.QUEUE_FULL, error.message, retry_after=10)) from error
    note(f"{name}/{notification}", "")
    if wants_page():
        return redirect_saying(f"/-/apps/{quote(name)}/notifications", Flash.TEST_ASKED)
    return asked, 202
