"""Responses of the Flask application that several of its views give: problems, where errors end, and pages that show
an API's description."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from flask import Response, current_app, render_template, request

from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.web.auth import page_tokens
from controller.web.context import client_info, context
from controller.web.gateway.headers import request_id
from controller.web.pages.problem_page import problem_page, wants_problem_page
from controller.web.pages.rendering import words
from controller.web.problems import HttpProblem, ProblemKind

log = logging.getLogger(__name__)


#: A page with documentation has no script and loads nothing.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def description_page(template: str, description: Mapping[str, Any], **more: object) -> Response:
    """An OpenAPI description for people; `more` is for the template."""
    text = render_template(template, api=description, **more)
    page = Response(text, content_type="text/html; charset=utf-8")
    page.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return page


def problem_response(problem: HttpProblem) -> Response:
    told = problem.without_paths(context(current_app).settings.state.absolute())
    if wants_problem_page(client_info()):
        fields, body = problem_page(told, client_info(), this_request())
        return Response(body, told.code, fields)
    return Response(told.body(this_request(), said=_said(told)), told.code, told.headers())


def _said(problem: HttpProblem) -> str:
    """Return the detail in the language of a page of ours whose script asks; "" for all other callers."""
    is_script = page_tokens.HEADER in client_info().headers and isinstance(problem.detail, Localizable)
    return words().told(problem.detail) if is_script else ""


def store_failed(error: ControllerError) -> Response:
    log.warning("the store failed: %s", error, extra={"request": this_request()})
    return problem_response(HttpProblem(ProblemKind.STORE_BUSY, "Try again in a moment.", retry_after=2))


def this_request() -> str:
    """The id that the ASGI layer gave this request."""
    return request_id(request.headers.get("X-Request-ID", "").encode("latin-1")).decode()
