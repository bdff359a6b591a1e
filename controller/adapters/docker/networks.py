"""The network that each app has of its own. Shared by `engine` and `jobs`; containers are none of its business."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import docker.errors

from controller.adapters.docker import mapping
from controller.adapters.docker.connection import Connection
from controller.adapters.docker.errors import NAME_TAKEN, translated
from controller.domain import labels
from controller.domain.names import AppName, network_name

#: Engine 20.10 looks for duplicates before it makes a network, not while: two that ask at once get two of one name, and
#: no container can start there any more. One process makes networks, through several of its rooms.
_MAKING = threading.Lock()


class Networks:
    """Thread-safe, keeps nothing."""

    def __init__(self, connection: Connection, instance: str) -> None:
        self._connection = connection
        self._instance = instance

    def find(self, app: AppName) -> dict[str, Any] | None:
        """The engine's entry. Raises what the SDK raises."""
        name = network_name(self._instance, app)
        ours = {"label": [f"{labels.INSTANCE}={self._instance}", f"{labels.APP}={app}"]}
        found = self._connection.client.networks(filters=ours)
        return next((network for network in found if network["Name"] == name), None)

    def ensure(self, app: AppName) -> None:
        """A bridge: Docker's firewall rules keep bridges apart, the host reaches them all."""
        name = network_name(self._instance, app)
        doing = f"cannot create network {name}"
        with _MAKING, translated(doing):
            if self.find(app):
                return
            try:
                self._connection.client.create_network(
                    name,
                    driver="bridge",
                    labels=mapping.network_labels(self._instance, app),
                    check_duplicate=True,
                )
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
                if not self.find(app):  # else another worker was first
                    raise NAME_TAKEN.error(doing, "a foreign network has that name") from error

    def remove(self, app: AppName) -> None:
        with translated(f"cannot remove network {network_name(self._instance, app)}"):
            network = self.find(app)
            if network:
                with suppress(docker.errors.NotFound):
                    self._connection.client.remove_network(network["Id"])
