"""Status of apps as kept in the store and shown to people: what was tried, what holds, what happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from controller.domain.conditions import Conditions
from controller.domain.names import AppName, ComponentName


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
    failure_reason: str = ""
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
class AppStatus:
    app: AppName
    repository: str = ""
    attempted_revision: str = ""
    applied_revision: str = ""
    desired_revision: str = ""  # the newest commit with valid manifests: what is converged to, come what may
    conditions: Conditions = ()
    components: tuple[ComponentStatus, ...] = ()  # sorted by name
    boxes: tuple[BoxStatus, ...] = ()  # sorted by name
    suspended: bool = False  # by a person (`prichal suspend`), beside the manifest's own `suspend`
    approved_revision: str = ""  # `prichal approve`: everything may go at once at this revision
    plan: str = ""  # text of the last plan
    failures: int = 0  # consecutive failed passes, for the backoff
    pins: tuple[
        tuple[str, str], ...
    ] = ()  # image reference -> what it was resolved to, at `desired_revision`
    models: tuple[
        tuple[ComponentName, str], ...
    ] = ()  # component -> digest of its model, at `desired_revision`

    def component(self, name: ComponentName) -> ComponentStatus | None:
        return next((c for c in self.components if c.name == name), None)


class EventType(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Event:
    """A thing that happened, told once, on a transition. `id` grows; 0 until stored."""

    app: AppName
    type: EventType
    reason: str
    message: str
    component: ComponentName | None = None
    revision: str = ""
    at: float = 0.0
    id: int = 0


class RequestState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True)
class Request:
    """A wish that an app be reconciled: only a key and why. `outcome` is set when done:
    Ready | Degraded | Failed | Superseded | Suspended | Waiting."""

    id: int
    app: AppName
    reasons: tuple[str, ...]  # poll | webhook | push | drift | manual | start | platform | retry | wake
    state: RequestState
    created: float
    not_before: float = 0.0
    outcome: str = ""
    message: str = ""
    revision: str = ""


@dataclass(frozen=True)
class RepositoryRecord:
    """What the web process may know of a repository: enough to check a webhook, nothing to fetch with."""

    name: str
    apps: tuple[AppName, ...]
    ref: str  # "branch:main", "tag:v1", "semver:>=1", "commit:…"
    interval: float
    hook_provider: str | None = None
    hook_secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class Delivery:
    """An accepted webhook: `id` is the provider's delivery id (or ours), `requests` what it asked for."""

    id: str
    repository: str
    requests: tuple[int, ...]
    at: float
