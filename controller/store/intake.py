"""Takes requests of other processes into the state, one by one, after checking them. Called only by the
daemon, whenever it looks for work.

A request is written to the state and deleted from `asked` in one transaction, of which SQLite commits the
state first. If the daemon dies in between, the request is found again, and the state recognizes its id: so
each is taken once.
"""

from __future__ import annotations

import logging
import math
import re
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace

from controller.domain.apps.requests import Trigger
from controller.domain.errors import Transient
from controller.domain.integrity import IntegrityError
from controller.domain.names import PLATFORM, AppName, app_of_previews, is_dns_label
from controller.domain.reasons import Reason
from controller.domain.runs.run import RunState
from controller.domain.runs.submissions import RunSubmission, canceled
from controller.domain.runs.webhooks import call_messages
from controller.domain.text import printable
from controller.ports import QueueLimits
from controller.store.codec import decode
from controller.store.inbox import FIRST_WISH, LAST_WISH, begin_wishes
from controller.store.orders import OrderTable, read_order
from controller.store.owned_secrets import AT_ONCE as SECRETS_AT_ONCE
from controller.store.owned_secrets import OwnedSecretTable
from controller.store.requests import RequestQueue
from controller.store.routes import RouteStore
from controller.store.runs import RunTable
from controller.store.sqlite import Database
from controller.store.webhooks import WebhookTable, read_ended

log = logging.getLogger(__name__)

AT_ONCE = 50  # requests of a kind in one transaction
#: Characters of submissions in one transaction, for which all who write a request wait.
AT_ONCE_SIZE = 2 * 2**20
AT_ONE_GO = 1000  # requests at once; the rest is taken in the next call, so that others are served in between
WAITING = 1000  # apps with a pass in the queue; beyond it, none is taken for unknown apps
TOLD, QUIET = 20, 60.0  # lines of the log within so many seconds
LARGEST = 16 * 2**20  # characters of a submission
LATEST = 366 * 86400.0  # seconds for which a wish may wait
_REASON = re.compile(r"[a-z]{1,20}")

SEALED = "SELECT * FROM secret_changes ORDER BY created, id LIMIT ?"
ANY = "SELECT EXISTS (SELECT 1 FROM wishes) + EXISTS (SELECT 1 FROM submissions) + EXISTS (SELECT 1 FROM cancels)"
ANY += " + EXISTS (SELECT 1 FROM asked_orders) + EXISTS (SELECT 1 FROM call_ends)"
TAKEN = "SELECT 1 FROM wishes_taken WHERE wish = ?"
IS_WELCOME = """
SELECT EXISTS (SELECT 1 FROM apps WHERE app = :app) OR :app = :platform
OR (SELECT count(*) FROM requests WHERE state = 'queued') < :most
"""
KNOWN = "SELECT 1 FROM runs WHERE id = :id UNION ALL SELECT 1 FROM runs_gone WHERE id = :id"


class Intake:
    def __init__(
        self,
        database: Database,
        clock: Callable[[], float],
        requests: RequestQueue,
        runs: RunTable,
        secrets: OwnedSecretTable,
        orders: OrderTable,
        routes: RouteStore,
        webhooks: WebhookTable,
        most: QueueLimits | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._requests = requests
        self._runs = runs
        self._secrets = secrets
        self._orders = orders
        self._routes = routes
        self._webhooks = webhooks
        self._most = most
        self._turn = threading.Lock()
        self._told = 0
        self._since = 0.0
        self._refused = 0

    def take_in_turn(self) -> bool:
        """Take in what there is now, one thread after the other. Not within a transaction. All threads that wait for
        requests wake at once, and SQLite would let those sleep for milliseconds that find the database locked."""
        with self._turn:
            return self.take()

    def take(self) -> bool:
        """Take in what there is now; return False if it is more than one call takes. Checking takes no lock."""
        self._refused = 0
        for _ in range(AT_ONE_GO // AT_ONCE):
            if not self._is_any():
                return True
            with self._database.write() as db:
                self._take(db)
        return False

    def _is_any(self) -> bool:
        with self._database.read() as db:
            return bool(db.execute(ANY).fetchone()[0]) or bool(self._sealed(db, 1))

    def _take(self, db: sqlite3.Connection) -> None:
        for row in db.execute("SELECT * FROM wishes ORDER BY id LIMIT ?", (AT_ONCE,)).fetchall():
            db.execute("DELETE FROM wishes WHERE id = ?", (row["id"],))
            self._each(self._request, row, "a request")
            if row["id"] >= LAST_WISH:  # or no other could follow
                begin_wishes(db)
        self._take_submissions(db)
        for row in db.execute("SELECT * FROM cancels ORDER BY run LIMIT ?", (AT_ONCE,)).fetchall():
            db.execute("DELETE FROM cancels WHERE run = ?", (row["run"],))
            self._each(self._cancel, row, "the end of a run")
        for row in self._sealed(db, SECRETS_AT_ONCE):
            db.execute("DELETE FROM secret_changes WHERE id = ?", (row["id"],))
            self._each(self._secrets.take, row, "a change of a Secret")
        for row in db.execute("SELECT * FROM asked_orders ORDER BY id LIMIT ?", (AT_ONCE,)).fetchall():
            db.execute("DELETE FROM asked_orders WHERE id = ?", (row["id"],))
            self._each(self._order, row, "an app")

        for row in db.execute("SELECT * FROM call_ends ORDER BY id LIMIT ?", (AT_ONCE,)).fetchall():
            db.execute("DELETE FROM call_ends WHERE id = ?", (row["id"],))
            self._each(self._call_end, row, "a webhook of a call")

    def _take_submissions(self, db: sqlite3.Connection) -> None:
        """Take them one by one: together they may be as large as the queues of all apps."""
        taken = size = 0
        while taken < AT_ONCE and size < AT_ONCE_SIZE:
            row = db.execute("SELECT * FROM submissions ORDER BY id LIMIT 1").fetchone()
            if row is None:
                return
            db.execute("DELETE FROM submissions WHERE id = ?", (row["id"],))
            self._each(self._submission, row, "a run")
            taken, size = taken + 1, size + len(row["submission"])

    def _sealed(self, db: sqlite3.Connection, most: int) -> list[sqlite3.Row]:
        """Return changes of Secrets; none before the daemon has its keys."""
        return db.execute(SEALED, (most,)).fetchall() if self._secrets.unlocked else []

    def _each(self, take: Callable[[sqlite3.Row], None], row: sqlite3.Row, what: str) -> None:
        """Take in one request. Invalid ones are dropped, so that they do not block others."""
        try:
            with self._database.write():
                take(row)
        except ValueError as error:
            self._report(what, error)

    def _report(self, what: str, error: Exception) -> None:
        now = self._clock()
        if not 0 <= now - self._since < QUIET:
            self._told, self._since = 0, now
        self._told += 1
        if self._told <= TOLD:
            log.warning("an invalid request for %s was dropped: %s", what, printable(str(error)[:300]))
        elif self._told == TOLD + 1:
            log.warning("more was asked for that cannot be")

    def _request(self, row: sqlite3.Row) -> None:
        id, app, reason, not_before = row["id"], row["app"], row["reason"], row["not_before"]
        _require(FIRST_WISH <= id <= LAST_WISH, "id", id)
        about = app_of_previews(app) or app
        _require(app == PLATFORM or is_dns_label(about), "app", app)
        _require(_REASON.fullmatch(reason), "reason", reason)
        _require(math.isfinite(not_before) and not_before <= self._clock() + LATEST, "time", not_before)
        with self._database.write() as db:
            asked = {"app": about, "platform": PLATFORM, "most": WAITING}
            _require(db.execute(IS_WELCOME, asked).fetchone()[0], "app that is known", app)
            if db.execute(TAKEN, (id,)).fetchone() is None:
                request = self._requests.enqueue(AppName(app), Trigger(reason), not_before)
                db.execute("INSERT INTO wishes_taken VALUES (?, ?)", (id, request))

    def _submission(self, row: sqlite3.Row) -> None:
        submission = read_submission(row)
        with self._database.write() as db:
            if db.execute(KNOWN, {"id": submission.id}).fetchone() is not None:
                return
            try:
                self._runs.add(self._runs.admitted(submission), self._most)
            except (ValueError, Transient) as error:
                if isinstance(error, Transient) and error.reason != Reason.QUEUE_FULL:
                    raise
                self._refused += 1
                if self._refused <= AT_ONCE:  # callers of the others are told that there is no such run
                    self._runs.refuse(submission)
                self._report("a run", error)

    def _cancel(self, row: sqlite3.Row) -> None:
        now = self._clock()
        at = min(max(float(row["at"]), 0.0), now) if math.isfinite(row["at"]) else now
        run = self._runs.get(AppName(row["app"]), row["run"])
        if run is None or run.state.terminal:
            return
        changed = canceled(run, at, now)
        if run.state is RunState.QUEUED:  # it was shown as being canceled before, and each step is a version
            first = self._runs.save(run)
            changed = replace(changed, version=first.version if first else changed.version)
        if changed is not run:
            self._runs.save(changed)

    def _call_end(self, row: sqlite3.Row) -> None:
        """The receiver of the component, the Secret and the revision are those of its route, which the daemon wrote."""
        ended = read_ended(row)
        routes = self._routes.of(ended.call.app)
        route = next((each for each in routes if each.component == ended.call.component), None)
        if route is None or route.webhook is None:
            return  # it was removed meanwhile
        found = call_messages(ended, route.webhook, route.revision, self._clock())
        _require(self._webhooks.add_call(found), "webhook: too many wait", ended.call.app)

    def _order(self, row: sqlite3.Row) -> None:
        """The platform folder is looked at soon, and with it the orders."""
        if self._orders.accept(read_order(row), self._clock()):
            self._requests.enqueue(PLATFORM, Trigger.MANUAL)


def read_submission(row: sqlite3.Row) -> RunSubmission:
    """Return a submission. Raises ValueError if it is invalid."""
    _require(len(row["submission"]) <= LARGEST, "size", len(row["submission"]))
    found = decode(RunSubmission, row["submission"])
    _require((found.id, found.app) == (row["id"], row["app"]), "submission", row["id"])
    return found


def _require(sound: object, what: str, found: object) -> None:
    if not sound:
        raise IntegrityError(f"{str(found)[:80]!r} is not a valid {what}")
