"""The status of apps as it is stored and shown to people: attempted revisions, conditions, and events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from controller.domain.apps.conditions import Conditions
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.text import bounded, excerpt

#: Characters of all texts of an app's status together. A message by itself has up to `text.MAX_MESSAGE`.
MAX_TEXT = 131_072


@dataclass(frozen=True)
class ComponentStatus:
    """`failed_fingerprint` is the version that did not become ready and is not tried again; `failure` without it is
    why the version in service could not be repaired. `restarts`: Unix seconds of recent repairs, oldest first."""

    name: ComponentName
    kind: str
    fingerprint: str = ""
    image: str = ""
    model: str = ""  # digest of the model, of a component that has one
    conditions: Conditions = ()
    failed_fingerprint: str = ""
    failure_reason: Reason = Reason.NONE
    failure: str = ""
    restarts: tuple[float, ...] = ()


@dataclass(frozen=True)
class BoxStatus:
    """Sizes in bytes; `used` and `files` as measured last. `bucket` is empty before it is made."""

    name: ComponentName
    bucket: str
    capacity: int
    used: int
    files: int
    conditions: Conditions = ()


@dataclass(frozen=True)
class Setback:
    """The last attempt at something failed, and it is still wanted. `subject` names it as `Hold.subject`
    does; `attempts` have failed in a row, the last one at `at` (Unix seconds). `stalled`: another attempt has
    to wait until the input changes. `resolving`: resolving the content of an image or of a model failed, not
    an action. `version`: the fingerprint of the version that was to be started, if there was one."""

    subject: str
    reason: Reason
    message: str
    attempts: int
    at: float
    stalled: bool = False
    resolving: bool = False
    version: str = ""


@dataclass(frozen=True)
class AppStatus:
    app: AppName
    repository: str = ""
    attempted_revision: str = ""
    applied_revision: str = ""
    desired_revision: str = ""  # the newest commit with valid manifests, which is the one to converge to
    conditions: Conditions = ()
    components: tuple[ComponentStatus, ...] = ()  # sorted by name
    boxes: tuple[BoxStatus, ...] = ()  # sorted by name
    suspended: bool = False  # by a person (`prichal suspend`), beside the manifest's own `suspend`
    approved_revision: str = ""  # `prichal approve`: everything may be removed at once at this revision
    plan: str = ""  # text of the last plan
    failures: int = 0  # consecutive failed passes, for the backoff
    pins: tuple[
        tuple[str, str], ...
    ] = ()  # image reference -> what it was resolved to, at `desired_revision`
    models: tuple[
        tuple[ComponentName, str], ...
    ] = ()  # component -> digest of its model, at `desired_revision`
    setbacks: tuple[Setback, ...] = ()  # sorted by subject; a new commit forgets them

    def bounded(self, most: int = MAX_TEXT) -> AppStatus:
        """Return the status with its texts cut, the longest ones most, if all together have more than `most`
        characters, so that a module with many long messages does not fill the database and the pages that
        show it."""
        texts = [*_messages(self.conditions), self.plan, *(setback.message for setback in self.setbacks)]
        texts += [text for part in self.components for text in (*_messages(part.conditions), part.failure)]
        texts += [text for box in self.boxes for text in _messages(box.conditions)]
        limit = longest(map(len, texts), most)
        if limit is None:
            return self
        return replace(
            self,
            conditions=_cut(self.conditions, limit),
            plan=excerpt(self.plan, limit),
            setbacks=tuple(replace(each, message=excerpt(each.message, limit)) for each in self.setbacks),
            components=tuple(
                replace(each, conditions=_cut(each.conditions, limit), failure=excerpt(each.failure, limit))
                for each in self.components
            ),
            boxes=tuple(replace(each, conditions=_cut(each.conditions, limit)) for each in self.boxes),
        )

    def component(self, name: ComponentName) -> ComponentStatus | None:
        return next((c for c in self.components if c.name == name), None)


def longest(lengths: Iterable[int], most: int) -> int | None:
    """Return how long each of the texts may be so that all together have no more than `most` characters, and the
    short ones stay whole; None if all may."""
    left, rest = most, sorted(lengths)
    for number, length in enumerate(rest):
        share = left // (len(rest) - number)
        if length > share:
            return share
        left -= length
    return None


def _messages(conditions: Conditions) -> Iterator[str]:
    return (condition.message for condition in conditions)


def _cut(conditions: Conditions, limit: int) -> Conditions:
    return tuple(replace(each, message=excerpt(each.message, limit)) for each in conditions)


class EventType(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Event:
    """Something that happened, recorded once, on a transition. `id` grows; 0 until stored."""

    app: AppName
    type: EventType
    reason: Reason
    message: str
    component: ComponentName | None = None
    revision: str = ""
    at: float = 0.0
    id: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", bounded(self.message))


@dataclass(frozen=True)
class RepositoryRecord:
    """The part of a repository that the web process may know: enough to check a webhook, but no credentials."""

    name: str
    apps: tuple[AppName, ...]
    ref: str  # "branch:main", "tag:v1", "semver:>=1", "commit:…"
    interval: float
    hook_provider: str | None = None
    hook_secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class WebhookDelivery:
    """An accepted webhook: `id` is the provider's delivery id (or ours), `requests` are those that it caused."""

    id: str
    repository: str
    requests: tuple[int, ...]
    at: float
