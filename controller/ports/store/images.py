"""Images that apps follow and what was found in their registries, and lists of what is kept on the engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from controller.domain.apps.followed_images import FollowedImage, FollowRecord, FollowState
from controller.domain.apps.image_lists import AskedImages, ImageList
from controller.domain.apps.releases import Images
from controller.domain.names import AppName


class FollowedImages(Protocol):
    """What apps follow, and what was found. Passes declare, reject and ask; the follower writes states."""

    def declare(self, app: AppName, images: Iterable[FollowedImage]) -> None:
        """Store these as those of the app. A state that belongs to another question is forgotten."""

    def of(self, app: AppName) -> tuple[FollowRecord, ...]: ...

    def all(self) -> tuple[FollowRecord, ...]: ...

    def save(self, record: FollowRecord, state: FollowState) -> bool:
        """Save a state, unless the question has changed meanwhile; return whether it was saved."""

    def reject(self, app: AppName, images: Images) -> None:
        """Record which images were rolled back, in place of what was recorded before."""

    def ask_now(self, app: AppName, at: float) -> None:
        """Record that a person wants the registries to be asked."""


class ImageLists(Protocol):
    """Lists of what is kept on the engine. All processes ask for them, and the daemon answers."""

    def ask(self, app: str = "", removes: bool = False) -> str:
        """Return the id under which the list will be found; `app` is "" for the images of all. With `removes`, the
        daemon removes what nothing needs. Those who ask for the same meanwhile share one, which is begun after all of
        them have asked. Transient `QueueFull`."""

    def begin(self) -> AskedImages | None:
        """Return the one that was asked for first, for the daemon to answer, until it is finished. An idle daemon takes
        no write lock."""

    def finish(self, found: ImageList) -> None: ...

    def get(self, id: str) -> ImageList | None:
        """Return None for one that is not done yet, or was done long ago."""
