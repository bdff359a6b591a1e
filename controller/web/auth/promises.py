"""The roles of those who have made apps, and the end of roles in deleted ones.

The daemon makes an app; roles are written here. Both belong together over any crash: before an order is placed, its
id and the person are written down as a promise (`store/people.py`). What became of the order is in the daemon's state
under the same id, and each request settles the promises that are due before it is judged. So nobody meets an app that
was made without its developer, or with those of an earlier app of its name, and no promise outlives its order.
"""

from __future__ import annotations

from typing import Final

from controller.domain.apps.orders import OrderState
from controller.ports import Store
from controller.store.people import PeopleStore

LOST: Final = 60.0  # seconds after which an order that is not there was never placed


def settle(people: PeopleStore, store: Store, now: float) -> None:
    """Keep the promises whose orders were carried out, and drop those of refused and lost orders. Of one app, they are
    settled in the order in which they were made."""
    waiting: set[str] = set()
    for promise in people.promises():
        record = store.orders.get(promise.id)
        if promise.app in waiting or (record is None and now - promise.at < LOST):
            waiting.add(promise.app)
        elif record is None or record.state is OrderState.REFUSED:
            people.drop_promise(promise)
        elif record.state is OrderState.DONE:
            people.keep_promise(promise)
        else:
            waiting.add(promise.app)
