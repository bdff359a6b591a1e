"""Previews of plans: what the next pass of an app would do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from controller.domain.apps.history import ManifestText
from controller.domain.apps.previews import AskedPreview, PlanPreview
from controller.domain.names import AppName


class Previews(Protocol):
    """What the next passes would do. All processes ask for it, and the daemon computes it."""

    def ask(self, app: AppName) -> str:
        """Return the id under which the preview will be found. Those who ask for the same app meanwhile share one,
        which is begun after all of them have asked."""

    def begin(self) -> AskedPreview | None:
        """Return the one that was asked for first, for the daemon to compute, until it is finished. An idle daemon
        takes no write lock."""

    def finish(self, preview: PlanPreview, manifests: Iterable[ManifestText]) -> None: ...

    def get(self, id: str) -> PlanPreview | None:
        """Return None for one that is not done yet, or was done long ago."""

    def manifests(self, id: str) -> tuple[ManifestText, ...] | None:
        """Return the manifests of a preview; None if they were too large to be kept."""
