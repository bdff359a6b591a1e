"""`Notifier` looks at what is wrong, moves the states of all Notifications on, and puts their messages into the outbox.
It is a thread of the daemon; `WebhookDispatcher` sends the messages.

A look reads what is stored: conditions, usage, findings of `prichal doctor`, and notices that were stored in the
transactions that made them true. State and message are saved in one transaction, so a daemon that dies at any point
tells everything, and nothing twice.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.domain.errors import ControllerError
from controller.domain.names import PLATFORM, AppName
from controller.domain.notifications.alerts import (
    Alert,
    AlertKey,
    Notice,
    alerts_of_app,
    alerts_of_checks,
    alerts_of_usage,
)
from controller.domain.notifications.content import document
from controller.domain.notifications.delivery import Digest, advance
from controller.domain.notifications.records import (
    AskedTest,
    StoredNotification,
    check_id,
    message_id,
    outgoing,
)
from controller.guards import GuardedStep, report
from controller.ports import Clock, Store

log = logging.getLogger(__name__)

LOOK: Final = 1.0  # seconds between two looks
MOST_FINDINGS: Final = 2**18  # bytes of the document with the findings of the daemon


@dataclass
class Notifier:
    """`findings` is the document in which the daemon writes what it finds wrong with the machine, `url` the base of the
    platform's pages, `per_hour` the most messages of one Notification. `backups` says what is wrong with these."""

    store: Store
    clock: Clock
    findings: Path
    url: str
    per_hour: int
    backups: Callable[[float], Iterable[Alert]] = lambda now: ()

    def run(self, stop: threading.Event) -> None:
        steps = (
            GuardedStep("notifications are not sent", self.look),
            GuardedStep("tests of notifications are not sent", self.test),
        )
        while not stop.is_set():
            for step in steps:
                step()
            stop.wait(LOOK)

    def look(self) -> None:
        last, notices = self.store.notifications.notices()
        stored = self.store.notifications.all()
        if not stored and not last:
            return
        alerts = tuple(self._alerts()) if stored else ()
        with self.store.transaction() if last else nullcontext():
            for each in stored:
                with _apart("is not looked at", each.app, each.spec.name):
                    self._advance(each, alerts, notices)
            if last:
                self.store.notifications.take(last)

    def test(self) -> None:
        """Put the messages into the outbox that people have asked for, to see whether they arrive. A test is forgotten
        only after that: the database of requests and the state are not written at once, and its id is that of its
        message, so doing it again after a crash sends nothing twice."""
        for asked in self.store.notifications.tests():
            with _apart("is not tested", asked.app, asked.name):
                self._test(asked)
            self.store.notifications.end_test(asked.id)

    def _alerts(self) -> Iterator[Alert]:
        for app, conditions in self.store.notifications.conditions().items():
            yield from alerts_of_app(app, conditions)
        yield from alerts_of_usage(self.store.usage())
        yield from alerts_of_checks(failed_checks(self.findings))
        yield from self.backups(self.clock.now())

    def _advance(
        self, stored: StoredNotification, alerts: Iterable[Alert], notices: Iterable[Notice]
    ) -> None:
        spec, app, now = stored.spec, stored.app, self.clock.now()
        visible: Mapping[AlertKey, Alert] = {each.key: each for each in alerts if _is_for(app, each.app)}
        seen = (notice for notice in notices if _is_for(app, notice.app))
        state, digest = advance(stored.state, spec, visible, seen, stored.fate, now, self.per_hour)
        message = None
        if digest:
            id = message_id(app, spec.name, digest.number, digest.at)
            message = outgoing(id, app, spec, self._body(stored, digest), now)
            log.info("notification %s: a message is sent", spec.name, extra={"app": app, "message_id": id})
        if state != stored.state:
            self.store.notifications.advance(app, spec.name, state, message)

    def _test(self, asked: AskedTest) -> None:
        stored = self.store.notifications.get(asked.app, asked.name)
        if stored is None or stored.record.of(check_id(asked.id)):  # the daemon died after it was sent
            return
        now = self.clock.now()
        body = self._body(stored, Digest(0, now, is_test=True))
        self.store.notifications.send_test(outgoing(check_id(asked.id), asked.app, stored.spec, body, now))

    def _body(self, stored: StoredNotification, digest: Digest) -> str:
        return json.dumps(document(digest, stored.spec.name, stored.app, self.url), ensure_ascii=False)


@contextmanager
def _apart(what: str, app: AppName, name: str) -> Iterator[None]:
    """Keep a bug with one Notification from holding up the others, of which it would undo all."""
    try:
        yield
    except ControllerError:  # the state does not answer: none can be saved
        raise
    except Exception as error:  # noqa: BLE001 - reported
        report(f"notification {name} of {app} {what}", error)


def _is_for(owner: AppName, app: AppName) -> bool:
    """Return whether a Notification may be about this app: those of an app are about that one alone."""
    return owner in (PLATFORM, app)


def failed_checks(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the findings of the daemon as names and details; none if there is no document that can be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_FINDINGS + 1)
        checks = json.loads(content)["checks"] if len(content) <= MOST_FINDINGS else ()
        return tuple((str(c["name"]), str(c["detail"])) for c in checks if c["ok"] is False)
    except (OSError, ValueError, KeyError, TypeError):
        return ()
