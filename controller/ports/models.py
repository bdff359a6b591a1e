"""The cache of models that components get from boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from controller.domain.storage.box import ModelPin
from controller.domain.volumes import Volume


class Models(Protocol):
    """Models of boxes in a cache, one volume for each content. Thread-safe."""

    def recover(self) -> None:
        """Remove partial copies of a dead daemon; called when the daemon starts."""

    def pin(self, bucket: str, path: str) -> ModelPin:
        """Return the present content of the developer area at `path`. Raises Stalled `ModelMissing`, `BucketMissing`,
        `ModelInvalid` (its names cannot be those of files); Transient `ModelIncomplete` (a run is replacing it);
        otherwise as Objects."""

    def stage(self, pin: ModelPin, check: Callable[[], None] = lambda: None) -> None:
        """Fetch it into the cache, atomically; a cached one is fine. `check` is called repeatedly; its errors
        end the work. Raises Transient `ModelChanged` (it was replaced: pin it again), `StateDiskFull`,
        `StateIOError`; otherwise as Objects."""

    def volume(self, digest: str) -> Volume:
        """Return where it is, to be mounted read-only into containers."""

    def copy_to(self, pin: ModelPin, target: Path) -> None:
        """Put a staged model at `target`, which does not exist yet. It stays there when the cache removes the model,
        and takes no space of its own if both are on one disk."""

    def has(self, digest: str) -> bool:
        """Return True if it is cached; this counts as a use."""

    def prune(self, spare: Callable[[], frozenset[str]]) -> None:
        """Remove the least recently used models beyond the cache's size; never those that `spare` returns, which is
        asked only if the cache is too large."""
