"""What lies in the outbox is sent until it is taken: receivers that are down, slow, gone, and a daemon that dies."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.domain.apps.spec import SecretSpec, Webhook
from controller.domain.apps.status import Event
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.delivery import Fate
from controller.domain.notifications.records import outgoing
from controller.domain.notifications.spec import Channel, NotificationSpec
from controller.domain.reasons import Reason
from controller.domain.runs.run import Run, cancel, new_run
from controller.domain.runs.webhooks import (
    PAUSES,
    DeliveryDecision,
    DeliveryOutcome,
    Message,
    MessageKind,
    ReceiverResponse,
    judge,
)
from controller.domain.secret import Secret
from controller.domain.units import rfc3339
from controller.ports import Webhooks
from controller.runner.webhook_dispatcher import AT_ONCE, PER_APP, PER_PARTITION, WebhookDispatcher
from tests.support.receivers import WHSEC, Received
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, Command, Harness, in_thread, pipeline, stage

URL = "https://example.org/hooks/secret-token"


class FakeSender:
    """`answer` is called with the URL, in the thread that sends; what it raises is raised."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Received]] = []
        self.answer: Callable[[str], int | ReceiverResponse] = lambda url: 204

    def send(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> ReceiverResponse:
        given = {name.lower(): value for name, value in headers.items()}
        self.sent.append((url, Received(url, given, body)))
        answer = self.answer(url)
        return answer if isinstance(answer, ReceiverResponse) else ReceiverResponse(answer)

    @property
    def every(self) -> dict[MessageKind, FakeSender]:
        """Return this as the sender of all kinds of messages."""
        return dict.fromkeys(MessageKind, self)

    @property
    def received(self) -> list[Received]:
        return [received for _, received in self.sent]


class Post:
    """A scene without a runner, whose runs end by being canceled; the deliverer is the real one."""

    def __init__(self, folder: Path) -> None:
        self.harness = Harness(folder)
        self.store, self.clock = self.harness.store, self.harness.clock
        self.harness.secrets["hooks"] = SecretSpec("hooks", (("secret", Secret(WHSEC)),), APP)
        self.sender = FakeSender()
        self.ready = True
        self.asked = 0  # whether it is ready

    def is_ready(self) -> bool:
        self.asked += 1
        return self.ready

    def end(self, id: str, url: str = URL) -> Run:
        of = pipeline(webhook=Webhook("hooks", url))
        queued = self.store.runs.submit(new_run(id, of, self.clock.now(), "anna"))
        over = self.store.runs.save(cancel(queued, self.clock.now()))
        assert over
        return over

    def left(self, id: str) -> int | None:
        """How many attempts have failed; None: delivered."""
        found = self.store.webhooks.of(id)
        return found[0].attempts if found else None

    @property
    def events(self) -> list[Event]:
        return [event for event in self.store.events.list(APP) if event.reason == "WebhookGivenUp"]

    def delivering(self) -> AbstractContextManager[None]:
        dispatcher = WebhookDispatcher(self.harness.deps, self.sender.every, self.is_ready, rng=lambda: 0.0)
        return in_thread(dispatcher.run)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path / "state")
    yield made
    made.harness.close()


def test_a_run_that_ends_is_told_once_and_signed(post: Post) -> None:
    with post.delivering():
        post.end("a1")
        wait_for(lambda: post.left("a1") is None)
    (received,) = post.sender.received
    assert received.genuine
    assert received.json["data"]["id"] == "a1"
    assert received.headers["webhook-timestamp"] == str(int(post.clock.now()))


def test_a_receiver_that_was_down_is_told_when_it_is_up(post: Post) -> None:
    def down(url: str) -> int:
        raise Transient(Reason.WEBHOOK_UNREACHABLE, "Connection refused")

    post.sender.answer = down
    with post.delivering():
        post.end("a1")
        for failed, rest in enumerate(PAUSES[:3], 1):
            wait_for(lambda: post.left("a1"), lambda n, failed=failed: n == failed)  # type: ignore[misc]
            post.clock.advance(rest)
        wait_for(lambda: post.left("a1"), lambda n: n == 4)
        post.sender.answer = lambda url: 200
        post.clock.advance(PAUSES[3])
        wait_for(lambda: post.left("a1") is None)
    assert len(post.sender.sent) == 5
    assert len({received.id for received in post.sender.received}) == 1, "by which receivers know it"
    assert len({received.body for received in post.sender.received}) == 1
    assert len({received.headers["webhook-signature"] for received in post.sender.received}) == 5
    assert not post.events


def test_after_the_last_attempt_it_is_given_up_and_people_are_told(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    post.sender.answer = lambda url: 500
    with post.delivering(), caplog.at_level(logging.DEBUG):
        post.end("a1")
        for failed, rest in enumerate(PAUSES, 1):
            wait_for(lambda: post.left("a1"), lambda n, failed=failed: n == failed)  # type: ignore[misc]
            post.clock.advance(rest)
        wait_for(lambda: post.events)
        post.clock.advance(10 * 86400)
        post.end("a2")
        wait_for(lambda: post.left("a2"))
    assert post.left("a1") == len(PAUSES) + 1
    assert sum(received.json["data"]["id"] == "a1" for received in post.sender.received) == len(PAUSES) + 1
    (event,) = post.events
    assert event.message == (
        "the webhook of run a1 to https://example.org was given up after 10 attempts: it answers 500"
    )
    assert "secret-token" not in caplog.text + event.message, "paths are often passwords"
    assert WHSEC not in caplog.text


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (410, "410"),
        (Stalled(Reason.WEBHOOK_ADDRESS_REFUSED, "the address is not public"), "not public"),
    ],
)
def test_what_is_given_up_at_once(post: Post, end: int | Stalled, why: str) -> None:
    def answer(url: str) -> int:
        if isinstance(end, Stalled):
            raise end
        return end

    post.sender.answer = answer
    with post.delivering():
        post.end("a1")
        (event,) = wait_for(lambda: post.events)
    assert why in event.message
    assert len(post.sender.sent) == 1


def test_ids_of_another_release_hold_nothing_up(post: Post) -> None:
    post.end("a1")
    (message,) = post.store.webhooks.of("a1")
    assert replace(message, id="word_1").kind is MessageKind.RUN_ENDED
    assert replace(message, id="status").kind is MessageKind.RUN_ENDED
    assert replace(message, id="status_1").kind is MessageKind.COMMIT_STATUS


def test_a_receiver_says_when_to_come_again(post: Post) -> None:
    post.sender.answer = lambda url: ReceiverResponse(503, "100")
    with post.delivering():
        post.end("a1")
        wait_for(lambda: post.left("a1"))
    (message,) = post.store.webhooks.of("a1")
    assert message.due == post.clock.now() + 100


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (None, "the Secret 'hooks' does not exist"),
        ((), "has no key 'secret'"),
        ((("secret", Secret("")),), "it is empty"),
        ((("secret", Secret("whsec_%%")),), "not base64"),
    ],
)
def test_a_secret_that_is_not_there_may_come(
    post: Post, caplog: pytest.LogCaptureFixture, secret: tuple[tuple[str, Secret], ...] | None, why: str
) -> None:
    good = post.harness.secrets.pop("hooks")
    if secret is not None:
        post.harness.secrets["hooks"] = SecretSpec("hooks", secret, APP)
    with post.delivering():
        post.end("a1")
        wait_for(lambda: post.left("a1") and why in caplog.text)
        assert not post.sender.sent
        post.harness.secrets["hooks"] = good
        post.clock.advance(PAUSES[0])
        wait_for(lambda: post.left("a1") is None)
    assert post.sender.received[0].genuine


def test_nothing_is_sent_before_secrets_can_be_found(post: Post) -> None:
    post.ready = False
    post.end("a1")
    with post.delivering():
        wait_for(lambda: post.asked)
        assert not post.sender.sent
        post.ready = True
        post.clock.advance(1)
        wait_for(lambda: post.left("a1") is None)


def test_slow_receivers_hold_up_nobody_else(post: Post) -> None:
    free = threading.Event()
    post.sender.answer = lambda url: 204 if "quick" in url else (free.wait(60), 204)[1]
    with post.delivering():
        for number in range(10):
            post.end(f"a{number}", "https://slow.example.org/x")
        wait_for(lambda: len(post.sender.sent) == PER_PARTITION)
        for number in range(10):
            post.end(f"b{number}", "https://quick.example.org/x")
        wait_for(lambda: all(post.left(f"b{number}") is None for number in range(10)))
        assert sum("slow" in url for url, _ in post.sender.sent) == PER_PARTITION
        for number in range(20):
            post.end(f"c{number:02}", f"https://slow{number}.example.org/x")
        wait_for(
            lambda: (
                sum("slow" in url for url, _ in post.sender.sent) == PER_APP["webhooks"] < AT_ONCE["webhooks"]
            )
        )
        free.set()
        wait_for(lambda: post.left("c19") is None)
        wait_for(lambda: post.left("a9") is None)


def test_slow_receivers_of_notifications_hold_up_no_webhook(post: Post) -> None:
    free, told = threading.Event(), list[Message]()
    outbox: Any = post.store.webhooks

    def send(message: Message, timeout: float) -> DeliveryDecision:
        told.append(message)
        free.wait(60)
        return DeliveryDecision(DeliveryOutcome.DELIVERED)

    def add(app: str, number: int) -> None:
        kind = MessageKind.NOTIFICATION_TEST if number % 2 else MessageKind.NOTIFICATION
        spec = make(NotificationSpec, ComponentName(f"team{number}"), Channel.APPRISE)
        outbox.add((outgoing(f"{kind}_{app}{number}", AppName(app), spec, "{}", 0.0),))

    notifications: Any = SimpleNamespace(send=send)
    dispatcher = WebhookDispatcher(
        post.harness.deps, post.sender.every, rng=lambda: 0.0, notifications=notifications
    )
    with in_thread(dispatcher.run):
        for number in range(8):
            add("one", number)
        wait_for(lambda: len(told) == PER_APP["notifications"])
        for number in range(100):
            add(f"app{number}", number)
        wait_for(lambda: len(told) == AT_ONCE["notifications"])
        for number in range(10):
            post.end(f"a{number}", f"https://quick{number}.example.org/x")
        wait_for(lambda: all(post.left(f"a{number}") is None for number in range(10)))
        assert len(told) == AT_ONCE["notifications"]
        assert sum(message.app == "one" for message in told) == PER_APP["notifications"]
        free.set()
        wait_for(lambda: len(told) == 108)


@pytest.mark.parametrize(
    ("status", "retry_after"),
    [(429, "172800"), (503, "9" * 300), (503, "Fri, 31 Dec 9999 23:59:59 GMT")],
    ids=["days", "huge", "a date"],
)
def test_a_receiver_that_asks_for_days_does_not_hold_a_notification(
    post: Post, status: int, retry_after: str
) -> None:
    """There is one message of a Notification at a time: nothing else would be told meanwhile."""
    outbox: Any = post.store.webhooks
    notifications: Any = SimpleNamespace(
        send=lambda message, timeout: judge(ReceiverResponse(status, retry_after), post.clock.now())
    )
    spec = make(NotificationSpec, ComponentName("team"), Channel.WEBHOOK)
    post.store.notifications.declare(APP, (spec,))
    outbox.add((outgoing("note_1_1", APP, spec, json.dumps({"at": rfc3339(post.clock.now())}), 0.0),))
    dispatcher = WebhookDispatcher(
        post.harness.deps, post.sender.every, rng=lambda: 0.0, notifications=notifications
    )
    with in_thread(dispatcher.run):
        (event,) = wait_for(lambda: post.store.events.list(APP))
    assert event.reason == Reason.NOTIFICATION_FAILED
    assert f"at the first attempt: it answers {status}, and asks for a pause of " in event.message
    stored = post.store.notifications.get(APP, ComponentName("team"))
    assert stored is not None
    assert [each.fate for each in stored.record.deliveries] == [Fate.GIVEN_UP]


def test_the_daemon_ends_while_a_receiver_is_slow(post: Post) -> None:
    """It waits a moment, not for the receiver; the next one sends it again."""
    free = threading.Event()
    post.sender.answer = lambda url: (free.wait(60), 204)[1]
    post.end("a1")
    with post.delivering():
        wait_for(lambda: post.sender.sent)
    assert post.left("a1") == 0
    free.set()
    with post.delivering():
        wait_for(lambda: post.left("a1") is None)
    assert len({received.id for received in post.sender.received}) == 1


class Busy:
    """An outbox that once cannot be written."""

    def __init__(self, outbox: Webhooks) -> None:
        self._outbox = outbox
        self.failures = 1

    def delivered(self, id: str) -> None:
        if self.failures:
            self.failures -= 1
            raise Transient(Reason.STATE_BUSY, "locked")
        self._outbox.delivered(id)

    def __getattr__(self, name: str) -> object:
        return getattr(self._outbox, name)


def test_a_state_that_does_not_answer_is_asked_again(post: Post) -> None:
    """What was sent is not sent again for that."""
    busy = post.store.webhooks = Busy(post.store.webhooks)  # type: ignore[assignment]
    with post.delivering():
        post.end("a1")
        wait_for(lambda: post.left("a1") is None)
    assert (len(post.sender.sent), busy.failures) == (1, 0)


def test_a_bug_while_sending_is_one_failed_attempt(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    post.sender.answer = lambda url: 1 // 0
    with post.delivering():
        post.end("a1")
        wait_for(lambda: post.left("a1"))
    assert "bug in a webhook" in caplog.text


def test_all_that_the_runner_ends_is_told(post: Post) -> None:
    post.harness.commands["bad"] = Command(code=3)
    with post.harness.running(), post.delivering():
        for name in ("good", "bad"):
            post.harness.submit(pipeline(stage(name), webhook=Webhook("hooks", URL)))
        wait_for(lambda: len(post.sender.sent) == 2)
    ends = {received.json["type"] for received in post.sender.received}
    assert ends == {"run.succeeded", "run.failed"}
