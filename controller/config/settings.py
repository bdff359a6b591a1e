"""Settings: one frozen value read from `config.yaml`. Unknown keys and bad values are refused with their path and
the nearest right key. `config.example.yaml` shows every option with meaning, unit, default and reason.

Each command reads it once (`controller.config.load`), before anything else; it never changes while a process runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from controller.domain.apps.policies import NO_POLICIES, Policies
from controller.domain.apps.spec import Limits
from controller.domain.backoff import Backoff
from controller.domain.git_http import clone_path
from controller.domain.people.openid import GroupRole
from controller.domain.people.quotas import Quota
from controller.domain.routing.async_calls import CallLimits
from controller.domain.secret import Secret

MEBIBYTE = 2**20


@dataclass(frozen=True)
class PlatformSource:
    """The location of the system components: a folder on the host, or a Git repository (`url` given)."""

    path: str = "/etc/prichal/platform"  # with url: the folder within the repository
    url: str | None = None
    branch: str = "main"
    interval: float = 60.0
    credentials: Path | None = None  # YAML file with a Secret's stringData


@dataclass(frozen=True)
class GitSettings:
    fetch_timeout: float = 120.0
    max_repository: int = 2048 * MEBIBYTE
    max_file: int = 256 * MEBIBYTE  # of a build context
    max_context: int = 2048 * MEBIBYTE
    allowed_paths: tuple[Path, ...] = ()  # local repositories only below these; <state>/git always
    private_forges: bool = False  # whether commit statuses may go to addresses that are not public
    http: bool = True  # hosted repositories are served at <publicUrl>/-/git/NAME.git


@dataclass(frozen=True)
class DockerSettings:
    host: str = "unix:///var/run/docker.sock"
    timeout: float = 60.0
    pull_timeout: float = 600.0
    build_timeout: float = 1800.0
    build_cpus: float = 2.0  # of each build
    build_memory: int = 4096 * MEBIBYTE
    build_pids: int = 1024
    build_disk: int = 20 * 1024 * MEBIBYTE
    images_per_app: int = 40 * 1024 * MEBIBYTE
    kept_revisions: int = 3  # of each app, whose images are kept for a rollback,
    kept_images: int = 10 * 1024 * MEBIBYTE  # up to this size
    pulled_per_app: int = 40 * 1024 * MEBIBYTE
    scratch: int = 10 * 1024 * MEBIBYTE  # of each container of a component, in its own file system
    registry: str = ""  # `host[:port][/path]` that builds are pushed to; "": they stay with the engine
    builder: str = "auto"  # auto | buildkit | classic
    build_cache: int = 20 * 1024 * MEBIBYTE  # of BuildKit in the engine, which all builds by it share
    build_network: str = "own"  # own | bridge | none
    egress: str = "all"  # all | internet | none | open: what containers reach beyond their network
    egress_allow: tuple[str, ...] = ()  # and besides: networks, addresses with a port, URLs
    keep_unfinished: float = 3600.0  # what builds that failed or were cut off have left
    capabilities: tuple[str, ...] = ()  # allow-list for manifests
    kept_logs: int = 64 * MEBIBYTE  # of the components of each app, past their containers' end
    log_max_size: int = 10 * MEBIBYTE  # three files of a container are kept, 18 of a stage's

    @property
    def is_here(self) -> bool:
        """Return True if the engine runs on this host."""
        return self.host.startswith("unix:")


@dataclass(frozen=True)
class ReconcileSettings:
    workers: int = 4
    drift_interval: float = 60.0
    backoff_initial: float = 2.0
    backoff_max: float = 300.0
    crash_limit: int = 5  # restarts within crash_window end in CrashLoop
    crash_window: float = 600.0
    keep_events: int = 1000  # per app

    @property
    def backoff(self) -> Backoff:
        return Backoff(self.backoff_initial, self.backoff_max)


@dataclass(frozen=True)
class WebSettings:
    listen: str = "127.0.0.1:8000"
    public_url: str = ""  # default http://<listen>
    app_domain: str = ""  # each app at APP.<app_domain>, an origin of its own
    workers: int = 2
    trust_loopback: bool = False  # admin calls from loopback need no token
    admin_token: Secret | None = None  # empty: there is one, and this process may not read it
    trusted_proxies: tuple[str, ...] = ()
    max_body: int = 16 * MEBIBYTE
    hook_max_body: int = 25 * MEBIBYTE - 1
    connect_timeout: float = 2.0
    queue_limit: int = 1000  # concurrent requests in one gateway worker; more get 503
    per_app: int = 250  # of them to one app
    sockets: int = 1000  # open WebSockets in one gateway worker; more get 503
    sockets_per_app: int = 250  # of them to one app
    session_idle: float = 12 * 3600.0  # a person who does nothing for so long has to sign in again
    session_lifetime: float = 7 * 86400.0  # and so does everybody after this time

    @property
    def local_url(self) -> str:
        """Return the URL of the web process on this host."""
        host, _, port = self.listen.rpartition(":")
        everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what an address means
        return f"http://{everywhere.get(host, host)}:{port}"

    @property
    def url(self) -> str:
        """Return the URL under which others reach the web process, as far as it is configured."""
        return (self.public_url or self.local_url).rstrip("/")


@dataclass(frozen=True)
class OpenIdIssuer:
    """An issuer of OpenID Connect with which people sign in. `name` is part of the address to which it sends them
    back."""

    name: str
    issuer: str
    client_id: str
    client_secret: Secret | None = None  # empty: there is one, and this process may not read it
    title: str = ""  # of the button; by default the name
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    username_claim: str = ""  # "": preferred_username, else a verified email, else sub
    groups_claim: str = "groups"
    groups: tuple[GroupRole, ...] = ()
    allowed_groups: tuple[str, ...] = ()  # who may sign in; empty: everybody whom the issuer knows


@dataclass(frozen=True)
class SignInSettings:
    """How people sign in; the section `people` of the file."""

    passwords: bool = True  # whether accounts of the platform's own may sign in
    group_lifetime: float = 30 * 86400.0  # a group gives its role for so long after the last sign-in
    oidc: tuple[OpenIdIssuer, ...] = ()

    def issuer(self, name: str) -> OpenIdIssuer | None:
        return next((each for each in self.oidc if each.name == name), None)


@dataclass(frozen=True)
class StorageSettings:
    """The storage of boxes. `embedded`: a server that the daemon runs itself; `s3`: any S3 endpoint."""

    backend: str = "embedded"  # embedded | s3 | none
    listen: str = "127.0.0.1:9000"  # where the web process serves links and containers
    memory: int = 256 * MEBIBYTE  # embedded: what its runtime tries to stay below
    endpoint: str = ""  # s3: as the platform reaches it
    public_url: str = ""  # in links for users; default http://<listen>
    container_url: str = ""  # as containers reach it; empty: they get no account of their own
    region: str = "us-east-1"
    credentials: Path | None = None  # s3: YAML file with accessKey and secretKey
    admin: str = "none"  # s3: minio | none
    link_lifetime: float = 900.0
    abandon_after: float = 86400.0  # uploads in parts that were not completed
    model_cache: int = 20 * 10**9

    @property
    def gives_accounts(self) -> bool:
        """True if components get accounts of their own for their connected boxes."""
        return bool(self.container_url) and (self.backend == "embedded" or self.admin == "minio")


@dataclass(frozen=True)
class RunSettings:
    """Runs of pipelines."""

    concurrent: int = 4  # at once on this host
    per_app: int = 3
    queued: int = 1000  # of one app
    queued_size: int = 64 * MEBIBYTE
    stages: int = 16  # containers at once on this host
    stages_per_app: int = 12
    log_max: int = 64 * MEBIBYTE  # of each attempt of a stage
    disk_per_app: int = 50 * 1024 * MEBIBYTE  # outputs and logs, on this host
    scratch: int = 10 * 1024 * MEBIBYTE  # of each container, beside its outputs
    min_free: int = 5  # percent of the disk: below, no new run begins; below half of it, the largest is ended
    gpus: tuple[str, ...] = ()  # device ids that components and stages are lent
    start_deadline: float = 600.0  # seconds in which the engine must run what it has accepted
    lost_after: float = 3600.0  # seconds without an answer of the engine after which a stage is given up
    webhook_private: bool = False  # whether webhooks may lead to addresses that are not public


@dataclass(frozen=True)
class CallSettings:
    """Async calls of components."""

    running: int = 16  # at once on this host
    running_per_app: int = 8
    queued: int = 1000  # of one component
    size: int = 1024 * MEBIBYTE  # bodies and results, on this host
    size_per_app: int = 256 * MEBIBYTE
    max_result: int = 16 * MEBIBYTE
    keep: float = 3600.0  # a result; and as long may a call wait until it begins

    @property
    def limits(self) -> CallLimits:
        """Return the bounds, with room for a call and its result in each of them."""
        size = min(self.size, self.size_per_app)
        return CallLimits(
            running=self.running,
            running_per_app=min(self.running_per_app, max(1, self.running - 1)),
            queued=self.queued,
            size=self.size,
            size_per_app=size,
            result=min(self.max_result, size // 4),
            keep=self.keep,
        )


@dataclass(frozen=True)
class NotificationSettings:
    """How messages of Notifications are sent."""

    private_receivers: bool = False  # whether webhooks and services may be at addresses that are not public
    per_hour: int = 60  # messages of one Notification
    smtp: str = ""  # `host[:port]` of the mail server; "": no mail is sent
    smtp_tls: str = "starttls"  # starttls | tls | none
    smtp_from: str = ""
    smtp_credentials: Path | None = None  # YAML file with username and password
    smtp_ca: Path | None = None  # PEM file of the authorities that are trusted; None: those of the host

    @property
    def smtp_address(self) -> tuple[str, int]:
        """Return host and port of the mail server. Without a port it is that of `smtp_tls`."""
        host, _, port = self.smtp.rpartition(":") if not self.smtp.endswith("]") else (self.smtp, "", "")
        host, port = (host, port) if host else (port, "")
        return host.strip("[]"), int(port or {"tls": 465, "starttls": 587}.get(self.smtp_tls, 25))


@dataclass(frozen=True)
class TracingSettings:
    """Where traces go. They are off while neither `endpoint` nor a variable of OpenTelemetry names a receiver."""

    endpoint: str = ""  # of OTLP over HTTP, without /v1/traces
    headers: Path | None = None  # file with a line `Name: value` for each header that the receiver asks for
    sample_ratio: float | None = None  # of new traces; None: as OTEL_TRACES_SAMPLER says, else all
    trust_callers: str = "authenticated"  # authenticated | all | none: whose `traceparent` is continued


@dataclass(frozen=True)
class BackupSettings:
    """Where backups of this installation go, when they are made, and how long they are kept."""

    to: str = ""  # a folder, or s3://BUCKET/PREFIX; "": none are made
    schedule: str = ""  # cron, "": only by hand
    timezone: str = "UTC"
    recipients: tuple[str, ...] = ()  # public keys of age or SSH
    boxes: bool = True  # whether files of boxes belong to scheduled ones
    endpoint: str = ""  # of the bucket
    region: str = "us-east-1"
    credentials: Path | None = None  # YAML file with accessKey and secretKey
    keep_count: int = 7  # the newest ones are kept,
    keep_age: float = 30 * 86400.0  # and all that are younger
    alert_after: float = 2 * 86400.0  # without a good one


@dataclass(frozen=True)
class DefaultLimits:
    """The limits of a container whose manifest sets none, the most that it may ask for, and the limits of an app
    whose PlatformApp sets none."""

    cpus: float = 1.0
    memory: int = 1024 * MEBIBYTE
    pids: int = 256
    max_replicas: int = 16
    stage_timeout: float = 86400.0  # of one attempt
    max_stage_timeout: float = 7 * 86400.0
    app_cpus: float = 16.0
    app_memory: int = 32 * 1024 * MEBIBYTE
    app_containers: int = 64
    app_storage: int = 100 * 10**9

    def of_app(self, given: Limits) -> Limits:
        """Return the limits with defaults for those that are missing. GPUs have no default: they are few and
        assigned one by one."""
        return Limits(
            cpus=self.app_cpus if given.cpus is None else given.cpus,
            memory=self.app_memory if given.memory is None else given.memory,
            storage=self.app_storage if given.storage is None else given.storage,
            containers=self.app_containers if given.containers is None else given.containers,
            gpus=given.gpus,
        )

    def of_stage(self, timeout: float | None) -> float:
        """Return how long an attempt may take at most."""
        return min(self.stage_timeout, self.max_stage_timeout) if timeout is None else timeout


@dataclass(frozen=True)
class AppSettings:
    """Apps that people make from templates. `templates` are `NAME=URL` or `NAME=URL#BRANCH`, `values` are `NAME=VALUE`,
    other defaults of variables of that name."""

    prefix: str = "pu-{user}-pa-"
    quota_apps: int = 5
    quota_cpus: float = 4.0
    quota_memory: int = 8 * 1024 * MEBIBYTE
    quota_storage: int = 20 * 10**9
    quota_gpus: int = 0
    templates: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    template_interval: float = 300.0

    @property
    def quota(self) -> Quota:
        """The quota of a person for whom none was set."""
        return Quota(self.quota_apps, self.quota_cpus, self.quota_memory, self.quota_storage, self.quota_gpus)

    @property
    def defaults(self) -> dict[str, str]:
        """Defaults of variables, by name."""
        return dict(text.split("=", 1) for text in self.values)


@dataclass(frozen=True)
class ImageSettings:
    """How registries are asked for newer images of those that are followed."""

    least_interval: float = 60.0
    private_registries: bool = (
        False  # whether registries that no PlatformApp names may be at private addresses
    )
    certificates: Path = Path("/etc/docker/certs.d")  # as the engine has them: HOST[:PORT]/*.crt
    authorities: tuple[str, ...] = ()  # HOST[:PORT]=FILE, beside those

    @property
    def authority_files(self) -> Mapping[str, Path]:
        """Files with authorities, by host and perhaps port, in lower case."""
        return {
            host.lower(): Path(file) for host, _, file in (one.partition("=") for one in self.authorities)
        }


@dataclass(frozen=True)
class Settings:
    state: Path = Path("/var/lib/prichal")
    instance: str = "prichal"  # several controllers on one engine need different ones
    engine: str = "docker"  # what runs containers; its own options are in the section of its name
    platform: PlatformSource = PlatformSource()
    git: GitSettings = GitSettings()
    docker: DockerSettings = DockerSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    web: WebSettings = WebSettings()
    sign_in: SignInSettings = SignInSettings()
    storage: StorageSettings = StorageSettings()
    runs: RunSettings = RunSettings()
    calls: CallSettings = CallSettings()
    notifications: NotificationSettings = NotificationSettings()
    images: ImageSettings = ImageSettings()
    limits: DefaultLimits = DefaultLimits()
    policies: Policies = NO_POLICIES
    apps: AppSettings = AppSettings()
    tracing: TracingSettings = TracingSettings()
    backup: BackupSettings = BackupSettings()
    log_level: str = "INFO"
    log_format: str = "text"  # text | json
    access_log: str = "off"  # off | combined | json
    access_file: Path | None = None  # None: the standard output of the web process
    source: Path | None = field(default=None, compare=False)  # the file this was read from

    @property
    def database(self) -> Path:
        return self.state / "db" / "state.db"

    @property
    def health(self) -> Path:
        """What the daemon found when it examined this machine last."""
        return self.database.parent / "health.json"

    @property
    def gpu_report(self) -> Path:
        """What the driver of the GPUs said to the daemon last."""
        return self.database.parent / "gpus.json"

    @property
    def repositories(self) -> Path:
        """Bare repositories hosted here (`prichal repo create`)."""
        return self.state / "git"

    @property
    def backups(self) -> Path:
        """What the service that makes backups remembers, and its scratch space. Backups lie elsewhere."""
        return self.state / "backup"

    @property
    def backup_record(self) -> Path:
        """What became of the last backups. The daemon and the web process read it."""
        return self.backups / "last.json"

    @property
    def restore_marker(self) -> Path:
        """The file that is there while a restore is incomplete."""
        return self.state / "restore.incomplete"

    @property
    def git_socket(self) -> Path:
        """Where the web process reaches the Git service, which serves hosted repositories over HTTP."""
        return self.state / "git-http.sock"

    def clone_url(self, repository: str) -> str:
        """Return the URL of a hosted repository; "" where they are not served over HTTP."""
        base = self.web.public_url.rstrip("/") or self.web.local_url
        return f"{base}{clone_path(repository)}" if self.git.http else ""

    @property
    def clones(self) -> Path:
        return self.state / "private" / "clones"

    @property
    def private(self) -> Path:
        """Keys and credentials: the daemon's user alone."""
        return self.state / "private"

    @property
    def serving(self) -> Path:
        """Copies of the serving library, one folder a version, mounted read-only into containers."""
        return self.state / "serving"

    @property
    def admin_token_file(self) -> Path:
        """The token of the admin API, made by the web process where none is configured."""
        return self.state / "web" / "admin.token"

    @property
    def embedded_storage(self) -> Path:
        """Data and metadata of the embedded storage."""
        return self.state / "storage"

    @property
    def models(self) -> Path:
        """Models staged from boxes, one folder a content, mounted read-only into containers."""
        return self.state / "models"

    @property
    def request_counts(self) -> Path:
        """The folder in which the gateway's workers count the requests of each API."""
        return self.state / "web"

    @property
    def names(self) -> Path:
        """The database that records which account each caller's name belongs to. Only the web process uses it."""
        return self.state / "web" / "names.db"

    @property
    def call_limits(self) -> CallLimits:
        """Bounds of async calls, which leave the same reserve of the disk alone as runs."""
        return replace(self.calls.limits, reserve=float(self.runs.min_free))

    @property
    def async_calls(self) -> Path:
        """The database with async calls, their bodies and results. Only the web process uses it."""
        return self.state / "web" / "calls.db"

    @property
    def people(self) -> Path:
        """The database with accounts, sessions and tokens of people. Only the web process uses it."""
        return self.state / "web" / "people.db"

    @property
    def first_login(self) -> Path:
        """The code of the first administrator's one-time link, until it was used."""
        return self.state / "web" / "first-login"

    @property
    def kept_logs(self) -> Path:
        """Logs of components, one folder an app. The web process reads them."""
        return self.state / "logs"

    @property
    def run_files(self) -> Path:
        """Inputs, outputs and logs of runs, one folder a run. The web process reads the logs."""
        return self.state / "runs"
