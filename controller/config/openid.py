"""Reads the option `people.oidc`: the issuers of OpenID Connect with which people sign in. Pure but for the files of
the clients' secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from controller.config.settings import OpenIdIssuer
from controller.domain.names import is_dns_label
from controller.domain.people.openid import GroupRole
from controller.domain.people.roles import ALL, Role, grant_problem, is_app_pattern
from controller.domain.secret import Secret
from controller.yaml_documents import Json

#: As in manifests (`auth.oidc.issuer`): without TLS only on this host.
_ISSUER: Final = r"(?:https://[^\s/?#@]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?)(?:/[^\s?#]*)?"
_SCOPE: Final = r"[!#-\[\]-~]+"  # RFC 6749 §3.3
_MOST: Final = 20  # issuers
_LONGEST: Final = 500  # characters of a text
_REQUIRED: Final = ("name", "issuer", "clientId")


def read_issuers(value: Json, base: Path) -> object:
    """Return the issuers. Raises ValueError with what is wrong, and with which entry."""
    if not isinstance(value, list) or len(value) > _MOST:
        raise ValueError(f"must be a list of at most {_MOST} issuers, each with {', '.join(_REQUIRED)}")
    found = tuple(_issuer(entry, base, f"issuer {number}") for number, entry in enumerate(value, 1))
    for attribute in ("name", "issuer"):
        if len({getattr(each, attribute) for each in found}) < len(found):
            raise ValueError(f"two issuers have one {attribute}")
    return found


def read_secret(path: Path) -> str | None:
    """Return the first text of a file; None if this process may not read it. Raises ValueError."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except PermissionError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not a text'}"
        ) from None


def _issuer(entry: Json, base: Path, place: str) -> OpenIdIssuer:
    values = _mapping(entry, place, _READERS)
    if missing := [key for key in _REQUIRED if key not in values]:
        raise ValueError(f"{place}: {missing[0]} is missing")
    fields = {
        _FIELDS.get(key, key): _READERS[key](each, base, f"{place}: {key}") for key, each in values.items()
    }
    return OpenIdIssuer(**fields)  # type: ignore[arg-type]


def _mapping(entry: Json, place: str, known: Mapping[str, object]) -> dict[str, Json]:
    if not isinstance(entry, dict):
        raise ValueError(f"{place}: must be a mapping with {', '.join(known)}")
    if unknown := [key for key in entry if key not in known]:
        raise ValueError(f"{place}: unknown key {str(unknown[0])[:60]!r}; there are {', '.join(known)}")
    return {str(key): value for key, value in entry.items()}


def _name(value: Json, _: Path, place: str) -> str:
    if not isinstance(value, str) or not is_dns_label(value):
        raise ValueError(f"{place}: must be 1 to 63 of a-z, 0-9 and hyphens, such as university")
    return value


def _url(value: Json, _: Path, place: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(_ISSUER, value) or len(value) > _LONGEST:
        raise ValueError(f"{place}: must be an https URL, exactly as in the `iss` of its tokens")
    return value


def _text(value: Json, _: Path, place: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _LONGEST:
        raise ValueError(f"{place}: must be a text of at most {_LONGEST} characters")
    return value


def _secret(value: Json, base: Path, place: str) -> Secret:
    path = base / Path(_text(value, base, place)).expanduser()
    try:
        secret = read_secret(path)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    if secret is not None and not (secret and secret.isascii() and secret.isprintable()):
        raise ValueError(f"{place}: the secret must be one line of ASCII characters")
    return Secret(secret or "")


def _scopes(value: Json, base: Path, place: str) -> tuple[str, ...]:
    found = _texts(value, base, place)
    if "openid" not in found or not all(re.fullmatch(_SCOPE, each) for each in found):
        raise ValueError(f"{place}: must be a list of scopes with openid, such as [openid, profile, email]")
    return found


def _texts(value: Json, base: Path, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{place}: must be a list of texts")
    return tuple(_text(each, base, place) for each in value)


def _rules(value: Json, base: Path, place: str) -> tuple[GroupRole, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{place}: must be a list of mappings with group, role and app")
    return tuple(_rule(entry, base, f"{place} {number}") for number, entry in enumerate(value, 1))


def _rule(entry: Json, base: Path, place: str) -> GroupRole:
    values = _mapping(entry, place, {"group": 1, "role": 1, "app": 1})
    group = _text(values.get("group"), base, f"{place}: group")
    word, app = values.get("role"), values.get("app", ALL)
    if word not in list(Role):
        raise ValueError(f"{place}: role must be one of {', '.join(Role)}")
    if not isinstance(app, str) or (app != ALL and not is_dns_label(app) and not is_app_pattern(app)):
        raise ValueError(
            f"{place}: app must be the name of an app, or the beginning of names such as pu-lab-*"
        )
    if problem := grant_problem(Role(str(word)), app):
        raise ValueError(f"{place}: {problem}")
    return GroupRole(group, Role(str(word)), app)


_READERS: Final[Mapping[str, Callable[[Json, Path, str], object]]] = {
    "name": _name,
    "title": _text,
    "issuer": _url,
    "clientId": _text,
    "clientSecretFile": _secret,
    "scopes": _scopes,
    "usernameClaim": _text,
    "groupsClaim": _text,
    "groups": _rules,
    "allowedGroups": _texts,
}
_FIELDS: Final = {
    "clientId": "client_id",
    "clientSecretFile": "client_secret",
    "usernameClaim": "username_claim",
    "groupsClaim": "groups_claim",
    "allowedGroups": "allowed_groups",
}
