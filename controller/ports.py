"""The ports: what the core needs from the world, in domain types only. Adapters and the store implement them;
tests put small fakes in their place which are held to the same contract suites.

Every method may raise `controller.domain.errors` (Transient, Waiting, Stalled) and nothing else that is expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Protocol

from controller.domain.desired import BuildInput, Workload
from controller.domain.errors import ControllerError
from controller.domain.names import AppName, ComponentName
from controller.domain.observed import ImagePin, ObservedApp
from controller.domain.pipelines import Pipeline
from controller.domain.routes import Route, Service
from controller.domain.runs import Run, RunCount, RunState
from controller.domain.schedules import Mark, Scheduled
from controller.domain.secret import Secret
from controller.domain.spec import ImageSource, Registry, RepositorySpec, Resources, SecretSpec
from controller.domain.status import AppStatus, Delivery, Event, RepositoryRecord, Request
from controller.domain.storage import (
    Account,
    BoxRecord,
    ModelPin,
    Page,
    Part,
    Pending,
    Room,
    StorageAccess,
    StoredObject,
)
from controller.domain.webhooks import Answer, Message


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds. People and time servers set it forward and back."""

    def monotonic(self) -> float:
        """Seconds since some moment; only ever goes forward."""

    def sleep(self, seconds: float) -> None: ...


class Ticks(Protocol):
    def after(self, cron: str, timezone: str, moment: float) -> float:
        """The first tick after a moment, both Unix seconds; infinity if there is none. `cron` and `timezone` are as
        manifests may have them. When clocks change, ticks are those of Debian's cron."""


# --- Git --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revision:
    """An immutable commit that lies in the local clone. `ref` is what it was found under, e.g. `refs/heads/main`."""

    repository: str
    commit: str
    ref: str
    author: str = ""
    subject: str = ""
    committed: float = 0.0


@dataclass(frozen=True)
class SourceFile:
    """`path` is relative to the repository's root (or platform folder), with forward slashes."""

    path: str
    content: bytes


class Sources(Protocol):
    """Git repositories: one bare clone each, no work tree. Calls on one repository are serialised inside."""

    def head(self, repository: RepositorySpec, credentials: SecretSpec | None) -> str:
        """Commit id that the remote's ref points to now; nothing is fetched (about 5 ms)."""

    def fetch(
        self, repository: RepositorySpec, credentials: SecretSpec | None, signers: SecretSpec | None
    ) -> Revision:
        """Bring the ref's commit into the clone. An unchanged remote costs one round trip."""

    def files(self, revision: Revision, path: str, suffixes: tuple[str, ...]) -> tuple[SourceFile, ...]:
        """Files below `path` with one of `suffixes`, sorted by path; hidden folders and files are skipped.
        Stalled `PathNotFound` if `path` is no folder of the commit."""

    def content_id(self, revision: Revision, path: str) -> str:
        """Object id of the tree or blob at `path`: equal content, equal id."""

    def archive(self, revision: Revision, path: str) -> Iterator[bytes]:
        """The tree at `path` as an uncompressed tar stream, deterministic (fixed times and owners)."""

    def forget(self, names: Iterable[str]) -> None:
        """Delete the clones of these repositories."""


# --- the container engine ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EngineEvent:
    """Something happened to a container of ours that we may not have done. `action`: die | oom | stop | pause |
    destroy, or `reconnected`: the engine was away, look at the whole app (`component` and `workload_id` are empty)."""

    app: AppName
    component: ComponentName
    action: str
    workload_id: str
    at: float


class Engine(Protocol):
    """Runs workloads and makes images. Touches only what carries our instance label."""

    def ping(self) -> str:
        """The engine's name and version."""

    def observe(self, app: AppName) -> ObservedApp: ...

    def apps(self) -> frozenset[AppName]:
        """Apps that own anything here, connected or not."""

    def pin(
        self, source: ImageSource, tag: str | None, registries: tuple[tuple[Registry, SecretSpec | None], ...]
    ) -> ImagePin:
        """Nail an image to content. `tag` is the build's tag (None for existing images). A local image is used as
        it is; else the registry is asked for the digest. Stalled `ImageNotFound`, `RegistryDenied`; Transient
        `RegistryUnreachable`."""

    def pull(self, reference: str, registries: tuple[tuple[Registry, SecretSpec | None], ...]) -> None:
        """Stalled `ImageNotFound` also for what was made on this host: no registry has it."""

    def build(
        self, tag: str, build: BuildInput, context: Iterable[bytes], log: Callable[[str], None]
    ) -> None:
        """Stalled `BuildFailed` with the last lines of the build log."""

    def prune_images(self, app: AppName, keep: int, spare: frozenset[str] = frozenset()) -> None:
        """Remove images built here for the app which no container uses, but for the `keep` newest of each component,
        since going back to one of them needs no build, and those in `spare` (`ImagePin.deploy`)."""

    def ensure_network(self, app: AppName) -> None: ...

    def remove_network(self, app: AppName) -> None: ...

    def start(self, workload: Workload, name: str) -> None:
        """Create and start. A container of that name and fingerprint is adopted; a foreign one is Stalled
        `NameTaken`. Idempotent. What cannot start leaves no container behind; Transient `ImageGone`, `NetworkGone`:
        plan again."""

    def remove(self, workload_id: str, grace: float) -> None:
        """SIGTERM, after `grace` seconds SIGKILL, remove. A container already gone is fine; Stalled `NotOurs` for one
        that lacks our label."""

    def logs(self, workload_id: str, tail: int) -> str:
        """The last `tail` lines of stdout and stderr. Transient `WorkloadGone` if there is no such container."""

    def follow_logs(self, workload_id: str, tail: int) -> Iterator[bytes]: ...

    def watch(self, stop: Callable[[], bool]) -> Iterator[EngineEvent]:
        """Events from now on; resumes after the engine's restart; ends soon after `stop()` turns true."""

    def close(self) -> None:
        """Let go of the connections; the engine is not used afterwards."""


@dataclass(frozen=True)
class JobMount:
    """A folder or file of this host in a job's container."""

    source: Path
    target: str
    read_only: bool


@dataclass(frozen=True)
class Job:
    """One attempt of a stage as a container. `name` is deterministic: what bears it is this attempt. `env` holds
    secrets, hence no repr."""

    name: str
    app: AppName
    run: str
    stage: str
    attempt: int
    image: str
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, Secret], ...] = field(default=(), repr=False)
    mounts: tuple[JobMount, ...] = ()
    resources: Resources = Resources()  # noqa: RUF009 - frozen
    gpus: tuple[str, ...] = ()  # ids of those that it gets, as many as `resources` say


class JobState(StrEnum):
    CREATED = "created"  # made, never started
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class ObservedJob:
    """`started` and `ended` are Unix seconds by the engine's clock, 0 where it has not come to that."""

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


class Jobs(Protocol):
    """Containers that run to their end. Touches only what carries our instance label and is a job. Nothing is ever
    removed by the engine itself: an ended container is the result, until it was written down."""

    def create(self, job: Job) -> ObservedJob:
        """Make the container, not started. One of that name and of this very attempt is adopted, whatever its state;
        a foreign one is Stalled `NameTaken`. Makes the app's network if need be. Transient `ImageGone`, `MountGone`,
        `NameBusy`: what is missing must be brought first."""

    def start(self, id: str) -> None:
        """One that has been started already is fine, also if it has ended. Stalled `CommandNotFound` and the like: it
        cannot start. Transient `ContainerLost`."""

    def find(self, name: str) -> ObservedJob | None: ...

    def all(self) -> tuple[ObservedJob, ...]:
        """Of this instance, sorted by name."""

    def wait(self, id: str, stop: Callable[[], bool]) -> ObservedJob | None:
        """Block until it has ended; None once `stop()` turns true. Survives a restart of the engine. Transient
        `ContainerLost`: it was removed."""

    def logs(self, id: str, after: str, stop: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        """What comes from stdout and stderr, in pieces, each with the place in the log after it, until the container
        has ended or `stop()` turns true. `after` is the place of the last piece that was taken in, "" for the start:
        nothing is lost and nothing comes twice, also over breaks. Survives a restart of the engine. Transient
        `ContainerLost`.

        A line comes when it is complete; one above 1 MiB is cut. A container that writes faster than it is read here
        has to wait: go on with the iteration, or end it. What it writes while nobody reads is kept by the engine up to
        a limit; if more is missing, a line tells so."""

    def stop(self, id: str, grace: float) -> None:
        """SIGTERM, after `grace` seconds SIGKILL. One that has ended or is gone is fine; Stalled `NotOurs`."""

    def remove(self, id: str) -> None:
        """Also while it runs. One that is gone is fine; Stalled `NotOurs`."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Readiness:
    """`ready`, or why not: `detail` is the server's own words where it has any."""

    ready: bool
    detail: str = ""


class Prober(Protocol):
    def probe(self, endpoint: str, path: str, timeout: float) -> Readiness:
        """GET `http://endpoint/path`; never raises."""


class Sender(Protocol):
    """Webhooks over HTTP, to addresses that strangers chose. Thread-safe."""

    def send(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        """POST it; whatever the answer is, it is no error. `timeout`: seconds for all of it. Transient
        `WebhookUnreachable`; Stalled `WebhookAddressRefused`: it must not go there. Errors tell nothing of the URL and
        of the answer."""


# --- the object storage -----------------------------------------------------------------------------------------


class Objects(Protocol):
    """Buckets and their objects at one S3 endpoint, under one account. Thread-safe.

    Every call may raise Transient `StorageUnreachable` (down, restarting, too slow), Transient `StorageFull` (no room
    on its disk or within its quota), Stalled `StorageDenied` (this account may not), Stalled `BucketMissing`,
    Stalled `StorageRefused` (anything else that the server answers with an error of ours). Keys are any text that
    `domain.keys` lets through."""

    def ping(self) -> str:
        """The server's name, as far as it tells. Its answer is awaited for a few seconds at most, with no retry."""

    def buckets(self) -> frozenset[str]: ...

    def create_bucket(self, bucket: str) -> None:
        """One that is there already is fine."""

    def remove_bucket(self, bucket: str) -> None:
        """With all that is in it. One that is gone already is fine."""

    def stat(self, bucket: str, key: str) -> StoredObject | None:
        """None also if there is no such bucket."""

    def page(
        self, bucket: str, prefix: str = "", after: str = "", limit: int = 1000, folders: bool = False
    ) -> Page:
        """Objects whose key starts with `prefix` and comes after `after`, at most `limit` (1..1000) objects and
        prefixes together. `folders`: what shares the part up to the next `/` after `prefix` is one prefix."""

    def open(self, bucket: str, key: str, etag: str = "") -> AbstractContextManager[Iterator[bytes]]:
        """The content in pieces. Stalled `ObjectMissing`; with `etag` also Stalled `ObjectChanged` if the object is
        another one by now. A stream that breaks off raises Transient `StorageUnreachable`."""

    def put(
        self, bucket: str, key: str, content: BinaryIO, size: int, content_type: str = ""
    ) -> StoredObject: ...

    def remove(self, bucket: str, keys: Iterable[str]) -> None:
        """Keys that are gone already are fine."""

    def sign(
        self,
        method: str,
        bucket: str,
        key: str,
        lifetime: float,
        query: Mapping[str, str] | None = None,
        public: bool = True,
    ) -> str:
        """A link that lets whoever has it do `method` on the object for `lifetime` seconds; for users unless not
        `public`. Nothing is sent to the storage."""

    def explain(self, status: int, body: bytes, doing: str) -> ControllerError:
        """What an answer to a link that is no success means, for those who use one themselves. `doing` begins the
        error's text ("cannot read x"). ObjectMissing and BucketMissing are told apart for GET and PUT."""

    def begin_upload(self, bucket: str, key: str) -> str:
        """Id of a new upload in parts."""

    def parts(self, bucket: str, key: str, upload: str) -> tuple[Part, ...]:
        """What of the upload is there, by number. Stalled `UploadMissing`."""

    def complete_upload(self, bucket: str, key: str, upload: str, parts: tuple[Part, ...]) -> StoredObject:
        """Stalled `UploadMissing`, `UploadIncomplete` (a part is missing or too small)."""

    def abort_upload(self, bucket: str, key: str, upload: str) -> None:
        """One that is gone already is fine."""

    def close(self) -> None: ...


class StorageAdmin(Protocol):
    """Accounts and quotas, of storages that have them. Same errors as Objects."""

    def set_quota(self, bucket: str, capacity: int) -> None:
        """A second fence, in bytes; it may lag. Storages without quotas pass over it."""

    def ensure_account(self, account: Account) -> None:
        """Make it or bring it to just these grants and this secret."""

    def remove_account(self, name: str) -> None:
        """One that is gone already is fine."""

    def accounts(self) -> frozenset[str]: ...


class Storage(Protocol):
    """The object storage that config names, as the daemon reaches it. A server of our own is started by the first
    call that needs it."""

    def objects(self) -> Objects:
        """With all rights. Transient `StorageUnreachable` while a server of our own does not answer; Stalled
        `StorageDisabled` where config says `backend: none`."""

    def admin(self) -> StorageAdmin | None:
        """None: this storage has no accounts and quotas that we could set."""

    def access(self) -> StorageAccess:
        """For the web process: an account that may read and write objects of all our buckets, and nothing else,
        where accounts can be made."""

    def close(self) -> None: ...


class Models(Protocol):
    """Models of boxes in a cache on this host, one folder for each content. Thread-safe."""

    def recover(self) -> None:
        """At the daemon's start: what a dead daemon had begun to bring here is removed."""

    def pin(self, bucket: str, path: str) -> ModelPin:
        """What lies in the developer area at `path` now. Stalled `ModelMissing`, `BucketMissing`, `ModelInvalid` (its
        names cannot be those of files); Transient `ModelIncomplete` (a run is replacing it); otherwise as Objects."""

    def stage(self, pin: ModelPin) -> None:
        """Bring it into the cache, complete or not at all; one that is there already is fine. Transient
        `ModelChanged` (it is another one by now: look again), `StateDiskFull`, `StateIOError`; otherwise as Objects."""

    def folder(self, digest: str) -> Path:
        """Where it lies: mounted read-only into containers."""

    def has(self, digest: str) -> bool:
        """Asking counts as a use."""

    def prune(self, spare: frozenset[str]) -> None:
        """Remove models beyond the cache's size, those used longest ago first; never those in `spare`."""


# --- the store --------------------------------------------------------------------------------------------------


class Requests(Protocol):
    """The queue: at most one queued and one running request an app, kept by the database itself."""

    def enqueue(self, app: AppName, reason: str, not_before: float = 0.0) -> int:
        """Id of the new request, or of the queued one that it was merged into (whose reasons grow and whose
        `not_before` becomes the earlier of both)."""

    def claim(self, now: float) -> Request | None:
        """Take the oldest due request whose app has none running."""

    def finish(self, request: int, outcome: str, message: str, revision: str) -> None: ...

    def recover(self) -> int:
        """At the daemon's start: what a dead daemon left running is queued again. Returns how many."""

    def queued(self, app: AppName) -> Request | None: ...

    def get(self, request: int) -> Request | None:
        """Every id that was handed out is answered, also when another request took over after a crash."""

    def next_due(self) -> float | None:
        """Earliest `not_before` of the queued requests whose app has none running."""


class Apps(Protocol):
    def status(self, app: AppName) -> AppStatus:
        """An app that is not known has an empty status."""

    def all(self) -> tuple[AppStatus, ...]: ...

    def save(self, status: AppStatus, events: Iterable[Event] = ()) -> None:
        """Status and events in one transaction. `suspended` and `approved_revision` are a person's and not saved."""

    def record_plan(self, app: AppName, revision: str, plan: str) -> None: ...

    def forget(self, app: AppName) -> None: ...

    def set_suspended(self, app: AppName, suspended: bool) -> None: ...

    def approve(self, app: AppName, revision: str) -> None: ...


class Events(Protocol):
    def add(self, events: Iterable[Event]) -> None: ...

    def list(self, app: AppName | None, after: int = 0, limit: int = 100) -> tuple[Event, ...]:
        """Events with id > `after`, oldest first; after=0 gives the newest `limit`, oldest first."""


class Routes(Protocol):
    def all(self) -> tuple[Route, ...]: ...

    def of(self, app: AppName) -> tuple[Route, ...]: ...

    def switch(self, route: Route) -> int:
        """Put the route in force in one transaction; the version of the table that holds it."""

    def withdraw(self, app: AppName, component: ComponentName) -> int: ...

    def services(self, app: AppName | None = None) -> tuple[Service, ...]:
        """APIs that the platform answers itself, of one app or of all, sorted by app and path."""

    def publish(self, app: AppName, services: tuple[Service, ...]) -> int:
        """Put just these in force for the app; the version of the table that holds them."""

    def version(self) -> int: ...


class Gateways(Protocol):
    """What each gateway worker has loaded; lets the daemon drain without guessing."""

    def report(self, worker: str, version: int, busy: frozenset[str], now: float) -> None:
        """`busy`: retired endpoints (`IP:PORT`) that still have requests under way from this worker."""

    def leave(self, worker: str) -> None: ...

    def drained(self, endpoint: str, version: int, now: float) -> bool:
        """Every living worker (heard of within 3 s) has loaded `version` and is not busy with `endpoint`."""


class Repositories(Protocol):
    def all(self) -> tuple[RepositoryRecord, ...]: ...

    def get(self, name: str) -> RepositoryRecord | None: ...

    def replace(self, records: Iterable[RepositoryRecord]) -> None: ...

    def remember(self, delivery: Delivery) -> bool:
        """False if that delivery id of that repository was seen before: a replay."""

    def delivery(self, repository: str, delivery_id: str) -> Delivery | None: ...


class Activity(Protocol):
    """When components that hibernate were last called."""

    def touch(self, used: Iterable[tuple[AppName, ComponentName]], at: float) -> None:
        """They were in use at `at`, Unix seconds; what is known to be later stays."""

    def of(self, app: AppName) -> Mapping[ComponentName, float]: ...


class Boxes(Protocol):
    """Which bucket holds which box, how much is in it, and the uploads that are under way. One record an app and box;
    a bucket belongs to one record."""

    def all(self) -> tuple[BoxRecord, ...]:
        """Sorted by app and box."""

    def of(self, app: AppName) -> tuple[BoxRecord, ...]: ...

    def get(self, app: AppName, box: ComponentName) -> BoxRecord | None: ...

    def save(self, record: BoxRecord) -> None:
        """All but what was measured and `changed`, which stay if the record is there."""

    def forget(self, bucket: str) -> None:
        """With its pending uploads."""

    def swap(self, one: BoxRecord, other: BoxRecord) -> None:
        """Exchange their buckets with all that was measured; both must be there."""

    def measured(self, bucket: str, used: int, files: int, at: float, settled: Iterable[int]) -> None:
        """What a listing that began at `at` has counted; the pending uploads `settled` are part of it."""

    def touch(self, bucket: str) -> None:
        """Something was removed from it just now, or an upload in parts completed: it is measured again within a second
        or two. Uploads that are reserved need no telling."""

    def reserve(self, upload: Pending, now: float) -> Room | int:
        """Allow an upload if the box takes it, in one transaction: its id. Else the room there is, which is not
        enough. A newer one for the same key takes over from the older, unless it is an upload in parts. `upload.id` is
        ignored."""

    def room(self, bucket: str, now: float) -> Room: ...

    def pending(self, bucket: str | None = None) -> tuple[Pending, ...]: ...

    def upload(self, bucket: str, upload: str) -> Pending | None:
        """The upload in parts with this id."""

    def release(self, ids: Iterable[int]) -> None:
        """Uploads that ended without an object. What was completed keeps its room until a measurement has counted
        it: `touch`."""

    def access(self) -> StorageAccess | None:
        """What the daemon told the web process of the storage."""

    def tell_access(self, access: StorageAccess) -> None: ...


@dataclass(frozen=True)
class RunLimits:
    """How many runs go on at once: on this host, and of one app. Each pipeline has a limit of its own."""

    host: int
    app: int


class Runs(Protocol):
    """Runs of pipelines, and the pipelines that can be run. Every change of a run is a compare-and-set."""

    def pipelines(self, app: AppName) -> tuple[Pipeline, ...]: ...

    def pipeline(self, app: AppName, name: ComponentName) -> Pipeline | None: ...

    def publish(self, app: AppName, pipelines: tuple[Pipeline, ...]) -> None:
        """Just these can be run."""

    def submit(self, run: Run, key: str = "", digest: str = "") -> Run:
        """The run, written down; or the earlier one of the same caller with that `key`. Stalled
        `IdempotencyConflict`: the key stands for a request with another `digest`."""

    def get(self, app: AppName, id: str) -> Run | None: ...

    def versions(self, ids: Iterable[str]) -> Mapping[str, int]:
        """Of those of the runs that are there."""

    def is_gone(self, app: AppName, id: str, user: str | None = None) -> bool:
        """Whether there was such a run, and its time is over. `user`: one that he could see, "" for callers without a
        name."""

    def list(
        self,
        app: AppName,
        pipeline: ComponentName | None = None,
        state: RunState | None = None,
        after: str = "",
        limit: int = 100,
        user: str | None = None,
    ) -> tuple[Run, ...]:
        """Newest first; `after` is the id of the last one seen. `user`: his and those of nobody, "" for callers
        without a name."""

    def active(self) -> tuple[Run, ...]:
        """Begun and not over."""

    def unfinished(self, app: AppName, limit: int | None = None) -> tuple[Run, ...]:
        """Queued or active, the oldest first."""

    def counts(self, app: AppName | None = None) -> tuple[RunCount, ...]:
        """How many runs there are, of each pipeline in each state, in that order; of one app or of all."""

    def last_ended(self, app: AppName) -> Run | None:
        """Of those that are over, the one that was submitted last."""

    def claim(self, limits: RunLimits, now: float) -> Run | None:
        """Take the next queued run that the limits let through, by priority, then age: it is STARTING."""

    def save(self, run: Run) -> Run | None:
        """Write it down if nobody has changed it since: the run with its new version, else None."""

    def unfinished_of(self, app: AppName, pipeline: ComponentName, cause: str) -> tuple[Run, ...]:
        """Queued or under way, of that `cause`, oldest first."""

    def expired(self, now: float) -> tuple[Run, ...]:
        """Some of the runs whose time is over (`Run.expires`), those that are longest so first."""

    def forget(self, runs: Iterable[Run]) -> None: ...


@dataclass(frozen=True)
class Underway:
    """Webhooks that are being sent, and the lanes (`Message.lane`) and apps that have no room for more."""

    ids: frozenset[str] = frozenset()
    lanes: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()


class Webhooks(Protocol):
    """The outbox. Each run that ends puts its messages there, in the transaction that ends it (`Runs.save`)."""

    def due(self, now: float, underway: Underway) -> tuple[Message, ...]:
        """Some of those that are to be sent now and are not under way, the longest due first, of each lane a few."""

    def of(self, run: str) -> tuple[Message, ...]:
        """Those that are not delivered, given up or not."""

    def delivered(self, id: str) -> None: ...

    def failed(self, id: str, error: str, due: float) -> None:
        """An attempt has; the next one is at `due`, Unix seconds."""

    def give_up(self, id: str, error: str, at: float) -> None: ...


class Schedules(Protocol):
    """How far the schedules of the pipelines that can be run have been followed. What was followed of a pipeline is
    forgotten when it can no longer be run, or not by the clock."""

    def all(self, app: AppName | None = None) -> tuple[Scheduled, ...]:
        """Sorted by app and pipeline."""

    def advance(self, scheduled: Scheduled, to: Mark) -> bool:
        """Write the mark down, if it is the one of `scheduled` that is there and the pipeline still has this
        schedule; else False: look again."""

    def take(self, app: AppName, pipeline: ComponentName, tick: float) -> bool:
        """False if this tick of the pipeline has been taken before, by whomever. Known for 35 days."""


class Store(Protocol):
    requests: Requests
    apps: Apps
    events: Events
    routes: Routes
    gateways: Gateways
    repositories: Repositories
    activity: Activity
    boxes: Boxes
    runs: Runs
    webhooks: Webhooks
    schedules: Schedules

    def changed(self) -> bool:
        """Whether another connection has committed since this thread's last call (`PRAGMA data_version`, about
        5 µs). Yes at the first call; a thread's own commits do not count."""

    def transaction(self) -> AbstractContextManager[None]:
        """BEGIN IMMEDIATE … COMMIT; nested use joins the outer one."""

    def heartbeat(self, now: float) -> None: ...

    def last_heartbeat(self) -> float | None: ...

    def prune(self) -> None:
        """Retention: old events, finished requests, deliveries, gateways that are gone, calls of long ago."""

    def close(self) -> None: ...
