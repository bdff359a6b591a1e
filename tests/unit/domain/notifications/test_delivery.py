"""The state machine of notifications: what receivers are told, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.alerts import SEVERITIES, Alert, AlertKey, AlertType, Notice
from controller.domain.notifications.delivery import (
    FLAP_WINDOW,
    MOST_NOTICES,
    SETTLED,
    Digest,
    Fate,
    NotificationState,
    advance,
)
from controller.domain.notifications.spec import Channel, NotificationSpec, Severity
from controller.store.codec import decode, encode
from tests.support.specs import make

SPEC = make(NotificationSpec, ComponentName("team"), Channel.EMAIL, to=("a@example.org",))
APP = AppName("demo")


def alert(type: AlertType = AlertType.DEGRADED, reason: str = "NotReady", app: AppName = APP) -> Alert:
    return Alert(app, type, reason, SEVERITIES[type], f"{reason} happened")


def notice(reason: str = "ExitCode") -> Notice:
    return Notice(APP, AlertType.RUN_FAILED, reason, Severity.ERROR, "run 1 failed", at=1.0)


@dataclass
class Receivers:
    """A Notification with receivers that get each message at once unless they are `down`."""

    spec: NotificationSpec = SPEC
    now: float = 1_700_000_000.0
    state: NotificationState = field(default_factory=NotificationState)
    active: dict[AlertKey, Alert] = field(default_factory=dict)
    got: list[Digest] = field(default_factory=list)
    fate: Fate | None = Fate.DELIVERED
    waiting: Digest | None = None

    def on(self, *alerts: Alert) -> Receivers:
        self.active |= {each.key: each for each in alerts}
        return self

    def off(self, *alerts: Alert) -> Receivers:
        for each in alerts:
            self.active.pop(each.key, None)
        return self

    def look(self, notices: Iterable[Notice] = ()) -> Digest | None:
        fate = self.fate if self.waiting else None
        if self.waiting and fate is Fate.DELIVERED:
            self.got.append(self.waiting)
        if fate:
            self.waiting = None
        self.state, digest = advance(self.state, self.spec, self.active, notices, fate, self.now)
        self.state = decode(NotificationState, encode(self.state))  # as it is stored
        self.waiting = digest or self.waiting
        return digest

    def wait(self, seconds: float, step: float = 10.0) -> list[Digest]:
        """Look again and again, and return the messages."""
        until, found = self.now + seconds, []
        while self.now < until:
            self.now = min(until, self.now + step)
            found += [digest] if (digest := self.look()) else []
        return found


def told(digest: Digest) -> tuple[list[str], list[str]]:
    return [p.alert.type.value for p in digest.problems], [p.alert.type.value for p in digest.over]


def test_a_problem_is_told_once_it_has_lasted_and_told_as_over_once() -> None:
    world = Receivers().on(alert())
    assert world.look() is None
    assert world.wait(SPEC.group_wait - 1) == []
    (first,) = world.wait(SPEC.group_interval)
    assert told(first) == (["Degraded"], [])
    world.off(alert())
    (second,) = world.wait(2 * SPEC.group_interval)
    assert told(second) == ([], ["Degraded"])
    assert second.over[0].until is not None
    assert world.wait(SPEC.repeat_interval * 2, step=60) == []
    assert world.wait(FLAP_WINDOW, step=60) == []
    assert world.state.alerts == ()


def test_a_short_problem_is_told_to_nobody() -> None:
    world = Receivers().on(alert())
    world.wait(20)
    world.off(alert())
    assert world.wait(3600, step=60) == []


def test_problems_at_the_same_time_are_one_message_and_the_next_one_waits() -> None:
    world = Receivers().on(alert(), alert(AlertType.FETCH_FAILED))
    (first,) = world.wait(60)
    assert told(first) == (["Degraded", "FetchFailed"], [])
    world.on(alert(AlertType.PRUNE_PENDING)).off(alert())
    began = world.now
    (second,) = world.wait(SPEC.group_interval + 60)
    assert told(second) == (["PrunePending"], ["Degraded"])
    assert second.at - first.at >= SPEC.group_interval
    assert second.at > began


def test_a_problem_that_lasts_is_told_again_with_all_others_that_last() -> None:
    world = Receivers().on(alert())
    world.wait(60)
    world.on(alert(AlertType.FETCH_FAILED))
    world.wait(SPEC.group_interval + 60)
    found = world.wait(SPEC.repeat_interval, step=60)
    assert told(found[0]) == (["Degraded", "FetchFailed"], [])
    assert [p.is_news for p in found[0].problems] == [False, False]
    assert len(found) == 1, "the repetition of one repeats all, so there is no second one for the other"


def test_without_an_interval_nothing_is_repeated() -> None:
    world = Receivers(replace(SPEC, repeat_interval=0.0)).on(alert())
    world.wait(60)
    assert world.wait(200_000, step=600) == []


def test_another_reason_is_news() -> None:
    world = Receivers().on(alert(reason="BuildFailed"))
    world.wait(60)
    world.on(alert(reason="CrashLoop"))
    (second,) = world.wait(SPEC.group_interval + 60)
    assert second.problems[0].alert.reason == "CrashLoop"
    assert second.problems[0].is_news
    assert world.wait(SPEC.group_interval * 4) == []


def test_flapping_is_told_once_and_as_over_when_it_has_stayed_away() -> None:
    world = Receivers()
    for _ in range(100):
        world.on(alert())
        world.wait(40)
        world.off(alert())
        world.wait(40)
    messages = world.got
    assert sum(len(each.problems) for each in messages if each.problems) <= 4
    ended = world.now
    world.wait(SETTLED * 2)
    assert [p.flaps for p in world.got[-1].over] == [True]
    assert world.got[-1].at >= ended + SETTLED - 50
    assert balance(world.got) == Counter()


def test_what_comes_and_goes_faster_than_it_is_told_is_told_as_flapping() -> None:
    world = Receivers()
    for _ in range(20):
        world.on(alert())
        world.wait(10)
        world.off(alert())
        world.wait(10)
    assert [told(each) for each in world.got] == [(["Degraded"], [])]
    assert world.got[0].problems[0].flaps
    world.wait(SETTLED + 60)
    assert told(world.got[-1]) == ([], ["Degraded"])
    assert world.wait(FLAP_WINDOW * 2, step=60) == []


def test_while_a_message_waits_there_is_no_other_and_then_the_present_state_is_told() -> None:
    world = Receivers().on(alert())
    world.fate = None
    (first,) = world.wait(60)
    world.off(alert()).on(alert(AlertType.FETCH_FAILED))
    assert world.wait(7200, step=60) == []
    world.fate = Fate.DELIVERED
    found = world.wait(60)
    assert world.got[0] == first
    assert told(found[0]) == (["FetchFailed"], ["Degraded"])


def test_a_message_that_was_given_up_has_told_nothing() -> None:
    world = Receivers().on(alert())
    world.fate = Fate.GIVEN_UP
    world.wait(60)
    world.off(alert())
    assert world.wait(7 * 3600, step=60) == [], "nobody knows that there was a problem"
    world.on(alert())
    world.fate = Fate.DELIVERED
    (again,) = world.wait(60)
    assert told(again) == (["Degraded"], [])


def test_notices_are_told_once_and_counted_if_there_are_too_many() -> None:
    world = Receivers()
    digest = world.look([notice() for _ in range(MOST_NOTICES + 7)])
    assert digest is not None
    assert (len(digest.notices), digest.omitted) == (MOST_NOTICES, 7)
    assert world.wait(3600, step=60) == []


@pytest.mark.parametrize(
    ("spec", "is_told"),
    [
        (SPEC, True),
        (replace(SPEC, severity=Severity.ERROR), True),
        (replace(SPEC, reasons=("BuildFailed",)), True),
        (replace(SPEC, reasons=("Degraded", "X")), True),
        (replace(SPEC, reasons=("Stalled",)), False),
        (replace(SPEC, except_reasons=("BuildFailed",)), False),
        (replace(SPEC, except_reasons=("Degraded",)), False),
        (replace(SPEC, apps=("de*",)), True),
        (replace(SPEC, apps=("other", "x*")), False),
        (replace(SPEC, suspended=True), False),
    ],
)
def test_what_a_notification_is_about(spec: NotificationSpec, is_told: bool) -> None:
    world = Receivers(spec).on(alert(reason="BuildFailed"))
    assert bool(world.wait(60)) is is_told


def test_severities_below_the_wanted_one_are_not_told() -> None:
    world = Receivers(replace(SPEC, severity=Severity.ERROR)).on(alert(AlertType.FETCH_FAILED))
    assert world.wait(600) == []


def test_what_was_told_is_told_as_over_although_the_notification_has_changed() -> None:
    world = Receivers().on(alert(AlertType.FETCH_FAILED))
    world.wait(60)
    world.spec = replace(SPEC, severity=Severity.ERROR)
    assert world.wait(SPEC.group_interval * 3) == []
    world.off(alert(AlertType.FETCH_FAILED))
    (over,) = world.wait(SPEC.group_interval + 60)
    assert told(over) == ([], ["FetchFailed"])


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    world = Receivers().on(alert())
    world.wait(60)
    world.off(alert())
    world.now -= 365 * 86400
    assert [told(each) for each in world.wait(SPEC.group_interval * 3)] == [([], ["Degraded"])]


def test_messages_of_an_hour_are_bounded() -> None:
    spec = replace(SPEC, group_wait=0.0, group_interval=0.0)
    state, now, sent = NotificationState(), 1_700_000_000.0, 0
    for number in range(600):
        fate = Fate.DELIVERED if state.message else None
        state, digest = advance(state, spec, {}, [notice(str(number))], fate, now + number * 5, per_hour=10)
        sent += digest is not None
    assert sent == 10


# --- properties -------------------------------------------------------------------------------------------------


def balance(messages: Iterable[Digest]) -> Counter[AlertKey]:
    """Return which problems receivers believe in. Raises AssertionError for what was told as over and is unknown."""
    believed: Counter[AlertKey] = Counter()
    for each in messages:
        for problem in each.over:
            assert believed[problem.alert.key], "over, and never told"
            del believed[problem.alert.key]
        for problem in each.problems:
            assert problem.alert.key not in believed or not problem.is_news or problem.until is None
            believed[problem.alert.key] = 1
    return believed


TYPES = (AlertType.DEGRADED, AlertType.FETCH_FAILED, AlertType.PRUNE_PENDING)
REASONS = ("NotReady", "BuildFailed")
STEPS = st.tuples(
    st.sampled_from(["on", "off", "notice", "lose", "back"]),
    st.sampled_from(TYPES),
    st.sampled_from(REASONS),
    st.sampled_from([0.0, 1.0, 20.0, 31.0, 301.0, 1000.0, 20_000.0]),
)


@given(st.lists(STEPS, max_size=60), st.sampled_from([0.0, 300.0]), st.sampled_from([0.0, 30.0]))
def test_each_problem_that_was_told_is_told_as_over_exactly_once(
    steps: list[tuple[str, AlertType, str, float]], interval: float, wait: float
) -> None:
    world = Receivers(replace(SPEC, group_interval=interval, group_wait=wait))
    numbers = []
    for act, type, reason, pause in steps:
        world.fate = Fate.GIVEN_UP if act == "lose" else Fate.DELIVERED
        notices = [notice()] if act == "notice" else []
        if act == "on":
            world.on(alert(type, reason))
        elif act == "off":
            world.off(alert(type))
        digest = world.look(notices)
        numbers += [digest.number] if digest else []
        world.now += -5000.0 if act == "back" else pause
    world.fate = Fate.DELIVERED
    world.active.clear()
    numbers += [digest.number for digest in world.wait(12 * 3600, step=600)]
    assert numbers == list(range(1, len(numbers) + 1)), "no number is used twice"
    assert balance(world.got) == Counter()
    assert world.state.message is None
    assert world.state.alerts == ()


@pytest.mark.slow
@given(st.lists(st.sampled_from([1.0, 15.0, 31.0, 120.0]), min_size=400, max_size=400))
def test_one_flapping_alert_is_told_some_times_an_hour_at_most(pauses: list[float]) -> None:
    world = Receivers(replace(SPEC, group_interval=0.0, group_wait=0.0))
    messages: list[float] = []
    for number, pause in enumerate(pauses):
        (world.on if number % 2 else world.off)(alert(reason=REASONS[number % 4 // 2]))
        if world.look():
            messages.append(world.now)
        world.now += pause
    for start in messages:
        assert sum(start <= at < start + 3600 for at in messages) <= 12
