"""What a run without the platform needs of an engine besides `jobs`: images of the person who starts it, and
a way to find and remove leftovers of killed runs.

Called by `local`. Unlike the daemon's, its images are pulled with that person's `docker login`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker.errors

from controller.adapters.docker.builds import ImageBuilds
from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.context import of_folder
from controller.adapters.docker.error_rules import translated
from controller.adapters.docker.images import ImageStore
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.desired import BuildInput
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason

Json = dict[str, Any]

_KEPT = 86400.0  # seconds


def on_own_machine(settings: DockerSettings) -> DockerSettings:
    """Return settings that do not change the firewall of a person who tries a module, nor push what they build."""
    return replace(settings, egress="none" if settings.egress == "none" else "open", registry="")


class LocalEngine:
    """`builder` labels the images that are built here. Connects on first use."""

    def __init__(self, settings: DockerSettings, builder: str) -> None:
        self._connection = EngineConnection(settings.host, settings.timeout)
        own = on_own_machine(settings)
        self._images = ImageStore(self._connection, own, builder)
        self._builds = ImageBuilds(self._connection, own, builder, self._images)

    def close(self) -> None:
        self._connection.close()

    # --- images ------------------------------------------------------------------------------------------------

    def find_image(self, reference: str) -> str | None:
        """Return the id of an image; None if it is not on this host."""
        found = self._images.inspect(reference)
        return str(found["Id"]) if found else None

    def pull(self, reference: str) -> str:
        """Pull an image and return its id. Raises errors as `Engine.pull`."""
        self._images.pull(reference, registries=None)
        return self._present(reference)

    def build(self, tag: str, order: BuildInput, root: Path, log: Callable[[str], None]) -> str:
        """Build an image from the folder `root/context` as it is now, without what its `.dockerignore`
        excludes, and return its id. Raises Stalled `BuildFailed`, `BuildTimeout`; otherwise errors as
        `Engine.build`.
        """
        context = of_folder(root / order.source.context, order.source.dockerfile)
        self._builds.build(tag, order, context, log)
        return self._present(tag)

    def collect_builds(self) -> None:
        """Remove leftovers of interrupted builds, and images whose tags newer builds have taken, after a day."""
        self._builds.collect(_KEPT)

    def _present(self, reference: str) -> str:
        found = self.find_image(reference)
        if found is None:
            raise Stalled(
                Reason.IMAGE_NOT_FOUND,
                Localizable(
                    "image {reference} was removed right after it was pulled or built; try again",
                    reference=reference,
                ),
            )
        return found

    # --- what was left -----------------------------------------------------------------------------------------

    def instances(self, prefix: str) -> frozenset[str]:
        """Return instances with this prefix that still own resources."""
        with translated(Localizable("cannot list containers and networks")):
            names = {entry["Labels"][labels.INSTANCE] for entry in self._owned(labels.INSTANCE)}
        return frozenset(name for name in names if name.startswith(prefix))

    def remove_all(self, instance: str) -> None:
        """Remove the containers of an instance, running or not, and then its networks."""
        client = self._connection.client
        with translated(Localizable("cannot remove the leftovers of {instance}", instance=instance)):
            for entry in self._owned(f"{labels.INSTANCE}={instance}"):
                with suppress(docker.errors.NotFound):
                    if "Image" in entry:
                        client.remove_container(entry["Id"], v=True, force=True)
                    else:
                        client.remove_network(entry["Id"])

    def open_up(self, folder: Path, image: str) -> None:
        """Make a folder writable for all users, by a container as root. Raises errors of the engine; does
        nothing if the image has no `chmod`.
        """
        config = {
            "Image": image,
            "User": "0:0",
            "Entrypoint": ["chmod", "-R", "a+rwX", "/folder"],
            "Cmd": [],
            "HostConfig": {
                "Mounts": [{"Type": "bind", "Source": str(folder), "Target": "/folder"}],
                "NetworkMode": "none",
            },
        }
        with translated(Localizable("cannot make {folder} writable", folder=folder)):
            client = self._connection.client
            made = client.create_container_from_config(config)  # type: ignore[no-untyped-call]
            try:
                client.start(made["Id"])
                client.wait(made["Id"])
            finally:
                client.remove_container(made["Id"], v=True, force=True)

    def _owned(self, label: str) -> Iterator[Json]:
        client = self._connection.client
        yield from client.containers(all=True, filters={"label": [label]})
        yield from client.networks(filters={"label": [label]})
