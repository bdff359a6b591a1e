"""What is kept on the engine, for administrators: a list, and the removal of what nothing needs. The daemon does both;
what it was asked for has an id, under which the answer is found within seconds."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from controller.client.platform.api import Document
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.web.api.platform.admission import note
from controller.web.api.platform.calling import answer_stalled, callers_platform
from controller.web.bodies import read_json, require_json
from controller.web.context import query
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

images = Blueprint("images", __name__)
images.register_error_handler(Stalled, answer_stalled)

_BODY: Final = '{"app": "demo"}'


@images.get("/-/images")
def ask_list() -> ResponseReturnValue:
    return _asked(query().text("app"), removes=False)


@images.get("/-/images/<id>")
def asked_list(id: str) -> ResponseReturnValue:
    return callers_platform().images_now(id)


@images.post("/-/images/prune")
def prune() -> ResponseReturnValue:
    """Remove what nothing needs, of all apps or of the one that the JSON body names."""
    app = _named_app()
    asked = _asked(app, removes=True)
    note(app or "")
    return asked, 202


def _asked(app: str | None, removes: bool) -> Document:
    try:
        return callers_platform().ask_images(app, removes)
    except Transient as error:
        if error.reason != Reason.QUEUE_FULL:
            raise
        raise RequestRefused(HttpProblem(ProblemKind.QUEUE_FULL, error.message, retry_after=10)) from error


def _named_app() -> str | None:
    """Return the app in the body, which may be empty. A body that says it in another way is refused: it would stand
    for all apps otherwise."""
    content = request.get_data(cache=False)
    if not content and not query().values:
        return None
    require_json(request.mimetype, f"Send JSON such as {_BODY}.")
    body = read_json(content)
    app = body.get("app") if isinstance(body, dict) and set(body) <= {"app"} and not query().values else 0
    if app is not None and not isinstance(app, str):
        raise RequestRefused(
            HttpProblem(ProblemKind.BAD_REQUEST, f"The body must be a mapping such as {_BODY}.")
        )
    return app
