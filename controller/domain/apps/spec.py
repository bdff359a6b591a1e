"""Desired state, as the manifests say it after validation. Durations are seconds, sizes bytes. A field for which the
manifests' schema has a default has none here: the schema alone decides, and `controller.manifests` fills it in."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from functools import cached_property

from controller.domain.apps.age_keys import EncryptedFiles
from controller.domain.apps.deploy_gate import DeployRules
from controller.domain.names import AppName, ComponentName, RepositoryName
from controller.domain.notifications.spec import NotificationSpec
from controller.domain.secret import Secret


class ComponentKind(StrEnum):
    ML_COMPONENT = "MLComponent"
    EXPERIMENT_PIPELINE = "ExperimentPipeline"
    API_COMPONENT = "APIComponent"
    DATA_BOX = "DataBox"
    SECRET = "Secret"  # noqa: S105 - no password: a name
    REPOSITORY = "Repository"
    PLATFORM_APP = "PlatformApp"
    NOTIFICATION = "Notification"


# --- parts shared by components -------------------------------------------------------------------------------


class TagOrder(StrEnum):
    NUMERICAL = "numerical"
    ALPHABETICAL = "alphabetical"


@dataclass(frozen=True)
class ImageFollow:
    """Which tag of an image's repository is meant: the highest version within `semver`, the last one of those that
    match `pattern`, or, with `digest`, always the tag of the reference, whatever it points to. The registry is asked
    every `interval` seconds. `write_back`: what was found goes into Git, and is deployed from there."""

    _: KW_ONLY
    semver: str = ""
    pattern: str = ""
    order: TagOrder
    digest: bool
    interval: float
    write_back: bool


@dataclass(frozen=True)
class ExistingImage:
    """An image by reference, as `docker pull` takes it."""

    reference: str
    follow: ImageFollow | None = None


@dataclass(frozen=True)
class BuildSecret:
    """A value that steps of a build can mount under `id`: a key of a Secret of the app."""

    id: str
    secret: str
    key: str


@dataclass(frozen=True)
class BuildImage:
    """An image to be built from the commit's tree. `context` and `dockerfile` are normalised paths: `context`
    relative to the repository's root, `dockerfile` relative to the context."""

    context: str
    dockerfile: str
    target: str | None = None
    args: tuple[tuple[str, str], ...] = ()
    secrets: tuple[BuildSecret, ...] = ()
    cache_from: tuple[str, ...] = ()  # images whose layers may take the place of steps


ImageSource = ExistingImage | BuildImage


@dataclass(frozen=True)
class EnvVar:
    name: str
    value: str


@dataclass(frozen=True)
class Resources:
    cpus: float
    memory: int
    gpus: int
    pids: int
    shm: int | None = None  # bytes of /dev/shm; None: as much as `memory`
    gpu_share: int | None = None  # containers that may have each of its GPUs; None: only this one

    @property
    def per_gpu(self) -> int:
        """Return how many containers may have each of its GPUs, itself included."""
        return self.gpu_share or 1


@dataclass(frozen=True)
class BoxLink:
    name: str
    default: bool


# --- MLComponent ------------------------------------------------------------------------------------------------


class Strategy(StrEnum):
    BLUE_GREEN = "BlueGreen"
    RECREATE = "Recreate"


@dataclass(frozen=True)
class Rollout:
    """`watch`: for how many seconds a version that took over is watched, None: not at all; `max_errors`: the share of
    its calls, 0 to 1, that may fail meanwhile."""

    strategy: Strategy
    drain_timeout: float
    max_errors: float
    watch: float | None = None


@dataclass(frozen=True)
class Batching:
    """Calls go to the function together: at most `max_size` of them, for whose company the first one waits at most
    `max_delay` seconds, while at most `max_queued` wait for `concurrency` batches in each process."""

    max_size: int
    max_delay: float
    max_queued: int
    concurrency: int


@dataclass(frozen=True)
class PlatformServer:
    """Served by the platform's serving library around `inference` (`module:function`)."""

    inference: str
    _: KW_ONLY
    loader: str | None = None
    concurrency: int
    queue: int
    timeout: float
    processes: int
    preload: bool
    openai: str | None = None  # "chat": it answers the chat API of OpenAI, too
    batch: Batching | None = None  # in place of `concurrency` and `queue`

    @property
    def ready_path(self) -> str:
        """The serving library's readiness path. It is fixed, so it is not a field."""
        return "/health/ready"


@dataclass(frozen=True)
class OwnServer:
    """The image's own command serves HTTP; `ready_path` answers 200 once it can take requests."""

    ready_path: str
    timeout: float


@dataclass(frozen=True)
class Webhook:
    """The receiver of an event when a run ends; `secret` names the Secret that signs it. Without `url`, only
    receivers named by callers get events."""

    secret: str
    url: str = ""


@dataclass(frozen=True)
class SmokeTest:
    """A request that a new version must answer before it gets traffic: `input` is its body, `output` what must come
    out, both files in the repository; without `output` any answer with 200 will do. `shape_only`: the values may
    differ, and otherwise numbers by `tolerance`."""

    path: str
    input: str
    output: str | None
    shape_only: bool
    tolerance: float


@dataclass(frozen=True)
class MLComponentSpec:
    name: ComponentName
    image: ImageSource
    server: PlatformServer | OwnServer
    _: KW_ONLY
    port: int
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[str, ...] = ()  # names of Secrets
    boxes: tuple[BoxLink, ...] = ()
    model_box: str | None = None
    model_path: str | None = None
    follow_model: bool
    package_registry: str | None = None
    setup_timeout: float
    async_timeout: float  # of a call whose caller does not wait
    resources: Resources
    replicas: int
    rollout: Rollout
    patience: float  # seconds that a call waits while no container takes it
    idempotent: bool  # a call may run twice, so it is sent again if its container dies
    idle_after: float | None = None  # hibernation: scale to zero after so many idle seconds
    smoke_test: SmokeTest | None = None
    read_only_root: bool | None = None  # None: true if it starts with that
    webhook: Webhook | None = None  # of calls whose callers do not wait
    depends_on: tuple[ComponentName, ...] = ()  # what serves before a new version of this one is started


# --- ExperimentPipeline -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PipelineVar:
    name: str
    mount_from: tuple[str, str] | None = None  # (box, path in its developer area)
    mount_to: str | None = None
    publish_to: tuple[str, str] | None = None  # (box, group in its developer area, ending in `/`)


@dataclass(frozen=True)
class Retries:
    limit: int
    backoff: float
    factor: float
    cap: float


@dataclass(frozen=True)
class StageSpec:
    name: str
    image: ImageSource
    _: KW_ONLY
    command: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[str, ...] = ()
    resources: Resources
    timeout: float | None = None
    retries: Retries
    read_only_root: bool


class Overlap(StrEnum):
    ALLOW = "Allow"
    FORBID = "Forbid"
    REPLACE = "Replace"


@dataclass(frozen=True)
class CronSchedule:
    cron: str
    timezone: str
    overlap: Overlap


@dataclass(frozen=True)
class PipelineSpec:
    name: ComponentName
    vars: tuple[PipelineVar, ...]
    stages: tuple[StageSpec, ...]
    _: KW_ONLY
    boxes: tuple[BoxLink, ...] = ()
    continue_with: str | None = None
    schedule: CronSchedule | None = None
    concurrency: int
    ttl_succeeded: float
    ttl_failed: float
    webhook: Webhook | None = None


# --- APIComponent -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MLTarget:
    component: ComponentName


@dataclass(frozen=True)
class PipelineTarget:
    pipeline: ComponentName


@dataclass(frozen=True)
class FilesTarget:
    developers: tuple[str, ...] = ()


@dataclass(frozen=True)
class PipelinesTarget:
    pass


ApiTarget = MLTarget | PipelineTarget | FilesTarget | PipelinesTarget


@dataclass(frozen=True)
class OidcSpec:
    issuer: str
    audience: str
    client_id: str | None = None
    required_claims: tuple[tuple[str, str], ...] = ()
    username_claim: str = ""


@dataclass(frozen=True)
class AuthSpec:
    """The rules for callers; if all are empty, everybody may call. `basic` and `token` name Secrets."""

    _: KW_ONLY
    basic: str | None = None
    token: str | None = None
    oidc: OidcSpec | None = None
    identity_pass_through: bool


#: In place of origins: pages of all origins may call, but without credentials.
ANY_ORIGIN = "*"


@dataclass(frozen=True)
class CorsSpec:
    """The origins (`https://lab.example.org`) whose pages may call from a browser. `credentials`: browsers
    may send stored cookies and passwords. `max_age` is how long a browser may cache the answer to a
    preflight."""

    origins: tuple[str, ...]
    _: KW_ONLY
    credentials: bool
    max_age: float
    expose_headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApiVariable:
    name: str
    _: KW_ONLY
    description: str = ""
    required: bool
    datatypes: tuple[str, ...]


@dataclass(frozen=True)
class ApiSpec:
    name: ComponentName
    target: ApiTarget
    path: str
    _: KW_ONLY
    published: bool
    auth: AuthSpec
    cors: CorsSpec | None = None
    inputs: tuple[ApiVariable, ...] = ()
    outputs: tuple[ApiVariable, ...] = ()


# --- DataBox ----------------------------------------------------------------------------------------------------


class Reclaim(StrEnum):
    RETAIN = "Retain"
    DELETE = "Delete"


@dataclass(frozen=True)
class BoxSpec:
    name: ComponentName
    capacity: int
    reclaim: Reclaim


# --- the app and the platform -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SecretSpec:
    """`app` is None for the platform's own use."""

    name: str
    values: tuple[tuple[str, Secret], ...]
    app: AppName | None = None

    def get(self, key: str) -> Secret | None:
        return dict(self.values).get(key)


@dataclass(frozen=True)
class AppSpec:
    """Everything one commit declares for one app. Tuples are sorted by name."""

    app: AppName
    ml_components: tuple[MLComponentSpec, ...] = ()
    pipelines: tuple[PipelineSpec, ...] = ()
    apis: tuple[ApiSpec, ...] = ()
    boxes: tuple[BoxSpec, ...] = ()
    secrets: tuple[SecretSpec, ...] = ()  # plain Secrets found in the module's own repository
    notifications: tuple[NotificationSpec, ...] = ()
    warnings: tuple[str, ...] = ()
    encrypted: tuple[EncryptedFiles, ...] = ()


class RefKind(StrEnum):
    BRANCH = "branch"
    TAG = "tag"
    COMMIT = "commit"
    SEMVER = "semver"
    PULL = "pull"  # the full name of what a forge keeps for a pull request; no manifest says it


@dataclass(frozen=True)
class GitRef:
    kind: RefKind
    value: str


class HookProvider(StrEnum):
    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    FORGEJO = "forgejo"
    GOGS = "gogs"
    BITBUCKET = "bitbucket"
    GENERIC = "generic"


class StatusProvider(StrEnum):
    """The forges that show commit statuses. Gogs has no API for them."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    FORGEJO = "forgejo"
    BITBUCKET = "bitbucket"
    BITBUCKET_SERVER = "bitbucket-server"


@dataclass(frozen=True)
class CommitStatusSpec:
    """Where commit statuses go: `credentials` names a Secret, `url` is the base of the forge's API, "" if it follows
    from the URL of the repository."""

    provider: StatusProvider
    credentials: str
    url: str = ""


@dataclass(frozen=True)
class RepositorySpec:
    name: RepositoryName
    url: str
    ref: GitRef
    interval: float  # 0: webhooks only
    credentials: str | None = None
    hook_provider: HookProvider | None = None
    hook_secret: str | None = None
    signers: str | None = None
    commit_status: CommitStatusSpec | None = None
    head: str = ""  # of a preview: where its branch was seen; a clone that has it asks no server


@dataclass(frozen=True)
class Limits:
    """Upper bounds of one app over all its components; None means unbounded."""

    cpus: float | None = None
    memory: int | None = None
    storage: int | None = None
    containers: int | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class Registry:
    name: str
    url: str
    credentials: str | None = None


@dataclass(frozen=True)
class GivenSecrets:
    """Which Secrets of an app its previews get: `all` of them, or those called so."""

    names: frozenset[str]
    all: bool = False

    def has(self, name: str) -> bool:
        return self.all or name in self.names


@dataclass(frozen=True)
class PreviewRules:
    """Which branches of an app's repository become apps of their own: those that match one of `branches`, with
    `pull_requests` only while a request to merge them is open, with `forks` also requests from other repositories.
    `limits` are those of each preview, `ttl` the seconds after its last commit. With `copies_boxes` their boxes begin
    as copies of the app's."""

    branches: tuple[str, ...]
    ttl: float
    most: int
    limits: Limits
    secrets: GivenSecrets
    copies_boxes: bool
    pull_requests: bool = False
    forks: bool = False


@dataclass(frozen=True)
class PreviewOf:
    """What makes an app a preview: the app that it belongs to, and the ref that it shows."""

    app: AppName
    repository: RepositoryName
    ref: str
    secrets: GivenSecrets
    copies_boxes: bool = False


@dataclass(frozen=True)
class PlatformAppSpec:
    name: AppName
    repository: RepositoryName
    _: KW_ONLY
    path: str
    prune: bool
    suspend: bool
    deploy: DeployRules
    depends_on: tuple[AppName, ...] = ()
    limits: Limits = Limits()
    owner: str = ""  # the account of the person who has made it
    registries: tuple[Registry, ...] = ()
    package_registries: tuple[Registry, ...] = ()
    previews: PreviewRules | None = None
    preview: PreviewOf | None = None

    @property
    def pushed_to(self) -> RepositoryName:
        """Return the Repository to which people push the commits of the app."""
        return self.preview.repository if self.preview else self.repository


def undeclared_app(name: AppName) -> PlatformAppSpec:
    """Return what stands for an app that no PlatformApp declares: it has no repository, limits and registries."""
    rules = DeployRules(frozen=False, approval=False)
    return PlatformAppSpec(name, RepositoryName(""), path=".", prune=True, suspend=False, deploy=rules)


@dataclass(frozen=True)
class PlatformSpec:
    """The platform folder after validation."""

    repositories: tuple[RepositorySpec, ...] = ()
    apps: tuple[PlatformAppSpec, ...] = ()
    secrets: tuple[SecretSpec, ...] = field(default=(), repr=False)
    notifications: tuple[NotificationSpec, ...] = ()
    warnings: tuple[str, ...] = ()
    encrypted: tuple[EncryptedFiles, ...] = ()

    def repository(self, name: RepositoryName) -> RepositorySpec | None:
        return self._repositories_by_name.get(name)

    def app(self, name: AppName) -> PlatformAppSpec | None:
        return self._apps_by_name.get(name)

    def secret(self, name: str, app: AppName | None) -> SecretSpec | None:
        return self._secrets_by_name.get((name, app))

    def apps_of(self, repository: RepositoryName) -> tuple[AppName, ...]:
        return self._apps_by_repository.get(repository, ())

    # Each pass asks for some of them, and must not look at all there are. The first one of a name counts.

    @cached_property
    def _repositories_by_name(self) -> dict[RepositoryName, RepositorySpec]:
        return {one.name: one for one in reversed(self.repositories)}

    @cached_property
    def _apps_by_name(self) -> dict[AppName, PlatformAppSpec]:
        return {one.name: one for one in reversed(self.apps)}

    @cached_property
    def _apps_by_repository(self) -> dict[RepositoryName, tuple[AppName, ...]]:
        found: dict[RepositoryName, list[AppName]] = {}
        for one in self.apps:
            found.setdefault(one.repository, []).append(one.name)
        return {name: tuple(apps) for name, apps in found.items()}

    @cached_property
    def _secrets_by_name(self) -> dict[tuple[str, AppName | None], SecretSpec]:
        return {(one.name, one.app): one for one in reversed(self.secrets)}
