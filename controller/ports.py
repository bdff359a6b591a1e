"""The ports: the interfaces that the core needs, in domain types only. Adapters and the store implement them;
tests replace them by small fakes that pass the same contract suites.

Every method may raise `controller.domain.errors` (Transient, Waiting, Stalled) and nothing else that is expected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Protocol

from controller.domain.apps.age_keys import PublicAgeKey
from controller.domain.apps.branch_previews import (
    BranchPreview,
    BranchPreviews,
    LeftOut,
    OpenPull,
    PreviewDecision,
    SeenBranch,
)
from controller.domain.apps.conditions import Conditions
from controller.domain.apps.desired import BuildInput, Workload
from controller.domain.apps.followed_images import FollowedImage, FollowRecord, FollowState
from controller.domain.apps.history import AppliedRevision, ManifestText
from controller.domain.apps.observed import (
    ImagePin,
    ImageUse,
    LoggedContainer,
    ObservedApp,
    ObservedWorkload,
    ScratchUse,
    WorkloadUse,
)
from controller.domain.apps.orders import AppOrder, OrderRecord
from controller.domain.apps.owned_secrets import ChangeRecord, OwnedKey, OwnedSecrets, SecretChange
from controller.domain.apps.previews import AskedPreview, PlanPreview
from controller.domain.apps.releases import Images
from controller.domain.apps.requests import Outcome, ReconcileRequest, Trigger
from controller.domain.apps.samples import Resolution, Sample, Stored
from controller.domain.apps.smoke import SmokeAnswer, SmokeCase
from controller.domain.apps.spec import (
    BuildImage,
    ImageSource,
    Registry,
    RepositorySpec,
    Resources,
    SecretSpec,
)
from controller.domain.apps.status import (
    AppStatus,
    Event,
    RepositoryRecord,
    Rollback,
    WebhookDelivery,
)
from controller.domain.apps.usage import TakenShare, Usage
from controller.domain.errors import ControllerError
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.alerts import Notice
from controller.domain.notifications.delivery import Fate, NotificationState
from controller.domain.notifications.records import AskedTest, StoredNotification
from controller.domain.notifications.spec import NotificationSpec, Severity
from controller.domain.people.pushes import PushUnderWay
from controller.domain.people.quotas import AppShare
from controller.domain.routing.async_calls import EndedCall
from controller.domain.routing.routes import Route, Service
from controller.domain.runs.file_index import UnderWayMark
from controller.domain.runs.gpus import GpuRequest, Lease
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import EVERY_RUN, Run, RunCause, RunCount, RunFilter
from controller.domain.runs.schedules import Checkpoint, ScheduleState
from controller.domain.runs.webhooks import DeliveryDecision, Message, ReceiverResponse
from controller.domain.secret import Secret
from controller.domain.storage.box import (
    Arrival,
    BoxRecord,
    BoxUsage,
    ModelPin,
    ObjectPage,
    Part,
    PendingUpload,
    StorageAccess,
    StorageAccount,
    StoredObject,
)
from controller.domain.storage.moves import GroupMove
from controller.domain.templates import TemplateRecord
from controller.domain.volumes import Volume
from controller.sops.keys import FileKeys


class Clock(Protocol):
    def now(self) -> float:
        """Return Unix seconds, which people and time servers may set forward and back."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary time; they never go back."""

    def sleep(self, seconds: float) -> None: ...


class Ticks(Protocol):
    def after(self, cron: str, timezone: str, moment: float) -> float:
        """Return the first tick after a time, both in Unix seconds; infinity if there is none. `cron` and
        `timezone` are valid values of manifests. When daylight saving time begins or ends, ticks are those of
        Debian's cron."""


# --- Git --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revision:
    """An immutable commit in the local clone. `ref` is the reference that led to it, e.g. `refs/heads/main`."""

    repository: str
    commit: str
    ref: str
    author: str = ""
    subject: str = ""
    committed: float = 0.0


@dataclass(frozen=True)
class SourceFile:
    """`path` is relative to the repository's root (or platform folder), with forward slashes, and printable.
    `passed_over`: why its content cannot be read, for a warning."""

    path: str
    content: bytes
    passed_over: str = ""


@dataclass(frozen=True)
class BuildContext:
    """The input of a build. `files` is an uncompressed tar stream of it, but for the `.dockerignore` at its root:
    `dockerignore` is that one's text, None if the build does not see it. `dockerfile` may be seen or not."""

    dockerfile: bytes
    dockerignore: bytes | None
    files: Iterable[bytes]


@dataclass(frozen=True)
class CommitDraft:
    """A commit by prichal that replaces the content of one file. `at` in Unix seconds."""

    path: str
    content: bytes
    message: str
    at: int


class Sources(Protocol):
    """Git repositories: one bare clone each, no work tree. Calls on one repository are serialised inside."""

    def head(self, repository: RepositorySpec, credentials: SecretSpec | None) -> str:
        """Return the commit id that the remote's ref points to now; nothing is fetched (about 5 ms)."""

    def refs(self, repository: RepositorySpec, credentials: SecretSpec | None) -> Mapping[str, str]:
        """Return the commits of the remote's branches and pull requests, by the full names of their refs; nothing is
        fetched. An empty repository has none. Raises Stalled `TooManyRefs`."""

    def fetch(
        self, repository: RepositorySpec, credentials: SecretSpec | None, signers: SecretSpec | None
    ) -> Revision:
        """Bring the ref's commit into the clone. An unchanged remote costs one round trip."""

    def files(self, revision: Revision, path: str, suffixes: tuple[str, ...]) -> tuple[SourceFile, ...]:
        """Return files below `path` with one of `suffixes`, sorted by path; hidden folders and files are
        skipped. Raises Stalled `PathNotFound` if `path` is not a folder of the commit."""

    def read(self, revision: Revision, path: str, most: int) -> bytes:
        """Return a file of the commit. Raises Stalled `PathNotFound` if `path` is not a file, `FileTooLarge` if it has
        more bytes than `most`."""

    def content_id(self, revision: Revision, source: BuildImage) -> str:
        """Return the id of what a build of `source` can see, without what `.dockerignore` excludes. Equal content
        has equal ids."""

    def build_context(self, revision: Revision, source: BuildImage) -> BuildContext:
        """Return the context, which is deterministic (fixed times and owners). Files that `.dockerignore`
        excludes are not checked."""

    def commit(
        self, repository: RepositorySpec, credentials: SecretSpec | None, parent: Revision, draft: CommitDraft
    ) -> str:
        """Put a commit onto the branch of the repository, and return its id. Raises Transient `BranchMoved` if the
        branch no longer points to `parent`, Stalled `ImageWriteFailed` if the server refuses it."""

    def forget(self, names: Iterable[str]) -> None:
        """Delete the clones of these repositories."""


# --- the container engine ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EngineEvent:
    """Something happened to a container of ours that we may not have done. `action`: die | oom | stop | pause
    | destroy | lost | found (the node of a lost one answers again) | refused, or `reconnected`: the engine
    was away, look at the whole app (`component` and `workload_id` are empty)."""

    app: AppName
    component: ComponentName
    action: str
    workload_id: str
    at: float


class ContainerLogReader(Protocol):
    """Reads the log of one container on from a position. Not thread-safe."""

    def unread(self) -> Iterator[tuple[str, bytes]]:
        """Yield what was written since, in pieces, each with the position after it, which begins with the time of
        its last line (RFC 3339). What was lost meanwhile is told in a line. Raises Transient."""


class Engine(Protocol):
    """Runs workloads and builds images. It changes only objects with our instance label."""

    def ping(self) -> str:
        """Return the engine's name and version."""

    def observe(self, app: AppName) -> ObservedApp: ...

    def apps(self) -> frozenset[AppName]:
        """Return the apps that own any object here, connected or not."""

    def pin(
        self, source: ImageSource, tag: str | None, registries: tuple[tuple[Registry, SecretSpec | None], ...]
    ) -> ImagePin:
        """Resolve an image to content. `tag` is the build's tag (None for existing images). An image that only
        the engine has is used unchanged; else the registry is asked for the digest. If builds are pushed to a
        registry, a build is known by its digest there, and is built again only if the registry does not have
        it. Raises Stalled `ImageNotFound`, `RegistryDenied`; Transient `RegistryUnreachable`."""

    def pull(
        self, app: AppName, reference: str, registries: tuple[tuple[Registry, SecretSpec | None], ...]
    ) -> None:
        """Pull the image for an app. Raises Stalled `ImageNotFound`, also for images that no registry has, because they
        were built and not pushed, or loaded by hand; Stalled or Transient `ImageTooLarge` if the images that were
        pulled for the app would exceed its share."""

    def build(
        self,
        tag: str,
        build: BuildInput,
        context: BuildContext,
        log: Callable[[str], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Build the image, and push it if there is a registry for builds. It is ended soon after `stop()` returns true,
        with Superseded. Raises Stalled `BuildFailed` with the
        last lines of the build log, `BuildTooLarge` if its steps write more than its share; Transient `PushFailed`,
        after which the next attempt only pushes."""

    def prune_images(
        self,
        app: AppName,
        keep: int,
        spare: frozenset[str] = frozenset(),
        earlier: tuple[str, ...] = (),
    ) -> None:
        """Remove images that were built here for the app and that no container uses, except the `keep` newest, those in
        `spare` (`ImagePin.deploy`) and those in `earlier`, the most wanted first, within `docker.keptImages`. With
        `keep` 0, those that were pulled for it are removed, too."""

    def image_sizes(self) -> Mapping[AppName, ImageUse]:
        """Return what images and builds of each app take on the disk."""

    def scratch(self) -> tuple[ScratchUse, ...]:
        """What each running container of a component has written where only it writes. Takes the engine some seconds
        where there are many files."""

    def use(self, ask_gpus: bool = True) -> tuple[WorkloadUse, ...]:
        """What each running container of a component uses now. Those that ended meanwhile are missing. `ask_gpus`: a
        program in the container is asked for the use of its GPUs."""

    def held_gpus(self) -> tuple[Lease, ...]:
        """Return the GPUs that containers of components have, of all apps, whether they run or not. Sorted by
        workload."""

    def collect_builds(self, age: float) -> None:
        """Remove images of steps of failed or interrupted builds that are older than `age` seconds."""

    def ensure_network(self, app: AppName) -> None: ...

    def remove_network(self, app: AppName) -> None: ...

    def hold_egress(self) -> None:
        """Ensure that containers can reach only what the operator allows. Idempotent. Raises Transient
        `EgressOpen`."""

    def start(self, workload: Workload, name: str) -> None:
        """Create and start a container. One with that name and fingerprint is adopted; a foreign one is
        Stalled `NameTaken`. Idempotent. A container that cannot start is removed. Transient `ImageGone` and
        `NetworkGone` mean: plan again. An engine that decides later returns at once: the workload is PENDING
        until it runs or is REFUSED. REFUSED is what only another input can help; what may get better by
        itself stays PENDING."""

    def let_write(self, workload: ObservedWorkload, app: AppName) -> None:
        """From now on start this version with a writable root file system, because it does not start with a
        read-only one."""

    def remove(self, workload_id: str, grace: float, last: Callable[[], object] = lambda: None) -> None:
        """Stop a container (SIGTERM, after `grace` seconds SIGKILL), call `last`, and remove it. A
        missing one is fine; one without our label is Stalled `NotOurs`. One that is LOST is given up: its
        name is free at once, and the engine ends it should its node come back."""

    def logs(self, workload_id: str, tail: int) -> str:
        """Return the last `tail` lines of stdout and stderr. Raises Transient `WorkloadGone` if there is no
        such container."""

    def logged(self) -> tuple[LoggedContainer, ...]:
        """Return the containers of all components."""

    def log_reader(self, workload_id: str, after: str) -> ContainerLogReader:
        """Read the log of a container from a position, "" for the start."""

    def watch(self, stop: Callable[[], bool]) -> Iterator[EngineEvent]:
        """Yield events from now on; it resumes after the engine's restart, and ends soon after `stop()` turns
        true. Removals through this object are not reported, since they are not drift."""

    def close(self) -> None:
        """Close the connections; the engine is not used afterwards."""


@dataclass(frozen=True)
class JobMount:
    """A folder or file in a job's container."""

    volume: Volume
    target: str
    read_only: bool


@dataclass(frozen=True)
class Job:
    """An attempt of a stage as a container. `name` is deterministic, so a container with it is this attempt.
    `env` has secrets, hence no repr."""

    name: str
    app: AppName
    run: str
    stage: str
    attempt: int
    image: str
    _: KW_ONLY
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, Secret], ...] = field(default=(), repr=False)
    mounts: tuple[JobMount, ...] = ()
    resources: Resources
    gpus: tuple[str, ...] = ()  # ids of those that it gets, as many as `resources` say
    read_only_root: bool


class JobState(StrEnum):
    CREATED = "created"  # made, never started
    PENDING = "pending"  # started, and not running yet: the engine has accepted it
    RUNNING = "running"
    ENDED = "ended"
    REFUSED = "refused"  # accepted at first; the engine will not run it
    LOST = "lost"  # its node does not answer, so it is unknown whether it runs

    @property
    def is_over(self) -> bool:
        """Return True if there is nothing to wait for."""
        return self in (JobState.ENDED, JobState.REFUSED, JobState.LOST)


@dataclass(frozen=True)
class ObservedJob:
    """`started` and `ended` are Unix seconds by the engine's clock; 0 before that. `detail`: why it
    is PENDING, REFUSED or LOST, in the engine's words."""

    id: str
    name: str
    app: AppName
    run: str
    stage: str
    attempt: int
    state: JobState
    started: float = 0.0
    ended: float = 0.0
    exit_code: int | None = None
    oom_killed: bool = False
    interrupted: bool = False  # it was killed because the engine was stopped or died
    detail: str = ""


class Jobs(Protocol):
    """Containers that run to their end. It changes only jobs with our instance label. The engine never
    removes a container by itself: an ended container is the result until that is recorded."""

    def create(self, job: Job) -> ObservedJob:
        """Create the container without starting it. One with that name and of this attempt is adopted in any
        state; a foreign one is Stalled `NameTaken`. It creates the app's network if necessary. Raises
        Transient `ImageGone`, `MountGone`, `NameBusy`."""

    def prepare(self, app: AppName) -> None:
        """Create the network that containers of the app share. Raises Transient `AddressesExhausted` if the
        engine has none left for now."""

    def has_image(self, reference: str) -> bool:
        """Return True if a container could be made from it now."""

    def start(self, id: str) -> ObservedJob:
        """Start the container; one that was started already is fine, even if it has ended. Raises Stalled
        `CommandNotFound`, MountMismatch and others if it cannot start, and Transient `ContainerLost`. An
        engine that decides later returns it as PENDING; then it runs, or is REFUSED if only another input can
        help."""

    def find(self, name: str) -> ObservedJob | None: ...

    def all(self) -> tuple[ObservedJob, ...]:
        """Return all jobs of this instance, sorted by name."""

    def written(self) -> Iterable[tuple[ObservedJob, int]]:
        """Return running jobs with the bytes that they have written into their own file systems."""

    def wait(self, id: str, stop: Callable[[], bool]) -> ObservedJob | None:
        """Return the container once it has ended, is refused or lost; None once `stop()` turns true.
        Transient `ContainerLost`: it was removed, and as the engine's errors are: the caller may wait
        again."""

    def logs(self, id: str, after: str, stop: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        """Yield stdout and stderr in pieces, each with the position in the log after it, until the container
        has ended, is refused or lost, or `stop()` turns true. `after` is the position of the last received
        piece, "" for the start: nothing is lost or repeated, even over interruptions. Survives a restart of
        the engine. Transient `ContainerLost`.

        A line comes when it is complete, and what goes back to its start with `\\r` as it comes, if the
        container was started here; one above 1 MiB is cut. A container that writes faster than it is read
        here has to wait: go on with the iteration, or end it. What it writes while nobody reads is kept by
        the engine up to a limit; if more is missing, a line tells so."""

    def stop(self, id: str, grace: float) -> None:
        """Stop the container: SIGTERM, after `grace` seconds SIGKILL. One that has ended or is gone is fine,
        and so is one that is lost; one that is pending ends without exit code. Stalled `NotOurs`."""

    def remove(self, id: str) -> None:
        """Remove it, even while it runs. One that is gone is fine; Stalled `NotOurs`. One that is lost is
        given up: the engine ends it should its node come back."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Readiness:
    """Whether a server is ready; if not, `detail` has its answer, if there is one."""

    ready: bool
    detail: str = ""


class Prober(Protocol):
    def probe(self, endpoint: str, path: str, timeout: float) -> Readiness:
        """Request `http://endpoint/path`; never raises."""

    def read(self, endpoint: str, path: str, timeout: float) -> str:
        """Return the first 64 KiB of what `http://endpoint/path` answers with 200, else ""; never raises."""

    def call(
        self,
        endpoint: str,
        case: SmokeCase,
        headers: Mapping[str, str],
        timeout: float,
        unless: Callable[[], bool],
    ) -> SmokeAnswer:
        """Send the request of a smoke test; never raises. It is given up after `timeout` seconds, or when `unless`
        returns True, which is called from another thread."""


class Sender(Protocol):
    """Sends webhooks over HTTP to addresses that callers chose. Thread-safe."""

    def send(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> ReceiverResponse:
        """Send a POST request; every answer of the receiver is a result. `timeout` is in seconds, for the
        whole request. Raises Transient `WebhookUnreachable`, and Stalled `WebhookAddressRefused` for an
        address that is not allowed. Errors reveal neither the URL nor the answer."""


class MailSender(Protocol):
    """Sends mail by the server of the configuration. Thread-safe."""

    def send(
        self, id: str, to: Sequence[str], title: str, text: str, at: float, timeout: float
    ) -> DeliveryDecision:
        """Send one mail, whose id is the same at each repetition. `timeout` is in seconds, for all of it. Never
        raises; what failed is in the decision."""


class ChatSender(Protocol):
    """Sends messages to chats and other services. Thread-safe."""

    def send(
        self, url: Secret, title: str, text: str, severity: Severity, is_over: bool, timeout: float
    ) -> DeliveryDecision:
        """Send one message to the service of an Apprise URL. Never raises; a decision does not quote the URL."""


# --- the object storage -----------------------------------------------------------------------------------------


class Objects(Protocol):
    """Buckets and their objects at one S3 endpoint, under one account. Thread-safe.

    Every call may raise Transient `StorageUnreachable` (down, restarting, too slow), Transient `StorageFull`
    (no room on its disk or within its quota), Stalled `StorageDenied` (this account may not), Stalled
    `BucketMissing`, Stalled `StorageRefused` (anything else that the server answers with an error of ours).
    Keys are texts that `domain.storage.keys` accepts."""

    def ping(self) -> str:
        """Return the server's name, as far as it is known. It waits a few seconds at most, and does not retry."""

    def buckets(self) -> frozenset[str]: ...

    def create_bucket(self, bucket: str) -> None:
        """Create the bucket; an existing one is fine."""

    def remove_bucket(self, bucket: str) -> None:
        """Remove the bucket with all its objects; a missing one is fine."""

    def stat(self, bucket: str, key: str) -> StoredObject | None:
        """Return None if there is no such object or bucket."""

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000, folders: bool = False
    ) -> ObjectPage:
        """Return objects whose key starts with `prefix` and is greater than `after`, at most `limit`
        (1..1000) objects and prefixes together. With `folders`, keys with the same part up to the next `/`
        after `prefix` are one prefix."""

    def open(self, bucket: str, key: str, etag: str = "") -> AbstractContextManager[Iterator[bytes]]:
        """Yield the content in pieces. Raises Stalled `ObjectMissing`; with `etag` also Stalled
        `ObjectChanged` if the object was replaced. An interrupted stream raises Transient
        `StorageUnreachable`."""

    def put(
        self, bucket: str, key: str, content: BinaryIO, size: int, content_type: str = ""
    ) -> StoredObject:
        """Store an object. Without `content_type`, it is guessed from the key."""

    def copy(self, bucket: str, found: StoredObject, key: str, into: str = "") -> StoredObject:
        """Copy an object of the bucket within the storage, as it was found, to `key` in the bucket `into` ("": the
        same one), with its content type and metadata. Stalled `ObjectMissing`, `ObjectChanged` if it was replaced."""

    def begin_copy(self, bucket: str, found: StoredObject, key: str, into: str) -> str:
        """Return the id of a new upload in parts to `key` in the bucket `into`, with content type and metadata of the
        object `found` of `bucket`, for `copy_part`. Raises as `copy`."""

    def copy_part(
        self, bucket: str, found: StoredObject, upload: PendingUpload, number: int, start: int, size: int
    ) -> Part:
        """Copy `size` bytes of an object of `bucket`, from `start` on, as part `number` of an upload. Raises as `copy`,
        and Stalled `UploadMissing`."""

    def remove(self, bucket: str, keys: Iterable[str]) -> None:
        """Remove the objects; missing ones are fine."""

    def sign(
        self,
        method: str,
        bucket: str,
        key: str,
        lifetime: float,
        query: Mapping[str, str] | None = None,
    ) -> str:
        """Return a link that permits `method` on the object for `lifetime` seconds. A client could do more
        with other header fields, so only the platform's own processes may have it. No request is sent."""

    def explain(self, status: int, body: bytes, doing: str) -> ControllerError:
        """Return the error for an unsuccessful answer to a link, for code that sends the request itself.
        `doing` begins the error's text ("cannot read x"). ObjectMissing and BucketMissing are distinguished
        for GET and PUT."""

    def begin_upload(self, bucket: str, key: str) -> str:
        """Return the id of a new upload in parts."""

    def uploads(self, bucket: str, key: str) -> tuple[str, ...]:
        """Return the ids of uploads in parts of this key that are neither completed nor aborted."""

    def parts(self, bucket: str, key: str, upload: str) -> tuple[Part, ...]:
        """Return the parts of the upload that have arrived, by number. Stalled `UploadMissing`."""

    def complete_upload(self, bucket: str, key: str, upload: str, parts: tuple[Part, ...]) -> StoredObject:
        """Complete the upload. Raises Stalled `UploadMissing`, `UploadIncomplete` (a part is missing or too
        small)."""

    def abort_upload(self, bucket: str, key: str, upload: str) -> None:
        """Remove it; a missing one is fine."""

    def close(self) -> None: ...


class StorageAdmin(Protocol):
    """Accounts and quotas, of storages that have them. Same errors as Objects."""

    def set_quota(self, bucket: str, capacity: int) -> None:
        """Set an additional limit in bytes, which may lag. Storages without quotas ignore it."""

    def ensure_account(self, account: StorageAccount) -> None:
        """Create the account, or give it exactly these grants and this secret."""

    def remove_account(self, name: str) -> None:
        """Remove it; a missing one is fine."""

    def accounts(self) -> frozenset[str]: ...


class Storage(Protocol):
    """The configured object storage, for the daemon. The embedded server is started by the first call that
    needs it."""

    def objects(self) -> Objects:
        """Return a client with all rights. Raises Transient `StorageUnreachable` while the embedded server
        does not answer, and Stalled `StorageDisabled` with `backend: none`."""

    def admin(self) -> StorageAdmin | None:
        """Return the admin client, or None if this storage has no accounts and quotas that we can set."""

    def access(self) -> StorageAccess:
        """Return the web process' account, which may read and write objects of all our buckets, and nothing else,
        if accounts can be made."""

    def close(self) -> None: ...


class Models(Protocol):
    """Models of boxes in a cache, one volume for each content. Thread-safe."""

    def recover(self) -> None:
        """Remove partial copies of a dead daemon; called when the daemon starts."""

    def pin(self, bucket: str, path: str) -> ModelPin:
        """Return the present content of the developer area at `path`. Raises Stalled `ModelMissing`, `BucketMissing`,
        `ModelInvalid` (its names cannot be those of files); Transient `ModelIncomplete` (a run is replacing it);
        otherwise as Objects."""

    def stage(self, pin: ModelPin, check: Callable[[], None] = lambda: None) -> None:
        """Fetch it into the cache, atomically; a cached one is fine. `check` is called repeatedly; its errors
        end the work. Raises Transient `ModelChanged` (it was replaced: pin it again), `StateDiskFull`,
        `StateIOError`; otherwise as Objects."""

    def volume(self, digest: str) -> Volume:
        """Return where it is, to be mounted read-only into containers."""

    def copy_to(self, pin: ModelPin, target: Path) -> None:
        """Put a staged model at `target`, which does not exist yet. It stays there when the cache removes the model,
        and takes no space of its own if both are on one disk."""

    def has(self, digest: str) -> bool:
        """Return True if it is cached; this counts as a use."""

    def prune(self, spare: Callable[[], frozenset[str]]) -> None:
        """Remove the least recently used models beyond the cache's size; never those that `spare` returns, which is
        asked only if the cache is too large."""


# --- the store --------------------------------------------------------------------------------------------------


class Requests(Protocol):
    """The queue: at most one queued and one running request for each app, enforced by the database."""

    def enqueue(self, app: AppName, trigger: Trigger, not_before: float = 0.0) -> int:
        """Return the id of the new request, or of the queued one that it was merged into, which gets its
        reasons, and the earlier `not_before` of both."""

    def claim(self, now: float) -> ReconcileRequest | None:
        """Claim the oldest due request whose app has none running."""

    def finish(self, request: int, outcome: Outcome, message: str, revision: str) -> None: ...

    def recover(self) -> int:
        """Queue the requests again that a dead daemon left running, and return their number; called when the
        daemon starts."""

    def queued(self, app: AppName) -> ReconcileRequest | None: ...

    def latest(self, app: AppName) -> ReconcileRequest | None:
        """Return the newest request of an app, whatever its state."""

    def get(self, request: int) -> ReconcileRequest | None:
        """Return the request for any id that was returned before, even if another request replaced it after a
        crash."""

    def next_due(self) -> float | None:
        """Return the earliest `not_before` of the queued requests whose app has none running."""


class Apps(Protocol):
    def status(self, app: AppName) -> AppStatus:
        """Return the status of an app, which is empty for an unknown one."""

    def has(self, app: AppName) -> bool:
        """Return True if there is a status of this app."""

    def all(self) -> tuple[AppStatus, ...]: ...

    def save(self, status: AppStatus, events: Iterable[Event] = ()) -> None:
        """Save status and events in one transaction, without `suspended`, `approved_revision` and `rollback`, which
        are decisions of people."""

    def record_plan(self, app: AppName, revision: str, plan: str) -> None: ...

    def forget(self, app: AppName) -> None: ...

    def set_suspended(self, app: AppName, suspended: bool) -> None: ...

    def approve(self, app: AppName, revision: str) -> None: ...

    def roll_back(self, app: AppName, rollback: Rollback) -> None: ...

    def end_rollback(self, app: AppName, rollback: Rollback) -> None:
        """Forget a rollback, but not another one that was asked for meanwhile."""


class Events(Protocol):
    def add(self, events: Iterable[Event]) -> None: ...

    def list(self, app: AppName | None, after: int = 0, limit: int = 100) -> tuple[Event, ...]:
        """Return events with id > `after`, oldest first; after=0 returns the newest `limit`, oldest first."""

    def forget(self, app: AppName) -> None:
        """Delete all events of an app."""


class Routes(Protocol):
    def all(self) -> tuple[Route, ...]: ...

    def of(self, app: AppName) -> tuple[Route, ...]: ...

    def switch(self, route: Route, keeps: frozenset[str] = frozenset()) -> int:
        """Put the route in force in one transaction, which takes its paths from the other routes and services
        of the app, and return the version of the table. Paths in `keeps` are not taken from others; the route
        keeps them until something else takes them."""

    def withdraw(self, app: AppName, component: ComponentName) -> int: ...

    def services(self, app: AppName | None = None) -> tuple[Service, ...]:
        """Return the APIs of the platform itself, of one app or of all, sorted by app and path."""

    def publish(
        self, app: AppName, services: tuple[Service, ...], keeps: frozenset[str] = frozenset()
    ) -> int:
        """Put exactly these in force for the app, as `switch` does, and return the version of the table."""

    def version(self) -> int: ...


class Gateways(Protocol):
    """The table version that each gateway worker has loaded; it lets the daemon drain without guessing."""

    def report(
        self,
        worker: str,
        version: int,
        busy: frozenset[str],
        now: float,
        taken: tuple[TakenShare, ...] = (),
    ) -> None:
        """Store a worker's report. `busy`: retired endpoints (`IP:PORT`) that still have requests of this
        worker in progress; `taken`: what apps take of its shares."""

    def taken(self, now: float) -> tuple[TakenShare, ...]:
        """Return what apps take of the shares of each live worker."""

    def leave(self, worker: str) -> None: ...

    def drained(self, endpoint: str, version: int, now: float) -> bool:
        """Return True if every live worker (with a report within 3 s) has loaded `version` and is not busy
        with `endpoint`."""


class Repositories(Protocol):
    def all(self) -> tuple[RepositoryRecord, ...]: ...

    def get(self, name: str) -> RepositoryRecord | None: ...

    def replace(self, records: Iterable[RepositoryRecord]) -> None: ...

    def remember(self, delivery: WebhookDelivery) -> bool:
        """Record a delivery; return False if its id was seen before for that repository: a replay."""

    def delivery(self, repository: str, delivery_id: str) -> WebhookDelivery | None: ...

    def remember_push(self, repository: str, revision: str, by: str, at: float) -> None: ...

    def save_push(self, push: PushUnderWay) -> None:
        """Record a push over HTTPS that is under way; those of dead processes are forgotten after an hour."""

    def push(self, digest: str) -> PushUnderWay | None:
        """Return the push with this digest of its id."""

    def forget_push(self, digest: str) -> None: ...

    def pusher(self, repository: str, revision: str) -> str:
        """Return who pushed a commit to a repository that is hosted here; "" if that is not known."""


class Branches(Protocol):
    """Branches that were seen for previews, the previews that there are, and what other processes say about them."""

    def seen(self, app: AppName | None = None) -> tuple[SeenBranch, ...]: ...

    def see(self, app: AppName, seen: Iterable[SeenBranch]) -> bool:
        """Store exactly these branches of an app, and return whether anything has changed."""

    def previews(self) -> tuple[BranchPreview, ...]:
        """Return the previews that there are or that are still to be removed, by the app that they belong to, newest
        first."""

    def preview(self, app: AppName) -> BranchPreview | None: ...

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return the branches that have no preview, and why."""

    def record(self, found: BranchPreviews, declared: Iterable[AppName], now: float) -> None:
        """Store which previews are wanted, and why other branches have none. One that is not wanted any more stays
        until `forget`, unless its name is that of a `declared` app now."""

    def forget(self, app: AppName) -> None:
        """Delete a preview that was removed."""

    def decisions(self) -> Mapping[AppName, PreviewDecision]: ...

    def keep(self, app: AppName, at: float) -> None:
        """Record that a person wants the time of a preview to begin again."""

    def remove(self, app: AppName, head: str) -> None:
        """Record that a person wants no preview while its branch is at `head`."""

    def drop_decisions(self, apps: Iterable[AppName]) -> None:
        """Delete what was decided about previews whose branches are gone."""

    def pulls(self, repository: str) -> tuple[OpenPull, ...]: ...

    def open_pull(self, repository: str, pull: OpenPull, at: float) -> None: ...

    def close_pull(self, repository: str, number: int) -> None: ...

    def close_pulls(self, repository: str, numbers: Iterable[int], before: float) -> None:
        """Delete requests of which nothing was heard since `before`, in Unix seconds."""
        ...


class Activity(Protocol):
    """The time of the last call of each hibernating component."""

    def touch(self, used: Iterable[tuple[AppName, ComponentName]], at: float) -> None:
        """Record that they were in use at `at`, in Unix seconds; a later time is kept."""

    def of(self, app: AppName) -> Mapping[ComponentName, float]: ...


class Boxes(Protocol):
    """Records which bucket holds which box, how full it is, and uploads in progress. There is one record for each
    app and box, and a bucket belongs to one record."""

    def all(self) -> tuple[BoxRecord, ...]:
        """Sorted by app and box."""

    def of(self, app: AppName) -> tuple[BoxRecord, ...]: ...

    def get(self, app: AppName, box: ComponentName) -> BoxRecord | None: ...

    def save(self, record: BoxRecord) -> None:
        """Save a record, except measurements and `changed`, which an existing record keeps."""

    def forget(self, bucket: str) -> None:
        """Delete the record with its pending uploads."""

    def swap(self, one: BoxRecord, other: BoxRecord) -> None:
        """Exchange their buckets with all measurements; both must exist."""

    def measured(self, bucket: str, used: int, files: int, at: float, settled: Iterable[int]) -> None:
        """Save the counts of a listing that began at `at`; the pending uploads `settled` are part of it."""

    def touch(self, bucket: str) -> None:
        """Record that files were removed, or an upload in parts was completed, so that the box is measured
        again within a second or two. Reserved uploads do not need this."""

    def reserve(self, upload: PendingUpload, now: float, most: int | None = None) -> BoxUsage | int:
        """Allow an upload if the box has space for it, in one transaction, and return its id; else return the
        free space. A newer one for the same key replaces the older, unless it is an upload in parts.
        `upload.id` is ignored. Raises Transient `TooManyUploads` if `most` others are pending."""

    def reserve_first(self, uploads: Sequence[PendingUpload], now: float, most: int) -> int:
        """Allow uploads to one bucket in their order, as far as the box has space and fewer than `most` are pending,
        in one transaction; return how many."""

    def save_move(self, move: GroupMove) -> None:
        """Record how far the move of its `source` is."""

    def forget_move(self, bucket: str, source: str) -> None: ...

    def move(self, bucket: str, source: str) -> GroupMove | None:
        """Return the last move of this group, also one that is done."""

    def moves(self, bucket: str, area: str) -> tuple[GroupMove, ...]:
        """Return moves that are not done, of groups below `area`."""

    def arrive(self, arrival: Arrival, now: float) -> BoxUsage | int:
        """Admit a body if the box has space for it besides all reservations and arrivals of all processes, and
        return its id; else return the free space. A part only needs the space of its upload. `arrival.id` is
        ignored."""

    def arriving(self, bucket: str, upload: str, now: float) -> tuple[Arrival, ...]:
        """Return the parts of an upload that are being sent, oldest first."""

    def prolong(self, ids: Iterable[int], until: float) -> None:
        """Extend arrivals that are still in progress."""

    def arrived(self, arrival: Arrival, until: float, now: float) -> None:
        """Record that the storage has it. Space for an object stays reserved until a later measurement has
        counted it, or until `until`."""

    def removed(self, bucket: str, keys: Iterable[str], before: float) -> None:
        """Record that files were deleted, which frees their reservations, except for objects that were stored
        after `before`."""

    def failed(self, arrival: Arrival) -> None:
        """Record that it did not arrive. The reservation of a link stays, so that the upload can be retried."""

    def usage(self, bucket: str, now: float) -> BoxUsage: ...

    def pending(self, bucket: str | None = None) -> tuple[PendingUpload, ...]: ...

    def unfinished(self, bucket: str, below: str, now: float, most: int) -> tuple[PendingUpload, ...]:
        """Return the newest uploads in parts of keys that begin with `below` and have not expired, oldest first."""

    def upload(self, bucket: str, upload: str) -> PendingUpload | None:
        """Return the upload in parts with this id."""

    def guard(self, upload: PendingUpload) -> None:
        """Reserve the name without space, or with the space that is reserved for it already: see `publishing`."""

    def publishing(self, bucket: str, now: float) -> tuple[UnderWayMark, ...]:
        """Return the groups that are guarded because runs publish into them; a dead daemon may have left some."""

    def release(self, ids: Iterable[int]) -> None:
        """Release uploads that ended without an object. Completed ones keep their space until a measurement has
        counted it: `touch`."""

    def access(self) -> StorageAccess | None:
        """Return how the web process reaches the storage, as the daemon recorded it."""

    def record_access(self, access: StorageAccess) -> None: ...

    def grow(self, bucket: str, key: str, upload: str, by: int, now: float) -> BoxUsage | None:
        """Reserve this many more or fewer bytes for an upload in parts if the box has space for them; else return
        the free space. LookupError if there is no such upload."""

    def grant(self, account: str, buckets: Iterable[str]) -> None:
        """Allow the account of a component to use exactly these buckets; an empty list deletes the account."""

    def grants(self, account: str) -> frozenset[str]: ...

    def accounts(self, prefix: str) -> frozenset[str]:
        """Return the accounts whose names have this prefix."""


@dataclass(frozen=True)
class QueueLimits:
    """The limits of one app's queue: `runs` that wait, and their `bytes` in the state, inputs included. A user has
    half of it at most."""

    runs: int
    bytes: int


@dataclass(frozen=True)
class RunLimits:
    """The number of runs at once, on this host and of one app. Each pipeline has a limit of its own."""

    host: int
    app: int


class Runs(Protocol):
    """Runs of pipelines, and the pipelines that can be run. Every change of a run is a compare-and-set."""

    def pipelines(self, app: AppName) -> tuple[Pipeline, ...]: ...

    def pipeline(self, app: AppName, name: ComponentName) -> Pipeline | None: ...

    def publish(self, app: AppName, pipelines: tuple[Pipeline, ...]) -> None:
        """Make exactly these runnable."""

    def submit(self, run: Run, key: str = "", digest: str = "", most: QueueLimits | None = None) -> Run:
        """Store the run and return it, or the earlier one of the same caller with that `key`. Raises Stalled
        `IdempotencyConflict` if the key was used with another `digest`, and Transient `QueueFull` if the
        queue of the app or of the caller is full."""

    def submitted(self, run: Run, key: str, digest: str) -> Run | None:
        """Return the earlier run with that key, unless the key is ""; errors as `submit`."""

    def get(self, app: AppName, id: str) -> Run | None: ...

    def versions(self, ids: Iterable[str]) -> Mapping[str, int]:
        """Return the versions of the given runs that still exist."""

    def queued_size(self) -> Mapping[AppName, int]:
        """Return the bytes that waiting runs of each app take."""

    def owners(self, ids: Iterable[str]) -> Mapping[str, AppName]:
        """Return the apps of the runs that exist."""

    def is_gone(self, app: AppName, id: str, user: str | None = None) -> bool:
        """Return True if the run existed and has expired. `user` limits it to runs visible to them ("": callers
        without a name)."""

    def list(self, app: AppName, wanted: RunFilter = EVERY_RUN, limit: int = 100) -> tuple[Run, ...]:
        """Return a page of runs, newest first. The next page begins `after` the last one of this page."""

    def active(self) -> tuple[Run, ...]:
        """Return the runs that have started and are not over."""

    def unfinished(self, app: AppName, limit: int | None = None) -> tuple[Run, ...]:
        """Return the queued and active runs, the oldest first."""

    def images(self, app: AppName) -> frozenset[str]:
        """Return the images of all stages of the queued and active runs."""

    def counts(self, app: AppName | None = None) -> tuple[RunCount, ...]:
        """Return the number of runs of each pipeline in each state, in that order, of one app or of all."""

    def ended_badly(self, app: AppName, limit: int) -> tuple[Run, ...]:
        """Return runs that can be repeated: FAILED, ERROR or CANCELED; newest first."""

    def last_ended(self, app: AppName) -> Run | None:
        """Return the finished run that was submitted last."""

    def claim(self, limits: RunLimits, now: float) -> Run | None:
        """Claim the next queued run within the limits, by priority, then age, and set it to STARTING."""

    def cancel(self, app: AppName, id: str, at: float) -> Run | None:
        """Cancel a run and return its new state; None if there is none. A run that is over or being canceled
        does not change."""

    def save(self, run: Run) -> Run | None:
        """Save the run if it was not changed since, and return it with its new version; else None."""

    def unfinished_of(self, app: AppName, pipeline: ComponentName, cause: RunCause) -> tuple[Run, ...]:
        """Return the runs with that `cause` that are not over, oldest first."""

    def expired(self, now: float) -> tuple[Run, ...]:
        """Return some of the runs that have expired (`Run.expires`), the oldest first."""

    def forget(self, runs: Iterable[Run]) -> None: ...


@dataclass(frozen=True)
class WebhookUnderWay:
    """Messages that are being sent, and what is at its limit: lanes and pools (`Message.lane`, `Message.pool`), and
    apps in a pool, as `POOL APP`."""

    ids: frozenset[str] = frozenset()
    lanes: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()


class Webhooks(Protocol):
    """The outbox. Each run that ends puts its messages there, in the transaction that ends it (`Runs.save`)."""

    def call_ended(self, ended: EndedCall) -> None:
        """Ask the daemon for the webhooks of an async call that is over. Raises Transient if too many others wait."""

    def supersede(self, status: Message) -> None:
        """Add a commit status, in place of those of the same app and commit that are not delivered."""

    def due(self, now: float, underway: WebhookUnderWay) -> tuple[Message, ...]:
        """Return some webhooks that are due and not being sent, the oldest first, a few of each lane."""

    def of(self, run: str) -> tuple[Message, ...]:
        """Return the undelivered webhooks, given up or not."""

    def next_tries(self, ids: Iterable[str]) -> Mapping[str, float]:
        """Return when each of these messages is sent next; those that are not sent any more are left out."""

    def delivered(self, id: str) -> None: ...

    def failed(self, id: str, error: str, due: float) -> None:
        """Record a failed attempt; the next one is at `due`, in Unix seconds."""

    def give_up(self, id: str, error: str, at: float) -> None: ...


class Schedules(Protocol):
    """The progress of the schedules of runnable pipelines. It is deleted when a pipeline can no longer be run, or
    has no schedule any more."""

    def all(self, app: AppName | None = None) -> tuple[ScheduleState, ...]:
        """Sorted by app and pipeline."""

    def advance(self, scheduled: ScheduleState, to: Checkpoint) -> bool:
        """Save the checkpoint and return True, if the stored one is that of `scheduled` and the pipeline
        still has this schedule; else return False."""

    def take(self, app: AppName, pipeline: ComponentName, tick: float) -> bool:
        """Return False if this tick of the pipeline has been taken before. Ticks are remembered for 35 days."""


class Gpus(Protocol):
    """Records which GPUs containers of components hold. Leases are decided in a transaction, see
    `domain.runs.gpus`."""

    def leases(self) -> tuple[Lease, ...]:
        """Sorted by workload."""

    def save(self, lease: Lease) -> None: ...

    def release(self, workload: str) -> None:
        """Release the lease of a workload, if it has one."""

    def replace(self, app: AppName, leases: Iterable[Lease]) -> None:
        """Replace the app's leases by these, which its containers have."""

    def requests(self, now: float) -> tuple[GpuRequest, ...]:
        """Return what components wait for, without what was asked for long ago. Sorted by app and component."""

    def ask(self, app: AppName, requests: Iterable[GpuRequest], now: float) -> None:
        """Record that the app's components wait for these, and for no others."""


class Series(Protocol):
    """Samples of components, for a day and in bounded space. The daemon writes them, all others read."""

    def add(self, at: float, samples: Mapping[tuple[AppName, ComponentName], Sample]) -> None:
        """Add samples whose time ends at `at`, in Unix seconds."""

    def of(self, app: AppName, component: ComponentName, resolution: Resolution) -> tuple[Stored, ...]:
        """Return what is kept of a component, in no order."""

    def keep(self, known: Collection[tuple[AppName, ComponentName]]) -> None:
        """Delete the samples of all other components."""


class SecretCipher(Protocol):
    """What follows from the key of this instance. `place` is bound to what is sealed."""

    id: bytes  # of the key, and the beginning of all that is sealed with it
    public: bytes  # for which others seal

    def seal(self, content: bytes, place: bytes) -> bytes: ...

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Raises CannotOpen."""

    def open_received(self, sealed: bytes, place: bytes) -> bytes:
        """Open what was sealed for the public key. Raises CannotOpen."""

    def fingerprint(self, content: bytes, place: bytes) -> str: ...


class Secrets(Protocol):
    """Secrets that people have set. Values are written by the daemon alone, from changes that others seal for it."""

    def listed(self, app: AppName) -> tuple[OwnedKey, ...]:
        """Return what may be known of the values of an app, sorted by Secret and key."""

    def ask(self, change: SecretChange) -> None:
        """Seal a change for the daemon, which applies it once. Stalled `SecretRefused` if nobody may ask for it;
        Transient `QueueFull`, or `StateMissing` before the daemon's first start."""

    def changes(self, app: AppName) -> tuple[ChangeRecord, ...]:
        """Return the changes that wait, then the newest that were taken, newest first."""

    def change(self, app: AppName, id: str) -> ChangeRecord | None: ...

    @property
    def public_key(self) -> bytes:
        """Return the key that changes are sealed for; empty before the daemon's first start."""

    def unlock(self, keys: SecretCipher) -> None:
        """Give the daemon the keys of the values. Changes are applied from then on."""

    def foreign(self, keys: SecretCipher) -> str:
        """Return what to do about values that other keys have encrypted; "" if there are none."""

    def of(self, app: AppName) -> OwnedSecrets:
        """Return the Secrets of an app with their values; none before `unlock`."""

    def forget(self, app: AppName) -> None:
        """Delete the Secrets of an app, and what became of changes of them."""

    def reencrypt(self, keys: SecretCipher) -> int:
        """Do what `rekey` does, in the caller's transaction, and go on with the keys of before. For dry runs."""

    def rekey(self, keys: SecretCipher) -> int:
        """Encrypt all values with other keys, in one transaction; return how many. Raises Stalled `SecretUnreadable`
        if one cannot be read."""


class AgeKeyStore(Protocol):
    """Keys of age, for which files in Git are encrypted: each app has its own, and the platform folder another."""

    def listed(self, app: AppName) -> tuple[PublicAgeKey, ...]:
        """Return the public keys, the newest first."""

    def of(self, app: AppName) -> FileKeys:
        """Return the keys that decrypt the app's files, for the daemon alone."""

    def retire_refusal(self, app: AppName) -> str:
        """Return why the older keys may not be deleted: a commit in force needs one. "" if they may."""

    def ensure(self, app: AppName) -> None:
        """Make the first key of an app. Idempotent; does nothing before the daemon has its own keys."""


class Orders(Protocol):
    """Orders that apps be made or deleted, and what people have made."""

    def ask(self, order: AppOrder) -> OrderRecord:
        """Place an order; one with the same id is placed once. Transient `QueueFull`."""

    def get(self, id: str) -> OrderRecord | None:
        """Return an order, also one that the daemon has not taken yet."""

    def unfinished(self) -> tuple[OrderRecord, ...]:
        """Return the orders that the daemon has not carried out, in the order in which it took them."""

    def save(self, record: OrderRecord) -> None: ...

    def shares(self) -> tuple[AppShare, ...]:
        """Return the apps that people have made, as of the last look at the platform folder."""

    def replace_shares(self, shares: Iterable[AppShare]) -> None: ...


class Templates(Protocol):
    """The templates that admins have added, as the daemon last fetched them."""

    def all(self) -> tuple[TemplateRecord, ...]: ...

    def replace(self, records: Iterable[TemplateRecord]) -> None: ...


class History(Protocol):
    """What was applied to apps, in bounded space. The daemon writes it, all others read it."""

    def add(self, applied: AppliedRevision, manifests: Iterable[ManifestText]) -> None: ...

    def list(self, app: AppName, limit: int = 50) -> tuple[AppliedRevision, ...]:
        """Return the newest entries, newest first."""

    def manifests(self, app: AppName, id: int) -> tuple[ManifestText, ...] | None:
        """Return the manifests of an entry; None if they were too large to be kept."""

    def forget(self, app: AppName) -> None: ...


class Previews(Protocol):
    """What the next passes would do. All processes ask for it, and the daemon computes it."""

    def ask(self, app: AppName) -> str:
        """Return the id under which the preview will be found. Those who ask for the same app meanwhile share one,
        which is begun after all of them have asked."""

    def begin(self) -> AskedPreview | None:
        """Return the one that was asked for first, for the daemon to compute. An idle daemon takes no write lock."""

    def finish(self, preview: PlanPreview, manifests: Iterable[ManifestText]) -> None: ...

    def recover(self) -> None:
        """Let previews be computed again that an earlier daemon has begun."""

    def get(self, id: str) -> PlanPreview | None:
        """Return None for one that is not done yet, or was done long ago."""

    def manifests(self, id: str) -> tuple[ManifestText, ...] | None:
        """Return the manifests of a preview; None if they were too large to be kept."""


class Notifications(Protocol):
    """Notifications with their states. Only the daemon writes; all processes ask for tests."""

    def declare(self, app: AppName, specs: Iterable[NotificationSpec]) -> None:
        """Store these as those of the app; states of others are forgotten. Writes nothing if nothing is new."""

    def all(self, app: AppName | None = None) -> tuple[StoredNotification, ...]:
        """Return those of one app or of all, by app and name."""

    def get(self, app: AppName, name: ComponentName) -> StoredNotification | None: ...

    def conditions(self) -> Mapping[AppName, Conditions]:
        """Return the conditions of all apps and of the platform."""

    def notices(self) -> tuple[int, tuple[Notice, ...]]:
        """Return the notices that nobody has taken, and the number of the last one."""

    def take(self, last: int) -> None:
        """Forget the notices up to this number."""

    def advance(
        self, app: AppName, name: ComponentName, state: NotificationState, message: Message | None = None
    ) -> None:
        """Save a state, and put the message that follows from it into the outbox. Nothing happens for a Notification
        that is not declared any more."""

    def record(self, message: Message, at: float, fate: Fate | None, problem: str = "") -> None:
        """Record an attempt to send a message; `fate` is None if there will be another one."""

    def ask_test(self, app: AppName, name: ComponentName) -> str:
        """Ask the daemon for a test message, and return its id. Raises Transient if too many others wait."""

    def tests(self) -> tuple[AskedTest, ...]:
        """Return the tests that were asked for."""

    def send_test(self, message: Message) -> None:
        """Put the message of a test into the outbox, unless it is there."""

    def end_test(self, id: str) -> None:
        """Forget that a test was asked for."""


@dataclass(frozen=True)
class RemoteImage:
    """What a tag points to in a registry. `platforms` are those of an index, as `linux/amd64`; None if they are not
    known."""

    digest: str
    platforms: frozenset[str] | None


class ImageRegistry(Protocol):
    """Registries of images, asked by name. `registries` are those of the app, with their credentials. Raises Stalled
    `RegistryDenied`, `RegistryCredentials`, `RegistryUntrusted`, `RegistryAddressRefused`, `RegistryAnswerInvalid`,
    `ImageNotFound`; Transient `RegistryUnreachable`, `RegistryLimited`."""

    def tags(
        self, name: str, registries: tuple[tuple[Registry, SecretSpec | None], ...]
    ) -> tuple[str, ...]: ...

    def image(
        self,
        name: str,
        tag: str,
        registries: tuple[tuple[Registry, SecretSpec | None], ...],
        known: str = "",
    ) -> RemoteImage:
        """Return what the tag points to. For the digest `known`, platforms are not looked up."""


class FollowedImages(Protocol):
    """What apps follow, and what was found. Passes declare, reject and ask; the follower writes states."""

    def declare(self, app: AppName, images: Iterable[FollowedImage]) -> None:
        """Store these as those of the app. A state that belongs to another question is forgotten."""

    def of(self, app: AppName) -> tuple[FollowRecord, ...]: ...

    def all(self) -> tuple[FollowRecord, ...]: ...

    def save(self, record: FollowRecord, state: FollowState) -> bool:
        """Save a state, unless the question has changed meanwhile; return whether it was saved."""

    def reject(self, app: AppName, images: Images) -> None:
        """Record which images were rolled back, in place of what was recorded before."""

    def ask_now(self, app: AppName, at: float) -> None:
        """Record that a person wants the registries to be asked."""


class Store(Protocol):
    requests: Requests
    apps: Apps
    events: Events
    routes: Routes
    gateways: Gateways
    repositories: Repositories
    branches: Branches
    activity: Activity
    boxes: Boxes
    runs: Runs
    webhooks: Webhooks
    schedules: Schedules
    gpus: Gpus
    series: Series
    history: History
    previews: Previews
    secrets: Secrets
    age_keys: AgeKeyStore
    orders: Orders
    templates: Templates
    notifications: Notifications
    images: FollowedImages

    def changed(self) -> bool:
        """Return True if another connection has committed since this thread's last call (`PRAGMA
        data_version`, about 5 µs), and at the first call; a thread's own commits do not count."""

    def transaction(self) -> AbstractContextManager[None]:
        """Run a transaction (BEGIN IMMEDIATE … COMMIT); a nested one joins the outer one."""

    def dry_run(self) -> AbstractContextManager[None]:
        """Run a transaction that is rolled back at the end: what the block has written, only it has seen."""

    def heartbeat(self, now: float) -> None: ...

    def last_heartbeat(self) -> float | None: ...

    def count_restart(self, part: str) -> None: ...

    def restarts(self) -> Mapping[str, int]:
        """Return how often each part of the daemon was restarted because it had ended unexpectedly, in total."""

    def record_spans_dropped(self, counts: Mapping[str, int]) -> None:
        """Record how many spans the daemon could not export, by why, in place of earlier values."""

    def spans_dropped(self) -> Mapping[str, int]: ...

    def record_usage(self, usage: Iterable[Usage]) -> None:
        """Record what all apps use now, in place of earlier values. Called by the daemon alone."""

    def usage(self, app: AppName | None = None) -> tuple[Usage, ...]:
        """Return the use of one app or of all, as last recorded, in that order."""

    def set_aside(self) -> int:
        """Set aside the rows that readers in this process could not read, record events of their apps, and
        return how many. Called only by the daemon."""

    def prune(self) -> None:
        """Delete old events, finished requests, deliveries, reports of ended gateways, and old calls."""

    def close(self) -> None: ...
