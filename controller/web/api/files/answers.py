"""What is done with a path in an area of a box, and the answer to it: lists, links, uploads in parts, deletion. Used by
the files API of an app (`views`) and by that for people (`web/api/platform/files`), which decide who may and in which
area; nothing here does."""

from __future__ import annotations

import logging
import time
from typing import NoReturn

from flask import Response, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.apps.requests import Trigger
from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName
from controller.domain.storage.box import BoxRecord, BoxState, StoredObject
from controller.domain.storage.keys import FileKeyInvalid, FilePath, check_cursor, parse_path
from controller.domain.units import rfc3339
from controller.web.api.files.area import PAGE, BoxArea, FileLink
from controller.web.api.files.moves import GroupMoves, MoveStep
from controller.web.api.files.uploads import MAX_PARTS, Unfinished, Uploads, part_count, part_size, unfinished
from controller.web.context import context, query, storage_client
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused, method_problem
from controller.web.responses import problem_response, store_failed, this_request
from controller.web.storage import storage_problem

log = logging.getLogger(__name__)


def bound_boxes(app: AppName) -> tuple[BoxRecord, ...]:
    """Return the declared boxes of the app."""
    records = context(current_app).store.boxes.of(app)
    return tuple(record for record in records if record.state is BoxState.BOUND)


def boxes(app: AppName) -> dict[str, object]:
    store, now = context(current_app).store, time.time()
    found = bound_boxes(app)
    return {"boxes": [_box(record, store.boxes.usage(record.bucket, now).pending) for record in found]}


def find_box(app: AppName, box: str) -> BoxRecord:
    """Raises RequestRefused."""
    record = context(current_app).store.boxes.get(app, ComponentName(box))
    if record is None or record.state is not BoxState.BOUND:
        raise RequestRefused(
            HttpProblem(ProblemKind.NOT_FOUND, Localizable("The app has no box {box}.", box=box))
        )
    return record


def locate(app: AppName, target: str, prefix: str) -> tuple[BoxArea, FilePath]:
    """Return the area whose keys begin with `prefix`, and the path in it. `target` is `<box>/<path>`. Raises
    RequestRefused."""
    box, _, rest = target.partition("/")
    record, path = find_box(app, box), checked_path(rest)
    store, settings = context(current_app)
    storage = storage_client(current_app)
    lifetime = settings.storage.link_lifetime
    return BoxArea(store, storage, storage.objects(), record, prefix, lifetime, time.time()), path


def checked_path(text: str) -> FilePath:
    """Raises RequestRefused."""
    try:
        return parse_path(text)
    except FileKeyInvalid as error:
        detail = Localizable("This name is not possible: {why}.", why=error.message)
        raise RequestRefused(HttpProblem(ProblemKind.INVALID_PATH, detail)) from error


def read(area: BoxArea, path: FilePath) -> ResponseReturnValue:
    """List a group, return a link to a file, its uploads in parts, or the parts of one that have arrived."""
    if path.is_group:
        return _listing(area, path)
    if "uploads" in query():
        own = (each for each in unfinished(area, path) if each.path == path.text)
        return {"uploads": [_unfinished(each) for each in own]}
    upload = query().text("upload")
    if upload is not None:
        return _upload(Uploads(area, path), upload)
    found, link = area.find(path), area.sign("GET", path)
    about = {"size": found.size, "etag": found.etag, "modified": rfc3339(found.modified)}
    return {**_link("get", link), **about}


def write(area: BoxArea, path: FilePath) -> ResponseReturnValue:
    """Return a link to upload a file, or a part of one."""
    _require_file(path)
    if request.content_length or "Transfer-Encoding" in request.headers:
        detail = "PUT takes no body here: it answers a link, and the bytes are PUT there."
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
    asked = query()
    upload = asked.text("upload")
    if upload is not None:
        number = asked.needed("part", least=1, most=MAX_PARTS)
        return _link("put", Uploads(area, path).part_link(upload, number))
    _check_condition(area, path)
    return _link("put", area.allow(path, asked.number("size", 0)))


def change(area: BoxArea, path: FilePath) -> ResponseReturnValue:
    """Begin or complete an upload in parts, or move a file or a group."""
    asked = query()
    place = asked.text("moveTo")
    if place is not None and path.text and path.is_group:
        return _moved(GroupMoves(area).step(path, checked_path(place)))
    _require_file(path)
    uploads = Uploads(area, path)
    if "uploads" in asked:
        size = asked.needed("size")
        _check_condition(area, path)
        begun = uploads.begin(size, context(current_app).settings.storage.abandon_after)
        return {"upload": begun, "partSize": part_size(size), "parts": part_count(size)}, 201
    upload = asked.text("upload")
    if upload is not None:
        return _file(path.text, uploads.complete(upload))
    if place is not None:
        to = checked_path(place)
        _require_file(to)
        return _file(to.text, area.move(path, to))
    detail = "POST begins an upload in parts (?uploads&size=), completes one (?upload=) or moves the file (?moveTo=)."
    raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))


def delete(area: BoxArea, path: FilePath) -> ResponseReturnValue:
    """Delete a file or a group, or give up an upload in parts."""
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


def storage_failed(app: AppName, error: ControllerError) -> Response:
    """Return the problem for an error of the storage; all other errors come from the store."""
    problem = trouble_of(app, error)
    return store_failed(error) if problem is None else problem_response(problem)


def trouble_of(app: AppName, error: ControllerError) -> HttpProblem | None:
    """Return the problem for an error of the storage, None for other errors. A pass is requested for a missing bucket,
    in which the daemon creates it again."""
    problem = storage_problem(error)
    if problem is None:
        return None
    level = logging.ERROR if problem.kind is ProblemKind.STORAGE_REFUSED else logging.WARNING
    log.log(level, "the storage failed: %s", error, extra={"request": this_request(), "reason": error.reason})
    if problem.kind is ProblemKind.BUCKET_MISSING:
        context(current_app).store.requests.enqueue(app, Trigger.DRIFT)
    return problem


def _require_file(path: FilePath) -> None:
    if path.is_group:
        allow = "GET, HEAD, DELETE" if path.text else "GET, HEAD"
        _refuse_method("This is a group; a file has at least two segments and no slash at its end.", allow)


def _check_condition(area: BoxArea, path: FilePath) -> None:
    """With `If-None-Match: *`, refuse to replace a file. Raises RequestRefused."""
    if request.headers.get("If-None-Match", "").strip() == "*" and area.has(path):
        detail = Localizable("There is a file {path} already.", path=path.text)
        raise RequestRefused(HttpProblem(ProblemKind.HTTP, detail, status=412, title="Precondition failed"))


def _refuse_method(detail: str, allow: str) -> NoReturn:
    raise RequestRefused(method_problem(detail, allow))


def read_cursor(text: str) -> str:
    """Return the cursor of a listing: a name within the group, as the previous page gave it; it cannot lead out of
    the group."""
    try:
        check_cursor(text)
    except FileKeyInvalid as error:
        detail = f"after must be next of the page before: {error}."
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail)) from error
    return text


# --- documents --------------------------------------------------------------------------------------------------


def _listing(area: BoxArea, group: FilePath) -> dict[str, object]:
    asked = query()
    after, limit = read_cursor(asked.text("after") or ""), asked.number("limit", PAGE, least=1, most=PAGE)
    listing = area.page(group, after, limit, asked.flag("recursive"), asked.text("prefix") or "")
    found = [{**_file(name, stored), "modified": rfc3339(stored.modified)} for name, stored in listing.files]
    return {"files": found, "groups": list(listing.groups), "next": listing.next}


def _upload(uploads: Uploads, upload: str) -> dict[str, object]:
    found = uploads.find(upload)
    parts = [{"number": p.number, "size": p.size, "etag": p.etag} for p in uploads.parts(found)]
    return {"size": found.size, "partSize": part_size(found.size), "parts": parts}


def _unfinished(found: Unfinished) -> dict[str, object]:
    reserved = found.reserved
    return {
        "upload": reserved.upload,
        "size": reserved.size,
        "arrived": found.arrived,
        "created": rfc3339(reserved.created),
        "expires": rfc3339(reserved.expires),
    }


def _moved(step: MoveStep) -> dict[str, object]:
    numbers = {"moved": step.moved, "soFar": step.so_far, "files": step.files, "left": step.left}
    return {**numbers, "more": step.more}


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
