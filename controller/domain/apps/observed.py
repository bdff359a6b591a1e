"""The observed state: one snapshot of an app's containers and network, with parsed labels. Times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Service
from controller.domain.runs.pipeline import Pipeline
from controller.domain.storage.box import BoxRecord


class WorkloadState(StrEnum):
    CREATED = "created"  # made, never started: a crash between the two
    PENDING = "pending"  # accepted, and not running yet: it may still start
    RUNNING = "running"
    STOPPED = "stopped"  # exited, dead or paused: does not answer
    REFUSED = "refused"  # accepted at first; the engine will not start it
    LOST = "lost"  # its node does not answer, so it is unknown whether it runs


@dataclass(frozen=True)
class ObservedWorkload:
    """A container with our labels. `address` is its IP on the app's network, None in all states but RUNNING.
    `detail`: why it is PENDING, REFUSED or LOST, in the engine's words."""

    id: str
    name: str
    component: ComponentName
    fingerprint: str
    revision: str
    replica: int
    port: int
    state: WorkloadState
    address: str | None = None
    created: float = 0.0
    exit_code: int | None = None
    oom_killed: bool = False
    gpus: tuple[str, ...] = ()  # ids of those that it has, as it was made
    gpu_share: int = 1
    root: str = ""  # `read-only` or `writable` where the manifest leaves the choice, see labels.ROOT
    detail: str = ""

    @property
    def endpoint(self) -> str | None:
        """Return the `IP:PORT` at which it can be called while it runs."""
        return f"{self.address}:{self.port}" if self.address else None


@dataclass(frozen=True)
class ScratchUse:
    """`size` is what a container of a component has written into its own file system, in bytes."""

    app: AppName
    component: ComponentName
    workload_id: str
    name: str
    size: int


@dataclass(frozen=True)
class LoggedContainer:
    """A container of a component whose log can be read, whether it runs or not. `created` in Unix seconds."""

    id: str
    app: AppName
    component: ComponentName
    created: float


@dataclass(frozen=True)
class WorkloadUse:
    """`cpu` is the time on processors since the container's start in seconds, `memory` its bytes without the files'
    cache. `gpu` is the mean use of its GPUs, 0 to 1, and `gpu_memory` their bytes; None for a container without GPUs,
    or where nothing tells."""

    app: AppName
    component: ComponentName
    workload_id: str
    cpu: float
    memory: float
    gpu: float | None = None
    gpu_memory: float | None = None
    gpus: tuple[str, ...] = ()  # ids of those that it has


@dataclass(frozen=True)
class ObservedBox:
    """A box that we know of; `present` tells whether its bucket is there."""

    record: BoxRecord
    present: bool = True


@dataclass(frozen=True)
class StorageFault:
    """Why the storage could not be observed; `transient`: it may answer later."""

    reason: Reason
    why: str
    transient: bool


@dataclass(frozen=True)
class ObservedApp:
    """Workloads are sorted by name. `network` tells whether the app's own network exists. The engine knows these; the
    rest is added by the pass: boxes and storage accounts of the app, and the services in force."""

    app: AppName
    workloads: tuple[ObservedWorkload, ...] = ()
    network: bool = False
    boxes: tuple[ObservedBox, ...] = ()  # sorted by box
    accounts: frozenset[str] = frozenset()
    services: tuple[Service, ...] = ()  # sorted by path
    pipelines: tuple[Pipeline, ...] = ()  # that can be run; sorted by name
    runs: bool = False  # some are queued or under way
    storage: StorageFault | None = None
    sources: tuple[BoxRecord, ...] = ()  # the boxes of another app that those of this one begin as copies of

    def of(self, component: ComponentName) -> tuple[ObservedWorkload, ...]:
        return tuple(w for w in self.workloads if w.component == component)


class ImageOrigin(StrEnum):
    LOCAL = "local"  # the engine has it, no registry knows it: used as it is
    REGISTRY = "registry"  # a tag resolved to the digest that is deployed
    BUILD = "build"  # built from a commit's tree


@dataclass(frozen=True)
class ImageUse:
    """What images take on the engine's disk, in bytes: those that were built for an app, those that were pulled for it,
    and what its builds under way have written."""

    built: int = 0
    pulled: int = 0
    being_built: int = 0


@dataclass(frozen=True)
class ImagePin:
    """An image reference resolved to content. A container is created from `deploy`, which is `name@sha256:…`
    or an image id; it never changes, unlike a tag. `present`: no pull or build is needed. An image still to
    be built has no id: until then its build tag, made from all that goes into it, stands in. One that was
    built and pushed has a digest, whether the engine has it or not."""

    deploy: str
    origin: ImageOrigin
    present: bool

    @property
    def to_build(self) -> bool:
        return self.origin is ImageOrigin.BUILD and not self.present and "@" not in self.deploy
