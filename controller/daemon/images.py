"""What the platform keeps on the engine, for the command line."""

from __future__ import annotations

from controller.adapters.docker.listed import listed_images
from controller.config import Settings
from controller.domain.apps.kept_images import KeptImage


def images(settings: Settings) -> tuple[KeptImage, ...]:
    """Raises Transient, Stalled."""
    return listed_images(settings.docker, settings.instance)
