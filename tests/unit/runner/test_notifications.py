"""Notifications from what is stored to receivers over real HTTP, and receivers that are not well."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.adapters.webhooks import HttpSender
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.spec import SecretSpec
from controller.domain.apps.status import AppStatus, Event, EventType
from controller.domain.apps.usage import Usage
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.notifications.delivery import Fate
from controller.domain.notifications.records import check_id
from controller.domain.notifications.spec import Channel, NotificationSpec, Severity
from controller.domain.reasons import Reason
from controller.domain.runs.run import RunState
from controller.domain.runs.webhooks import (
    NOTIFICATION_PAUSES,
    DeliveryDecision,
    DeliveryOutcome,
    Message,
    MessageKind,
)
from controller.domain.secret import Secret
from controller.ports import WebhookUnderWay
from controller.runner.notification_sender import NotificationSender
from controller.runner.notifier import Notifier, failed_checks
from controller.runner.webhook_dispatcher import WebhookDispatcher
from controller.store import open_guest_store
from tests.support.receivers import WHSEC, Received, Receiver, receiver
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, Command, Harness, in_thread

pytestmark = pytest.mark.slow

TEAM = ComponentName("team")
OTHER = AppName("other")
READY = Condition(ConditionType.READY, True, Reason.READY, "1 component as declared")
BROKEN = (
    Condition(ConditionType.READY, False, Reason.CRASH_LOOP, "it ends again and again"),
    Condition(ConditionType.DEGRADED, True, Reason.CRASH_LOOP, "it ends again and again", revision="c0ffee"),
)


@dataclass
class Sent:
    """Mail and chats that only remember what they were given."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    decision: DeliveryDecision = field(default_factory=lambda: DeliveryDecision(DeliveryOutcome.DELIVERED))

    def send(self, *given: Any) -> DeliveryDecision:
        self.calls.append(given)
        return self.decision


class World:
    """A store, the notifier whose looks the test calls, and the daemon's dispatcher. Time passes as the test says."""

    def __init__(self, folder: Path) -> None:
        self.harness = Harness(folder)
        self.store, self.clock = self.harness.store, self.harness.clock
        self.findings = folder / "health.json"
        self.url = "https://ml.example.org"
        self.notifier = Notifier(self.store, self.clock, self.findings, self.url, per_hour=60)
        self.mail, self.chats = Sent(), Sent()
        self.http = HttpSender(private=True)
        self.secrets = {"hook": SecretSpec("hook", (("secret", Secret(WHSEC)),))}

    def declare(self, *specs: NotificationSpec, app: AppName = APP) -> None:
        self.store.notifications.declare(app, specs)

    def status(self, *conditions: Condition, app: AppName = APP) -> None:
        self.store.apps.save(AppStatus(app, conditions=conditions))

    def look(self, after: float = 0.0) -> None:
        self.clock.advance(after)
        self.notifier.look()

    def sending(self) -> AbstractContextManager[None]:
        sender = NotificationSender(
            store=self.store,
            clock=self.clock,
            secret=lambda app, name: self.secrets.get(name),
            http=self.http,
            mail=self.mail,
            chats=self.chats,
            url=self.url,
        )
        dispatcher = WebhookDispatcher(
            self.harness.deps, dict.fromkeys(MessageKind, self.http), rng=lambda: 0.0, notifications=sender
        )
        return in_thread(dispatcher.run)

    @property
    def left(self) -> tuple[Message, ...]:
        return self.store.webhooks.due(10.0**12, WebhookUnderWay())

    def events(self, app: AppName = APP) -> list[str]:
        return [e.message for e in self.store.events.list(app) if e.reason == "NotificationFailed"]

    def problem(self, app: AppName = APP, name: ComponentName = TEAM) -> str:
        stored = self.store.notifications.get(app, name)
        assert stored
        return stored.record.last.problem if stored.record.last else ""

    def attempts(self) -> int:
        return sum(message.attempts for message in self.left)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "state")
    yield made
    made.harness.close()


def hook(there: Receiver | str, **fields: Any) -> NotificationSpec:
    url = there if isinstance(there, str) else there.url
    return make(NotificationSpec, TEAM, Channel.WEBHOOK, secret="hook", url=url, **fields)


def answers(status: int, **headers: str) -> Callable[[Received], tuple[int, dict[str, str]]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda received: (status, named)


def test_a_problem_and_its_end_arrive_as_signed_cloud_events(world: World) -> None:
    with receiver() as there, world.sending():
        world.declare(hook(there))
        world.status(*BROKEN)
        world.look()
        world.look(after=31.0)
        (first,) = wait_for(lambda: there.received)
        wait_for(lambda: not world.left)
        world.look(after=1.0)
        world.status(READY)
        world.look(after=1.0)
        world.look(after=301.0)
        wait_for(lambda: len(there.received) == 2)
        wait_for(lambda: not world.left)
    assert first.genuine
    assert first.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert (first.json["specversion"], first.json["id"]) == ("1.0", first.id)
    assert first.json["source"] == "https://ml.example.org/-/apps/demo"
    (problem,) = first.json["data"]["problems"]
    assert (problem["type"], problem["reason"], problem["revision"]) == ("Degraded", "CrashLoop", "c0ffee")
    assert [each["type"] for each in there.received[1].json["data"]["over"]] == ["Degraded"]
    assert world.events() == []


def test_an_app_hears_about_itself_alone_and_the_platform_about_all(world: World) -> None:
    with receiver() as there, receiver() as operators, world.sending():
        world.declare(hook(there))
        world.declare(hook(operators), app=PLATFORM)
        world.status(*BROKEN, app=OTHER)
        world.store.record_usage([Usage(APP, "box tables", 95, 100), Usage(OTHER, "storage", 99, 100)])
        checks = [
            {"name": "disk space", "ok": False, "detail": "1.0 GiB free", "advice": "free some"},
            {"name": "web", "ok": True, "detail": "ready", "advice": ""},
        ]
        world.findings.write_text(json.dumps({"at": "2026-01-01T00:00:00Z", "checks": checks}))
        world.look()
        world.look(after=31.0)
        (own,) = wait_for(lambda: there.received)
        (all,) = wait_for(lambda: operators.received)
    found = [(each["app"], each["subject"]) for each in own.json["data"]["problems"]]
    assert found == [("demo", "box tables")]
    told = [(each["app"], each["type"], each["subject"]) for each in all.json["data"]["problems"]]
    assert sorted(told, key=str) == [
        ("@platform", "CheckFailed", "disk space"),
        ("demo", "NearlyFull", "box tables"),
        ("other", "Degraded", None),
        ("other", "NearlyFull", "storage"),
    ]


def test_a_run_that_failed_and_an_event_are_told_once(world: World) -> None:
    with receiver() as there, world.sending():
        world.declare(hook(there, severity=Severity.INFO))
        world.harness.commands["fit"] = Command(code=3)
        with world.harness.running():
            run = world.harness.submit()
            world.harness.until(run, RunState.FAILED)
        world.store.events.add([Event(APP, EventType.NORMAL, Reason.APPLIED, "c0ffee: ready")])
        world.store.events.add([Event(APP, EventType.NORMAL, Reason.BUILDING, "not for people")])
        world.look()
        (found,) = wait_for(lambda: there.received)
        wait_for(lambda: not world.left)
        world.look(after=600.0)
        world.look(after=600.0)
    told = {each["type"]: each for each in found.json["data"]["notices"]}
    assert told["RunFailed"]["run"] == run
    assert told["RunFailed"]["reason"] == "ExitCode"
    assert told["Event"]["reason"] == "Applied"
    assert len(there.received) == 1
    assert world.store.notifications.notices() == (0, ())


def test_without_notifications_notices_are_forgotten(world: World) -> None:
    world.store.events.add([Event(APP, EventType.NORMAL, Reason.APPLIED, "c0ffee: ready")])
    world.look()
    assert world.store.notifications.notices() == (0, ())
    assert world.left == ()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (answers(401), "it answers 401"),
        (answers(403), "it answers 403"),
        (answers(500), "it answers 500"),
        (answers(302, Location="http://127.0.0.1:1/"), "it answers 302, and redirects are not followed"),
    ],
)
def test_a_receiver_that_refuses_is_asked_again(
    world: World, answer: Callable[[Received], tuple[int, dict[str, str]]], why: str
) -> None:
    with receiver() as there, world.sending():
        there.answer = answer
        world.declare(hook(there, group_wait=0.0))
        world.status(*BROKEN)
        world.look()
        wait_for(lambda: world.attempts() == 1)
        world.clock.advance(NOTIFICATION_PAUSES[0])
        (event,) = wait_for(world.events)
        there.answer = answers(204)
        world.clock.advance(NOTIFICATION_PAUSES[1])
        wait_for(lambda: not world.left)
    assert event == (
        f"the notification team by webhook did not arrive and is tried again for four hours: {why}"
    )
    assert len(set(there.ids)) == 1
    stored = world.store.notifications.get(APP, TEAM)
    assert stored
    assert stored.fate is Fate.DELIVERED


def test_a_receiver_that_had_enough_is_left_alone_as_long_as_it_says(world: World) -> None:
    with receiver() as there, world.sending():
        there.answer = answers(429, Retry_After="77")
        world.declare(hook(there, group_wait=0.0))
        world.status(*BROKEN)
        world.look()
        wait_for(lambda: world.attempts() == 1)
        (message,) = world.left
        assert message.due == pytest.approx(world.clock.now() + 77.0, abs=1.0)


def test_a_receiver_that_is_down_gets_the_news_when_it_is_back(world: World) -> None:
    with receiver() as there:
        port = int(there.url.rsplit(":", 1)[1].split("/")[0])
    with world.sending():
        world.declare(hook(there, group_wait=0.0, group_interval=0.0))
        world.status(*BROKEN)
        world.look()
        wait_for(lambda: world.attempts() == 1)
        world.status(READY)
        world.look(after=1.0)
        world.look(after=1.0)
        assert len(world.left) == 1, "the end waits until the beginning has arrived"
        with receiver(port) as again:
            world.clock.advance(NOTIFICATION_PAUSES[0])
            wait_for(lambda: not world.left)
            world.look()
            wait_for(lambda: len(again.received) == 2)
            wait_for(lambda: not world.left)
    problems = [[p["type"] for p in one.json["data"]["problems"]] for one in again.received]
    over = [[p["type"] for p in one.json["data"]["over"]] for one in again.received]
    assert (problems, over) == ([["Degraded"], []], [[], ["Degraded"]])


def test_what_never_arrives_is_given_up_and_told_again_later(world: World) -> None:
    with receiver() as there, world.sending():
        there.answer = answers(410)
        world.declare(hook(there, group_wait=0.0))
        world.status(*BROKEN)
        world.look()
        (event,) = wait_for(world.events)
        assert "was given up at the first attempt: it answers 410" in event
        world.look(after=3600.0)
        assert world.left == ()
        there.answer = answers(204)
        world.look(after=4 * 3600.0)
        wait_for(lambda: len(there.received) == 2)
    assert len(set(there.ids)) == 2


def test_a_receiver_in_a_private_network_gets_nothing_unless_configured(world: World) -> None:
    world.http = HttpSender(False, "notifications.privateReceivers")
    with receiver() as there, world.sending():
        world.declare(hook(there, group_wait=0.0))
        world.status(*BROKEN)
        world.look()
        (event,) = wait_for(world.events)
    assert "notifications.privateReceivers" in event
    assert there.received == []


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (None, "the Secret 'hook' does not exist"),
        ({"other": "x"}, "the Secret 'hook' has no key 'secret'"),
        ({"secret": "whsec_?"}, "could not sign it: the Secret 'hook': what follows whsec_ is not base64"),
    ],
)
def test_a_secret_that_is_corrected_is_used(world: World, secret: dict[str, str] | None, why: str) -> None:
    good = world.secrets.pop("hook")
    if secret is not None:
        world.secrets["hook"] = SecretSpec("hook", tuple((k, Secret(v)) for k, v in secret.items()))
    with receiver() as there, world.sending():
        world.declare(hook(there, group_wait=0.0))
        world.status(*BROKEN)
        world.look()
        wait_for(lambda: world.attempts() == 1)
        assert world.problem() == why
        world.secrets["hook"] = good
        world.clock.advance(NOTIFICATION_PAUSES[0])
        wait_for(lambda: there.received)


def test_a_url_may_be_in_the_secret(world: World) -> None:
    with receiver() as there, world.sending():
        values = (("secret", Secret(WHSEC)), ("url", Secret(f"{there.url}?token=hidden")))
        world.secrets["hook"] = SecretSpec("hook", values)
        world.declare(replace(hook(there, group_wait=0.0), url=""))
        world.status(*BROKEN)
        world.look()
        (found,) = wait_for(lambda: there.received)
    assert found.path.endswith("?token=hidden")


def test_mail_and_chats_get_texts(world: World) -> None:
    world.secrets["chat"] = SecretSpec("chat", (("url", Secret("json://example.org")),))
    mail = make(NotificationSpec, ComponentName("mail"), Channel.EMAIL, to=("a@example.org",), group_wait=0.0)
    chat = make(NotificationSpec, ComponentName("chat"), Channel.APPRISE, secret="chat", group_wait=0.0)
    world.declare(mail, chat)
    world.status(*BROKEN)
    world.look()
    with world.sending():
        wait_for(lambda: not world.left)
    ((id, to, title, text, _, _),) = world.mail.calls
    assert (id.startswith("note_"), to) == (True, ("a@example.org",))
    assert title == "demo: Degraded (CrashLoop)"
    assert "it ends again and again" in text
    ((url, chat_title, _, severity, is_over, _),) = world.chats.calls
    assert (url.reveal(), chat_title) == ("json://example.org", title)
    assert (severity, is_over) == (Severity.ERROR, False)


def test_a_notification_that_is_removed_sends_nothing_more(world: World) -> None:
    with receiver() as there:
        world.declare(hook(there, group_wait=0.0))
        world.status(*BROKEN)
        world.look()
        world.declare()
        with world.sending():
            wait_for(lambda: not world.left)
    assert there.received == []
    assert world.events() == []


def test_a_test_arrives_at_once_and_its_outcome_is_known(world: World) -> None:
    guest = open_guest_store(world.harness.settings.database)
    try:
        with receiver() as there, world.sending():
            world.declare(hook(there, suspended=True))
            asked = guest.notifications.ask_test(APP, TEAM)
            guest.notifications.ask_test(APP, ComponentName("unknown"))
            world.notifier.test()
            (found,) = wait_for(lambda: there.received)
            wait_for(lambda: not world.left)
            assert found.json["data"]["test"] is True
            assert _fate(guest, asked) is Fate.DELIVERED
            there.answer = answers(401)
            asked = guest.notifications.ask_test(APP, TEAM)
            world.notifier.test()
            wait_for(lambda: _fate(guest, asked) is Fate.GIVEN_UP)
            assert world.problem() == "it answers 401"
            assert world.events() == []
    finally:
        guest.close()


@pytest.mark.parametrize("is_sent", [False, True], ids=["in the outbox", "sent"])
def test_a_test_that_was_not_forgotten_is_sent_once(
    world: World, is_sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon died after the message was in the outbox."""
    table = world.store.notifications
    with receiver() as there:
        world.declare(hook(there))
        asked = table.ask_test(APP, TEAM)
        with monkeypatch.context() as dying:
            dying.setattr(type(table), "end_test", lambda self, id: None)
            world.notifier.test()
        assert [test.id for test in table.tests()] == [asked]
        if is_sent:
            with world.sending():
                wait_for(lambda: not world.left)
        world.notifier.test()
        assert table.tests() == ()
        with world.sending():
            wait_for(lambda: not world.left)
        assert len(there.received) == 1
        assert _fate(world.store, asked) is Fate.DELIVERED


def _fate(store: Any, asked: str) -> Fate | None:
    found = store.notifications.get(APP, TEAM).record.of(check_id(asked))
    return found.fate if found else None


class Broken:
    """A table of notifications that has a bug with one of them."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def advance(self, app: AppName, name: ComponentName, *rest: Any) -> None:
        if name == "broken":
            raise LookupError(name)
        self._table.advance(app, name, *rest)

    def send_test(self, message: Message) -> None:
        if message.pipeline == "broken":
            raise LookupError(message.pipeline)
        self._table.send_test(message)


def test_a_bug_with_one_holds_up_no_other(world: World, caplog: pytest.LogCaptureFixture) -> None:
    table = world.store.notifications
    broken = make(NotificationSpec, ComponentName("broken"), Channel.EMAIL)
    world.declare(hook("https://example.org", severity=Severity.INFO), broken)
    world.status(*BROKEN)
    store: Any = SimpleNamespace(
        notifications=Broken(table), usage=world.store.usage, transaction=world.store.transaction
    )
    notifier = replace(world.notifier, store=store)
    notifier.look()
    world.store.events.add([Event(APP, EventType.NORMAL, Reason.APPLIED, "c0ffee: ready")])
    world.clock.advance(31.0)
    notifier.look()
    assert [message.pipeline for message in world.left] == ["team"]
    assert table.notices() == (0, ())
    asked = [table.ask_test(APP, name) for name in (broken.name, TEAM)]
    notifier.test()
    assert check_id(asked[1]) in [message.id for message in world.left]
    assert table.tests() == ()
    assert "notification broken of demo is not tested: bug: LookupError" in caplog.text
    assert "notification broken of demo is not looked at: bug: LookupError" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"checks": 1}', '{"checks": [{"name": 1}]}'])
def test_findings_that_cannot_be_read_are_none(content: str, tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    assert failed_checks(path) == ()
    path.write_text(content)
    assert failed_checks(path) == ()
