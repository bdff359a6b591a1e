"""`/<app>/files`: the files of an app's boxes. Views that read the request and write the answer; what is done in an
area is in `area`, uploads in parts are in `uploads`.

The gateway hands over calls that it has admitted, with the caller's name, which chooses his area: nothing that a caller
sends does.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import NoReturn

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.errors import ControllerError
from controller.domain.keys import DEVELOPER_AREA, FilePath, KeyInvalid, parse_path, user_area
from controller.domain.names import ComponentName
from controller.domain.routes import ServiceKind
from controller.domain.storage import BoxRecord, BoxState, StoredObject
from controller.web.context import context, service_call, storage_client
from controller.web.files.area import PAGE, Area, Link
from controller.web.files.openapi import document
from controller.web.files.uploads import MAX_PARTS, Uploads, part_count, part_size
from controller.web.problems import Kind, Problem, Refused
from controller.web.responses import description_page, problem_response, store_failed, this_request
from controller.web.storage import storage_problem

log = logging.getLogger(__name__)

files = Blueprint("files", __name__, url_prefix=f"/{ServiceKind.FILES}")


@files.get("/")
def boxes() -> ResponseReturnValue:
    store, now = context(current_app).store, time.time()
    return {"boxes": [_box(record, store.boxes.room(record.bucket, now).pending) for record in _bound()]}


@files.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    return document(service_call().prefix, [record.box for record in _bound()])


@files.get("/-/docs")
def docs() -> ResponseReturnValue:
    description = document(service_call().prefix, [record.box for record in _bound()])
    return description_page("files.html", description)


@files.get("/<path:target>")
def read(target: str) -> ResponseReturnValue:
    """A group is listed; of a file there is a link, or what of an upload has arrived."""
    area, path = _locate(target)
    if path.is_group:
        return _listing(area, path)
    if "upload" in request.args:
        return _upload(Uploads(area, path), request.args["upload"])
    found, link = area.find(path), area.sign("GET", path)
    about = {"size": found.size, "etag": found.etag, "modified": rfc3339(found.modified)}
    return {**_link("get", link), **about}


@files.put("/<path:target>")
def write(target: str) -> ResponseReturnValue:
    area, path = _locate_file(target)
    if request.content_length or "Transfer-Encoding" in request.headers:
        detail = "PUT takes no body here: it answers a link, and the bytes are PUT there."
        raise Refused(Problem(Kind.BAD_REQUEST, detail))
    if "upload" in request.args:
        number = _number("part", least=1, most=MAX_PARTS)
        return _link("put", Uploads(area, path).part_link(request.args["upload"], number))
    return _link("put", area.allow(path, _number("size", default=0)))


@files.post("/<path:target>")
def upload(target: str) -> ResponseReturnValue:
    """Begins or completes an upload in parts."""
    area, path = _locate_file(target)
    uploads = Uploads(area, path)
    if "uploads" in request.args:
        size = _number("size")
        begun = uploads.begin(size, context(current_app).settings.storage.abandon_after)
        return {"upload": begun, "part_size": part_size(size), "parts": part_count(size)}, 201
    if "upload" in request.args:
        return _file(path.text, uploads.complete(request.args["upload"]))
    detail = "POST begins an upload in parts (?uploads&size=) or completes one (?upload=)."
    raise Refused(Problem(Kind.BAD_REQUEST, detail))


@files.delete("/<path:target>")
def delete(target: str) -> ResponseReturnValue:
    area, path = _locate(target)
    if not path.text:
        _refuse_method("A box is deleted by its manifest, its groups one by one.", "GET, HEAD")
    if path.is_group:
        deleted, more = area.remove_group(path)
        return {"deleted": deleted, "more": more}
    if "upload" in request.args:
        Uploads(area, path).abort(request.args["upload"])
    else:
        area.remove(path)
    return "", 204


@files.errorhandler(ControllerError)
def storage_failed(error: ControllerError) -> Response:
    """Errors of the storage; what else there is comes from the store."""
    problem = storage_problem(error)
    if problem is None:
        return store_failed(error)
    level = logging.ERROR if problem.kind is Kind.STORAGE_REFUSED else logging.WARNING
    log.log(level, "the storage failed: %s", error, extra={"request": this_request(), "reason": error.reason})
    if problem.kind is Kind.BUCKET_MISSING:
        return _ask_for_bucket(problem)
    return problem_response(problem)


def _ask_for_bucket(problem: Problem) -> Response:
    """A pass of the daemon makes it again."""
    try:
        context(current_app).store.requests.enqueue(service_call().service.app, "drift")
    except ControllerError as error:
        return store_failed(error)
    return problem_response(problem)


# --- where ------------------------------------------------------------------------------------------------------


def _bound() -> tuple[BoxRecord, ...]:
    """The app's boxes, but for those that no manifest declares any more."""
    records = context(current_app).store.boxes.of(service_call().service.app)
    return tuple(record for record in records if record.state is BoxState.BOUND)


def _locate(target: str) -> tuple[Area, FilePath]:
    """The area that the caller asks for, and what in it."""
    store, settings = context(current_app)
    box, _, rest = target.partition("/")
    record = store.boxes.get(service_call().service.app, ComponentName(box))
    if record is None or record.state is not BoxState.BOUND:
        raise Refused(Problem(Kind.NOT_FOUND, f"The app has no box {box}."))
    try:
        path = parse_path(rest)
    except KeyInvalid as error:
        raise Refused(Problem(Kind.INVALID_PATH, f"Nothing can be called so: {error}.")) from error
    prefix, lifetime = _prefix(), settings.storage.link_lifetime
    storage = storage_client(current_app)
    return Area(store, storage, storage.objects(), record, prefix, lifetime, time.time()), path


def _locate_file(target: str) -> tuple[Area, FilePath]:
    area, path = _locate(target)
    if path.is_group:
        allow = "GET, HEAD, DELETE" if path.text else "GET, HEAD"
        _refuse_method("This is a group; a file has at least two segments and no slash at its end.", allow)
    return area, path


def _prefix() -> str:
    call, area = service_call(), request.args.get("area")
    if area is None:
        return user_area(call.user or None)
    if area != "developer":
        raise Refused(Problem(Kind.BAD_REQUEST, f"area must be developer or left out, not {area!r}."))
    if not call.user or call.user not in call.service.developers:
        detail = "The developer area is for the users listed in spec.files.developers of the APIComponent."
        raise Refused(Problem(Kind.FORBIDDEN, detail))
    return DEVELOPER_AREA


def _refuse_method(detail: str, allow: str) -> NoReturn:
    raise Refused(Problem(Kind.METHOD, detail, allow=allow))


def _number(name: str, default: int | None = None, least: int = 0, most: int = 2**63 - 1) -> int:
    """A whole number of the query. One without default must be there."""
    text = request.args.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (
        text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most
    ):
        given = "is missing" if text is None else f"is {text[:40]!r}"
        raise Refused(
            Problem(Kind.BAD_REQUEST, f"{name} {given}: it must be a whole number, {least} to {most}.")
        )
    return int(text)


# --- documents --------------------------------------------------------------------------------------------------


def _listing(area: Area, group: FilePath) -> dict[str, object]:
    recursive = request.args.get("recursive", "0") != "0"
    limit = _number("limit", default=PAGE, least=1, most=PAGE)
    listing = area.page(group, request.args.get("after", ""), limit, recursive)
    found = [{**_file(name, stored), "modified": rfc3339(stored.modified)} for name, stored in listing.files]
    return {"files": found, "groups": list(listing.groups), "next": listing.next}


def _upload(uploads: Uploads, upload: str) -> dict[str, object]:
    found = uploads.find(upload)
    parts = [{"number": p.number, "size": p.size, "etag": p.etag} for p in uploads.parts(found)]
    return {"size": found.size, "part_size": part_size(found.size), "parts": parts}


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


def _link(method: str, link: Link) -> dict[str, object]:
    return {f"presigned_{method}_url": link.url, "expires": rfc3339(link.expires)}


def rfc3339(at: float) -> str:
    """Unix seconds as `2026-01-31T12:00:00Z`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
