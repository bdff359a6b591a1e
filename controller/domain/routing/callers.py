"""Secrets as lists of the callers of an API: users with passwords or with tokens. Names and values that
cannot be sent in a request, or could be guessed, are refused before an API is published with them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from controller.domain.apps.spec import SecretSpec
from controller.domain.localizable import Localizable
from controller.domain.routing.caller_names import PERSON
from controller.domain.text import is_storable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TOKEN = re.compile(r"[\x21-\x7e]+")  # a token after `Bearer ` in a header


def unusable_passwords(secret: SecretSpec) -> Iterator[str]:
    """Return why callers could not log in with it, without any of its values."""
    for user, value in secret.values:
        if why := _wrong_user(user) or _wrong_password(user, value.reveal()):
            yield Localizable(
                "the Secret {secret!r} is not a list of users: {why}", secret=secret.name, why=why
            )


def unusable_tokens(secret: SecretSpec) -> Iterator[str]:
    for user, value in secret.values:
        if why := _wrong_user(user, colon=True) or _wrong_token(user, value.reveal()):
            yield Localizable(
                "the Secret {secret!r} is not a list of tokens: {why}", secret=secret.name, why=why
            )


def _wrong_user(user: str, colon: bool = False) -> str:
    if not user.strip():
        return Localizable("a user has no name")
    if _CONTROL.search(user) or not is_storable(user):
        return Localizable("the user {user!r} has a control character in the name", user=user)
    if user.startswith(PERSON):
        return Localizable(
            "the user {user!r} has a name that begins with {person}, as those of the platform's people do",
            user=user,
            person=PERSON,
        )
    if ":" in user and not colon:
        return Localizable(
            "the user {user!r} has a colon in the name, which HTTP takes for the end of it", user=user
        )
    return ""


def _wrong_password(user: str, password: str) -> str:
    if not password:
        return Localizable("the password of {user!r} is empty", user=user)
    if _CONTROL.search(password) or not is_storable(password):
        return Localizable(
            "the password of {user!r} holds a line break or another control character", user=user
        )
    return ""


def _wrong_token(user: str, token: str) -> str:
    if not token:
        return Localizable("the token of {user!r} is empty", user=user)
    if not _TOKEN.fullmatch(token):
        return Localizable(
            "the token of {user!r} holds what no header can: take letters, digits and signs of ASCII alone",
            user=user,
        )
    return ""
