"""The pages of an app's files: its boxes, a folder of a box, and one file with what it holds. Lists come from the
storage, so a page that is open does not change by itself; the module `files.js` loads the list again after an upload,
and when somebody comes back to the window.

While the storage is down, the pages say so, with what the store knows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, urlencode

from flask import Response, current_app

from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.storage.box import BoxRecord
from controller.domain.storage.keys import DEVELOPER_AREA, FilePath
from controller.domain.storage.moves import GroupMove
from controller.web.api.files import answers
from controller.web.api.files.area import AreaPage, BoxArea
from controller.web.api.files.uploads import unfinished
from controller.web.auth import page_tokens
from controller.web.context import client_info, context, people_context, principal, query
from controller.web.pages.languages import N_, UNITS
from controller.web.pages.preview import preview_of
from controller.web.pages.problem_page import STORAGE
from controller.web.pages.rendering import gets_buttons, language, page_with, render
from controller.web.problems import ProblemKind, RequestRefused

PER_PAGE: Final = 200  # files and folders

#: What the module says; the keys are its own.
WORDS: Final[Mapping[str, str]] = {
    "waits": N_("waits"),
    "compares": N_("compares what has arrived before"),
    "uploads": N_("is being sent"),
    "again": N_("the connection is lost; it goes on by itself"),
    "later": N_("not possible at the moment; it is tried again by itself"),
    "done": N_("uploaded"),
    "cancels": N_("is being canceled"),
    "canceled": N_("canceled"),
    "exists": N_("A file of this name is here already."),
    "too-large": N_("There is no room for it: it has {size}, and {free} are free."),
    "too-large-all": N_("There is no room for all of them: they have {size}, and {free} are free."),
    "cancel": N_("Cancel"),
    "replace": N_("Replace"),
    "skip": N_("Skip"),
    "resume": N_("Go on"),
    "no-folder": N_("Name a folder: files lie in folders."),
    "folder-unread": N_("This folder cannot be read when it is dragged here: choose it instead."),
    "moves": N_("{moved} of {files} files are moved"),
    "counts": N_("the platform counts the space that is free again; it goes on by itself"),
    "move-lost": N_("The connection is lost. What has been moved stays: go on under “Unfinished moves”."),
    "move-failed": N_("It could not be moved."),
    "no-files": N_("Nothing was chosen."),
    "failed": N_("It could not be uploaded."),
    "not-given-up": N_(
        "This could not be given up: the connection is lost, or the platform refuses it. Try again."
    ),
    **{f"unit-{step}": unit for step, unit in enumerate(UNITS)},
}


@dataclass(frozen=True)
class FilesPlace:
    """A folder or a file in the area of a box whose keys begin with `prefix`."""

    app: AppName
    box: BoxRecord
    path: FilePath
    prefix: str

    @property
    def is_shared(self) -> bool:
        return self.prefix == DEVELOPER_AREA

    @property
    def name(self) -> str:
        return self.path.text.removesuffix("/").rpartition("/")[2]

    @property
    def folder(self) -> FilesPlace:
        """The folder above."""
        above = self.path.text.removesuffix("/").rpartition("/")[0]
        return self.at(f"{above}/" if above else "")

    @property
    def above(self) -> list[FilesPlace]:
        """The folders on the way, from the box's first one."""
        names = self.path.text.removesuffix("/").split("/")[:-1]
        return [self.at("/".join(names[: count + 1]) + "/") for count in range(len(names))]

    def at(self, text: str) -> FilesPlace:
        return replace(self, path=FilePath(text, is_group=not text or text.endswith("/")))

    def address(self, **asked: str) -> str:
        area = {"area": "developer"} if self.is_shared else {}
        given = urlencode({**area, **{name: value for name, value in asked.items() if value}})
        path = f"{files_of(self.app)}/{quote(self.box.box)}/{quote(self.path.text)}"
        return f"{path}?{given}" if given else path


def files_of(app: str) -> str:
    return f"/-/apps/{quote(app)}/files"


def boxes_page(app: AppName, boxes: tuple[BoxRecord, ...]) -> Response:
    store, now = context(current_app).store, time.time()
    found = [(box, store.boxes.usage(box.bucket, now)) for box in boxes]
    return page_with("files/boxes.html", {"app": app, "boxes": found, "files_of": files_of})


# --- a folder -------------------------------------------------------------------------------------------------------


def folder_page(place: FilesPlace) -> Response:
    """Its scripts may use all files of the app, and change them if the reader may."""
    changes = gets_buttons(principal(), place.app)
    form = people_context(current_app).callers.form_value(principal())
    values = {**_listed(place), "words": WORDS, "form": form, "files_of": files_of}
    return page_with(
        "files/folder.html",
        values,
        503 if values["trouble"] else 200,
        scope=files_of(place.app),
        writes=files_of(place.app) if changes else "",
        connect=(storage_origin(),),
    )


def folder_fragment(place: FilesPlace) -> dict[str, object]:
    """Return the list for the page's module, with what it needs to go on: the room, and another token."""
    callers = people_context(current_app).callers
    values = {**_listed(place), "form": callers.form_value(principal())}
    shown = page_tokens.read_token(client_info().headers.get(page_tokens.HEADER, ""))
    return {
        "html": render("files/list.html", language(), values),
        "free": values["usage"].free,
        "token": callers.page_token(principal(), shown.path, shown.writes) if shown else "",
    }


def _listed(place: FilesPlace) -> dict[str, Any]:
    asked, store = query(), context(current_app).store
    starts, after = asked.text("prefix") or "", answers.read_cursor(asked.text("after") or "")
    return {
        "place": place,
        "moves": _moves(place),
        "starts": starts,
        "after": after,
        "usage": store.boxes.usage(place.box.bucket, time.time()),
        "changes": gets_buttons(principal(), place.app),
        **_found(place, starts, after),
    }


def _moves(place: FilesPlace) -> list[tuple[GroupMove, FilesPlace, FilesPlace]]:
    """Return moves that are not done and concern this folder: from where, and to where."""
    found = context(current_app).store.boxes.moves(place.box.bucket, place.prefix)
    pairs = [
        (
            move,
            place.at(move.source.removeprefix(place.prefix)),
            place.at(move.target.removeprefix(place.prefix)),
        )
        for move in found
    ]
    return [each for each in pairs if any(_is_near(place.path.text, end.path.text) for end in each[1:])]


def _is_near(folder: str, other: str) -> bool:
    return folder.startswith(other) or other.startswith(folder)


def _found(place: FilesPlace, starts: str, after: str) -> dict[str, object]:
    """Return what the storage has, or what hinders it: `trouble`."""
    trouble = ""
    try:
        area, path = answers.locate(place.app, f"{place.box.box}/{place.path.text}", place.prefix)
        listing = area.page(path, after, PER_PAGE, recursive=False, starts=starts)
        return {"listing": listing, "unfinished": unfinished(area, path), "trouble": trouble}
    except RequestRefused as refused:
        if refused.problem.kind is not ProblemKind.PUBLISHING:
            raise
        trouble = refused.problem.detail
    except ControllerError as error:
        if answers.trouble_of(place.app, error) is None:
            raise
        trouble = Localizable.made(STORAGE, {})
    return {"listing": AreaPage((), (), None), "unfinished": [], "trouble": trouble}


# --- a file ---------------------------------------------------------------------------------------------------------


def file_page(place: FilesPlace, area: BoxArea) -> Response:
    """Raises RequestRefused for a file that does not exist."""
    found = area.find(place.path)
    values = {
        "place": place,
        "found": found,
        "preview": preview_of(area.objects, area.bucket, found),
        "changes": gets_buttons(principal(), place.app),
    }
    return page_with("files/file.html", values)


def storage_origin() -> str:
    """Return the origin to which links to files lead, "" without a storage."""
    access = context(current_app).store.boxes.access()
    return access.public_url.rstrip("/") if access else ""
