"""`DockerEngine`: workloads, networks, logs and events of one Docker engine, behind the port `Engine`.

Called by the reconciler's workers (several at once), the watcher and the command line. Every method is one or
a few calls to the engine; none keeps state between calls that could become stale, and none touches what lacks
our label. Only the ids of containers removed here are remembered, which no other container ever gets.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker.errors
import requests

from controller.adapters.docker import mapping
from controller.adapters.docker.builds import ImageBuilds
from controller.adapters.docker.connection import EngineConnection, closing_on_stop
from controller.adapters.docker.egress import Egress
from controller.adapters.docker.error_rules import NAME_TAKEN, NO_PYTHON, NOT_OURS, translate, translated
from controller.adapters.docker.images import ImageStore
from controller.adapters.docker.job_log import WorkloadLog
from controller.adapters.docker.networks import Networks
from controller.adapters.docker.references import Registries
from controller.adapters.docker.scratch import written
from controller.adapters.docker.serving import package_folder, stage_serving
from controller.adapters.docker.use import UseMeter
from controller.adapters.staging import StagingFolders
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.desired import BuildInput, Workload
from controller.domain.apps.observed import (
    ImagePin,
    ImageUse,
    LoggedContainer,
    ObservedApp,
    ObservedWorkload,
    ScratchUse,
    WorkloadState,
    WorkloadUse,
)
from controller.domain.apps.policies import NO_POLICIES, Policies
from controller.domain.apps.spec import ComponentKind, ImageSource, PlatformServer
from controller.domain.errors import ControllerError, Transient
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName, network_name
from controller.domain.reasons import Reason
from controller.domain.runs.gpus import Lease
from controller.domain.units import parse_rfc3339
from controller.ports import BuildContext, ContainerLogReader, EngineEvent

log = logging.getLogger(__name__)

Json = dict[str, Any]

#: Number of attempts if a container disappears between "name taken" and its inspection.
START_ATTEMPTS = 3
#: The maximum of log bytes that are returned at once.
LOG_LIMIT = 256 * 1024
#: Seconds between attempts to reach an engine that is away.
WATCH_PAUSE = 0.25
#: Seconds within which a list shows a death that was reported, and between looks at it.
LISTED_WITHIN, LISTED_LOOK = 2.0, 0.005
#: Removed containers whose events are still recognized as our own doing: they come within seconds.
REMOVED_KEPT = 1000
#: Versions that are known not to start without writing. One that is forgotten fails once more.
WRITING_KEPT = 1000
Version = tuple[AppName, ComponentName, str]
#: Jobs are containers of ours, too, but this module ignores them.
WORKLOADS = f"{labels.KIND}={ComponentKind.ML_COMPONENT}"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class DockerEngine:
    """Thread-safe. Connects on first use; `serving` is the folder for copies of the serving library."""

    def __init__(
        self,
        settings: DockerSettings,
        instance: str,
        serving: Path,
        max_body: int = 16 * 2**20,
        staging: StagingFolders | None = None,
        policies: Policies = NO_POLICIES,
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._serving = serving
        self._staging = staging or StagingFolders()
        self._max_body = max_body
        self._connection = EngineConnection(settings.host, settings.timeout)
        self._use = UseMeter(self._connection)
        self._egress = Egress(self._connection, settings, instance)
        self._networks = Networks(self._connection, instance, self._egress)
        self._images = ImageStore(self._connection, settings, instance)
        self._builds = ImageBuilds(self._connection, settings, instance, self._images, policies)
        self._library: Path | None = None
        self._with_python: set[str] = set()  # ids of images; content never changes under an id
        self._removed: deque[str] = deque(maxlen=REMOVED_KEPT)
        self._removing = threading.Lock()
        self._writing: deque[Version] = deque(maxlen=WRITING_KEPT)

    def ping(self) -> str:
        with translated(Localizable("the Docker engine at {host} does not answer", host=self._settings.host)):
            version = self._connection.client.version()
        return Localizable(
            "Docker {version} (API {api})", version=version["Version"], api=version["ApiVersion"]
        )

    def close(self) -> None:
        """Close all connections. The engine can be used again: it reconnects."""
        self._connection.close()

    # --- observe -----------------------------------------------------------------------------------------------

    def observe(self, app: AppName) -> ObservedApp:
        with translated(Localizable("cannot list the containers of {app}", app=app)):
            containers = self._connection.client.containers(all=True, filters=self._labelled(app))
            ours = [entry for entry in containers if mapping.has_our_name(entry, self._instance, app)]
            workloads = [w for entry in ours if (w := self._observed(app, entry))]
            # A network in which a workload has an address exists: the engine need not be asked twice.
            network = any(w.endpoint for w in workloads) or self._networks.find(app) is not None
        return ObservedApp(app, tuple(sorted(workloads, key=lambda w: w.name)), network)

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
        with translated(Localizable("cannot list containers and networks")):
            owned = self._connection.client.containers(all=True, filters={"label": [*ours, WORKLOADS]})
            owned += self._connection.client.networks(filters={"label": ours})
        return frozenset(
            app
            for entry in owned
            if (app := AppName(entry["Labels"][labels.APP]))
            and ("Names" not in entry or mapping.has_our_name(entry, self._instance, app))
        )

    def _labelled(self, app: AppName) -> Json:
        return {"label": [f"{labels.INSTANCE}={self._instance}", f"{labels.APP}={app}", WORKLOADS]}

    # --- images ------------------------------------------------------------------------------------------------

    def pin(self, source: ImageSource, tag: str | None, registries: Registries) -> ImagePin:
        return self._images.pin(source, tag, registries)

    def pull(self, app: AppName, reference: str, registries: Registries) -> None:
        self._images.pull(reference, registries, app)

    def build(
        self,
        tag: str,
        build: BuildInput,
        context: BuildContext,
        log: Callable[[str], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._builds.build(tag, build, context, log, stop)

    def prune_images(
        self,
        app: AppName,
        keep: int,
        spare: frozenset[str] = frozenset(),
        earlier: tuple[str, ...] = (),
    ) -> None:
        self._images.prune(app, keep, spare, earlier)

    def remove_pulled_images(self, app: AppName, needed: Mapping[str, AppName] | None = None) -> None:
        self._images.remove_pulled(app, needed or {})

    def image_sizes(self) -> Mapping[AppName, ImageUse]:
        return self._images.sizes(self._builds.writing())

    def scratch(self) -> tuple[ScratchUse, ...]:
        with translated(Localizable("cannot get the sizes of containers")):
            found = written(self._connection.client, self._of_components)
        return tuple(
            mapping.scratch_use(entry, size)
            for entry, size in found
            if mapping.has_our_name(entry, self._instance, AppName(entry["Labels"][labels.APP]))
        )

    def use(self, ask_gpus: bool = True) -> tuple[WorkloadUse, ...]:
        with translated(Localizable("cannot measure what containers use")):
            listed: list[Json] = self._connection.client.containers(filters=self._of_components)
            ours = [
                entry
                for entry in listed
                if mapping.has_our_name(entry, self._instance, AppName(entry["Labels"][labels.APP]))
            ]
            return self._use.measure(ours, ask_gpus)

    def held_gpus(self) -> tuple[Lease, ...]:
        with translated(Localizable("cannot list the GPUs of containers")):
            listed: list[Json] = self._connection.client.containers(all=True, filters=self._of_components)
        leases = (mapping.lease(entry) for entry in listed if self._has_gpus_of_ours(entry))
        return tuple(sorted(leases, key=lambda lease: lease.workload))

    def _has_gpus_of_ours(self, entry: Json) -> bool:
        app = AppName(entry["Labels"][labels.APP])
        return bool(labels.gpus(entry["Labels"])) and mapping.has_our_name(entry, self._instance, app)

    @property
    def _of_components(self) -> Json:
        return {"label": [f"{labels.INSTANCE}={self._instance}", labels.APP, WORKLOADS]}

    def collect_builds(self, age: float) -> None:
        self._egress.collect(age)
        self._builds.collect(age)
        self._builds.collect_cache(age)

    # --- networks ----------------------------------------------------------------------------------------------

    def ensure_network(self, app: AppName) -> None:
        self._networks.ensure(app)

    def remove_network(self, app: AppName) -> None:
        self._networks.remove(app)

    def hold_egress(self) -> None:
        self._egress.hold()

    # --- workloads ---------------------------------------------------------------------------------------------

    def start(self, workload: Workload, name: str) -> None:
        doing = Localizable("cannot start {name}", name=name)
        self._egress.hold()
        with translated(doing):
            image: Json = self._connection.client.inspect_image(workload.image)  # type: ignore[no-untyped-call]
            container = self._create(workload, name, image)
            try:
                self._require_python(workload, container, image, doing)
                self._connection.client.start(container)
            except (docker.errors.APIError, ControllerError):
                # A container that cannot start would only obstruct the next one.
                with suppress(docker.errors.APIError):
                    self._remove_container(container)
                raise

    def _create(self, workload: Workload, name: str, image: Json) -> str:
        """Create a container, and return its id."""
        policy = mapping.policy_of(self._settings, self._instance, self._connection.has_init, self._max_body)
        binds = mapping.Binds(
            self._staged() if isinstance(workload.spec.server, PlatformServer) else None,
            self._staging.path(workload.model.volume) if workload.model else None,
        )
        writes = workload.spec.read_only_root is None and _version(workload, workload.app) in self._writing
        env = mapping.image_environment(image)
        config = mapping.container_config(workload, policy, binds, env, writes)
        for _ in range(START_ATTEMPTS):
            container = self._connection.create(config, name) or self._adopt(workload, name)
            if container:
                return container
        raise Transient(
            Reason.NAME_BUSY,
            Localizable("cannot start {name}: a container of that name is still being removed", name=name),
        )

    def _adopt(self, workload: Workload, name: str) -> str | None:
        """Return the id of the container that has the name, if it belongs to this workload and is usable;
        None if the name is free now.
        """
        client = self._connection.client
        try:
            found = client.inspect_container(name)
        except docker.errors.NotFound:
            return None
        if not mapping.same_workload(self._instance, workload, found["Config"]["Labels"] or {}):
            text = Localizable("another container has that name, but it is not of this version")
            raise NAME_TAKEN.error(Localizable("cannot start {name}", name=name), text)
        usable = _has_gpus(found, workload) and self._has_root(found, workload)
        if found["State"]["Status"] in ("created", "running") and usable:
            return str(found["Id"])
        self._remove_container(found["Id"])
        return None

    def _has_root(self, found: Json, workload: Workload) -> bool:
        """Return True if it can write where it must. One that could write before need not be recreated."""
        needs = workload.spec.read_only_root is None and _version(workload, workload.app) in self._writing
        return not needs or not found["HostConfig"]["ReadonlyRootfs"]

    def _staged(self) -> Path:
        """Return the folder of the library, which is copied once, and again if it was removed from the state
        folder.
        """
        if self._library is None or not self._library.is_dir():
            self._library = stage_serving(package_folder(), self._serving)
        return self._library

    def _require_python(self, workload: Workload, container: str, image: Json, doing: str) -> None:
        """Raise Stalled `NoPython` before anything runs. With an init process the start itself succeeds and
        the container exits with 127, which would look like a crash of the module.
        """
        if not isinstance(workload.spec.server, PlatformServer) or image["Id"] in self._with_python:
            return
        path = mapping.image_environment(image).get("PATH", _DEFAULT_PATH)
        path = dict(workload.env)["PATH"].reveal() if "PATH" in dict(workload.env) else path
        if not any(
            self._connection.has_file(container, f"{folder}/python3") for folder in path.split(":") if folder
        ):
            raise NO_PYTHON.error(
                doing, Localizable("the image {image} has no python3 in its PATH", image=workload.image)
            )
        self._with_python.add(image["Id"])

    def let_write(self, workload: ObservedWorkload, app: AppName) -> None:
        self._writing.append(_version(workload, app))

    def remove(self, workload_id: str, grace: float, last: Callable[[], object] = lambda: None) -> None:
        with translated(Localizable("cannot remove container {id}", id=workload_id[:12])):
            try:
                found = self._connection.client.inspect_container(workload_id)
                if (found["Config"]["Labels"] or {}).get(labels.INSTANCE) != self._instance:
                    raise NOT_OURS.error(
                        Localizable("cannot remove container {id}", id=workload_id[:12]),
                        Localizable("it is not ours"),
                    )
                self._note_removal(workload_id)
                self._connection.client.stop(workload_id, timeout=math.ceil(grace))
            except docker.errors.NotFound:
                return
            last()
            self._remove_container(workload_id)

    def _remove_container(self, container: str) -> None:
        """Remove a container. `force`: it may have been started again since it was stopped. 409: it is being
        removed already.
        """
        self._note_removal(container)
        try:
            self._connection.client.remove_container(container, v=True, force=True)
        except docker.errors.APIError as error:
            if error.status_code not in (404, 409):
                raise

    def _note_removal(self, container: str) -> None:
        with self._removing:
            if container not in self._removed:
                self._removed.append(container)

    def _removed_here(self, container: str) -> bool:
        with self._removing:
            return container in self._removed

    # --- logs --------------------------------------------------------------------------------------------------

    def logs(self, workload_id: str, tail: int) -> str:
        with translated(Localizable("cannot read the logs of {id}", id=workload_id[:12])):
            content = self._connection.client.logs(workload_id, stdout=True, stderr=True, tail=tail)
        return content[-LOG_LIMIT:].decode("utf-8", "replace")

    def logged(self) -> tuple[LoggedContainer, ...]:
        with translated(Localizable("cannot list the containers of components")):
            listed: list[Json] = self._connection.client.containers(all=True, filters=self._of_components)
        return tuple(
            mapping.logged_container(entry)
            for entry in listed
            if mapping.has_our_name(entry, self._instance, AppName(entry["Labels"][labels.APP]))
        )

    def log_reader(self, workload_id: str, after: str) -> ContainerLogReader:
        return WorkloadLog(self._connection, workload_id, after)

    # --- events ------------------------------------------------------------------------------------------------

    def watch(self, stop: Callable[[], bool]) -> Iterator[EngineEvent]:
        """Yield events. After the engine was away, each app is reported once with the action `reconnected`:
        the engine keeps no events over its own restart, and its containers have stopped meanwhile.
        """
        since, connected = time.time_ns(), True
        while not stop():
            try:
                if not connected:
                    yield from self._reconnected()
                    connected = True
                for event in self._events(since, stop):
                    since = max(since, event["timeNano"])
                    if ours := self._drift(event):
                        yield mapping.engine_event(ours)
            except (ControllerError, docker.errors.DockerException, requests.RequestException) as error:
                if connected:
                    log.warning(
                        "lost the connection to the Docker engine's events: %s", translate(error, "events")
                    )
            connected = False
            time.sleep(WATCH_PAUSE)

    def _events(self, since: int, stop: Callable[[], bool]) -> Iterator[Json]:
        """Yield events after `since` (Unix nanoseconds), until the engine goes away or `stop()` returns true."""
        # Events of networks have no labels, so none can be asked for.
        ours = {"type": ["container", "network"], "event": [*mapping.EVENTS, mapping.DISCONNECT]}
        moment: Any = f"{since // 10**9}.{since % 10**9:09d}"  # the SDK passes on what the engine understands
        stream = self._connection.client_with(None).events(since=moment, filters=ours, decode=True)
        with closing_on_stop(stream, stop):
            for event in stream:
                if event["timeNano"] > since:
                    yield event

    def _drift(self, event: Json) -> Json | None:
        """Return the event if it may mean drift of a container of ours, once a snapshot shows what it says."""
        if event["Action"] == mapping.DISCONNECT:
            return self._cut_off(event)
        if not mapping.is_about_ours(event, self._instance) or self._removed_here(event["Actor"]["ID"]):
            return None
        if event["Action"] == "die":
            self._until_listed(event)
        return event

    def _cut_off(self, event: Json) -> Json | None:
        """Return the event of a network as one of its container, if that still runs: one that has ended is taken off
        its networks, too."""
        attributes = event["Actor"]["Attributes"]
        if not str(attributes.get("name", "")).startswith(f"{self._instance}."):
            return None
        try:
            found = self._connection.client.inspect_container(attributes.get("container", ""))
        except (docker.errors.NotFound, docker.errors.NullResource):
            return None
        actor = {"ID": found["Id"], "Attributes": {**found["Config"]["Labels"], "name": found["Name"][1:]}}
        seen: Json = {**event, "Actor": actor}
        gone = self._removed_here(found["Id"]) or not found["State"]["Running"]
        return seen if mapping.is_about_ours(seen, self._instance) and not gone else None

    def _until_listed(self, event: Json) -> None:
        """Wait until a snapshot shows a death. The engine clears up after a container between the two, and a pass that
        comes too early would find a container that runs and does not answer."""
        id, deadline = event["Actor"]["ID"], time.monotonic() + LISTED_WITHIN
        while time.monotonic() < deadline:
            listed = self._connection.client.containers(all=True, filters={"id": id})
            if not listed or listed[0]["State"] != "running":
                return
            try:
                state = self._connection.client.inspect_container(id)["State"]
            except docker.errors.NotFound:
                return
            if state["Running"] and parse_rfc3339(state["StartedAt"]) * 1e9 > event["timeNano"]:
                return  # it was started again meanwhile
            time.sleep(LISTED_LOOK)

    def _reconnected(self) -> Iterator[EngineEvent]:
        for app in sorted(self.apps()):
            yield EngineEvent(app, ComponentName(""), "reconnected", "", time.time())


def _version(workload: Workload | ObservedWorkload, app: AppName) -> Version:
    return (app, workload.component, workload.fingerprint)


def _has_gpus(found: Json, workload: Workload) -> bool:
    """Return whether a container was created for the GPUs that the workload has now."""
    return labels.gpus(found["Config"]["Labels"] or {}) == workload.gpus
