"""What the platform keeps on the engine, for people: `prichal image ls` and a line of `prichal doctor`."""

from __future__ import annotations

from contextlib import closing

from controller.adapters.docker.buildkit.cache import BuildCache
from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.error_rules import translated
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.kept_images import ImageKind, KeptImage, kept_images
from controller.domain.localizable import Localizable


def listed_images(settings: DockerSettings, instance: str) -> tuple[KeptImage, ...]:
    """Return images and caches of this instance; the cache of BuildKit, which all builds by the engine share, is last.
    Takes an engine with many images some seconds. Raises Transient, Stalled."""
    with (
        closing(EngineConnection(settings.host, settings.timeout)) as connection,
        translated(Localizable("the Docker engine at {host} does not answer", host=settings.host)),
    ):
        client = connection.client
        ours = {"label": f"{labels.BUILT_BY}={instance}"}
        by_name = {"reference": f"{instance}.local/*/*"}
        tagged = {image["Id"]: image for image in client.images(filters=by_name)}
        unfinished = client.images(filters={**ours, "dangling": True})
        containers = client.containers(all=True)
        found = kept_images(tagged.values(), unfinished, containers, instance, settings.keep_unfinished)
        cache = BuildCache(connection, settings).size() if settings.builder != "classic" else 0
    if not cache:
        return found
    return (*found, KeptImage("", ImageKind.CACHE, "", "cache of BuildKit", cache, 0.0))
