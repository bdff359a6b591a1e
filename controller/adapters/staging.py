"""Volumes as folders of this host, for engines whose containers run on it. Called by the adapters of engines, and by
`models`, which fills one of the areas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controller.config import Settings
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.volumes import StagingArea, Volume
from controller.safe_paths import part, require_below


@dataclass(frozen=True)
class StagingFolders:
    """`roots` are the folders of the areas. An area that has none cannot be mounted."""

    roots: Mapping[StagingArea, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> StagingFolders:
        return cls({StagingArea.MODELS: settings.models, StagingArea.RUNS: settings.run_files})

    def path(self, volume: Volume) -> Path:
        """Return the file or folder to mount, without following a link below the area's folder. Raises Transient
        `MountGone` if it is not there, and Stalled `PathRefused` if something else is.
        """
        root = self.roots.get(volume.area)
        if root is None:
            raise Stalled(
                Reason.PATH_REFUSED, Localizable("this engine has no folder for {area}", area=volume.area)
            )
        try:
            return require_below(root, root.joinpath(*map(part, volume.path))).absolute()
        except Stalled as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise Transient(
                    Reason.MOUNT_GONE, Localizable("{volume} does not exist", volume=volume)
                ) from error
            raise
