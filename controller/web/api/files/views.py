"""`/<app>/files`: the files of an app's boxes. Views that read the request and write the answer; operations
in an area are in `area`, uploads in parts in `uploads`.

The gateway passes on admitted calls with the caller's name. That name selects the area; nothing that a caller
sends does."""

from __future__ import annotations

import logging
import time
from typing import NoReturn

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.apps.requests import Trigger
from controller.domain.errors import ControllerError
from controller.domain.names import ComponentName
from controller.domain.routing.routes import ServiceKind
from controller.domain.storage.box import BoxRecord, BoxState, StoredObject
from controller.domain.storage.keys import (
    DEVELOPER_AREA,
    FileKeyInvalid,
    FilePath,
    check_cursor,
    parse_path,
    user_area,
)
from controller.domain.units import rfc3339
from controller.web.api.descriptions import Json
from controller.web.api.files.area import PAGE, BoxArea, FileLink
from controller.web.api.files.openapi import document
from controller.web.api.files.uploads import MAX_PARTS, Uploads, part_count, part_size
from controller.web.auth.schemes import secured
from controller.web.context import context, query, service_call, storage_client
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.responses import description_page, problem_response, store_failed, this_request
from controller.web.storage import storage_problem

log = logging.getLogger(__name__)

files = Blueprint("files", __name__, url_prefix=f"/{ServiceKind.FILES}")


@files.get("/")
def boxes() -> ResponseReturnValue:
    store, now = context(current_app).store, time.time()
    return {"boxes": [_box(record, store.boxes.usage(record.bucket, now).pending) for record in _bound()]}


@files.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    return _description()


@files.get("/-/docs")
def docs() -> ResponseReturnValue:
    return description_page("files.html", _description())


@files.get("/<path:target>")
def read(target: str) -> ResponseReturnValue:
    """List a group, return a link to a file, or the parts of an upload that have arrived."""
    area, path = _locate(target)
    if path.is_group:
        return _listing(area, path)
    upload = query().text("upload")
    if upload is not None:
        return _upload(Uploads(area, path), upload)
    found, link = area.find(path), area.sign("GET", path)
    about = {"size": found.size, "etag": found.etag, "modified": rfc3339(found.modified)}
    return {**_link("get", link), **about}


@files.put("/<path:target>")
def write(target: str) -> ResponseReturnValue:
    area, path = _locate_file(target)
    if request.content_length or "Transfer-Encoding" in request.headers:
        detail = "PUT takes no body here: it answers a link, and the bytes are PUT there."
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
    asked = query()
    upload = asked.text("upload")
    if upload is not None:
        number = asked.needed("part", least=1, most=MAX_PARTS)
        return _link("put", Uploads(area, path).part_link(upload, number))
    return _link("put", area.allow(path, asked.number("size", 0)))


@files.post("/<path:target>")
def upload_in_parts(target: str) -> ResponseReturnValue:
    """Begin or complete an upload in parts."""
    area, path = _locate_file(target)
    uploads, asked = Uploads(area, path), query()
    if "uploads" in asked:
        size = asked.needed("size")
        begun = uploads.begin(size, context(current_app).settings.storage.abandon_after)
        return {"upload": begun, "partSize": part_size(size), "parts": part_count(size)}, 201
    upload = asked.text("upload")
    if upload is not None:
        return _file(path.text, uploads.complete(upload))
    detail = "POST begins an upload in parts (?uploads&size=) or completes one (?upload=)."
    raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))


@files.delete("/<path:target>")
def delete(target: str) -> ResponseReturnValue:
    area, path = _locate(target)
    if not path.text:
        _refuse_method("A box is deleted through its manifest; delete its groups one by one.", "GET, HEAD")
    if path.is_group:
        deleted, more = area.remove_group(path)
        return {"deleted": deleted, "more": more}
    upload = query().text("upload")
    if upload is not None:
        Uploads(area, path).abort(upload)
    else:
        area.remove(path)
    return "", 204


@files.errorhandler(ControllerError)
def storage_failed(error: ControllerError) -> Response:
    """Return the problem for an error of the storage; all other errors come from the store."""
    problem = storage_problem(error)
    if problem is None:
        return store_failed(error)
    level = logging.ERROR if problem.kind is ProblemKind.STORAGE_REFUSED else logging.WARNING
    log.log(level, "the storage failed: %s", error, extra={"request": this_request(), "reason": error.reason})
    if problem.kind is ProblemKind.BUCKET_MISSING:
        return _ask_for_bucket(problem)
    return problem_response(problem)


def _ask_for_bucket(problem: HttpProblem) -> Response:
    """Request a pass, in which the daemon creates the bucket again."""
    try:
        context(current_app).store.requests.enqueue(service_call().service.app, Trigger.DRIFT)
    except ControllerError as error:
        return store_failed(error)
    return problem_response(problem)


# --- where ------------------------------------------------------------------------------------------------------


def _bound() -> tuple[BoxRecord, ...]:
    """Return the declared boxes of the app."""
    records = context(current_app).store.boxes.of(service_call().service.app)
    return tuple(record for record in records if record.state is BoxState.BOUND)


def _locate(target: str) -> tuple[BoxArea, FilePath]:
    """Return the area and the path that the request names."""
    store, settings = context(current_app)
    box, _, rest = target.partition("/")
    record = store.boxes.get(service_call().service.app, ComponentName(box))
    if record is None or record.state is not BoxState.BOUND:
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, f"The app has no box {box}."))
    try:
        path = parse_path(rest)
    except FileKeyInvalid as error:
        raise RequestRefused(
            HttpProblem(ProblemKind.INVALID_PATH, f"This name is not possible: {error}.")
        ) from error
    prefix, lifetime = _prefix(), settings.storage.link_lifetime
    storage = storage_client(current_app)
    return BoxArea(store, storage, storage.objects(), record, prefix, lifetime, time.time()), path


def _locate_file(target: str) -> tuple[BoxArea, FilePath]:
    area, path = _locate(target)
    if path.is_group:
        allow = "GET, HEAD, DELETE" if path.text else "GET, HEAD"
        _refuse_method("This is a group; a file has at least two segments and no slash at its end.", allow)
    return area, path


def _prefix() -> str:
    call = service_call()
    if not query().choice("area", {"developer": True}, "developer, or left out"):
        return user_area(call.user or None)
    if not call.user or call.user not in call.service.developers:
        detail = "The developer area is for the users listed in spec.files.developers of the APIComponent."
        raise RequestRefused(HttpProblem(ProblemKind.FORBIDDEN, detail))
    return DEVELOPER_AREA


def _refuse_method(detail: str, allow: str) -> NoReturn:
    raise RequestRefused(HttpProblem(ProblemKind.METHOD, detail, allow=allow))


def _cursor(text: str) -> str:
    """Return the cursor of a listing: a name within the group, as the previous page gave it; it cannot lead out of
    the group."""
    try:
        check_cursor(text)
    except FileKeyInvalid as error:
        detail = f"after must be next of the page before: {error}."
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail)) from error
    return text


def _description() -> Json:
    call = service_call()
    return secured(document(call.prefix, [record.box for record in _bound()]), call.service.api)


# --- documents --------------------------------------------------------------------------------------------------


def _listing(area: BoxArea, group: FilePath) -> dict[str, object]:
    asked = query()
    after, limit = _cursor(asked.text("after") or ""), asked.number("limit", PAGE, least=1, most=PAGE)
    listing = area.page(group, after, limit, asked.flag("recursive"))
    found = [{**_file(name, stored), "modified": rfc3339(stored.modified)} for name, stored in listing.files]
    return {"files": found, "groups": list(listing.groups), "next": listing.next}


def _upload(uploads: Uploads, upload: str) -> dict[str, object]:
    found = uploads.find(upload)
    parts = [{"number": p.number, "size": p.size, "etag": p.etag} for p in uploads.parts(found)]
    return {"size": found.size, "partSize": part_size(found.size), "parts": parts}


def _box(record: BoxRecord, pending: int) -> dict[str, object]:
    return {
        "name": record.box,
        "capacity": record.capacity,
        "used": record.used,
        "pending": pending,
        "files": record.files,
    }


def _file(name: str, stored: StoredObject) -> dict[str, object]:
    return {"name": name, "size": stored.size, "etag": stored.etag}


def _link(method: str, link: FileLink) -> dict[str, object]:
    return {f"presigned_{method}_url": link.url, "expires": rfc3339(link.expires)}
