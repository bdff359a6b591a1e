"""What views below `/-/` share: the platform as their caller may see it, and answers to what it refuses."""

from __future__ import annotations

from flask import Response, current_app, request

from controller.domain.errors import Stalled
from controller.web.api.platform.refusals import refusal
from controller.web.api.platform.stored import StoredPlatform
from controller.web.context import client_info, context, people_context, principal
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.responses import problem_response, store_failed


def callers_platform() -> StoredPlatform:
    store, settings = context(current_app)
    return StoredPlatform(
        store, settings, principal(), people_context(current_app).callers.url(client_info())
    )


def answer_stalled(error: Stalled) -> Response:
    """The handler of this error for blueprints whose paths name the app `name`."""
    problem = refusal(error, (request.view_args or {}).get("name", ""))
    return problem_response(problem) if problem else store_failed(error)


def invalid(detail: str) -> RequestRefused:
    return RequestRefused(HttpProblem(ProblemKind.INVALID, detail))
