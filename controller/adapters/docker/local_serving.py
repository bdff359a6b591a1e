"""The container of `prichal serve-local`: created by the daemon's code, with the differences that a person's
own machine needs. Called by `local.serve`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker.errors

from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.error_rules import NAME_TAKEN, translated
from controller.adapters.docker.local import LocalEngine
from controller.adapters.docker.mapping import (
    MODEL_MOUNT,
    Binds,
    RestartPolicy,
    container_config,
    image_environment,
    policy_of,
)
from controller.config import DockerSettings
from controller.domain.apps.desired import Workload
from controller.domain.apps.spec import PlatformServer
from controller.domain.localizable import Localizable

Json = dict[str, Any]

#: Where the container finds the folder that replaces a box.
FILES = "/prichal/files"
#: The fields in which the container differs from the one that the platform makes of the same workload, and why. A test
#: compares all others; docs/reference/cli.md has the list for people.
DIFFERENCES: Final[Mapping[str, str]] = {
    "Labels": "no daemon may take it for its own",
    "NetworkingConfig": "there is no app, so it has no network of an app",
    "HostConfig.NetworkMode": "it is in the engine's default network, whose firewall belongs to the machine's owner",
    "ExposedPorts": "there is no gateway in front of it",
    "HostConfig.PortBindings": "there is no gateway in front of it",
    "HostConfig.AutoRemove": "no daemon removes it",
    "HostConfig.Mounts": "a folder replaces the boxes, and only the model is mounted, not what lies beside it",
    "HostConfig.DeviceRequests": "there is no pool of GPUs, so Docker chooses them",
    "Env.NVIDIA_VISIBLE_DEVICES": "there is no pool of GPUs, so Docker sets it",
    "Env.PRICHAL_SERVING.files_root": "a folder replaces the boxes",
}


@dataclass(frozen=True)
class HostFolders:
    """Where it is served: a port of the loopback interface, a folder instead of a box, and the folder that its model
    is in."""

    port: int
    files: Path | None = None
    model: Path | None = None


class LocalServing:
    """Connects on first use."""

    def __init__(self, settings: DockerSettings) -> None:
        self._settings = settings
        self._connection = EngineConnection(settings.host, settings.timeout)
        self._images = LocalEngine(settings, "")

    def close(self) -> None:
        self._connection.close()
        self._images.close()

    def create(
        self,
        workload: Workload,
        name: str,
        place: HostFolders,
        library: Path,
        max_body: int,
        say: Callable[[str], None],
    ) -> None:
        """Create the container without starting it. An image that is not on this host is pulled. Raises
        errors of the engine.
        """
        if self._images.find_image(workload.image) is None:
            say(f"pulling {workload.image}")
            self._images.pull(workload.image)
        with translated(Localizable("cannot create {name}", name=name)):
            image: Json = self._connection.client.inspect_image(workload.image)  # type: ignore[no-untyped-call]
            files = FILES if place.files else None
            policy = policy_of(self._settings, "", self._connection.has_init, max_body, files)
            config = local_config(workload, policy, library, image_environment(image), place)
            if self._connection.create(config, name) is None:
                raise NAME_TAKEN.error(
                    Localizable("cannot create {name}", name=name),
                    Localizable("another container has that name"),
                )

    def remove(self, name: str) -> None:
        """Remove the container in any state; do nothing if it is gone."""
        with translated(Localizable("cannot remove {name}", name=name)), suppress(docker.errors.NotFound):
            self._connection.client.remove_container(name, v=True, force=True)


def local_config(
    workload: Workload, policy: RestartPolicy, library: Path, image_env: dict[str, str], place: HostFolders
) -> Json:
    """Return the platform's config without its labels and its network, so that no daemon takes the container
    for its own. Only the model is mounted, without the files next to it.
    """
    mounted = library if isinstance(workload.spec.server, PlatformServer) else None
    config = container_config(workload, policy, Binds(mounted, place.model), image_env)
    port = f"{workload.spec.port}/tcp"
    mounts = [_model_alone(mount, workload) for mount in config["HostConfig"].get("Mounts", [])]
    if place.files:
        mounts.append(
            {"Type": "bind", "Source": str(place.files.resolve()), "Target": FILES, "ReadOnly": False}
        )
    host = config["HostConfig"] | {
        "NetworkMode": "default",
        "AutoRemove": True,
        "PortBindings": {port: [{"HostIp": "127.0.0.1", "HostPort": str(place.port)}]},
        "Mounts": mounts,
    }
    own = {"Labels": {}, "NetworkingConfig": {}, "ExposedPorts": {port: {}}, "HostConfig": host}
    return config | own


def _model_alone(mount: Json, workload: Workload) -> Json:
    if workload.model is None or mount["Target"] != MODEL_MOUNT:
        return mount
    name = workload.model.name
    return mount | {"Source": f"{mount['Source']}/{name}", "Target": f"{MODEL_MOUNT}/{name}"}
