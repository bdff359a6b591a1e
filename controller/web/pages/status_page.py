"""The rows of the page for people at `/-/`. Pure: statuses and events in, texts and classes for the template out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from controller.domain.apps.conditions import Condition, Conditions, ConditionType, find, is_ready
from controller.domain.apps.status import AppStatus, BoxStatus, Event, EventType
from controller.domain.routing.routes import Route
from controller.domain.text import excerpt

#: Conditions that are shown beside Ready, with the colour they mean.
_TONES = {
    ConditionType.RECONCILING: "busy",
    ConditionType.SUSPENDED: "calm",
    ConditionType.PRUNE_PENDING: "warn",
    ConditionType.WARNING: "warn",
}


#: Characters of a message on the page; `prichal status APP` and the status API have more of it.
MESSAGE = 2_000


@dataclass(frozen=True)
class Badge:
    text: str
    tone: str  # good | bad | warn | busy | calm


@dataclass(frozen=True)
class AppRow:
    """An app, or (`level` 1) one of its components and boxes. `key` stays the same from one look to the next."""

    key: str
    name: str
    level: int
    badges: tuple[Badge, ...]
    message: str
    revision: str
    since: str
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class EventRow:
    key: str
    when: str
    ago: str
    tone: str
    where: str
    reason: str
    message: str


def app_rows(app: AppStatus, routes: tuple[Route, ...], now: float) -> list[AppRow]:
    rows = [
        AppRow(
            app.app,
            app.app,
            0,
            _badges(app.conditions),
            _message(app.conditions),
            app.applied_revision[:8],
            _since(app.conditions, now),
        )
    ]
    for component in app.components:
        links = tuple(
            f"/{route.app}/{api.path}"
            for route in routes
            for api in route.apis
            if route.component == component.name and api.published
        )
        rows.append(
            AppRow(
                f"{app.app}/{component.name}",
                component.name,
                1,
                _badges(component.conditions),
                _message(component.conditions) or excerpt(component.failure, MESSAGE),
                "",
                _since(component.conditions, now),
                links,
            )
        )
    return rows + [_box_row(app, box, now) for box in app.boxes]


def _box_row(app: AppStatus, box: BoxStatus, now: float) -> AppRow:
    said = box.conditions
    key = f"{app.app}/box/{box.name}"
    return AppRow(key, f"box {box.name}", 1, _badges(said), _message(said), "", _since(said, now))


def event_rows(events: tuple[Event, ...], now: float) -> list[EventRow]:
    """Newest first."""
    return [
        EventRow(
            key=f"event-{event.id}",
            when=datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            ago=ago(now - event.at),
            tone="bad" if event.type is EventType.WARNING else "calm",
            where=f"{event.app}/{event.component}" if event.component else event.app,
            reason=event.reason,
            message=excerpt(event.message, MESSAGE),
        )
        for event in reversed(events)
    ]


def ago(seconds: float) -> str:
    """`12 s`, `3 min`, `5 h`, `2 d`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _badges(conditions: Conditions) -> tuple[Badge, ...]:
    ready = find(conditions, ConditionType.READY)
    first = Badge("unknown", "calm") if ready is None else _ready_badge(ready)
    others = (
        Badge(c.type.value, _TONES.get(c.type, "bad"))
        for c in conditions
        if c.type is not ConditionType.READY
    )
    return (first, *others)


def _ready_badge(ready: Condition) -> Badge:
    return Badge("Ready", "good") if ready.status else Badge(ready.reason or "Not ready", "bad")


def _message(conditions: Conditions) -> str:
    """The most telling one: whatever is wrong comes before what is well."""
    return excerpt(_most_telling(conditions), MESSAGE)


def _most_telling(conditions: Conditions) -> str:
    worst = [c for c in conditions if c.type is not ConditionType.READY and c.message]
    ready = find(conditions, ConditionType.READY)
    if ready and not is_ready(conditions) and ready.message:
        return ready.message
    return worst[0].message if worst else (ready.message if ready else "")


def _since(conditions: Conditions, now: float) -> str:
    ready = find(conditions, ConditionType.READY)
    return ago(now - ready.since) if ready and ready.since else ""
