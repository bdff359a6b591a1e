"""The switch of the language: a link that leads back to the page it stands on, and a cookie that remembers it."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue

from controller.web.auth.sign_in import local_path
from controller.web.context import client_info, people_context
from controller.web.pages.languages import COOKIE, Language
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

languages = Blueprint("languages", __name__)

YEAR: Final = 365 * 86400


@languages.get("/-/language/<language>")
def choose(language: str) -> ResponseReturnValue:
    if language not in list(Language):
        known = ", ".join(Language)
        raise RequestRefused(
            HttpProblem(ProblemKind.NOT_FOUND, f"There is no such language; there are {known}.")
        )
    response = Response(status=303, content_type="text/plain; charset=utf-8")
    response.headers["Location"] = local_path(request.args.get("next", ""), and_login=True)
    is_secure = people_context(current_app).callers.is_https(client_info())
    response.set_cookie(
        COOKIE, language, max_age=YEAR, path="/-/", secure=is_secure, httponly=True, samesite="Lax"
    )
    return response
