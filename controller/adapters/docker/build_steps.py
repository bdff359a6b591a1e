"""The network in which the classic builder runs the steps of builds, and the limit of their processes, which it has no
option for. Used only by `builds`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

import docker.errors
import requests
import requests.exceptions

from controller.adapters.docker.connection import EngineConnection, closing_on_stop
from controller.adapters.docker.egress import Egress
from controller.adapters.docker.networks import BRIDGE
from controller.config import DockerSettings
from controller.domain import labels
from controller.threads import running_beside

log = logging.getLogger(__name__)

#: What runc says of a step that has ended meanwhile.
_ENDED = "cannot update a stopped container"


class BuildSteps:
    """Of the builds of one instance."""

    def __init__(self, connection: EngineConnection, settings: DockerSettings, instance: str) -> None:
        self._connection = connection
        self._settings = settings
        self._instance = instance
        # Steps of a build that may reach nothing have `build_network: none`; of others most fetch packages.
        closed = replace(settings, egress="internet") if settings.egress == "none" else settings
        self._egress = Egress(connection, closed, instance)

    @property
    def network(self) -> str:
        return f"{self._instance}.builds"

    def make_network(self) -> None:
        """Create a network apart from the apps', whose containers are apart from each other: modules build
        side by side.
        """
        self._egress.hold()
        options = {"com.docker.network.bridge.enable_icc": "false"}
        if bridge := self._egress.bridge(self.network):
            options[BRIDGE] = bridge
        try:
            self._connection.client.create_network(
                self.network,
                driver="bridge",
                options=options,
                labels={labels.BUILT_BY: self._instance},
                check_duplicate=True,
            )
        except docker.errors.APIError as error:
            if error.status_code != 409:  # left by a killed one
                raise

    def remove_network(self) -> None:
        """Remove the network; if that fails, the next build or `collect` does it."""
        with suppress(docker.errors.DockerException, requests.exceptions.RequestException):
            self._connection.client.remove_network(self.network)

    def collect(self) -> None:
        """Remove the network if a killed daemon has left it."""
        found = self._connection.client.networks(names=[self.network])
        if any(network["Name"] == self.network for network in found):
            self.remove_network()

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Limit the number of processes in each step's container once it is created, since the builder has no
        option for it. A step that creates processes at once has some milliseconds before.
        """
        client = self._connection.client_with(None)
        ours = {"type": "container", "event": "create", "label": f"{labels.BUILT_BY}={self._instance}"}
        stream = client.events(since=datetime.now(UTC), filters=ours, decode=True)

        def bound(ended: threading.Event) -> None:
            with closing_on_stop(stream, ended.is_set), suppress(docker.errors.DockerException, OSError):
                for event in stream:
                    self._limit_processes(event["Actor"]["ID"])

        with running_beside(bound, "build-steps"):
            yield

    def _limit_processes(self, container: str) -> None:
        client = self._connection.client
        url = f"{client.base_url}/v{client.api_version}/containers/{container}/update"
        answer = client.post(
            url, json={"PidsLimit": self._settings.build_pids}, timeout=self._connection.timeout
        )
        if answer.status_code not in (200, 404, 409) and _ENDED not in answer.text:
            log.warning("could not limit the processes of a build step: %s", answer.text[:200])
