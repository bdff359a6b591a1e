"""Settings: one frozen value read from `config.yaml`. Unknown keys and bad values are refused with their path and
the nearest right key. `config.example.yaml` shows every option with meaning, unit, default and reason.

Each command reads it once (`controller.config.load`), before anything else; it never changes while a process runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from controller.domain.secret import Secret

MEBIBYTE = 2**20


@dataclass(frozen=True)
class PlatformSource:
    """Where the system components lie: a folder on the host, or a Git repository (`url` given)."""

    path: str = "/etc/prichal/platform"  # with url: the folder within the repository
    url: str | None = None
    branch: str = "main"
    interval: float = 60.0
    credentials: Path | None = None  # YAML file with a Secret's stringData


@dataclass(frozen=True)
class GitSettings:
    fetch_timeout: float = 120.0
    max_repository: int = 2048 * MEBIBYTE
    allowed_paths: tuple[Path, ...] = ()  # local repositories only below these; <state>/git always


@dataclass(frozen=True)
class DockerSettings:
    host: str = "unix:///var/run/docker.sock"
    timeout: float = 60.0
    pull_timeout: float = 600.0
    build_timeout: float = 1800.0
    capabilities: tuple[str, ...] = ()  # allow-list for manifests
    log_max_size: int = 10 * MEBIBYTE  # per container, three files are kept


@dataclass(frozen=True)
class ReconcileSettings:
    workers: int = 4
    drift_interval: float = 60.0
    backoff_initial: float = 2.0
    backoff_max: float = 300.0
    crash_limit: int = 5  # restarts within crash_window end in CrashLoop
    crash_window: float = 600.0
    keep_events: int = 1000  # per app


@dataclass(frozen=True)
class WebSettings:
    listen: str = "127.0.0.1:8000"
    public_url: str = ""  # default http://<listen>
    workers: int = 2
    trust_loopback: bool = True  # admin calls from loopback need no token
    admin_token: Secret | None = None
    trusted_proxies: tuple[str, ...] = ()
    max_body: int = 16 * MEBIBYTE
    hook_max_body: int = 25 * MEBIBYTE - 1
    connect_timeout: float = 2.0
    queue_limit: int = 1000  # concurrent requests in one gateway worker; more get 503


@dataclass(frozen=True)
class StorageSettings:
    """Where boxes lie. `embedded`: a server that the daemon runs itself; `s3`: any S3 endpoint."""

    backend: str = "embedded"  # embedded | s3 | none
    listen: str = "127.0.0.1:9000"  # embedded: where it listens
    memory: int = 256 * MEBIBYTE  # embedded: what its runtime tries to stay below
    endpoint: str = ""  # s3: as the platform reaches it
    public_url: str = ""  # in links for users; default http://<listen> or the endpoint
    container_url: str = ""  # as containers reach it; empty: they get no account of their own
    region: str = "us-east-1"
    credentials: Path | None = None  # s3: YAML file with accessKey and secretKey
    admin: str = "none"  # s3: minio | none
    link_lifetime: float = 900.0
    abandon_after: float = 86400.0  # uploads in parts that were not completed
    model_cache: int = 20 * 10**9

    @property
    def gives_accounts(self) -> bool:
        """Whether components get accounts of their own for their connected boxes."""
        return bool(self.container_url) and (self.backend == "embedded" or self.admin == "minio")


@dataclass(frozen=True)
class RunSettings:
    """Runs of pipelines."""

    concurrent: int = 4  # at once on this host
    per_app: int = 4
    log_max: int = 64 * MEBIBYTE  # of each attempt of a stage
    min_free: int = 5  # percent of the disk: below, no new run begins
    gpus: tuple[str, ...] = ()  # device ids that stages are lent
    webhook_private: bool = False  # whether webhooks may lead to addresses that are not public


@dataclass(frozen=True)
class DefaultLimits:
    """What a component gets when its manifest is silent, and the most it may ask for."""

    cpus: float = 1.0
    memory: int = 1024 * MEBIBYTE
    pids: int = 256
    max_replicas: int = 16


@dataclass(frozen=True)
class Settings:
    state: Path = Path("/var/lib/prichal")
    instance: str = "prichal"  # several controllers on one engine need different ones
    platform: PlatformSource = PlatformSource()
    git: GitSettings = GitSettings()
    docker: DockerSettings = DockerSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    web: WebSettings = WebSettings()
    storage: StorageSettings = StorageSettings()
    runs: RunSettings = RunSettings()
    limits: DefaultLimits = DefaultLimits()
    log_level: str = "INFO"
    log_format: str = "text"  # text | json
    source: Path | None = field(default=None, compare=False)  # the file this was read from

    @property
    def database(self) -> Path:
        return self.state / "db" / "state.db"

    @property
    def repositories(self) -> Path:
        """Bare repositories hosted here (`prichal repo create`)."""
        return self.state / "git"

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
    def embedded_storage(self) -> Path:
        """Data and metadata of the embedded storage."""
        return self.state / "storage"

    @property
    def models(self) -> Path:
        """Models staged from boxes, one folder a content, mounted read-only into containers."""
        return self.state / "models"

    @property
    def run_files(self) -> Path:
        """Inputs, outputs and logs of runs, one folder a run. The web process reads the logs."""
        return self.state / "runs"
