"""The network of each app. Shared by `engine` and `jobs`; it does not deal with containers."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import docker.errors

from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.egress import Egress
from controller.adapters.docker.error_rules import NAME_TAKEN, translated
from controller.domain import labels
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, network_name

#: Engine 20.10 looks for duplicates before it makes a network, not while: two that ask at once get two of one name, and
#: no container can start there any more. One process makes networks, through several of its modules.
_MAKING = threading.Lock()
#: Option of a network: the name of its interface on the host.
BRIDGE = "com.docker.network.bridge.name"


class Networks:
    """Thread-safe, keeps nothing."""

    def __init__(self, connection: EngineConnection, instance: str, egress: Egress) -> None:
        self._egress = egress
        self._connection = connection
        self._instance = instance

    def find(self, app: AppName) -> dict[str, Any] | None:
        """Return the engine's entry. Raises what the SDK raises."""
        name = network_name(self._instance, app)
        ours = {"label": [f"{labels.INSTANCE}={self._instance}", f"{labels.APP}={app}"]}
        found = self._connection.client.networks(filters=ours)
        return next((network for network in found if network["Name"] == name), None)

    def ensure(self, app: AppName) -> None:
        """A bridge: Docker's firewall rules keep bridges apart, the host reaches them all. One of another egress
        is made again as soon as no container is in it."""
        name = network_name(self._instance, app)
        doing = Localizable("cannot create network {name}", name=name)
        self._egress.hold()
        with _MAKING, translated(doing):
            found = self.find(app)
            if found and not (self._is_stale(found) and self._removed(found)):
                return
            made_for = self._egress.bridge(name)
            try:
                self._connection.client.create_network(
                    name,
                    driver="bridge",
                    options={BRIDGE: made_for} if made_for else None,
                    labels=labels.of_app(self._instance, app),
                    check_duplicate=True,
                    internal=self._egress.internal,
                )
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
                if not self.find(app):  # else another worker was first
                    raise NAME_TAKEN.error(doing, Localizable("a foreign network has that name")) from error

    def stale(self) -> frozenset[AppName]:
        """Return apps whose networks were created with another egress policy."""
        return frozenset(
            AppName(network["Labels"][labels.APP]) for network in self.all() if self._is_stale(network)
        )

    def all(self) -> list[dict[str, Any]]:
        with translated(Localizable("cannot list networks")):
            ours = {"label": [f"{labels.INSTANCE}={self._instance}", labels.APP]}
            return list(self._connection.client.networks(filters=ours))

    def _is_stale(self, network: dict[str, Any]) -> bool:
        bridge = (network["Options"] or {}).get(BRIDGE)
        return (bridge, network["Internal"]) != (self._egress.bridge(network["Name"]), self._egress.internal)

    def _removed(self, network: dict[str, Any]) -> bool:
        """Remove the network; return False if containers are in it."""
        client = self._connection.client
        try:
            if client.inspect_network(network["Id"])["Containers"]:
                return False
            client.remove_network(network["Id"])
        except docker.errors.NotFound:
            return True
        except docker.errors.APIError as error:
            if error.status_code not in (403, 409):  # one has come meanwhile
                raise
            return False
        return True

    def remove(self, app: AppName) -> None:
        with translated(Localizable("cannot remove network {name}", name=network_name(self._instance, app))):
            network = self.find(app)
            if network:
                with suppress(docker.errors.NotFound):
                    self._connection.client.remove_network(network["Id"])
