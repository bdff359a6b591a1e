"""Who the caller is: what `prichal login` asks with a token, and `prichal logout` to end it."""

from __future__ import annotations

from flask import Blueprint, current_app
from flask.typing import ResponseReturnValue

from controller import __version__
from controller.domain.people.documents import role_document
from controller.web.api.platform.admission import note
from controller.web.context import context, people_context, principal
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

me = Blueprint("me", __name__)

_VIA = "token "  # before the id of the token, in what says how the caller proved who they are


@me.get("/-/me")
def show() -> ResponseReturnValue:
    """`token` is null if the caller has sent none of a person."""
    who = principal()
    return {
        "user": who.name or None,
        "via": who.via,
        "scope": who.scope.value,
        "roles": [role_document(grant) for grant in who.grants],
        "token": _own_token(),
        "appDomain": context(current_app).settings.web.app_domain or None,
        "version": __version__,
    }


@me.post("/-/me/logout")
def logout() -> ResponseReturnValue:
    """Revoke the token that was sent: any token may end itself."""
    id, who = _own_token(), principal()
    if id is None:
        detail = "Only a token of a person can be revoked here."
        raise RequestRefused(HttpProblem(ProblemKind.BAD_REQUEST, detail))
    people_context(current_app).store.revoke_token(id, who.name)
    note(f"token {id}", f"of {who.name}")
    return {"revoked": id}


def _own_token() -> str | None:
    via = principal().via
    return via.removeprefix(_VIA) if principal().name and via.startswith(_VIA) else None
