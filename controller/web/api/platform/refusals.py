"""Errors of the platform as problems of its own interface, with the reason by which clients know them: a command
that asks a server ends as it does on the host (see controller/client/platform/errors.py)."""

from __future__ import annotations

from typing import Final

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.names import PLATFORM, AppName
from controller.domain.reasons import Reason
from controller.ports import Store
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

_KINDS: Final = {
    Reason.UNKNOWN_COMPONENT: ProblemKind.NOT_FOUND,
    Reason.UNKNOWN_REQUEST: ProblemKind.NOT_FOUND,
    Reason.UNKNOWN_NAME: ProblemKind.NOT_FOUND,
    Reason.UNKNOWN_NOTIFICATION: ProblemKind.NOT_FOUND,
    Reason.UNKNOWN_PREVIEW: ProblemKind.NOT_FOUND,
    Reason.NO_CONTAINER: ProblemKind.NOT_FOUND,
    Reason.NO_BUILD: ProblemKind.NOT_FOUND,
    Reason.UNKNOWN_REVISION: ProblemKind.NOT_FOUND,
    Reason.NOTHING_PENDING: ProblemKind.CONFLICT,
    Reason.ROLLBACK_REFUSED: ProblemKind.CONFLICT,
    Reason.SECRET_REFUSED: ProblemKind.INVALID,
    Reason.NAME_INVALID: ProblemKind.INVALID,
}


def refusal(error: Stalled, app: str = "") -> HttpProblem | None:
    """Return the answer to what the caller has asked for; None for a fault of the platform itself. `app` is that of
    the request: one that is hidden and one that does not exist get the same answer."""
    if error.reason == Reason.UNKNOWN_APP:
        return unknown_app(app)
    kind = _KINDS.get(error.reason)
    return HttpProblem(kind, error.message, extra={"reason": error.reason}) if kind else None


def require_app(store: Store, name: str, or_platform: bool = True) -> AppName:
    """Return the name of an app that is there; that of the platform, too, unless not `or_platform`. Raises
    RequestRefused."""
    app = AppName(name)
    if not (or_platform if app == PLATFORM else store.apps.has(app)):
        raise RequestRefused(unknown_app(app))
    return app


def unknown_app(name: str) -> HttpProblem:
    """The answer for an app that does not exist, and for one that the caller may not see."""
    return HttpProblem(
        ProblemKind.NOT_FOUND,
        Localizable("No app is called {name}.", name=name),
        extra={"reason": Reason.UNKNOWN_APP},
    )
