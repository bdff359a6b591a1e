"""`DockerEngine`: workloads, networks, logs and events of one Docker engine, as the port `Engine` asks for them.

Called by the reconciler's workers (several at once), the watcher and the command line. Every method is one or a few
calls to the engine; none keeps state between calls that could go stale, and none touches what lacks our label.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import docker.errors
import requests

from controller.adapters.docker import mapping
from controller.adapters.docker.connection import Connection, hung_up
from controller.adapters.docker.errors import NAME_TAKEN, NO_PYTHON, NOT_OURS, translate, translated
from controller.adapters.docker.images import Images, Registries
from controller.adapters.docker.networks import Networks
from controller.adapters.docker.serving import package_folder, stage_serving
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.desired import BuildInput, Workload
from controller.domain.errors import ControllerError, Transient
from controller.domain.names import AppName, ComponentName, network_name
from controller.domain.observed import ImagePin, ObservedApp, ObservedWorkload, WorkloadState
from controller.domain.spec import ImageSource, Kind, PlatformServer
from controller.ports import EngineEvent

log = logging.getLogger(__name__)

Json = dict[str, Any]

#: A container that vanishes between "name taken" and the look at it: tried again so often.
START_ATTEMPTS = 3
#: Most bytes of logs that are handed over at once.
LOG_LIMIT = 256 * 1024
#: Seconds between attempts to reach an engine that is away.
WATCH_PAUSE = 0.25
#: Jobs are containers of ours, too, and none of this room's business.
WORKLOADS = f"{labels.KIND}={Kind.ML_COMPONENT}"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class DockerEngine:
    """Thread-safe. Connects on first use; `serving` is where copies of the serving library are kept."""

    def __init__(
        self, settings: DockerSettings, instance: str, serving: Path, max_body: int = 16 * 2**20
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._serving = serving
        self._max_body = max_body
        self._connection = Connection(settings.host, settings.timeout)
        self._networks = Networks(self._connection, instance)
        self._images = Images(self._connection, settings, instance)
        self._library: Path | None = None
        self._with_python: set[str] = set()  # ids of images; content never changes under an id

    def ping(self) -> str:
        with translated(f"no answer from the Docker engine at {self._settings.host}"):
            version = self._connection.client.version()
        return f"Docker {version['Version']} (API {version['ApiVersion']})"

    def close(self) -> None:
        """Close all connections. The engine can be used again: it connects anew."""
        self._connection.close()

    # --- observe -----------------------------------------------------------------------------------------------

    def observe(self, app: AppName) -> ObservedApp:
        with translated(f"cannot list the containers of {app}"):
            containers = self._connection.client.containers(all=True, filters=self._labelled(app))
            network = self._networks.find(app)
            workloads = [w for entry in containers if (w := self._observed(app, entry))]
        return ObservedApp(app, tuple(sorted(workloads, key=lambda w: w.name)), network is not None)

    def _observed(self, app: AppName, entry: Json) -> ObservedWorkload | None:
        details = None
        if mapping.state_of(entry) is WorkloadState.STOPPED:
            try:
                details = self._connection.client.inspect_container(entry["Id"])["State"]
            except docker.errors.NotFound:
                return None  # removed since the list was made
        return mapping.observed_workload(entry, network_name(self._instance, app), details)

    def apps(self) -> frozenset[AppName]:
        ours = [f"{labels.INSTANCE}={self._instance}", labels.APP]
        with translated("cannot list containers and networks"):
            owned = self._connection.client.containers(all=True, filters={"label": [*ours, WORKLOADS]})
            owned += self._connection.client.networks(filters={"label": ours})
        return frozenset(AppName(entry["Labels"][labels.APP]) for entry in owned)

    def _labelled(self, app: AppName) -> Json:
        return {"label": [f"{labels.INSTANCE}={self._instance}", f"{labels.APP}={app}", WORKLOADS]}

    # --- images ------------------------------------------------------------------------------------------------

    def pin(self, source: ImageSource, tag: str | None, registries: Registries) -> ImagePin:
        return self._images.pin(source, tag, registries)

    def pull(self, reference: str, registries: Registries) -> None:
        self._images.pull(reference, registries)

    def build(
        self, tag: str, build: BuildInput, context: Iterable[bytes], log: Callable[[str], None]
    ) -> None:
        self._images.build(tag, build, context, log)

    def prune_images(self, app: AppName, keep: int, spare: frozenset[str] = frozenset()) -> None:
        self._images.prune(app, keep, spare)

    # --- networks ----------------------------------------------------------------------------------------------

    def ensure_network(self, app: AppName) -> None:
        self._networks.ensure(app)

    def remove_network(self, app: AppName) -> None:
        self._networks.remove(app)

    # --- workloads ---------------------------------------------------------------------------------------------

    def start(self, workload: Workload, name: str) -> None:
        doing = f"cannot start {name}"
        with translated(doing):
            image = self._image(workload)
            container = self._create(workload, name, image)
            try:
                self._require_python(workload, container, image, doing)
                self._connection.client.start(container)
            except (docker.errors.APIError, ControllerError):
                # What cannot start would only stand in the way of what comes next.
                with suppress(docker.errors.APIError):
                    self._connection.client.remove_container(container, v=True, force=True)
                raise

    def _image(self, workload: Workload) -> Json:
        """The image's config is needed by the serving library alone: an own server is spared the call."""
        if not isinstance(workload.spec.server, PlatformServer):
            return {}
        image: Json = self._connection.client.inspect_image(workload.image)  # type: ignore[no-untyped-call]
        return image

    def _create(self, workload: Workload, name: str, image: Json) -> str:
        """Id of a container that only needs to be started."""
        policy = mapping.Policy(
            instance=self._instance,
            capabilities=self._settings.capabilities,
            log_max_size=self._settings.log_max_size,
            max_body=self._max_body,
            init=self._connection.has_init,
        )
        library = str(self._staged()) if isinstance(workload.spec.server, PlatformServer) else None
        config = mapping.container_config(workload, policy, library, mapping.image_environment(image))
        for _ in range(START_ATTEMPTS):
            container = self._connection.create(config, name) or self._adopt(workload, name)
            if container:
                return container
        raise Transient("NameBusy", f"cannot start {name}: a container of that name is still being removed")

    def _adopt(self, workload: Workload, name: str) -> str | None:
        """Id of the container that has the name, if it is this workload and can go on; None if the name is free now."""
        client = self._connection.client
        try:
            found = client.inspect_container(name)
        except docker.errors.NotFound:
            return None
        if not mapping.same_workload(self._instance, workload, found["Config"]["Labels"] or {}):
            text = "another container has that name, and it is not of this version"
            raise NAME_TAKEN.error(f"cannot start {name}", text)
        if found["State"]["Status"] in ("created", "running"):
            return str(found["Id"])
        self._remove_container(found["Id"])
        return None

    def _staged(self) -> Path:
        """Copied once, and again if somebody cleaned up the state folder meanwhile."""
        if self._library is None or not self._library.is_dir():
            self._library = stage_serving(package_folder(), self._serving)
        return self._library

    def _require_python(self, workload: Workload, container: str, image: Json, doing: str) -> None:
        """Stalled `NoPython` before anything runs. With an init process the start itself succeeds and the container
        exits with 127, which would look like a crash of the module's."""
        if not isinstance(workload.spec.server, PlatformServer) or image["Id"] in self._with_python:
            return
        path = mapping.image_environment(image).get("PATH", _DEFAULT_PATH)
        path = dict(workload.env)["PATH"].reveal() if "PATH" in dict(workload.env) else path
        if not any(
            self._connection.has_file(container, f"{folder}/python3") for folder in path.split(":") if folder
        ):
            raise NO_PYTHON.error(doing, f"the image {workload.image} has no python3 in its PATH")
        self._with_python.add(image["Id"])

    def remove(self, workload_id: str, grace: float) -> None:
        with translated(f"cannot remove container {workload_id[:12]}"):
            try:
                found = self._connection.client.inspect_container(workload_id)
                if (found["Config"]["Labels"] or {}).get(labels.INSTANCE) != self._instance:
                    raise NOT_OURS.error(f"cannot remove container {workload_id[:12]}", "it is not ours")
                self._connection.client.stop(workload_id, timeout=math.ceil(grace))
            except docker.errors.NotFound:
                return
            self._remove_container(workload_id)

    def _remove_container(self, container: str) -> None:
        """`force`: it may have been started again between stop and here. 409: a removal is under way already."""
        try:
            self._connection.client.remove_container(container, v=True, force=True)
        except docker.errors.APIError as error:
            if error.status_code not in (404, 409):
                raise

    # --- logs --------------------------------------------------------------------------------------------------

    def logs(self, workload_id: str, tail: int) -> str:
        with translated(f"cannot read the logs of {workload_id[:12]}"):
            content = self._connection.client.logs(workload_id, stdout=True, stderr=True, tail=tail)
        return content[-LOG_LIMIT:].decode("utf-8", "replace")

    def follow_logs(self, workload_id: str, tail: int) -> Iterator[bytes]:
        """Ends when the container does. A client of its own: others give up after a minute of silence."""
        with translated(f"cannot follow the logs of {workload_id[:12]}"):
            client = self._connection.client_with(None)
            client.inspect_container(workload_id)  # if it is gone: `logs` would leave its connection open
            stream = client.logs(workload_id, stdout=True, stderr=True, tail=tail, stream=True, follow=True)
            with closing(stream):
                yield from stream

    # --- events ------------------------------------------------------------------------------------------------

    def watch(self, stop: Callable[[], bool]) -> Iterator[EngineEvent]:
        """After the engine was away, each app is reported once with the action `reconnected`: the engine keeps no
        events over its own restart, and its containers have stopped meanwhile."""
        since, connected = time.time_ns(), True
        while not stop():
            try:
                if not connected:
                    yield from self._reconnected()
                    connected = True
                for event in self._events(since, stop):
                    since = max(since, event["timeNano"])
                    yield mapping.engine_event(event)
            except (ControllerError, docker.errors.DockerException, requests.RequestException) as error:
                if connected:
                    log.warning("lost the Docker engine's events: %s", translate(error, "events"))
            connected = False
            time.sleep(WATCH_PAUSE)

    def _events(self, since: int, stop: Callable[[], bool]) -> Iterator[Json]:
        """Events after `since` (Unix nanoseconds), until the engine goes away or `stop()` turns true."""
        ours = {
            "type": "container",
            "label": [f"{labels.INSTANCE}={self._instance}", WORKLOADS],
            "event": list(mapping.EVENTS),
        }
        moment: Any = f"{since // 10**9}.{since % 10**9:09d}"  # the SDK passes on what the engine understands
        stream = self._connection.client_with(None).events(since=moment, filters=ours, decode=True)
        with hung_up(stream, stop):
            for event in stream:
                if event["timeNano"] > since:
                    yield event

    def _reconnected(self) -> Iterator[EngineEvent]:
        for app in sorted(self.apps()):
            yield EngineEvent(app, ComponentName(""), "reconnected", "", time.time())
