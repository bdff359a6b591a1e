"""The composition root: the one place where ports meet adapters."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial

from controller.adapters.chats import AppriseSender
from controller.adapters.clock import SystemClock
from controller.adapters.cron import CronTicks
from controller.adapters.docker import DockerEngine, DockerJobs, LocalEngine
from controller.adapters.docker.listed import DockerImages
from controller.adapters.embedded import EmbeddedStorage
from controller.adapters.git import GitSources
from controller.adapters.mail import SmtpSender
from controller.adapters.models import ModelCache
from controller.adapters.no_storage import NoStorage
from controller.adapters.objects import ReadOnlyStorage, S3Storage
from controller.adapters.probe import HttpProber
from controller.adapters.registries import HttpRegistries
from controller.adapters.staging import StagingFolders
from controller.adapters.webhooks import HttpSender
from controller.config import DockerSettings, NotificationSettings, Settings
from controller.daemon.images import EngineImages
from controller.daemon.instance_key import instance_key
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import SecretSpec
from controller.domain.errors import Stalled
from controller.domain.names import PLATFORM, AppName
from controller.domain.notifications.alerts import Alert, alerts_of_backups
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.webhooks import MessageKind
from controller.domain.secret import Secret
from controller.domain.storage.accounts import component_account, storage_env
from controller.domain.storage.box import StorageAccess
from controller.domain.volumes import Volume
from controller.encryption import SecretKeys
from controller.guards import Tell
from controller.manifests.secret_files import load_secret_values
from controller.ports import Engine, Jobs, Storage, Store
from controller.reconcile.catalog import PlatformCatalog
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.image_follower import ImageFollower, platform_of
from controller.reconcile.loading import bucket_of
from controller.reconcile.secret_sources import run_secret
from controller.reconcile.stage_images import rebuilt
from controller.runner.cron_scheduler import CronScheduler
from controller.runner.deps import RunnerDeps
from controller.runner.notification_sender import NotificationSender
from controller.runner.notifier import Notifier
from controller.store.backup_record import load_record
from controller.store.owners import as_owner_of
from controller.store.request_metrics import read_all


def build_reconciler_deps(
    settings: Settings,
    store: Store,
    stopping: Callable[[], bool],
    tell: Tell = lambda name, how: None,
) -> ReconcilerDeps:
    """Connect ports and adapters. `tell` is called when a server that the daemon started has ended unexpectedly."""
    key = instance_key(settings.private)
    store.secrets.unlock(SecretKeys(key))
    store.age_keys.ensure(PLATFORM)
    storage = build_storage(settings, key, tell, store.boxes.record_access)
    return ReconcilerDeps(
        store=store,
        sources=GitSources(settings.clones, settings.git, settings.repositories),
        engine=build_engine(settings),
        storage=storage,
        models=ModelCache(settings.models, storage, settings.storage.model_cache),
        prober=HttpProber(),
        clock=SystemClock(),
        ticks=CronTicks(),
        catalog=PlatformCatalog(),
        settings=settings,
        stopping=stopping,
        key=key,
        request_counts=lambda: read_all(settings.request_counts).by_api(),
    )


def build_preview_deps(deps: ReconcilerDeps) -> ReconcilerDeps:
    """Return what previews need: they ask our own storage if it runs, and do not start it."""
    if deps.settings.storage.backend != "embedded":
        return deps
    storage = ReadOnlyStorage(deps.store.boxes)
    models = ModelCache(deps.settings.models, storage, deps.settings.storage.model_cache)
    return replace(deps, storage=storage, models=models)


def build_engine(settings: Settings) -> Engine:
    """Return the engine of the settings. `docker` is the only one so far; docs/adr/ says what another one needs."""
    return DockerEngine(
        docker_settings(settings),
        settings.instance,
        settings.serving,
        settings.web.max_body,
        StagingFolders.of(settings),
        settings.policies,
    )


def build_engine_images(settings: Settings) -> EngineImages:
    return DockerImages(settings.docker, settings.instance)


def build_jobs(settings: Settings) -> Jobs:
    """Return the jobs of the same engine."""
    return DockerJobs(docker_settings(settings), settings.instance, StagingFolders.of(settings))


def docker_settings(settings: Settings) -> DockerSettings:
    """Containers that get accounts for their boxes also reach where these are good for, which is this host mostly."""
    if not settings.storage.gives_accounts:
        return settings.docker
    allowed = (*settings.docker.egress_allow, settings.storage.container_url)
    return replace(settings.docker, egress_allow=allowed)


def build_runner_deps(deps: ReconcilerDeps, jobs: Jobs) -> RunnerDeps:
    """Return what the runner needs. Secrets of the app's own repository are those at the commit of the pipeline."""

    def pull(app: AppName, reference: str) -> None:
        declared = deps.catalog.spec.app(app)
        deps.engine.pull(app, reference, deps.catalog.registries(declared) if declared else ())

    def rebuild(pipeline: Pipeline, stage: str) -> str:
        try:
            return rebuilt(deps, pipeline, stage)
        finally:  # a pass over the app publishes the built image, or reports what is missing
            deps.store.requests.enqueue(pipeline.app, Trigger.DRIFT)

    def unlock(volume: Volume, image: str) -> None:
        """Open a folder of a container's user. The daemon as installed could do it itself; `prichal up` as an
        ordinary user cannot.
        """
        with closing(LocalEngine(deps.settings.docker, "")) as engine:
            engine.open_up(StagingFolders.of(deps.settings).path(volume), image)

    return RunnerDeps(
        store=deps.store,
        jobs=jobs,
        storage=deps.storage,
        models=deps.models,
        clock=deps.clock,
        settings=deps.settings,
        secret=partial(run_secret, deps),
        pull=pull,
        rebuild=rebuild,
        unlock=unlock,
        storage_env=lambda pipeline: pipeline_env(deps, pipeline),
        forge=deps.forge,
        lost_gpus=deps.lost_gpus,
        tracer=deps.tracer,
    )


def pipeline_env(deps: ReconcilerDeps, pipeline: Pipeline) -> Mapping[str, Secret]:
    """Return the variables with which stages of a pipeline reach the storage. None is stored: the name
    follows from the current boxes, the secret from the key of this installation.
    """
    storage = deps.settings.storage
    if not pipeline.boxes or not storage.gives_accounts:
        return {}
    buckets: dict[str, str] = {box: bucket_of(deps, pipeline.app, box) for box in pipeline.boxes}
    instance = deps.settings.instance
    account = component_account(instance, pipeline.app, pipeline.name, buckets.values(), deps.key)
    return storage_env(account, buckets, storage.container_url, storage.region)


def build_senders(settings: Settings) -> Mapping[MessageKind, HttpSender]:
    """Callers choose where webhooks go, and the operator where commit statuses go: each has a permission of its own."""
    return {
        MessageKind.RUN_ENDED: HttpSender(settings.runs.webhook_private),
        MessageKind.COMMIT_STATUS: HttpSender(settings.git.private_forges, "git.privateForges"),
    }


def build_notification_sender(deps: ReconcilerDeps) -> NotificationSender:
    chosen = deps.settings.notifications
    return NotificationSender(
        store=deps.store,
        clock=deps.clock,
        secret=partial(receiver_secret, deps),
        http=HttpSender(chosen.private_receivers, "notifications.privateReceivers"),
        mail=SmtpSender(chosen, partial(_mail_login, chosen)),
        chats=AppriseSender(chosen.private_receivers),
        url=deps.settings.web.url,
    )


def receiver_secret(deps: ReconcilerDeps, app: AppName, name: str) -> SecretSpec | None:
    """Return the Secret of a receiver: of the platform, or of an app as of the commit in force."""
    if app == PLATFORM:
        return deps.catalog.spec.secret(name, None)
    return run_secret(deps, app, name, deps.store.apps.status(app).desired_revision)


def _mail_login(chosen: NotificationSettings) -> tuple[str, Secret] | None:
    """Return the login at the mail server. It is read for each mail, so a corrected file needs no restart. Raises
    ManifestInvalid."""
    if chosen.smtp_credentials is None:
        return None
    values = dict(load_secret_values(chosen.smtp_credentials))
    if not {"username", "password"} <= values.keys():
        raise Stalled(
            Reason.CONFIG_INVALID, f"{chosen.smtp_credentials} needs the keys username and password"
        )
    return values["username"].reveal(), values["password"]


def build_notifier(deps: ReconcilerDeps) -> Notifier:
    settings = deps.settings
    per_hour = settings.notifications.per_hour
    backups = partial(_backup_alerts, settings)
    return Notifier(deps.store, deps.clock, settings.health, settings.web.url, per_hour, backups)


def _backup_alerts(settings: Settings, now: float) -> Iterable[Alert]:
    if not settings.backup.to:
        return ()
    return alerts_of_backups(load_record(settings.backup_record), settings.backup.alert_after, now)


def build_image_follower(deps: ReconcilerDeps) -> ImageFollower:
    chosen = deps.settings.images
    registry = HttpRegistries(chosen.private_registries, chosen.certificates, chosen.authority_files)
    return ImageFollower(deps, registry, platform_of(platform.machine()))


def build_cron_scheduler(deps: ReconcilerDeps) -> CronScheduler:
    return CronScheduler(deps.store, deps.clock, CronTicks())


def build_storage(
    settings: Settings,
    key: bytes,
    tell: Tell = lambda name, how: None,
    lend: Callable[[StorageAccess], None] = lambda access: None,
) -> Storage:
    """Return the storage of the settings. `lend` is called each time our own server was started, with the
    access that the web process gets.
    """
    match settings.storage.backend:
        case "embedded":
            folder = settings.embedded_storage
            return EmbeddedStorage(settings.storage, folder, settings.instance, key, tell=tell, lend=lend)
        case "s3":
            return S3Storage(settings.storage, settings.instance, key)
        case _:
            return NoStorage()


def prepare_folders(settings: Settings) -> None:
    """Create the parts of the state folder with their rights: `private` for the daemon alone, the rest for
    its group. What root creates in a folder of the daemon's user, before a restore, is the daemon's.
    """
    for folder, mode in (
        (settings.state, 0o750),
        (settings.private, 0o700),
        (settings.clones, 0o700),
        (settings.database.parent, 0o2770),
        (settings.serving, 0o755),
        (settings.repositories, 0o2775),
        (settings.embedded_storage, 0o700),
        (settings.models, 0o755),
        (settings.run_files, 0o2750),
        (settings.kept_logs, 0o2750),
        (settings.backups, 0o2750),
    ):
        if not folder.exists():
            with as_owner_of(next(parent for parent in folder.parents if parent.exists())):
                folder.mkdir(parents=True)
                folder.chmod(mode)
