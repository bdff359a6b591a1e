"""Previews of branches: which there are, that one stays, and that one goes. What people decide is a row in the
database of requests; the daemon derives from it, within seconds, which previews there are."""

from __future__ import annotations

from urllib.parse import quote

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue

from controller.client.platform.api import Document
from controller.domain.errors import Stalled
from controller.web.api.platform.admission import FORM, note
from controller.web.api.platform.refusals import refusal
from controller.web.api.platform.stored import StoredPlatform
from controller.web.bodies import read_json
from controller.web.context import context, people_context, principal, visitor
from controller.web.pages.flashes import Flash, redirect_saying
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.responses import problem_response, store_failed

branch_previews = Blueprint("branch_previews", __name__)


@branch_previews.get("/-/previews")
def all_previews() -> ResponseReturnValue:
    return _platform().branch_previews(None)


@branch_previews.get("/-/apps/<name>/previews")
def previews_of(name: str) -> ResponseReturnValue:
    return _platform().branch_previews(name)


@branch_previews.post("/-/apps/<name>/previews/<preview>/keep")
def keep(name: str, preview: str) -> ResponseReturnValue:
    """Begin the time of a preview again; with `forever` in the form or in the JSON body it has no end."""
    asked = request.form.get("forever") == "yes" if request.mimetype == FORM else _is_forever()
    done = _platform().keep_preview(name, preview, asked)
    note(name, f"{done['branch']}{', for good' if asked else ''}")
    return _accepted(done, Flash.PREVIEW_KEPT)


@branch_previews.post("/-/apps/<name>/previews/<preview>/remove")
def remove(name: str, preview: str) -> ResponseReturnValue:
    """Remove a preview until its branch has another commit."""
    done = _platform().remove_preview(name, preview)
    note(name, done["branch"])
    return _accepted(done, Flash.PREVIEW_REMOVED)


def _accepted(done: Document, said: Flash) -> ResponseReturnValue:
    if request.mimetype == FORM:
        return redirect_saying(f"/-/apps/{quote(done['app'])}", said)
    return done, 202


def _is_forever() -> bool:
    content = request.get_data(cache=False)
    body = read_json(content) if content and request.is_json else {}
    found = body.get("forever", False) if isinstance(body, dict) else None
    if not isinstance(found, bool):
        detail = 'The body must be a mapping such as {"forever": true}.'
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
    return found


def _platform() -> StoredPlatform:
    store, settings = context(current_app)
    return StoredPlatform(store, settings, principal(), people_context(current_app).callers.url(visitor()))


@branch_previews.errorhandler(Stalled)
def refused(error: Stalled) -> Response:
    problem = refusal(error, (request.view_args or {}).get("name", ""))
    return problem_response(problem) if problem else store_failed(error)
