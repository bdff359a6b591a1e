"""Problems as responses of the Flask application. Used where errors of its views end."""

from __future__ import annotations

import logging

from flask import Response, request

from controller.domain.errors import ControllerError
from controller.web.headers import request_id
from controller.web.problems import Kind, Problem

log = logging.getLogger(__name__)


def problem_response(problem: Problem) -> Response:
    return Response(problem.body(this_request()), problem.code, problem.headers())


def store_failed(error: ControllerError) -> Response:
    log.warning("the store failed: %s", error, extra={"request": this_request()})
    return problem_response(Problem(Kind.STORE_BUSY, "Try again in a moment.", retry_after=2))


def this_request() -> str:
    """The id that the ASGI layer gave this request."""
    return request_id(request.headers.get("X-Request-ID", "").encode("latin-1")).decode()
