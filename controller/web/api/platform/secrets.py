"""Secrets of an app, for those who may steer it: names, keys and fingerprints, never values. A change is sealed for
the daemon, which applies it; what became of it is in the list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from controller.client.platform.api import Document
from controller.domain.apps.age_keys import KeyAction
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable, sentence
from controller.domain.reasons import Reason
from controller.domain.secret import Secret, without_line_end
from controller.web.api.platform.admission import note
from controller.web.api.platform.calling import answer_stalled, callers_platform, invalid
from controller.web.bodies import read_json, require_json
from controller.web.context import query
from controller.web.pages.rendering import wants_page
from controller.web.pages.secrets import after_change, secrets_page
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

secrets = Blueprint("secrets", __name__)
secrets.register_error_handler(Stalled, answer_stalled)

MAX_DETAIL: Final = 200  # characters in the audit
_ACTION: Final = '{"action": "rotate"}'
_BODY: Final = '{"values": {"TOKEN": "…"}}'


@secrets.get("/-/apps/<name>/secrets")
def listed(name: str) -> ResponseReturnValue:
    """A document for programs, a page for people."""
    return secrets_page(name) if wants_page() else callers_platform().secrets(name)


@secrets.post("/-/apps/<name>/secrets")
def set_by_form(name: str) -> ResponseReturnValue:
    """A form that is refused comes back with what was filled in but the value, and says why."""
    secret, key = (request.form.get(field, "").strip() for field in ("secret", "key"))
    try:
        values = {key: _given_value()}
        _asked(name, secret, values, lambda: callers_platform().set_secret(name, secret, values))
    except Stalled as error:
        if error.reason != Reason.SECRET_REFUSED:
            raise
        return secrets_page(name, secret, key, sentence(error.message))
    return after_change(name)


@secrets.post("/-/apps/<name>/secrets/<secret>/remove")
def remove_by_form(name: str, secret: str) -> ResponseReturnValue:
    """Remove the key that the form names, or the whole Secret."""
    keys = request.form.getlist("key")
    _asked(name, secret, keys, lambda: callers_platform().remove_secret(name, secret, keys))
    return after_change(name)


@secrets.put("/-/apps/<name>/secrets/<secret>")
def put(name: str, secret: str) -> ResponseReturnValue:
    """Set the keys that the body names, and leave others as they are."""
    require_json(request.mimetype, f"Send JSON such as {_BODY}.")
    values = _values(read_json(request.get_data(cache=False)))
    return _asked(name, secret, values, lambda: callers_platform().set_secret(name, secret, values))


@secrets.delete("/-/apps/<name>/secrets/<secret>")
def remove(name: str, secret: str) -> ResponseReturnValue:
    """Remove the keys that the query names, or the whole Secret."""
    asked = query().values
    if unknown := sorted(set(asked) - {"key"}):  # a mistyped one would remove all keys
        raise invalid(f"Only the parameter key is known here, not {unknown[0][:40]!r}.")
    keys = asked.get("key", ())
    return _asked(name, secret, keys, lambda: callers_platform().remove_secret(name, secret, keys))


@secrets.post("/-/apps/<name>/age-keys")
def change_age_key(name: str) -> ResponseReturnValue:
    """Make another age key for the app, or delete the older ones; with `force` also those that are still needed."""
    require_json(request.mimetype, f"Send JSON such as {_ACTION}.")
    body = read_json(request.get_data(cache=False))
    is_known = isinstance(body, dict) and {"action"} <= set(body) <= {"action", "force"}
    action, force = (str(body["action"]), body.get("force", False)) if is_known else ("", False)
    may_force = action == KeyAction.RETIRE
    if action not in set(KeyAction) or not isinstance(force, bool) or (force and not may_force):
        raise invalid(
            f'The body must be {_ACTION}; the action is rotate or retire, and "force": true may stand beside retire.'
        )
    said = (action, "force") if force else (action,)
    return _asked(name, "", said, lambda: callers_platform().change_age_key(name, KeyAction(action), force))


def _values(body: Any) -> Mapping[str, Secret]:
    values = body.get("values") if isinstance(body, dict) and set(body) == {"values"} else None
    if (
        not isinstance(values, dict)
        or not values
        or not all(isinstance(each, str) for each in values.values())
    ):
        raise invalid(f"The body must be a mapping of keys to texts such as {_BODY}.")
    return {key: Secret(value) for key, value in values.items()}


def _given_value() -> Secret:
    """Return the content of the file that was chosen, or else what was typed. Raises Stalled `SecretRefused`."""
    file = request.files.get("file")
    if file is None or not file.filename:
        return Secret(without_line_end(request.form.get("value", "").replace("\r\n", "\n")))
    try:
        return Secret(without_line_end(file.read().decode()))
    except UnicodeDecodeError:
        message = Localizable("the file is not text in UTF-8; store a binary file in Base64")
        raise Stalled(Reason.SECRET_REFUSED, message) from None


def _asked(app: str, secret: str, keys: Iterable[str], ask: Callable[[], Document]) -> ResponseReturnValue:
    try:
        change = ask()
    except Transient as error:
        if error.reason != Reason.QUEUE_FULL:
            raise
        raise RequestRefused(HttpProblem(ProblemKind.QUEUE_FULL, error.message, retry_after=10)) from error
    note(f"{app}/{secret}" if secret else app, ", ".join(keys)[:MAX_DETAIL])
    return {"app": app, "change": change}, 202
