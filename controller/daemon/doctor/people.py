"""The check of accounts of people."""

from __future__ import annotations

import time

from controller.config import Settings
from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.people.roles import Role
from controller.store.first_admin import first_login_url
from controller.store.owners import as_owner_of
from controller.store.people import PeopleStore


def check_people(settings: Settings) -> str:
    """Check the accounts of people, and show the first administrator's link."""
    path = settings.people
    if not path.exists():
        return Localizable("nobody has an account yet: the web process makes the first one when it starts")
    try:
        with as_owner_of(path.parent):
            people = PeopleStore(path)
            accounts, grants = people.accounts(), people.grants(time.time())
            link = first_login_url(settings)
    except (ControllerError, PermissionError):
        return Localizable("only root and the user of the web process may read {path}", path=path)
    if link:
        return Localizable(
            "nobody has signed in yet; the first administrator chooses a password at {link}", link=link
        )
    if [account.has_password for account in accounts] == [False]:
        return Localizable(
            "nobody has signed in yet, and the first link has expired; another one: prichal user passwd admin"
        )
    admins = {grant.user for grant in grants if grant.role is Role.ADMIN}
    return Localizable(
        "{accounts} accounts, {admins} of administrators", accounts=len(accounts), admins=len(admins)
    )
