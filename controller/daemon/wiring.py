"""The composition root: the one place where ports meet adapters."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from controller.adapters.clock import SystemClock
from controller.adapters.cron import CronTicks
from controller.adapters.docker import DockerEngine, DockerJobs
from controller.adapters.embedded import EmbeddedStorage
from controller.adapters.git import GitSources
from controller.adapters.models import ModelCache
from controller.adapters.no_storage import NoStorage
from controller.adapters.objects import S3Storage
from controller.adapters.probe import HttpProber
from controller.adapters.webhooks import HttpSender
from controller.config import Settings
from controller.domain.accounts import component_account, storage_env
from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.domain.pipelines import Pipeline
from controller.domain.secret import Secret
from controller.domain.spec import SecretSpec
from controller.ports import Storage, Store
from controller.reconcile.directory import Directory
from controller.reconcile.house import House
from controller.reconcile.loading import bucket_of, own_secret
from controller.runner.deps import Deps
from controller.runner.timetable import Timetable


def build_house(
    settings: Settings, store: Store, stopping: Callable[[], bool], storage: Storage | None = None
) -> House:
    """`storage`: in place of the one that the settings name."""
    key = instance_key(settings.private)
    storage = storage or build_storage(settings, key)
    return House(
        store=store,
        sources=GitSources(settings.clones, settings.git, settings.repositories),
        engine=DockerEngine(
            settings.docker, settings.instance, settings.serving, max_body=settings.web.max_body
        ),
        storage=storage,
        models=ModelCache(settings.models, storage, settings.storage.model_cache),
        prober=HttpProber(),
        clock=SystemClock(),
        directory=Directory(),
        settings=settings,
        stopping=stopping,
        key=key,
    )


def build_jobs(settings: Settings) -> DockerJobs:
    return DockerJobs(settings.docker, settings.instance)


def build_deps(house: House, jobs: DockerJobs) -> Deps:
    """What runs are driven with. Secrets of an app may lie in its own repository, at the commit of the pipeline."""

    def secret(app: AppName, name: str, revision: str) -> SecretSpec | None:
        return house.directory.spec.secret(name, app) or own_secret(house, app, name, revision)

    def pull(app: AppName, reference: str) -> None:
        declared = house.directory.spec.app(app)
        try:
            house.engine.pull(reference, house.directory.registries(declared) if declared else ())
        except Stalled as error:
            if (
                error.reason == "ImageNotFound"
            ):  # a pass over the app builds it again, or says what is missing
                house.store.requests.enqueue(app, "drift")
            raise

    return Deps(
        store=house.store,
        jobs=jobs,
        storage=house.storage,
        models=house.models,
        clock=house.clock,
        settings=house.settings,
        secret=secret,
        pull=pull,
        storage_env=lambda pipeline: pipeline_env(house, pipeline),
    )


def pipeline_env(house: House, pipeline: Pipeline) -> Mapping[str, Secret]:
    """What the stages of a pipeline find of its account. Nothing of it is written down: the name follows from the boxes
    as they are now, the secret from the key of this installation."""
    storage = house.settings.storage
    if not pipeline.boxes or not storage.gives_accounts:
        return {}
    buckets: dict[str, str] = {box: bucket_of(house, pipeline.app, box) for box in pipeline.boxes}
    instance = house.settings.instance
    account = component_account(instance, pipeline.app, pipeline.name, buckets.values(), house.key)
    return storage_env(account, buckets, storage.container_url, storage.region)


def build_sender(settings: Settings) -> HttpSender:
    return HttpSender(settings.runs.webhook_private)


def build_timetable(house: House) -> Timetable:
    return Timetable(house.store, house.clock, CronTicks())


def build_storage(settings: Settings, key: bytes) -> Storage:
    match settings.storage.backend:
        case "embedded":
            return EmbeddedStorage(settings.storage, settings.embedded_storage, settings.instance, key)
        case "s3":
            return S3Storage(settings.storage, settings.instance, key)
        case _:
            return NoStorage()


def prepare_folders(settings: Settings) -> None:
    """The state folder's parts with the rights they need: `private` for the daemon alone, the rest for its group."""
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
    ):
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(mode)


def instance_key(private: Path) -> bytes:
    """32 random bytes, made once; without them every fingerprint would change, so they belong into the backup."""
    path = private / "instance.key"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        draft = path.with_suffix(f".{os.getpid()}")
        draft.touch(0o600)
        draft.write_bytes(secrets.token_bytes(32))
        draft.rename(path)
        return path.read_bytes()
