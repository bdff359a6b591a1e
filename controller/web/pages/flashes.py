"""What a page says once after something was done: the form's answer redirects to a page and names a text by a cookie,
which the page shows and takes back. So going back, reloading and other tabs do not repeat it.

The cookie holds the name of one of the texts below and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from flask import Response

from controller.web.pages.languages import N_

COOKIE: Final = "prichal-said"
LIFETIME: Final = 60  # seconds


class Flash(StrEnum):
    RECONCILING = "reconciling"
    RETRYING = "retrying"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    APPROVED = "approved"
    ROLLED_BACK = "rolled-back"
    SESSION_ENDED = "session-ended"
    TOKEN_REVOKED = "token-revoked"  # noqa: S105 - no password: a name
    USER_ADDED = "user-added"
    USER_REMOVED = "user-removed"
    SECRET_ASKED = "secret-asked"  # noqa: S105 - no password: a name
    ROLE_GIVEN = "role-given"
    ROLE_TAKEN = "role-taken"
    FILES_DELETED = "files-deleted"
    FILES_LEFT = "files-left"
    NONE_CHOSEN = "none-chosen"
    FILE_MOVED = "file-moved"
    FOLDER_MOVED = "folder-moved"
    FOLDER_MOVES = "folder-moves"
    FOLDER_PART = "folder-part"
    TEST_ASKED = "test-asked"
    PREVIEW_KEPT = "preview-kept"
    PREVIEW_REMOVED = "preview-removed"


TEXTS: Final[Mapping[Flash, str]] = {
    Flash.RECONCILING: N_("A reconciliation is requested. It begins in a moment, and this page follows it."),
    Flash.RETRYING: N_("What failed is tried again, and this page follows it."),
    Flash.SUSPENDED: N_("The app is suspended: running containers keep running, new commits wait."),
    Flash.RESUMED: N_("The app follows Git again."),
    Flash.APPROVED: N_("The revision is approved and will be reconciled in a moment."),
    Flash.ROLLED_BACK: N_("The app goes back to the earlier revision, and this page follows it."),
    Flash.SESSION_ENDED: N_("The session has ended."),
    Flash.TOKEN_REVOKED: N_("The token is revoked."),
    Flash.USER_ADDED: N_("The account is there."),
    Flash.USER_REMOVED: N_("The account is removed, with its roles, sessions and tokens."),
    Flash.SECRET_ASKED: N_(
        "The change is encrypted for the platform's daemon, which applies it in a moment. This page follows it."
    ),
    Flash.ROLE_GIVEN: N_("The role is granted."),
    Flash.ROLE_TAKEN: N_("The role is revoked."),
    Flash.FILES_DELETED: N_("What you chose is deleted. Its space is free within seconds."),
    Flash.FILES_LEFT: N_("There were too many files for one request: delete the rest in the same way."),
    Flash.NONE_CHOSEN: N_("Nothing was chosen."),
    Flash.FILE_MOVED: N_("The file is moved."),
    Flash.FOLDER_MOVED: N_("The folder is moved."),
    Flash.FOLDER_MOVES: N_("There are too many files for one request: go on under “Unfinished moves”."),
    Flash.FOLDER_PART: N_(
        "Some files stay in the old folder, because the new one has others of their names."
    ),
    Flash.PREVIEW_KEPT: N_("The preview stays longer. This page shows its new end in a moment."),
    Flash.PREVIEW_REMOVED: N_("The preview is removed. The next commit of its branch brings it back."),
    Flash.TEST_ASKED: N_(
        "A test message is sent in a moment. What becomes of it is below; this page follows it."
    ),
}


def redirect_saying(place: str, flash: Flash) -> Response:
    """Return a redirect to a page of ours that shows this text."""
    response = Response(status=303, content_type="text/plain; charset=utf-8")
    response.headers["Location"] = place
    response.set_cookie(COOKIE, flash, max_age=LIFETIME, path="/-/", httponly=True, samesite="Lax")
    return response


def taken(cookies: Mapping[str, str]) -> tuple[str, bool]:
    """Return the text to show, and whether there was a cookie to take back."""
    name = cookies.get(COOKIE)
    if name is None:
        return "", False
    return (TEXTS[Flash(name)], True) if name in list(Flash) else ("", True)


def forget(response: Response) -> None:
    response.delete_cookie(COOKIE, path="/-/", httponly=True, samesite="Lax")
