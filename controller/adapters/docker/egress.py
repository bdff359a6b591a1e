"""Keeps containers of ours from the host's own addresses, link-local ones, and, where so configured, private ones.

The daemon has no right to change a firewall, but that of using Docker, which is more. So a short-lived
container does it: without an image of anybody's (its file system is empty but for the host's own programs,
read-only), in the host's network, with the right to change that and no other one. It is the engine's host,
wherever that is. Called by the modules that make networks and start containers; `prichal doctor` has it look.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker.errors

from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.egress_rules import bridge, looking, script
from controller.adapters.docker.error_rules import EGRESS_OPEN, translated
from controller.adapters.docker.host_programs import config, empty_image
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.egress import Allowed, read_allowed
from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason

log = logging.getLogger(__name__)

#: Seconds after which rules are installed again: other programs restore the firewall to their own rules.
LASTING = 600.0
#: Seconds for the container.
_LIMIT = 60
_PAUSE = 0.05  # between two looks whether it has ended
_WORDS = 2000  # of what it says, in characters
_RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))

#: Reasons of an engine that cannot do anything else either.
_AWAY = {Reason.ENGINE_UNREACHABLE, Reason.ENGINE_TIMEOUT, Reason.ENGINE_FORBIDDEN, Reason.ENGINE_DISK_FULL}
#: When rules were installed at which engine, by this process, in which several objects have an `Egress`.
_done: dict[tuple[str, str], float] = {}
_doing = threading.Lock()


class Egress:
    """Thread-safe."""

    def __init__(self, connection: EngineConnection, settings: DockerSettings, instance: str) -> None:
        self._connection = connection
        self._settings = settings
        self._instance = instance

    @property
    def internal(self) -> bool:
        return self._settings.egress == "none"

    def bridge(self, network: str) -> str | None:
        """Return the name of the bridge of one of our networks, by which rules recognize it."""
        return bridge(self._settings.egress, self._instance, network)

    def hold(self) -> None:
        """Install the rules. Raises Transient `EgressOpen` if `internet` cannot be enforced; with other
        policies, which mostly depend on the engine's own rules, the log and `prichal doctor` report it.
        """
        if self._settings.egress == "open":
            return
        rules = script(self._instance, self._allowed(), resolvers())
        with _doing:
            key = (self._settings.host, rules)
            if time.monotonic() - _done.get(key, -LASTING) < LASTING:
                return
            try:
                self._run(rules)
            except ControllerError as error:
                if error.reason in _AWAY:
                    raise
                if self._settings.egress == "internet":
                    raise
                log.warning("egress of containers is not closed (docker.egress): %s", error.message)
            _done[key] = time.monotonic()

    def collect(self, age: float) -> None:
        """Remove containers that ended after their daemon was killed; until then their image cannot be
        removed either. `age` is in seconds."""
        client = self._connection.client
        ours = {"label": f"{labels.FIREWALL}={self._instance}", "status": ["created", "exited", "dead"]}
        with translated(Localizable("cannot remove containers that set the firewall")):
            for entry in client.containers(all=True, filters=ours):
                if entry["Created"] <= time.time() - age:
                    with suppress(docker.errors.NotFound):
                        client.remove_container(entry["Id"], v=True, force=True)

    def check(self) -> None:
        """Raise Transient `EgressOpen` if rules are missing."""
        self._run(looking())

    def _allowed(self) -> Iterator[Allowed]:
        for text in self._settings.egress_allow:
            if "//" in text:
                yield from _of_url(text)
            else:
                yield read_allowed(text)

    # --- the container -----------------------------------------------------------------------------------------

    def _run(self, text: str) -> None:
        """Run a script. Raises Transient `EgressOpen` with its output if it fails."""
        doing = Localizable("cannot set up the firewall of the engine's host")
        with translated(doing), empty_image(self._connection.client, self._instance) as image:
            client = self._connection.client
            made = client.create_container_from_config(self._config(image, text))["Id"]  # type: ignore[no-untyped-call]
            try:
                client.start(made)
                code = self._exit_code(made)
                said = client.logs(made)[-_WORDS:].decode(errors="replace").strip()
            finally:
                with suppress(docker.errors.NotFound):
                    client.remove_container(made, v=True, force=True)
        if code != 0:
            raise EGRESS_OPEN.error(
                doing,
                said
                or (
                    Localizable("code {code}", code=code)
                    if code
                    else Localizable("it did not end within {limit} s", limit=_LIMIT)
                ),
            )

    def _exit_code(self, id: str) -> int | None:
        """Return None for a container that does not end. It is queried repeatedly: an engine that reports the
        end late must not keep containers from starting."""
        deadline = time.monotonic() + _LIMIT
        while time.monotonic() < deadline:
            state = self._connection.client.inspect_container(id)["State"]
            if state["Status"] not in ("created", "running"):
                return int(state["ExitCode"])
            time.sleep(_PAUSE)
        return None

    def _config(self, image: str, text: str) -> dict[str, Any]:
        more = {
            "NetworkMode": "host",
            "UsernsMode": "host",  # else an engine with namespaces of its own for users refuses the host's network
            "CapAdd": ["NET_ADMIN", "NET_RAW"],
            "Tmpfs": {"/run": "rw,noexec,nosuid,nodev,size=1m"},  # for a lock
        }
        named = {labels.BUILT_BY: self._instance, labels.FIREWALL: self._instance}
        return config(image, text, named, more)


def resolvers(files: Iterable[Path] = _RESOLVERS) -> tuple[str, ...]:
    """Return the addresses of the name servers of containers: those of this host, except those that only the
    host can reach, which the engine replaces by public ones.
    """
    found: list[str] = []
    for path in files:
        with suppress(OSError):
            for line in path.read_text().splitlines():
                with suppress(ValueError, IndexError):
                    key, address = line.split()[:2]
                    if key == "nameserver" and not ipaddress.ip_address(address).is_loopback:
                        found.append(address)
    return tuple(address for address in dict.fromkeys(found) if "%" not in address)  # such are of this link


def _of_url(url: str) -> Iterator[Allowed]:
    """Yield the addresses of a service of the host that containers may use."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        log.warning("containers will not reach %s: %s", url, error)
        return
    for address in sorted({str(entry[4][0]) for entry in found}):
        yield Allowed(str(ipaddress.ip_network(address)), port)
