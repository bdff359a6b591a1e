"""Orders that apps be made or deleted (`domain.apps.orders`), and what the apps of people may use. The daemon carries
the orders out; all others place them in the database of requests and read here what became of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from controller.domain.apps.orders import KEEP, MOST_WAITING, AppOrder, OrderRecord, OrderState
from controller.domain.errors import Transient
from controller.domain.integrity import IntegrityError
from controller.domain.people.quotas import AppShare
from controller.domain.reasons import Reason
from controller.store.codec import decode, encode
from controller.store.rows import RowKind, RowReader
from controller.store.sqlite import Database

LARGEST = 16_384  # characters of an order
# A record that is not JSON has no state: it is found, so that it is set aside, and hinders no query.
_STATE = "CASE WHEN json_valid(record) THEN coalesce(json_extract(record, '$.state'), '') ELSE '' END"
UNFINISHED = f"SELECT * FROM app_orders WHERE {_STATE} NOT IN ('done', 'refused') ORDER BY rowid"  # noqa: S608
PRUNE = f"""
DELETE FROM app_orders WHERE {_STATE} IN ('done', 'refused')
AND rowid <= (SELECT max(rowid) FROM app_orders) - ?
"""  # noqa: S608
_FULL = f"{MOST_WAITING} apps are being made or deleted already: try again when the daemon has worked on them"


def _record(row: sqlite3.Row) -> OrderRecord:
    return decode(OrderRecord, row["record"])


def _share(row: sqlite3.Row) -> AppShare:
    return decode(AppShare, row["share"])


ORDERS = RowKind("the order", "app_orders", ("id",), _record)
SHARES = RowKind("the share of the app", "app_shares", ("app",), _share)


def read_order(row: sqlite3.Row) -> AppOrder:
    """Return an order as another process has placed it. Raises ValueError if it is invalid."""
    if len(row["app_order"]) > LARGEST:
        raise IntegrityError("an order is too long")
    found = decode(AppOrder, row["app_order"])
    if (found.id, found.app) != (row["id"], row["app"]):
        raise IntegrityError("an order is not what its row says")
    return found


class OrderTable:
    def __init__(self, database: Database, rows: RowReader, clock: Callable[[], float]) -> None:
        self._database = database
        self._rows = rows
        self._clock = clock

    def ask(self, order: AppOrder) -> OrderRecord:
        self.accept(order, self._clock())
        return self.get(order.id) or OrderRecord(order, self._clock())

    def accept(self, order: AppOrder, now: float) -> bool:
        """Store a new order, as refused if too many wait; return False for one that is known."""
        with self._database.write() as db:
            if self._row(db, order.id) is not None:
                return False
            record = OrderRecord(order, now)
            if len(db.execute(UNFINISHED).fetchall()) >= MOST_WAITING:
                record = record.ended_as(OrderState.REFUSED, now, Reason.QUEUE_FULL, _FULL)
            db.execute("INSERT INTO app_orders VALUES (?, ?, ?)", (order.id, order.app, encode(record)))
            db.execute(PRUNE, (KEEP,))
        return True

    def get(self, id: str) -> OrderRecord | None:
        with self._database.read() as db:
            return self._rows.readable(ORDERS, self._row(db, id))

    def unfinished(self) -> tuple[OrderRecord, ...]:
        return self._rows.found(ORDERS, UNFINISHED)

    def save(self, record: OrderRecord) -> None:
        with self._database.write() as db:
            db.execute("UPDATE app_orders SET record = ? WHERE id = ?", (encode(record), record.order.id))

    def shares(self) -> tuple[AppShare, ...]:
        return self._rows.found(SHARES, "SELECT * FROM app_shares ORDER BY app")

    def replace_shares(self, shares: Iterable[AppShare]) -> None:
        """Store exactly these. Writes nothing if they are unchanged."""
        wanted = {share.app: encode(share) for share in shares}
        with self._database.read() as db:
            stored = dict(db.execute("SELECT app, share FROM app_shares").fetchall())
        if wanted != stored:
            with self._database.write() as db:
                db.execute("DELETE FROM app_shares")
                db.executemany("INSERT INTO app_shares VALUES (?, ?)", sorted(wanted.items()))

    @staticmethod
    def _row(db: sqlite3.Connection, id: str) -> sqlite3.Row | None:
        found: sqlite3.Row | None = db.execute("SELECT * FROM app_orders WHERE id = ?", (id,)).fetchone()
        return found


class GuestOrders(OrderTable):
    """For all processes but the daemon."""

    def ask(self, order: AppOrder) -> OrderRecord:
        with self._database.write() as db:
            waiting = db.execute("SELECT count(*) FROM asked_orders").fetchone()[0]
            if waiting >= MOST_WAITING:
                raise Transient(Reason.QUEUE_FULL, _FULL)
            db.execute(
                "INSERT INTO asked_orders VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (order.id, order.app, encode(order)),
            )
        return self.get(order.id) or OrderRecord(order, self._clock())

    def get(self, id: str) -> OrderRecord | None:
        """It moves from the one database to the other, so it is looked for again where it goes to."""
        return super().get(id) or self._waiting(id) or super().get(id)

    def _waiting(self, id: str) -> OrderRecord | None:
        with self._database.read() as db:
            row = db.execute("SELECT * FROM asked_orders WHERE id = ?", (id,)).fetchone()
        try:
            return OrderRecord(read_order(row), self._clock()) if row else None
        except ValueError:
            return None
