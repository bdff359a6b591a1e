"""What a run without the platform needs of an engine beside `jobs`: images of the person who starts it, and a way to
find and remove all that was left by those that were killed.

Called by `daemon.local`. Unlike the daemon's, its images are pulled with that person's own `docker login`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import docker.errors

from controller.adapters.docker.connection import Connection
from controller.adapters.docker.context import of_folder
from controller.adapters.docker.errors import translated
from controller.adapters.docker.images import Images
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.desired import BuildInput
from controller.domain.errors import Stalled
from controller.domain.spec import BuildImage

Json = dict[str, Any]


class LocalEngine:
    """`builder` is what images are labelled with that are built here. Connects on first use."""

    def __init__(self, settings: DockerSettings, builder: str) -> None:
        self._connection = Connection(settings.host, settings.timeout)
        self._images = Images(self._connection, settings, builder)

    def close(self) -> None:
        self._connection.close()

    # --- images ------------------------------------------------------------------------------------------------

    def find_image(self, reference: str) -> str | None:
        """Its id; None if it is not on this host."""
        found = self._images.inspect(reference)
        return str(found["Id"]) if found else None

    def pull(self, reference: str) -> str:
        """The id of what its registry has now. Errors as of `Engine.pull`."""
        self._images.pull(reference, registries=None)
        return self._present(reference)

    def build(self, tag: str, source: BuildImage, root: Path, log: Callable[[str], None]) -> str:
        """The id of the image, built from the folder `root/context` as it is now, without what its `.dockerignore`
        names. Stalled `BuildFailed`, `BuildTimeout`; otherwise as `Engine.build`."""
        folder = root / source.context
        if not (folder / source.dockerfile).is_file():
            raise Stalled("BuildFailed", f"there is no {folder / source.dockerfile} to build from")
        with closing(of_folder(folder, source.dockerfile)) as context:
            self._images.build(tag, BuildInput("", source), context, log)
        return self._present(tag)

    def _present(self, reference: str) -> str:
        found = self.find_image(reference)
        if found is None:
            raise Stalled("ImageNotFound", f"image {reference} was removed right after it was made")
        return found

    # --- what was left -----------------------------------------------------------------------------------------

    def instances(self, prefix: str) -> frozenset[str]:
        """Those whose name begins so and of which something is there."""
        with translated("cannot list containers and networks"):
            names = {entry["Labels"][labels.INSTANCE] for entry in self._owned(labels.INSTANCE)}
        return frozenset(name for name in names if name.startswith(prefix))

    def remove_all(self, instance: str) -> None:
        """Its containers, running or not, then its networks."""
        client = self._connection.client
        with translated(f"cannot remove what is left of {instance}"):
            for entry in self._owned(f"{labels.INSTANCE}={instance}"):
                with suppress(docker.errors.NotFound):
                    if "Image" in entry:
                        client.remove_container(entry["Id"], v=True, force=True)
                    else:
                        client.remove_network(entry["Id"])

    def open_up(self, folder: Path, image: str) -> None:
        """Let everybody write everywhere below the folder, by a container as root. Errors of the engine; nothing, if
        the image has no `chmod`."""
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
        with translated(f"cannot open up {folder}"):
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
