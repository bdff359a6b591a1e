"""`Deliverer`: sends what lies in the outbox. A thread of the daemon, beside the runner.

It looks and writes down alone; each message is sent by a thread of its own, which touches no state. What was sent but
not written down when the daemon died is sent once more by the next one: receivers know it by its id.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from controller import __version__
from controller.domain.errors import ControllerError, Stalled
from controller.domain.status import Event, EventType
from controller.domain.webhooks import (
    SECRET_KEY,
    KeyInvalid,
    Message,
    Outcome,
    Verdict,
    headers,
    judge,
    pause,
    signing_key,
)
from controller.ports import Sender, Underway
from controller.runner.deps import Deps

log = logging.getLogger(__name__)

AT_ONCE = 16
PER_APP = 8
PER_LANE = 2
TIMEOUT = 20.0  # seconds for one attempt
_POLL = 0.05  # seconds between looks at the database's change counter
_BACKSTOP = 1.0  # at the most between looks at what is due
_RETRY = 1.0  # before a state that did not answer is asked again
_GRACE = 1.0  # at the end for those that are under way: what is not written down is sent again


@dataclass(frozen=True)
class _Sent:
    message: Message
    verdict: Verdict


class Deliverer:
    """`ready`: before that nothing is sent, since no Secret would be found. `dice` gives numbers from 0 to 1."""

    def __init__(
        self,
        deps: Deps,
        sender: Sender,
        ready: Callable[[], bool] = lambda: True,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._deps = deps
        self._sender = sender
        self._ready = ready
        self._dice = dice
        self._underway: dict[str, Message] = {}
        self._results: queue.SimpleQueue[_Sent] = queue.SimpleQueue()
        self._unwritten: list[_Sent] = []
        self._last_look = -_BACKSTOP

    def run(self, stop: threading.Event) -> None:
        """Until `stop`. A state that cannot be read or written for now is waited for."""
        while not stop.is_set():
            try:
                self._turn()
            except ControllerError as error:
                log.error("webhooks are not sent: %s", error)
                stop.wait(_RETRY)
            except Exception:
                log.exception("bug in the webhooks")
                stop.wait(_RETRY)
        try:
            self._end()
        except ControllerError as error:
            log.error("webhooks that were sent may be sent again: %s", error)

    def _turn(self) -> None:
        ended = self._write_down(_POLL)
        changed = self._deps.store.changed()
        if ended or changed or self._deps.clock.monotonic() - self._last_look >= _BACKSTOP:
            self._look()

    def _look(self) -> None:
        self._last_look = self._deps.clock.monotonic()
        while self._ready() and (found := self._room_for()):
            for message in found:
                self._underway[message.id] = message
                threading.Thread(target=self._carry, args=(message,), name="webhook", daemon=True).start()

    def _room_for(self) -> list[Message]:
        """Those that can be sent now."""
        lanes = Counter(message.lane for message in self._underway.values())
        apps = Counter(str(message.app) for message in self._underway.values())
        underway = Underway(
            frozenset(self._underway),
            frozenset(lane for lane, number in lanes.items() if number >= PER_LANE),
            frozenset(app for app, number in apps.items() if number >= PER_APP),
        )
        taken: list[Message] = []
        if len(self._underway) >= AT_ONCE:
            return taken
        for message in self._deps.store.webhooks.due(self._deps.clock.now(), underway):
            full = len(self._underway) + len(taken) >= AT_ONCE
            if not full and lanes[message.lane] < PER_LANE and apps[message.app] < PER_APP:
                lanes[message.lane] += 1
                apps[message.app] += 1
                taken.append(message)
        return taken

    # --- in a thread of its own --------------------------------------------------------------------------------

    def _carry(self, message: Message) -> None:
        try:
            verdict = self._send(message)
        except Exception:
            log.exception("bug in a webhook", extra=_fields(message))
            verdict = Verdict(Outcome.FAILED, "a fault of prichal; the daemon's log has the traceback")
        self._results.put(_Sent(message, verdict))

    def _send(self, message: Message) -> Verdict:
        try:
            key = self._key(message)
        except ControllerError as error:
            return Verdict(Outcome.FAILED, f"it cannot be signed: {error.message}")
        now = self._deps.clock.now()
        signed = {**headers(message, key, now), "User-Agent": f"prichal/{__version__}"}
        try:
            answer = self._sender.send(message.url, signed, message.body.encode(), TIMEOUT)
        except Stalled as error:
            return Verdict(Outcome.REFUSED, error.message)
        except ControllerError as error:
            return Verdict(Outcome.FAILED, error.message)
        return judge(answer, now)

    def _key(self, message: Message) -> bytes:
        """As the Secret is now: a key that was changed meanwhile is the one that the receiver knows."""
        found = self._deps.secret(message.app, message.secret, message.revision)
        secret = found.get(SECRET_KEY) if found else None
        if secret is None:
            lack = f"has no key {SECRET_KEY!r}" if found else "is not there"
            raise Stalled("SecretMissing", f"the Secret {message.secret!r} {lack}")
        try:
            return signing_key(secret)
        except KeyInvalid as error:
            raise Stalled("WebhookSecretInvalid", f"the Secret {message.secret!r}: {error}") from None

    # --- what became of it -------------------------------------------------------------------------------------

    def _write_down(self, patience: float) -> bool:
        """Whether any has come to its end, for which `patience` seconds are waited."""
        try:
            self._unwritten.append(self._results.get(timeout=patience))
            while True:
                self._unwritten.append(self._results.get_nowait())
        except queue.Empty:
            pass
        found = bool(self._unwritten)
        while self._unwritten:
            sent = self._unwritten[0]
            self._settle(sent.message, sent.verdict)
            del self._unwritten[0], self._underway[sent.message.id]
        return found

    def _settle(self, message: Message, verdict: Verdict) -> None:
        outbox, now, failed = self._deps.store.webhooks, self._deps.clock.now(), message.attempts + 1
        if verdict.outcome is Outcome.DELIVERED:
            outbox.delivered(message.id)
            log.info("webhook delivered", extra=_fields(message))
            return
        rest = pause(failed, self._dice(), verdict.wait) if verdict.outcome is Outcome.FAILED else None
        if rest is None:
            self._give_up(message, verdict.why, now)
            return
        outbox.failed(message.id, verdict.why, now + rest)
        log.warning("webhook failed, next attempt in %.0f s: %s", rest, verdict.why, extra=_fields(message))

    def _give_up(self, message: Message, why: str, now: float) -> None:
        tries = "at the first attempt" if not message.attempts else f"after {message.attempts + 1} attempts"
        text = f"the webhook of run {message.run} to {message.origin} was given up {tries}: {why}"
        event = Event(
            message.app, EventType.WARNING, "WebhookGivenUp", text, message.pipeline, message.revision
        )
        with self._deps.store.transaction():
            self._deps.store.webhooks.give_up(message.id, why, now)
            self._deps.store.events.add([event])
        log.warning("webhook given up: %s", why, extra=_fields(message))

    def _end(self) -> None:
        until = time.monotonic() + _GRACE
        while self._underway and (left := until - time.monotonic()) > 0:
            self._write_down(left)


def _fields(message: Message) -> dict[str, str]:
    """Not the URL: it may be a secret."""
    return {"app": message.app, "run": message.run, "webhook": message.id, "to": message.origin}
