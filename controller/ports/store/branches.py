"""Branches and open pull requests, and the previews that are made for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from controller.domain.apps.branch_previews import (
    BranchPreview,
    BranchPreviews,
    LeftOut,
    OpenPull,
    PreviewDecision,
    SeenBranch,
)
from controller.domain.names import AppName


class Branches(Protocol):
    """Branches that were seen for previews, the previews that there are, and what other processes say about them."""

    def seen(self, app: AppName | None = None) -> tuple[SeenBranch, ...]: ...

    def see(self, app: AppName, seen: Iterable[SeenBranch]) -> bool:
        """Store exactly these branches of an app, and return whether anything has changed."""

    def previews(self) -> tuple[BranchPreview, ...]:
        """Return the previews that there are or that are still to be removed, by the app that they belong to, newest
        first."""

    def preview(self, app: AppName) -> BranchPreview | None: ...

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return the branches that have no preview, and why."""

    def record(self, found: BranchPreviews, declared: Iterable[AppName], now: float) -> None:
        """Store which previews are wanted, and why other branches have none. One that is not wanted any more stays
        until `forget`, unless its name is that of a `declared` app now."""

    def forget(self, app: AppName) -> None:
        """Delete a preview that was removed."""

    def decisions(self) -> Mapping[AppName, PreviewDecision]: ...

    def keep(self, app: AppName, at: float) -> None:
        """Record that a person wants the time of a preview to begin again."""

    def remove(self, app: AppName, head: str) -> None:
        """Record that a person wants no preview while its branch is at `head`."""

    def drop_decisions(self, apps: Iterable[AppName]) -> None:
        """Delete what was decided about previews whose branches are gone."""

    def pulls(self, repository: str) -> tuple[OpenPull, ...]: ...

    def open_pull(self, repository: str, pull: OpenPull, at: float) -> None: ...

    def close_pull(self, repository: str, number: int) -> None: ...

    def close_pulls(self, repository: str, numbers: Iterable[int], before: float) -> None:
        """Delete requests of which nothing was heard since `before`, in Unix seconds."""
        ...
