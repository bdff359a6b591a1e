"""The first administrator: an account `admin` without a password, and a one-time link by which one is chosen. Made at
the start of the web process, or of `prichal up`, while nobody else has an account and people may have passwords.

The code of the link is in a file that only the user of the web process and root may read, next to the admin token,
which is worth as much. `prichal up` and `prichal doctor` show the link until it was used.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from contextlib import suppress
from typing import Final

from controller.config import Settings, SignInSettings
from controller.domain.errors import ControllerError
from controller.domain.people.roles import Grant, Role
from controller.store.people import LINK, PeopleStore

log = logging.getLogger(__name__)

NAME: Final = "admin"


def prepare_people(settings: Settings) -> None:
    """Prepare the first administrator's link, and end what the configuration does not allow any more; no failure keeps
    the platform from starting."""
    try:
        settings.people.parent.mkdir(parents=True, exist_ok=True)
        people = PeopleStore(settings.people)
        if settings.sign_in.passwords:
            _prepare(settings, people)
        _enforce(settings.sign_in, people)
    except (ControllerError, OSError) as error:
        log.warning("people cannot sign in: %s", error)


def first_login_url(settings: Settings) -> str:
    """Return the link of the first administrator; "" if it was used or has expired. OSError if it may not be read."""
    try:
        code = settings.first_login.read_text().strip()
    except FileNotFoundError:
        return ""
    if not settings.people.exists() or PeopleStore(settings.people).link_user(code, time.time()) is None:
        return ""
    return login_url(settings, code)


def login_url(settings: Settings, code: str) -> str:
    base = settings.web.public_url or f"http://{settings.web.listen}"
    return f"{base}/-/login?code={code}"


def forget_first_login(settings: Settings, code: str) -> None:
    """The link was used."""
    with suppress(OSError, UnicodeDecodeError):
        if settings.first_login.read_text().strip() == code:
            settings.first_login.unlink()


def _enforce(allowed: SignInSettings, people: PeopleStore) -> None:
    """Where nobody may sign in with a password or an issuer, sessions from before must not last."""
    issuers = [each.name for each in allowed.oidc]
    rules = frozenset(rule for each in allowed.oidc for rule in each.groups)
    if ended := people.enforce(issuers, rules, allowed.passwords):
        log.info("sessions ended that the configuration does not allow", extra={"sessions": ended})


def _prepare(settings: Settings, people: PeopleStore) -> None:
    accounts = people.accounts()
    if not accounts:
        people.add(NAME, time.time())
        people.grant(Grant(NAME, Role.ADMIN))
    elif [(each.name, each.has_password) for each in accounts] != [(NAME, False)]:
        return
    with suppress(OSError):
        if first_login_url(settings):
            return
    code = secrets.token_urlsafe(32)
    draft = settings.first_login.with_name(f".{settings.first_login.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(f"{code}\n")
    people.put_link(NAME, code, time.time() + LINK)
    draft.replace(settings.first_login)
