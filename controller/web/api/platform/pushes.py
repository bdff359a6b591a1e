"""Who has pushed, as the hook of a hosted repository reports it: ref by ref, after Git has accepted them.

Over HTTPS the hook names the id of the push, by which the web process knows whom it has let in. Else it says which user
of the host pushes: everybody who reads the secret of the repository can sign that, so it names no account, and never
takes the place of one.
"""

from __future__ import annotations

import time
from typing import Final

from flask import current_app

from controller.domain.apps.status import RepositoryRecord
from controller.domain.people.pushes import PushUnderWay, digest_of_push, told_ref
from controller.ports import Store
from controller.web.api.platform.signatures import OwnPush
from controller.web.auth.audit import pushed, write_down
from controller.web.context import people_context

HOST_USER: Final = "host user"  # who pushes over SSH


def note(store: Store, record: RepositoryRecord, told: OwnPush) -> None:
    """Remember who has pushed the commit of a ref. An id that is not of a push to this repository tells nothing."""
    if not told.after:
        return
    if not told.push:
        if told.pusher and told.after.strip("0") and not store.repositories.pusher(record.name, told.after):
            store.repositories.remember_push(
                record.name, told.after, f"{HOST_USER} {told.pusher}", time.time()
            )
        return
    with store.transaction():  # refs of one push may be reported side by side
        push = store.repositories.push(digest_of_push(told.push))
        if push is None or push.hosted != record.hosted:
            return
        store.repositories.save_push(push.with_ref(told.after, told.ref))
        if told.after.strip("0"):
            _remember(store, push, told.after)
    if push.left:
        _audit(push, told)


def _remember(store: Store, push: PushUnderWay, revision: str) -> None:
    for each in store.repositories.all():
        if each.hosted == push.hosted:
            store.repositories.remember_push(each.name, revision, push.by, time.time())


def _audit(push: PushUnderWay, told: OwnPush) -> None:
    """Nobody else writes down what Git accepts after the connection has ended."""
    entry = pushed(push, told_ref(told.after, told.ref), time.time())
    write_down(people_context(current_app).store, entry)
