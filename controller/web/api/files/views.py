"""`/<app>/files`: the files of an app's boxes, for the callers of the app. What is done and answered is in `answers`.

The gateway passes on admitted calls with the caller's name. That name selects the area; nothing that a caller
sends does."""

from __future__ import annotations

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue

from controller.domain.errors import ControllerError
from controller.domain.routing.routes import ServiceKind
from controller.domain.storage.keys import DEVELOPER_AREA, FilePath, user_area
from controller.web.api.descriptions import Json
from controller.web.api.files import answers
from controller.web.api.files.area import BoxArea
from controller.web.api.files.openapi import document
from controller.web.auth.schemes import secured
from controller.web.context import query, service_call
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.responses import description_page

files = Blueprint("files", __name__, url_prefix=f"/{ServiceKind.FILES}")


@files.get("/")
def boxes() -> ResponseReturnValue:
    return answers.boxes(service_call().service.app)


@files.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    return _description()


@files.get("/-/docs")
def docs() -> ResponseReturnValue:
    return description_page("files.html", _description())


@files.get("/<path:target>")
def read(target: str) -> ResponseReturnValue:
    return answers.read(*_locate(target))


@files.put("/<path:target>")
def write(target: str) -> ResponseReturnValue:
    return answers.write(*_locate(target))


@files.post("/<path:target>")
def change(target: str) -> ResponseReturnValue:
    return answers.change(*_locate(target))


@files.delete("/<path:target>")
def delete(target: str) -> ResponseReturnValue:
    return answers.delete(*_locate(target))


@files.errorhandler(ControllerError)
def storage_failed(error: ControllerError) -> Response:
    return answers.storage_failed(service_call().service.app, error)


def _locate(target: str) -> tuple[BoxArea, FilePath]:
    return answers.locate(service_call().service.app, target, _prefix())


def _prefix() -> str:
    call = service_call()
    if not query().choice("area", {"developer": True}, "developer, or left out"):
        return user_area(call.user or None)
    if not call.user or call.user not in call.service.developers:
        detail = "The developer area is for the users listed in spec.files.developers of the APIComponent."
        raise RequestRefused(HttpProblem(ProblemKind.FORBIDDEN, detail))
    return DEVELOPER_AREA


def _description() -> Json:
    call = service_call()
    return secured(
        document(call.prefix, [record.box for record in answers.bound_boxes(call.service.app)]),
        call.service.api,
    )
