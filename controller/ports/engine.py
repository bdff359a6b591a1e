"""The container engine: the workloads of components, their images, networks and logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.domain.apps.desired import BuildInput, Workload
from controller.domain.apps.observed import (
    ImagePin,
    ImageUse,
    LoggedContainer,
    ObservedApp,
    ObservedWorkload,
    ScratchUse,
    WorkloadUse,
)
from controller.domain.apps.spec import ImageSource, Registry, SecretSpec
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.gpus import Lease
from controller.ports.git import BuildContext


@dataclass(frozen=True)
class EngineEvent:
    """Something happened to a container of ours that we may not have done. `action`: die | oom | stop | pause
    | destroy | lost | found (the node of a lost one answers again) | refused, or `reconnected`: the engine
    was away, look at the whole app (`component` and `workload_id` are empty)."""

    app: AppName
    component: ComponentName
    action: str
    workload_id: str
    at: float


class ContainerLogReader(Protocol):
    """Reads the log of one container on from a position. Not thread-safe."""

    def unread(self) -> Iterator[tuple[str, bytes]]:
        """Yield what was written since, in pieces, each with the position after it, which begins with the time of
        its last line (RFC 3339). What was lost meanwhile is told in a line. Raises Transient."""


class Engine(Protocol):
    """Runs workloads and builds images. It changes only objects with our instance label."""

    def ping(self) -> str:
        """Return the engine's name and version."""

    def observe(self, app: AppName) -> ObservedApp: ...

    def apps(self) -> frozenset[AppName]:
        """Return the apps that own any object here, connected or not."""

    def pin(
        self, source: ImageSource, tag: str | None, registries: tuple[tuple[Registry, SecretSpec | None], ...]
    ) -> ImagePin:
        """Resolve an image to content. `tag` is the build's tag (None for existing images). An image that only
        the engine has is used unchanged; else the registry is asked for the digest. If builds are pushed to a
        registry, a build is known by its digest there, and is built again only if the registry does not have
        it. Raises Stalled `ImageNotFound`, `RegistryDenied`; Transient `RegistryUnreachable`."""

    def pull(
        self, app: AppName, reference: str, registries: tuple[tuple[Registry, SecretSpec | None], ...]
    ) -> None:
        """Pull the image for an app. Raises Stalled `ImageNotFound`, also for images that no registry has, because they
        were built and not pushed, or loaded by hand; Stalled or Transient `ImageTooLarge` if the images that were
        pulled for the app would exceed its share."""

    def build(
        self,
        tag: str,
        build: BuildInput,
        context: BuildContext,
        log: Callable[[str], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Build the image, and push it if there is a registry for builds. It is ended soon after `stop()` returns true,
        with Superseded. Raises Stalled `BuildFailed` with the
        last lines of the build log, `BuildTooLarge` if its steps write more than its share; Transient `PushFailed`,
        after which the next attempt only pushes."""

    def prune_images(
        self,
        app: AppName,
        keep: int,
        spare: frozenset[str] = frozenset(),
        earlier: tuple[str, ...] = (),
    ) -> None:
        """Remove images that were built here for the app and that no container uses, except the `keep` newest, those in
        `spare` (`ImagePin.deploy`) and those in `earlier`, the most wanted first, within `docker.keptImages`."""

    def remove_pulled_images(self, app: AppName, needed: Mapping[str, AppName] | None = None) -> None:
        """Remove images that were pulled for an app that goes, except those that a container uses. Those in `needed`
        (by `ImagePin.deploy`, of another app) belong to that app from then on."""

    def image_sizes(self) -> Mapping[AppName, ImageUse]:
        """Return what images and builds of each app take on the disk."""

    def scratch(self) -> tuple[ScratchUse, ...]:
        """What each running container of a component has written where only it writes. Takes the engine some seconds
        where there are many files."""

    def use(self, ask_gpus: bool = True) -> tuple[WorkloadUse, ...]:
        """What each running container of a component uses now. Those that ended meanwhile are missing. `ask_gpus`: a
        program in the container is asked for the use of its GPUs."""

    def held_gpus(self) -> tuple[Lease, ...]:
        """Return the GPUs that containers of components have, of all apps, whether they run or not. Sorted by
        workload."""

    def collect_builds(self, age: float) -> None:
        """Remove images of steps of failed or interrupted builds that are older than `age` seconds."""

    def ensure_network(self, app: AppName) -> None: ...

    def remove_network(self, app: AppName) -> None: ...

    def hold_egress(self) -> None:
        """Ensure that containers can reach only what the operator allows. Idempotent. Raises Transient
        `EgressOpen`."""

    def start(self, workload: Workload, name: str) -> None:
        """Create and start a container. One with that name and fingerprint is adopted; a foreign one is
        Stalled `NameTaken`. Idempotent. A container that cannot start is removed. Transient `ImageGone` and
        `NetworkGone` mean: plan again. An engine that decides later returns at once: the workload is PENDING
        until it runs or is REFUSED. REFUSED is what only another input can help; what may get better by
        itself stays PENDING."""

    def let_write(self, workload: ObservedWorkload, app: AppName) -> None:
        """From now on start this version with a writable root file system, because it does not start with a
        read-only one."""

    def remove(self, workload_id: str, grace: float, last: Callable[[], object] = lambda: None) -> None:
        """Stop a container (SIGTERM, after `grace` seconds SIGKILL), call `last`, and remove it. A
        missing one is fine; one without our label is Stalled `NotOurs`. One that is LOST is given up: its
        name is free at once, and the engine ends it should its node come back."""

    def logs(self, workload_id: str, tail: int) -> str:
        """Return the last `tail` lines of stdout and stderr. Raises Transient `WorkloadGone` if there is no
        such container."""

    def logged(self) -> tuple[LoggedContainer, ...]:
        """Return the containers of all components."""

    def log_reader(self, workload_id: str, after: str) -> ContainerLogReader:
        """Read the log of a container from a position, "" for the start."""

    def watch(self, stop: Callable[[], bool]) -> Iterator[EngineEvent]:
        """Yield events from now on; it resumes after the engine's restart, and ends soon after `stop()` turns
        true. Removals through this object are not reported, since they are not drift."""

    def close(self) -> None:
        """Close the connections; the engine is not used afterwards."""
