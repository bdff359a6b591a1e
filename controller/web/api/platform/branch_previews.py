"""Previews of branches: which there are, that one stays, and that one goes. What people decide is a row in the
database of requests; the daemon derives from it, within seconds, which previews there are."""

from __future__ import annotations

from urllib.parse import quote

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from controller.client.platform.api import Document
from controller.domain.errors import Stalled
from controller.web.api.platform.admission import FORM, note
from controller.web.api.platform.calling import answer_stalled, callers_platform
from controller.web.bodies import read_json
from controller.web.pages.flashes import Flash, redirect_saying
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

branch_previews = Blueprint("branch_previews", __name__)
branch_previews.register_error_handler(Stalled, answer_stalled)


@branch_previews.get("/-/previews")
def all_previews() -> ResponseReturnValue:
    return callers_platform().branch_previews(None)


@branch_previews.get("/-/apps/<name>/previews")
def previews_of(name: str) -> ResponseReturnValue:
    return callers_platform().branch_previews(name)


@branch_previews.post("/-/apps/<name>/previews/<preview>/keep")
def keep(name: str, preview: str) -> ResponseReturnValue:
    """Begin the time of a preview again; with `forever` in the form or in the JSON body it has no end."""
    asked = request.form.get("forever") == "yes" if request.mimetype == FORM else _is_forever()
    done = callers_platform().keep_preview(name, preview, asked)
    note(name, f"{done['branch']}{', for good' if asked else ''}")
    return _accepted(done, Flash.PREVIEW_KEPT)


@branch_previews.post("/-/apps/<name>/previews/<preview>/remove")
def remove(name: str, preview: str) -> ResponseReturnValue:
    """Remove a preview until its branch has another commit."""
    done = callers_platform().remove_preview(name, preview)
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
