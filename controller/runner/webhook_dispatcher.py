"""`WebhookDispatcher` sends the messages in the outbox: webhooks of runs, commit statuses, and notifications.
It is a thread of the daemon, besides the runner.

Only this thread reads and writes the state; each message is sent by a separate thread, which does not use the
state. A message that was sent but not recorded when the daemon died is sent again by the next one: receivers
recognize its id.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from controller import __version__
from controller.domain.apps.status import Event, EventType
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.forges import judge_status
from controller.domain.localizable import Localizable
from controller.domain.notifications.delivery import Fate
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import (
    SECRET_KEY,
    DeliveryDecision,
    DeliveryOutcome,
    Message,
    MessageKind,
    ReceiverResponse,
    SigningKeyInvalid,
    headers,
    judge,
    next_attempt,
    signing_key,
)
from controller.guards import GuardedStep, report
from controller.ports import Sender, WebhookUnderWay
from controller.runner.deps import RunnerDeps
from controller.runner.notification_sender import NotificationSender

log = logging.getLogger(__name__)

#: Messages that are sent at once, and how many of them may be of one app. Notifications have places of their own, since
#: those of chats and mail take longest: slow receivers of theirs hold up no webhook.
AT_ONCE = {"webhooks": 32, "notifications": 12}
PER_APP = {"webhooks": 8, "notifications": 3}
PER_PARTITION = 2
_TOLD_AFTER = 2  # attempts; the first one may meet a forge that is restarting
#: Messages that do not arrive are events of the app before they are given up, with how long they are tried.
_TOLD = {
    MessageKind.COMMIT_STATUS: Localizable("three days"),
    MessageKind.NOTIFICATION: Localizable("four hours"),
}
TIMEOUT = 20.0  # seconds for one attempt
_ROUND = 0.1  # seconds between two rounds of the loop if nothing is committed
_BACKSTOP = 1.0  # the longest time between checks for due messages
_GRACE = 1.0  # seconds at the end for messages under way: what is not recorded is sent again


@dataclass(frozen=True)
class _Sent:
    message: Message
    verdict: DeliveryDecision


_BUG = DeliveryDecision(
    DeliveryOutcome.FAILED, Localizable("a fault of prichal; the daemon's log has the traceback")
)


class WebhookDispatcher:
    """Before `ready` nothing is sent, since no Secret would be found. `rng` returns numbers from 0 to 1."""

    def __init__(
        self,
        deps: RunnerDeps,
        senders: Mapping[MessageKind, Sender],
        ready: Callable[[], bool] = lambda: True,
        rng: Callable[[], float] = random.random,
        notifications: NotificationSender | None = None,
    ) -> None:
        self._deps = deps
        self._notifications = notifications
        self._senders = senders
        self._ready = ready
        self._rng = rng
        self._underway: dict[str, Message] = {}
        self._results: queue.SimpleQueue[_Sent] = queue.SimpleQueue()
        self._unwritten: list[_Sent] = []
        self._last_look = -_BACKSTOP
        self._look_now = False  # there is capacity again, or a change
        self._wake: Callable[[], None] = lambda: None  # ends the wait of the loop

    def run(self, stop: threading.Event) -> None:
        """Run until `stop`. While the state cannot be read or written, it waits."""
        steps = (
            GuardedStep("could not record the results of webhooks", self._write_down),
            GuardedStep("could not send webhooks", self._send_due_if_time),
        )
        with closing(self._deps.store.commit_watch()) as watch:
            self._wake = watch.wake
            while not stop.is_set():
                watch.wait(_ROUND)
                self._collect(0.0)
                for step in steps:
                    step()
        GuardedStep("could not record all results at the end; webhooks may be sent again", self._end)()

    def _send_due_if_time(self) -> None:
        changed = self._deps.store.changed()
        self._look_now = self._look_now or changed
        if self._look_now or self._deps.clock.monotonic() - self._last_look >= _BACKSTOP:
            self._send_due()
            self._look_now = False

    def _send_due(self) -> None:
        self._last_look = self._deps.clock.monotonic()
        while self._ready() and (found := self._sendable()):
            for message in found:
                threading.Thread(target=self._carry, args=(message,), name="webhook", daemon=True).start()
                self._underway[message.id] = message

    def _sendable(self) -> list[Message]:
        """Return the messages that can be sent now."""
        sent = tuple(self._underway.values())
        partitions, pools = Counter(each.partition for each in sent), Counter(each.pool for each in sent)
        apps = Counter((each.pool, each.app) for each in sent)
        underway = WebhookUnderWay(
            frozenset(self._underway),
            frozenset(each.partition for each in sent if partitions[each.partition] >= _abreast(each)),
            frozenset(pool for pool, number in pools.items() if number >= AT_ONCE[pool]),
            frozenset(f"{pool} {app}" for (pool, app), number in apps.items() if number >= PER_APP[pool]),
        )
        taken: list[Message] = []
        if underway.pools == AT_ONCE.keys():
            return taken
        for message in self._deps.store.webhooks.due(self._deps.clock.now(), underway):
            pool, share = message.pool, (message.pool, message.app)
            full = pools[pool] >= AT_ONCE[pool] or apps[share] >= PER_APP[pool]
            if not full and partitions[message.partition] < _abreast(message):
                partitions[message.partition] += 1
                pools[pool] += 1
                apps[share] += 1
                taken.append(message)
        return taken

    # --- in a thread of its own --------------------------------------------------------------------------------

    def _carry(self, message: Message) -> None:
        try:
            verdict = self._send(message)
        except BaseException:  # without a result it would be under way forever
            log.exception("bug in a webhook", extra=_fields(message))
            verdict = _BUG
        self._results.put(_Sent(message, verdict))
        self._wake()

    def _send(self, message: Message) -> DeliveryDecision:
        if message.kind is MessageKind.COMMIT_STATUS:
            return self._send_status(message)
        if message.notifies:
            unwanted = DeliveryDecision(DeliveryOutcome.UNWANTED)
            return self._notifications.send(message, TIMEOUT) if self._notifications else unwanted
        try:
            key = self._key(message)
        except ControllerError as error:
            return DeliveryDecision(
                DeliveryOutcome.FAILED, Localizable("could not sign it: {error}", error=error.message)
            )
        now = self._deps.clock.now()
        answer = self._post(message, message.url, headers(message, key, now), message.body.encode())
        return judge(answer, now) if isinstance(answer, ReceiverResponse) else answer

    def _send_status(self, message: Message) -> DeliveryDecision:
        """Send a commit status as the Repository and its Secret are now: people may have corrected them."""
        forge = self._deps.forge(message.app)
        if forge is None:
            return DeliveryDecision(DeliveryOutcome.UNWANTED)
        if forge.credentials is None:
            return DeliveryDecision(
                DeliveryOutcome.FAILED, Localizable("the Secret with the credentials does not exist")
            )
        try:
            request = forge.request(message)
        except KeyError as error:
            why = Localizable("the Secret with the credentials has no key {args!r}", args=error.args[0])
            return DeliveryDecision(DeliveryOutcome.FAILED, why)
        answer = self._post(message, request.url, request.headers, request.body)
        if isinstance(answer, ReceiverResponse):
            return judge_status(answer, self._deps.clock.now())
        return answer

    def _post(
        self, message: Message, url: str, headers: Mapping[str, str], body: bytes
    ) -> ReceiverResponse | DeliveryDecision:
        """Return the answer, or what follows from there being none."""
        named = {**headers, "User-Agent": f"prichal/{__version__}"}
        try:
            return self._senders[message.kind].send(url, named, body, TIMEOUT)
        except ControllerError as error:
            # a private forge may be allowed later; a receiver that a caller chose is refused for good
            final = isinstance(error, Stalled) and message.kind is MessageKind.RUN_ENDED
            return DeliveryDecision(
                DeliveryOutcome.REFUSED if final else DeliveryOutcome.FAILED, error.message
            )

    def _key(self, message: Message) -> bytes:
        """Return the key as the Secret is now: if it was changed meanwhile, the receiver knows the new one."""
        found = self._deps.secret(message.app, message.secret, message.revision)
        secret = found.get(SECRET_KEY) if found else None
        if secret is None:
            lack = (
                Localizable("has no key {secret_key!r}", secret_key=SECRET_KEY)
                if found
                else Localizable("does not exist")
            )
            raise Stalled(
                Reason.SECRET_MISSING,
                Localizable("the Secret {secret!r} {lack}", secret=message.secret, lack=lack),
            )
        try:
            return signing_key(secret)
        except SigningKeyInvalid as error:
            raise Stalled(
                Reason.WEBHOOK_SECRET_INVALID,
                Localizable("the Secret {secret!r}: {error}", secret=message.secret, error=error),
            ) from None

    # --- what became of it -------------------------------------------------------------------------------------

    def _collect(self, timeout: float) -> None:
        """Collect results, waiting up to `timeout` seconds for the first."""
        try:
            self._unwritten.append(self._results.get(timeout=timeout))
            while True:
                self._unwritten.append(self._results.get_nowait())
        except queue.Empty:
            pass

    def _write_down(self) -> None:
        """Record the results. One that cannot be recorded does not delay the others. Raises Transient if the
        state does not answer.
        """
        kept: list[_Sent] = []
        while self._unwritten:
            sent = self._unwritten[0]
            try:
                self._record_result(sent.message, sent.verdict)
            except Transient:
                self._unwritten += kept
                raise
            except Exception as error:  # noqa: BLE001 - reported, and tried again
                report(f"could not record the result of webhook {sent.message.id}", error)
                delivered = sent.verdict.outcome is DeliveryOutcome.DELIVERED
                kept.append(sent if delivered else replace(sent, verdict=_BUG))
                del self._unwritten[0]
                continue
            del self._unwritten[0], self._underway[sent.message.id]
            self._look_now = True
        if kept:
            self._unwritten = kept
            raise Transient(
                Reason.INTERNAL_ERROR,
                Localizable("{count} results could not be recorded; trying again", count=len(kept)),
            )

    def _record_result(self, message: Message, verdict: DeliveryDecision) -> None:
        outbox, now, failed = self._deps.store.webhooks, self._deps.clock.now(), message.attempts + 1
        if verdict.outcome in (DeliveryOutcome.DELIVERED, DeliveryOutcome.UNWANTED):
            is_there = verdict.outcome is DeliveryOutcome.DELIVERED
            with self._deps.store.transaction():
                outbox.delivered(message.id)
                self._record_fate(message, Fate.DELIVERED if is_there else Fate.GIVEN_UP, verdict.why)
            log.info("%s %s", message.title, verdict.outcome.value, extra=_fields(message))
            return
        rest, why = next_attempt(message, failed, self._rng(), verdict, now)
        if rest is None:
            self._give_up(message, why, now)
            return
        with self._deps.store.transaction():
            outbox.failed(message.id, verdict.why, now + rest)
            self._record_fate(message, None, verdict.why)
            if message.kind in _TOLD and failed == _TOLD_AFTER:
                how_long = _TOLD[message.kind]
                self._tell(
                    message,
                    Localizable(
                        "did not arrive and is tried again for {how_long}: {why}",
                        how_long=how_long,
                        why=verdict.why,
                    ),
                )
        log.warning(
            "%s failed, next attempt in %.0f s: %s", message.title, rest, verdict.why, extra=_fields(message)
        )

    def _give_up(self, message: Message, why: str, now: float) -> None:
        tries = (
            Localizable("at the first attempt")
            if not message.attempts
            else Localizable("after {attempts} attempts", attempts=message.attempts + 1)
        )
        with self._deps.store.transaction():
            self._deps.store.webhooks.give_up(message.id, why, now)
            self._record_fate(message, Fate.GIVEN_UP, why)
            if message.kind is not MessageKind.NOTIFICATION_TEST:  # the person who has asked for it is told
                self._tell(message, Localizable("was given up {tries}: {why}", tries=tries, why=why))
        log.warning("%s given up: %s", message.title, why, extra=_fields(message))

    def _tell(self, message: Message, what: str) -> None:
        of_run = message.kind is MessageKind.RUN_ENDED
        reason = Reason.NOTIFICATION_FAILED if message.notifies else Reason.COMMIT_STATUS_FAILED
        reason = Reason.WEBHOOK_GIVEN_UP if of_run else reason
        by_or_to = "by" if message.notifies else "to"
        text = Localizable(
            "the {title} {by_or_to} {origin} {what}",
            title=message.title,
            by_or_to=by_or_to,
            origin=message.origin,
            what=what,
        )
        pipeline = message.pipeline if of_run else None
        self._deps.store.events.add(
            [Event(message.app, EventType.WARNING, reason, text, pipeline, message.revision)]
        )

    def _record_fate(self, message: Message, fate: Fate | None, why: str) -> None:
        if message.notifies:
            self._deps.store.notifications.record(message, self._deps.clock.now(), fate, why)

    def _end(self) -> None:
        until = time.monotonic() + _GRACE
        while self._underway and (left := until - time.monotonic()) > 0:
            self._collect(left)
            self._write_down()


def _abreast(message: Message) -> int:
    """Return how many of a partition are sent at a time: statuses of a commit must not overtake one another."""
    return PER_PARTITION if message.kind is MessageKind.RUN_ENDED else 1


def _fields(message: Message) -> dict[str, str]:
    """Return fields for the log, without the URL, which may be a secret."""
    return {"app": message.app, "run": message.run, "webhook": message.id, "to": message.origin}
