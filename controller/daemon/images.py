"""What the platform keeps on the engine, for the command line."""

from __future__ import annotations

from collections.abc import Iterable

from controller.adapters.docker.listed import listed_images, remove_images
from controller.config import Settings
from controller.domain.apps.kept_images import ImageVerdict, KeptImage


def images(settings: Settings) -> tuple[KeptImage, ...]:
    """Raises Transient, Stalled."""
    return listed_images(settings.docker, settings.instance)


def prune(settings: Settings, judged: Iterable[ImageVerdict]) -> None:
    """Remove what is to be removed. Raises Transient, Stalled."""
    remove_images(settings.docker, [each.image.name or each.image.id for each in judged if each.removed])
