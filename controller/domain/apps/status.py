"""The status of apps as it is stored and shown to people: attempted revisions, conditions, and events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from controller.domain.apps.age_keys import EncryptedFiles
from controller.domain.apps.commit_status import CommitStatus
from controller.domain.apps.conditions import Conditions, ConditionType, find, is_ready
from controller.domain.apps.observed import ObservedWorkload, WorkloadState
from controller.domain.apps.releases import Images, release
from controller.domain.apps.rollout_watch import FailedRollout, RolloutWatch
from controller.domain.apps.secret_uses import SecretUse
from controller.domain.localizable import shortened
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.text import bounded

#: Characters of all texts of an app's status together. A message by itself has up to `text.MAX_MESSAGE`.
MAX_TEXT = 131_072


@dataclass(frozen=True)
class ReplicaStatus:
    """A container of a component as it was at the end of a pass. `since` is when it was made, in Unix seconds. `detail`
    is what the engine says of one that does not run."""

    name: str
    number: int
    version: str  # fingerprint
    revision: str
    state: WorkloadState
    since: float
    detail: str = ""
    gpus: tuple[str, ...] = ()  # ids of those that it has


@dataclass(frozen=True)
class ReplicaExit:
    """How a container of a component ended that was not stopped by the platform: seen at `at`, in Unix seconds."""

    name: str
    version: str
    at: float
    code: int
    oom_killed: bool


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
    replicas: tuple[ReplicaStatus, ...] = ()  # of all versions, sorted by name
    last_exit: ReplicaExit | None = None
    watch: RolloutWatch | None = None  # of the version in service, while it is watched


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
class Rollback:
    """A decision of a person, or of the platform if a version that is watched fails: the app is at `revision`, which
    was applied before, until Git has another commit than `replaced` or somebody resumes the app. Both are releases
    (releases.py): between two of one commit it is until there are other images. `at` in Unix seconds."""

    revision: str
    replaced: str
    by: str
    at: float


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
    rollback: Rollback | None = None  # `prichal rollback`
    plan: str = ""  # text of the last plan
    failures: int = 0  # consecutive failed passes, for the backoff
    pins: tuple[
        tuple[str, str], ...
    ] = ()  # image reference -> what it was resolved to, at `desired_revision`
    models: tuple[
        tuple[ComponentName, str], ...
    ] = ()  # component -> digest of its model, at `desired_revision`
    setbacks: tuple[Setback, ...] = ()  # sorted by subject; a new commit forgets them
    secrets: tuple[SecretUse, ...] = ()  # that manifests name, at `desired_revision`
    told: CommitStatus | None = None  # what was last put into the outbox for the forge
    #: Followed images in place of those of Git: the newest ones, those in force, and those that were last ready.
    attempted_images: Images = ()
    desired_images: Images = ()
    applied_images: Images = ()
    failed_rollout: FailedRollout | None = None  # why `rollback` was decided without a person
    #: Files of the commit in force that were decrypted; None in statuses of earlier versions, which did not look.
    encrypted: tuple[EncryptedFiles, ...] | None = None

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
            plan=shortened(self.plan, limit),
            setbacks=tuple(replace(each, message=shortened(each.message, limit)) for each in self.setbacks),
            components=tuple(
                replace(each, conditions=_cut(each.conditions, limit), failure=shortened(each.failure, limit))
                for each in self.components
            ),
            boxes=tuple(replace(each, conditions=_cut(each.conditions, limit)) for each in self.boxes),
        )

    def component(self, name: ComponentName) -> ComponentStatus | None:
        return next((c for c in self.components if c.name == name), None)

    @property
    def attempted(self) -> str:
        """Return the newest release, see releases.py."""
        return release(self.attempted_revision, self.attempted_images)

    @property
    def desired(self) -> str:
        return release(self.desired_revision, self.desired_images)

    @property
    def applied(self) -> str:
        return release(self.applied_revision, self.applied_images)


def is_suspended(status: AppStatus) -> bool:
    """Return whether a person or the platform's manifest has suspended the app."""
    return status.suspended or find(status.conditions, ConditionType.SUSPENDED) is not None


def state_word(status: AppStatus) -> str:
    """Return the first that applies: Suspended, Reconciling, Ready, Degraded, Stalled, NotReady or Unknown."""
    if is_suspended(status):
        return "Suspended"
    if find(status.conditions, ConditionType.RECONCILING):
        return "Reconciling"
    if is_ready(status.conditions):
        return "Ready"
    for kind in (ConditionType.DEGRADED, ConditionType.STALLED):
        if find(status.conditions, kind):
            return kind.value
    return "NotReady" if status.conditions else "Unknown"


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
    return tuple(replace(each, message=shortened(each.message, limit)) for each in conditions)


_DETAIL = 500  # characters of what an engine says of a container
_MOST_REPLICAS = 200  # that are kept of one component


def replicas_of(workloads: Iterable[ObservedWorkload]) -> tuple[ReplicaStatus, ...]:
    found = [
        ReplicaStatus(
            w.name,
            w.replica,
            w.fingerprint,
            w.revision,
            w.state,
            w.created,
            shortened(w.detail, _DETAIL),
            w.gpus,
        )
        for w in workloads
    ]
    return tuple(found[:_MOST_REPLICAS])


def last_exit_of(
    workloads: Iterable[ObservedWorkload], at: float, before: ReplicaExit | None
) -> ReplicaExit | None:
    """Return the exit of a container that has ended, or the one that was known before."""
    for w in workloads:
        if w.state is WorkloadState.STOPPED and w.exit_code is not None:
            found = ReplicaExit(w.name, w.fingerprint, at, w.exit_code, w.oom_killed)
            return before if before and replace(found, at=before.at) == before else found
    return before


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
class PreviewWatch:
    """An app that has previews of branches which match one of `branches`; `pulls`: only of those with a pull
    request."""

    app: AppName
    branches: tuple[str, ...]
    pulls: bool = False


@dataclass(frozen=True)
class RepositoryRecord:
    """The part of a repository that the web process may know: enough to check a webhook, but no credentials."""

    name: str
    apps: tuple[AppName, ...]
    ref: str  # "branch:main", "tag:v1", "semver:>=1", "commit:…"
    interval: float
    hook_provider: str | None = None
    hook_secret: str = field(default="", repr=False)
    hosted: str = ""  # its name among those hosted here (`prichal repo create`)
    path: str = ""  # of its URL, without `.git`; "" for one of this host
    previews: tuple[PreviewWatch, ...] = ()


@dataclass(frozen=True)
class WebhookDelivery:
    """An accepted webhook: `id` is the provider's delivery id (or ours), `requests` are those that it caused."""

    id: str
    repository: str
    requests: tuple[int, ...]
    at: float
