"""Where files are that containers see: an area of the platform's files, and names from its top down.

The core never says which folder that is. An engine's adapter resolves it: Docker's to a folder of the host, another
one's to a part of a network file system that all nodes mount.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StagingArea(StrEnum):
    MODELS = "models"  # copies of models, which containers only read
    RUNS = "runs"  # inputs and outputs of runs


@dataclass(frozen=True)
class Volume:
    """A file or folder to mount. An empty `path` is the area itself."""

    area: StagingArea
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join((self.area, *self.path))
