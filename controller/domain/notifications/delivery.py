"""When the receivers of a Notification are told, and about what: a state machine that `advance` moves on.

Each look compares the alerts that hold now with those that the receivers know about. A problem is told once it has
lasted for a while, again after a time if it still lasts, and as over exactly once if it was told before. An alert that
comes and goes is flapping: it is reported once, and as over only when it has stayed away for `SETTLED`.

There is one message at a time. The next one is made when the outbox has delivered the last one, or has given it up;
what has happened meanwhile is in it. So a receiver that is down for a while gets one late message and then the state
of that moment, and never two messages that contradict each other in the wrong order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from controller.domain.notifications.alerts import Alert, AlertKey, Notice, wants
from controller.domain.notifications.spec import NotificationSpec

FLAP_WINDOW: Final = 3600.0  # seconds
FLAP_STARTS: Final = 3  # of an alert within the window, from which on it is flapping
SETTLED: Final = 900.0  # seconds
HOUR: Final = 3600.0
MOST_ALERTS: Final = 1000  # that one Notification follows
MOST_NOTICES: Final = 50  # that wait for a message
LEAST_PAUSE, LONGEST_PAUSE = 600.0, 4 * 3600.0  # seconds after a message that was given up


class Fate(StrEnum):
    """What has become of a message."""

    DELIVERED = "delivered"
    GIVEN_UP = "given-up"


@dataclass(frozen=True)
class AlertState:
    """`begun` and `ended`: when it was first seen, and when it was gone again, None while it lasts. `told`: when the
    receivers were told last that it lasts, None if they do not know about it; `told_reason` is the reason then.
    `starts`: when it came back or changed its reason; `cleared`: when they were told that it is over. All in Unix
    seconds."""

    alert: Alert
    begun: float
    ended: float | None = None
    told: float | None = None
    told_reason: str = ""
    starts: tuple[float, ...] = ()
    cleared: float = 0.0

    @property
    def flaps(self) -> bool:
        return len(self.starts) >= FLAP_STARTS


@dataclass(frozen=True)
class AlertName:
    """The key of an alert, and the reason that a message names."""

    app: str
    type: str
    subject: str
    reason: str

    @property
    def key(self) -> AlertKey:
        return self.app, self.type, self.subject


@dataclass(frozen=True)
class SentMessage:
    """The message that the outbox has: which alerts it tells as problems and which as over."""

    number: int
    at: float
    problems: tuple[AlertName, ...] = ()
    over: tuple[AlertName, ...] = ()


@dataclass(frozen=True)
class NotificationState:
    """`number` counts the messages, `sent` has the times of those of the last hour. `omitted` notices did not fit."""

    number: int = 0
    alerts: tuple[AlertState, ...] = ()
    notices: tuple[Notice, ...] = ()
    omitted: int = 0
    message: SentMessage | None = None
    sent: tuple[float, ...] = ()
    not_before: float = 0.0


@dataclass(frozen=True)
class Problem:
    """`until` is None while it lasts. `is_news` is False for what is only told again."""

    alert: Alert
    since: float
    until: float | None = None
    flaps: bool = False
    is_news: bool = True


@dataclass(frozen=True)
class Digest:
    """The content of one message."""

    number: int
    at: float
    problems: tuple[Problem, ...] = ()
    over: tuple[Problem, ...] = ()
    notices: tuple[Notice, ...] = ()
    omitted: int = 0
    is_test: bool = False


def advance(
    state: NotificationState,
    spec: NotificationSpec,
    alerts: Mapping[AlertKey, Alert],
    notices: Iterable[Notice],
    fate: Fate | None,
    now: float,
    per_hour: int = 60,
) -> tuple[NotificationState, Digest | None]:
    """Return the next state, and the message to send now, if there is one. `fate` is that of the message in `state`,
    None while the outbox has it."""
    state = _settled(_unjumped(state, now), spec, fate, now)
    state = _noticed(_seen(state, spec, alerts, now), spec, notices)
    if state.message or now < state.not_before or spec.suspended:
        return state, None
    sent = tuple(at for at in state.sent if at > now - HOUR)
    if len(sent) >= per_hour or (sent and now < sent[-1] + spec.group_interval):
        return replace(state, sent=sent), None
    return _composed(replace(state, sent=sent), spec, now)


def _unjumped(state: NotificationState, now: float) -> NotificationState:
    """Return the state with no time in the future: the clock was set back."""

    def past(at: float | None) -> float | None:
        return None if at is None else min(at, now)

    def each(known: AlertState) -> AlertState:
        starts = tuple(min(at, now) for at in known.starts)
        return replace(
            known,
            begun=min(known.begun, now),
            ended=past(known.ended),
            told=past(known.told),
            starts=starts,
            cleared=min(known.cleared, now),
        )

    return replace(
        state,
        alerts=tuple(map(each, state.alerts)),
        sent=tuple(min(at, now) for at in state.sent),
        not_before=min(state.not_before, now + LONGEST_PAUSE),
    )


def _settled(
    state: NotificationState, spec: NotificationSpec, fate: Fate | None, now: float
) -> NotificationState:
    """Take in what has become of the message: what was delivered is known to the receivers."""
    message = state.message
    if message is None or fate is None:
        return state
    if fate is Fate.GIVEN_UP:
        pause = min(max(spec.repeat_interval, LEAST_PAUSE), LONGEST_PAUSE)
        return replace(state, message=None, not_before=now + pause)
    problems = {each.key: each.reason for each in message.problems}
    over = {each.key for each in message.over}
    kept = []
    for known in state.alerts:
        key = known.alert.key
        if key in problems:
            kept.append(replace(known, told=message.at, told_reason=problems[key]))
        elif key in over:
            kept.append(replace(known, told=None, told_reason="", cleared=message.at))
        else:
            kept.append(known)
    return replace(state, message=None, alerts=tuple(kept))


def _seen(
    state: NotificationState, spec: NotificationSpec, alerts: Mapping[AlertKey, Alert], now: float
) -> NotificationState:
    """Compare with the alerts of now. What the receivers know about is followed even if the Notification has been
    changed and would not tell it any more."""
    known = {each.alert.key: each for each in state.alerts}
    under_way = _under_way(state.message)
    followed: list[AlertState] = []
    for key, each in known.items():
        present = alerts.get(key)
        matters = each.told is not None or key in under_way
        if present is not None and not matters and not wants(spec, present):
            present = None
        next = _moved(each, present, now)
        if matters or next.ended is None or next.starts:
            followed.append(next)
    room = MOST_ALERTS - len(followed)
    new = [a for key, a in sorted(alerts.items()) if key not in known and wants(spec, a)]
    followed += [AlertState(alert, begun=now, starts=(now,)) for alert in new[: max(0, room)]]
    return replace(state, alerts=tuple(followed))


def _under_way(message: SentMessage | None) -> frozenset[AlertKey]:
    if message is None:
        return frozenset()
    return frozenset(each.key for each in (*message.problems, *message.over))


def _moved(known: AlertState, present: Alert | None, now: float) -> AlertState:
    starts = tuple(at for at in known.starts if at > now - FLAP_WINDOW)
    if present is None:
        return replace(known, starts=starts, ended=now if known.ended is None else known.ended)
    if known.ended is not None:  # it is back
        return replace(known, alert=present, ended=None, begun=now, starts=_added(starts, now))
    if present.reason != known.alert.reason:
        return replace(known, alert=present, starts=_added(starts, now))
    return replace(known, alert=present, starts=starts)


def _added(starts: tuple[float, ...], now: float) -> tuple[float, ...]:
    return (*starts, now)[-2 * FLAP_STARTS :]


def _noticed(
    state: NotificationState, spec: NotificationSpec, notices: Iterable[Notice]
) -> NotificationState:
    wanted = [notice for notice in notices if wants(spec, notice)]
    if not wanted or spec.suspended:
        return state
    every = (*state.notices, *wanted)
    return replace(
        state,
        notices=every[:MOST_NOTICES],
        omitted=state.omitted + max(0, len(every) - MOST_NOTICES),
    )


# --- what is due ------------------------------------------------------------------------------------------------


def _composed(
    state: NotificationState, spec: NotificationSpec, now: float
) -> tuple[NotificationState, Digest | None]:
    news = tuple(each for each in state.alerts if _is_news(each, spec, now))
    over = tuple(each for each in state.alerts if _is_over(each, spec, now))
    repeats = any(_repeats(each, spec, now) for each in state.alerts)
    if not (news or over or repeats or state.notices):
        return state, None
    # A message that is due anyway begins the time until the next repetition of all that lasts.
    lasting = tuple(e for e in state.alerts if e.told is not None and e.ended is None and e not in news)
    again = lasting if repeats else ()
    number = state.number + 1
    message = SentMessage(number, now, tuple(map(_name, (*news, *again))), tuple(map(_name, over)))
    digest = Digest(
        number,
        now,
        problems=(*(_problem(e) for e in news), *(replace(_problem(e), is_news=False) for e in again)),
        over=tuple(map(_problem, over)),
        notices=state.notices,
        omitted=state.omitted,
    )
    sent = (*state.sent, now)
    return replace(state, number=number, notices=(), omitted=0, message=message, sent=sent), digest


def _is_news(each: AlertState, spec: NotificationSpec, now: float) -> bool:
    if each.told is None:
        if each.ended is not None:  # none of its short appearances was told
            return each.flaps and each.starts[-1] > each.cleared
        return each.flaps or now >= each.begun + spec.group_wait
    changed = each.ended is None and each.alert.reason != each.told_reason
    return changed and not each.flaps and bool(each.starts) and now >= each.starts[-1] + spec.group_wait


def _is_over(each: AlertState, spec: NotificationSpec, now: float) -> bool:
    if each.told is None or each.ended is None:
        return False
    return now >= each.ended + (max(SETTLED, spec.group_wait) if each.flaps else spec.group_wait)


def _repeats(each: AlertState, spec: NotificationSpec, now: float) -> bool:
    if each.told is None or each.ended is not None or not spec.repeat_interval:
        return False
    return now >= each.told + spec.repeat_interval


def _name(each: AlertState) -> AlertName:
    return AlertName(*each.alert.key, each.alert.reason)


def _problem(each: AlertState) -> Problem:
    return Problem(each.alert, each.begun, each.ended, each.flaps)
