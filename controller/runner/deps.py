"""The dependencies of the runner, created once by the daemon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.config import Settings
from controller.disk import free_percent
from controller.domain.apps.spec import SecretSpec
from controller.domain.errors import Stalled
from controller.domain.forges import Forge
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline
from controller.domain.secret import Secret
from controller.domain.volumes import Volume
from controller.ports import Clock, Jobs, Models, Storage, Store
from controller.tracing import OFF, Tracer


def _not_rebuilt(pipeline: Pipeline, stage: str) -> str:
    raise Stalled(Reason.IMAGE_NOT_FOUND, Localizable("there is no commit to build it from"))


@dataclass(frozen=True)
class RunnerDeps:
    """`secret` looks up a Secret by app, name and the commit of the pipeline; `pull` brings an image of an
    app to this host under the reference in its pipeline (errors as of `Engine.pull`); `rebuild` builds the
    image of a stage again from the pipeline's own commit, and returns its id (errors as of `stage_images`);
    `storage_env` returns the variables of the pipeline's own account of the storage, if it has one;
    `free_percent` returns the free share of a folder's disk; `unlock` makes a folder that containers of an
    image have written readable where the process cannot; `forge` returns where commit statuses of an app go;
    `lost_gpus` returns the GPUs that do not work, with the reason; `keeps_files` means that the files of an ended
    run stay until something else removes them.
    """

    store: Store
    jobs: Jobs
    storage: Storage
    models: Models
    clock: Clock
    settings: Settings
    secret: Callable[[AppName, str, str], SecretSpec | None]
    pull: Callable[[AppName, str], None]
    rebuild: Callable[[Pipeline, str], str] = _not_rebuilt
    storage_env: Callable[[Pipeline], Mapping[str, Secret]] = lambda pipeline: {}
    free_percent: Callable[[Path], float] = free_percent
    unlock: Callable[[Volume, str], None] | None = None
    keeps_files: bool = False
    forge: Callable[[AppName], Forge | None] = lambda app: None
    lost_gpus: Callable[[], Mapping[str, str]] = dict
    tracer: Tracer = OFF
