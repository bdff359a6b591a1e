"""What the platform keeps on the engine, for people: `prichal image` and a line of `prichal doctor`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

import docker
import docker.errors

from controller.adapters.docker.buildkit.cache import BuildCache
from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.error_rules import translated
from controller.adapters.docker.pulled import is_pulled, names_from_registry
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.kept_images import ImageKind, KeptImage, kept_images
from controller.domain.localizable import Localizable


class DockerImages:
    """What the engine has for an instance, in the daemon."""

    def __init__(self, settings: DockerSettings, instance: str) -> None:
        self._settings = settings
        self._instance = instance

    def listed(self) -> tuple[KeptImage, ...]:
        return listed_images(self._settings, self._instance)

    def remove(self, names: Iterable[str]) -> frozenset[str]:
        return remove_images(self._settings, names)


def listed_images(settings: DockerSettings, instance: str) -> tuple[KeptImage, ...]:
    """Return images and caches of this instance; the cache of BuildKit, which all builds by the engine share, is last.
    Takes an engine with many images some seconds. Raises Transient, Stalled."""
    with (
        closing(EngineConnection(settings.host, settings.timeout)) as connection,
        translated(Localizable("the Docker engine at {host} does not answer", host=settings.host)),
    ):
        client = connection.client
        ours = {"label": f"{labels.BUILT_BY}={instance}"}
        images = client.images()  # all: a list of some, by their names, lacks digests
        unfinished = client.images(filters={**ours, "dangling": True})
        containers = client.containers(all=True)
        found = kept_images(images, unfinished, containers, instance, settings.keep_unfinished)
        cache = BuildCache(connection, settings).size() if settings.builder != "classic" else 0
    if not cache:
        return found
    return (*found, KeptImage("", ImageKind.CACHE, "", "cache of BuildKit", cache, 0.0))


def remove_images(settings: DockerSettings, names: Iterable[str]) -> frozenset[str]:
    """Remove images by their tags or ids, and return those that are gone then: one that something has begun to use
    stays. Raises Transient, Stalled."""
    names = frozenset(names)
    with (
        closing(EngineConnection(settings.host, settings.timeout)) as connection,
        translated(Localizable("the Docker engine at {host} does not answer", host=settings.host)),
    ):
        return frozenset(name for name in names if _removed(connection.client, name, settings.registry))


def _removed(client: docker.APIClient, name: str, registry: str) -> bool:
    """Remove an image, also by the names that would keep it without ours, which goes last: it says whose the image is.
    Return False if it is in use."""
    try:
        image = client.inspect_image(name)  # type: ignore[no-untyped-call]
    except docker.errors.NotFound:
        return True
    if name.startswith("sha256:") and image["RepoTags"]:  # a build has found it in the cache meanwhile
        return False
    for each in (*_names_beside(image, name, registry), name):
        try:
            client.remove_image(each)
        except docker.errors.APIError as error:
            if error.status_code not in (404, 409):
                raise
            if error.status_code == 409:
                return False
    return True


def _names_beside(image: Mapping[str, Any], name: str, registry: str) -> tuple[str, ...]:
    if is_pulled(name):
        return names_from_registry(dict(image), (name,))
    instance, _, rest = name.partition(".local/")
    pushed = f"{registry}/{instance}/{rest}"  # as builds are named in the registry for them
    return (pushed,) if registry and pushed in (image["RepoTags"] or ()) else ()
