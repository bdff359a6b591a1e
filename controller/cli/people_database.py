"""The database of people, as commands on the host change it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from controller.cli.session import host_user
from controller.domain.errors import Stalled
from controller.domain.people.accounts import AuditEntry
from controller.domain.reasons import Reason

if TYPE_CHECKING:
    from controller.config import Settings
    from controller.store.people import PeopleStore


@contextmanager
def open_people(settings: Settings, dry_run: bool = False) -> Iterator[PeopleStore]:
    """Yield the database, or for a dry run a copy of it, as the user that owns its folder."""
    from controller.store.owners import as_owner_of
    from controller.store.people import PeopleStore
    from controller.store.sqlite import database_for

    folder = settings.people.parent
    if not folder.exists():
        raise Stalled(
            Reason.STATE_MISSING, f"there is no folder {folder}: start the platform first: prichal up"
        )
    with as_owner_of(folder), database_for(settings.people, dry_run) as path:
        yield PeopleStore(path)


def record_act(people: PeopleStore, act: str, subject: str, detail: str = "") -> None:
    people.record(AuditEntry(time.time(), host_user(), "command line", act, subject, detail, ""))
