"""What runs are driven with, wired once by the daemon."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.config import Settings
from controller.domain.names import AppName
from controller.domain.pipelines import Pipeline
from controller.domain.secret import Secret
from controller.domain.spec import SecretSpec
from controller.ports import Clock, Jobs, Models, Storage, Store


def free_percent(folder: Path) -> float:
    """Of the disk that holds the folder, as it is for users other than root."""
    usage = shutil.disk_usage(folder)
    return 100.0 * usage.free / usage.total


@dataclass(frozen=True)
class Deps:
    """`secret` looks up a Secret by app, name and the commit that the pipeline is of; `pull` brings an image of an app
    to this host under the reference that its pipeline has (errors as of `Engine.pull`); `storage_env` has the
    variables of the pipeline's own account of the storage, if it has one; `free_percent` is of a folder's disk;
    `keeps_files`: the files of a run that is over stay until somebody else removes them."""

    store: Store
    jobs: Jobs
    storage: Storage
    models: Models
    clock: Clock
    settings: Settings
    secret: Callable[[AppName, str, str], SecretSpec | None]
    pull: Callable[[AppName, str], None]
    storage_env: Callable[[Pipeline], Mapping[str, Secret]] = lambda pipeline: {}
    free_percent: Callable[[Path], float] = free_percent
    keeps_files: bool = False
