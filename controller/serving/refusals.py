"""Exceptions by which the developer's code refuses a call as the caller's fault, in place of failing. ``predict`` asks.

They are known by their attributes, so that the code needs nothing of ours: any exception with ``status_code`` and
``detail``, as those of FastAPI, Starlette, Litestar and Django REST framework have them, and those of Werkzeug and
Flask. Clients of other services raise exceptions with a status, too, which is not that of this call: so a status alone
is not enough.
"""

from __future__ import annotations

import builtins
import dataclasses
from typing import Any, Optional

from . import problems
from .plain_json import dumps
from .problems import ServingProblem

#: What a function may say of a request. The others belong to HTTP itself, and to the gateway, which admits callers.
STATUSES = frozenset(
    {400, 402, 403, 404, 406, 409, 410, 412, 413, 415, 416, 418, 422, 423, 424, 428, 429, 451}
)
LONGEST, LONGEST_TITLE = 2000, 200


def refusal_of(error: BaseException) -> Optional[ServingProblem]:
    """The answer to a call that an exception refuses; None if it is a failure."""
    if not isinstance(error, Exception):
        return None
    try:
        error = _alone(error)
        status, title, detail = _told(error)
        if status not in STATUSES:
            return None
        text = _text(detail) or _text(str(error))
    except BaseException:  # noqa: BLE001 -- attributes of theirs may fail in any way, and must not end our thread
        return None
    kind = dataclasses.replace(problems.FUNCTION_REFUSED, status=status)
    if isinstance(title, str) and title.strip():
        kind = dataclasses.replace(kind, title=" ".join(title[: 2 * LONGEST_TITLE].split())[:LONGEST_TITLE])
    name = type(error).__name__[:LONGEST_TITLE]
    return ServingProblem(kind, text or kind.title, exception={"type": name, "message": text})


def _alone(error: Any) -> Any:
    """The exception in a group of one, which is how tasks of a ``TaskGroup`` raise it. Python before 3.11 has none."""
    group = getattr(builtins, "BaseExceptionGroup", ())
    while isinstance(error, group) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _told(error: Any) -> tuple[int, Any, Any]:
    """Status, title and detail; the status is 0 if there is none."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and hasattr(error, "detail"):
        return int(status), getattr(error, "title", None), error.detail
    status = getattr(error, "code", None)
    if isinstance(status, int) and callable(getattr(error, "get_response", None)):  # Werkzeug's
        return int(status), None, getattr(error, "description", None)
    return 0, None, None


def _text(detail: Any) -> str:
    """A detail as text. Frameworks take any JSON."""
    if detail is None:
        return ""
    return (detail if isinstance(detail, str) else _json(detail)).strip()[:LONGEST]


def _json(detail: Any) -> str:
    """JSON, or what Python says of it: a detail that is not JSON does not turn a refusal into a failure."""
    try:
        return dumps(detail, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return repr(detail)
