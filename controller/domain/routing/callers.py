"""Secrets as lists of the callers of an API: users with passwords or with tokens. Names and values that
cannot be sent in a request, or could be guessed, are refused before an API is published with them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from controller.domain.apps.spec import SecretSpec
from controller.domain.routing.caller_names import PERSON
from controller.domain.text import is_storable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TOKEN = re.compile(r"[\x21-\x7e]+")  # a token after `Bearer ` in a header


def unusable_passwords(secret: SecretSpec) -> Iterator[str]:
    """Return why callers could not log in with it, without any of its values."""
    for user, value in secret.values:
        if why := _wrong_user(user) or _wrong_password(user, value.reveal()):
            yield f"the Secret {secret.name!r} is not a list of users: {why}"


def unusable_tokens(secret: SecretSpec) -> Iterator[str]:
    for user, value in secret.values:
        if why := _wrong_user(user, colon=True) or _wrong_token(user, value.reveal()):
            yield f"the Secret {secret.name!r} is not a list of tokens: {why}"


def _wrong_user(user: str, colon: bool = False) -> str:
    if not user.strip():
        return "a user has no name"
    if _CONTROL.search(user) or not is_storable(user):
        return f"the user {user!r} has a control character in the name"
    if user.startswith(PERSON):
        return f"the user {user!r} has a name that begins with {PERSON}, as those of the platform's people do"
    if ":" in user and not colon:
        return f"the user {user!r} has a colon in the name, which HTTP takes for the end of it"
    return ""


def _wrong_password(user: str, password: str) -> str:
    if not password:
        return f"the password of {user!r} is empty"
    if _CONTROL.search(password) or not is_storable(password):
        return f"the password of {user!r} holds a line break or another control character"
    return ""


def _wrong_token(user: str, token: str) -> str:
    if not token:
        return f"the token of {user!r} is empty"
    if not _TOKEN.fullmatch(token):
        return (
            f"the token of {user!r} holds what no header can: take letters, digits and signs of ASCII alone"
        )
    return ""
