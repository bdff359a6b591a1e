"""The files of an app's boxes below `/-/apps/<app>/files`, for people with a role and their programs: the documents of
the files API, or pages for browsers. Callers of a module use the module's own files API.

Who sees the app may read, its developers may change. By default the area is that of the person (`person:NAME`, as when
they try an API); `?area=developer` is the module's own data. Nobody gets to the area of another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flask import Blueprint, Response, current_app, redirect, request
from flask.typing import ResponseReturnValue

from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.routing.caller_names import name_of_person
from controller.domain.storage.keys import DEVELOPER_AREA, FilePath, user_area
from controller.web.api.files import answers
from controller.web.api.files.area import MAX_REMOVED, PAGE, BoxArea
from controller.web.api.files.moves import GroupMoves
from controller.web.api.platform.admission import FORM, note, note_nothing
from controller.web.api.platform.status import known_app
from controller.web.auth.call_passes import ADMIN
from controller.web.context import context, principal, query
from controller.web.pages.files import FilesPlace, boxes_page, file_page, folder_fragment, folder_page
from controller.web.pages.flashes import Flash, redirect_saying
from controller.web.pages.rendering import wants_page
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

app_files = Blueprint("app_files", __name__)

AREAS: Final = {"developer": True}


@app_files.get("/-/apps/<name>/files")
def boxes(name: str) -> ResponseReturnValue:
    app = _app(name)
    return boxes_page(app, answers.bound_boxes(app)) if wants_page() else answers.boxes(app)


@app_files.get("/-/apps/<name>/files/<path:target>")
def read(name: str, target: str) -> ResponseReturnValue:
    """With `download`, lead to the file itself."""
    app = _app(name)
    place = _place(app, target)
    if not wants_page():
        if query().flag("fragment"):
            return folder_fragment(place)
        return answers.read(*_locate(app, target))
    if place.path.is_group:
        return folder_page(place)
    area, path = _locate(app, target)
    if query().flag("download"):
        area.find(path)
        return redirect(area.sign("GET", path, save=True).url, 303)
    return file_page(place, area)


@app_files.put("/-/apps/<name>/files/<path:target>")
def write(name: str, target: str) -> ResponseReturnValue:
    app = _app(name)
    if "upload" in query():
        note_nothing()
    else:
        _note(app, target)
    return answers.write(*_locate(app, target))


@app_files.post("/-/apps/<name>/files/<path:target>")
def change(name: str, target: str) -> ResponseReturnValue:
    """Begin or complete an upload in parts, or move what is there; or what a form of the pages asks for."""
    app = _app(name)
    area, path = _locate(app, target)
    if request.mimetype == FORM:
        return _form_act(path)(_place(app, target), area)
    if "uploads" in query():
        note_nothing()
    elif to := query().text("moveTo"):
        if _continues(area, path, to):
            note_nothing()
        else:
            _note(app, target, "moved", to)
    else:
        _note(app, target, "uploaded")
    return answers.change(area, path)


@app_files.delete("/-/apps/<name>/files/<path:target>")
def delete(name: str, target: str) -> ResponseReturnValue:
    app = _app(name)
    if "upload" in query():
        note_nothing()
    else:
        _note(app, target)
    return answers.delete(*_locate(app, target))


@app_files.errorhandler(ControllerError)
def storage_failed(error: ControllerError) -> Response:
    return answers.storage_failed(AppName((request.view_args or {})["name"]), error)


def _app(name: str) -> AppName:
    return known_app(context(current_app).store, name).app


def _place(app: AppName, target: str) -> FilesPlace:
    box, _, rest = target.partition("/")
    found = answers.find_box(app, box)
    return FilesPlace(app, found, answers.checked_path(rest), _prefix())


def _locate(app: AppName, target: str) -> tuple[BoxArea, FilePath]:
    return answers.locate(app, target, _prefix())


def _prefix() -> str:
    if query().choice("area", AREAS, "developer, or left out"):
        return DEVELOPER_AREA
    return user_area(name_of_person(principal().name or ADMIN))


def _note(app: AppName, target: str, done: str = "", to: str = "") -> None:
    where = f" to {to}" if to else ""
    area = " in the developer area" if _prefix() == DEVELOPER_AREA else ""
    note(app, f"{done} {target}{where}{area}".strip())


# --- forms ----------------------------------------------------------------------------------------------------------


def _form_act(path: FilePath) -> Callable[[FilesPlace, BoxArea], ResponseReturnValue]:
    if not path.is_group:
        return _move
    return _move_group if "to" in request.form else _delete_chosen


def _delete_chosen(place: FilesPlace, area: BoxArea) -> ResponseReturnValue:
    """Delete what is chosen in a folder; names of folders end in a slash. What is gone already is fine. Once so many
    files are deleted as one request may delete, the rest stays."""
    names = list(filter(None, request.form.getlist("name")))[:PAGE]
    chosen = [_chosen(place.path, name) for name in names]
    _note(place.app, f"{place.box.box}/{place.path.text}", f"deleted {len(chosen)} in")
    count, is_rest = 0, False
    for path in chosen:
        if count >= MAX_REMOVED:
            is_rest = True
            break
        if path.is_group:
            deleted, more = area.remove_group(path)
            count, is_rest = count + deleted, is_rest or more
        else:
            _remove(area, path)
            count += 1
    said = Flash.FILES_LEFT if is_rest else Flash.FILES_DELETED if chosen else Flash.NONE_CHOSEN
    return redirect_saying(place.address(), said)


def _chosen(folder: FilePath, name: str) -> FilePath:
    """Return what a name in a folder stands for. A path of one segment names a group, but other clients of the storage
    may have put a file there, beside a group of the same name."""
    found = answers.checked_path(folder.text + name)
    return found if name.endswith("/") else FilePath(found.text.removesuffix("/"), is_group=False)


def _move(place: FilesPlace, area: BoxArea) -> ResponseReturnValue:
    to = answers.checked_path(request.form.get("to", "").strip().lstrip("/"))
    if to.is_group:
        raise RequestRefused(
            HttpProblem(ProblemKind.INVALID_PATH, Localizable("Name a folder and a file: folder/file."))
        )
    _note(place.app, f"{place.box.box}/{place.path.text}", "moved", to.text)
    area.move(place.path, to)
    return redirect_saying(place.at(to.text).address(), Flash.FILE_MOVED)


def _move_group(place: FilesPlace, area: BoxArea) -> ResponseReturnValue:
    """Begin or continue the move of a folder. Without scripts people continue it themselves."""
    to = answers.checked_path(request.form["to"].strip().strip("/") + "/")
    moves = GroupMoves(area)
    if moves.is_under_way(place.path, to):
        note_nothing()
    else:
        _note(place.app, f"{place.box.box}/{place.path.text}", "moved", to.text)
    step = moves.step(place.path, to)
    if step.more:
        return redirect_saying(place.address(), Flash.FOLDER_MOVES)
    return redirect_saying(
        place.at(to.text).address(), Flash.FOLDER_PART if step.left else Flash.FOLDER_MOVED
    )


def _continues(area: BoxArea, path: FilePath, to: str) -> bool:
    """Return whether this request continues a move that the audit has already."""
    return path.is_group and bool(path.text) and GroupMoves(area).is_under_way(path, answers.checked_path(to))


def _remove(area: BoxArea, path: FilePath) -> None:
    try:
        area.remove(path)
    except RequestRefused as refused:
        if refused.problem.kind is not ProblemKind.NOT_FOUND:
            raise
