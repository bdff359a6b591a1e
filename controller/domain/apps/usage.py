"""Each app's use of limited resources, next to the limit. Pure; the daemon computes it every few seconds, so that
people see it before the limit is reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controller.domain.apps.observed import ImageUse
from controller.domain.apps.spec import Limits
from controller.domain.names import AppName
from controller.domain.runs.run import Run, RunCount, RunState
from controller.domain.runs.stage_slots import Use, in_use
from controller.domain.storage.box import BoxRecord
from controller.domain.units import about_size

NEARLY = 0.8  # of a bound
BOX = "box "  # and its name


class Resource(StrEnum):
    CPUS = "cpus"
    MEMORY = "memory"
    CONTAINERS = "containers"
    GPUS = "gpus"
    STORAGE = "storage"
    RUNS = "runs"
    STAGES = "stages"
    QUEUE = "queue"
    QUEUE_SIZE = "queue size"
    RUN_FILES = "run files"
    IMAGES = "images"
    PULLED_IMAGES = "pulled images"
    SCRATCH = "container files"
    BUILDS = "builds"
    BUILDS_WAITING = "builds waiting"
    BUILD_FILES = "build files"
    CALLS = "calls"
    SOCKETS = "sockets"
    API_REQUESTS = "API requests"
    TRANSFERS = "transfers"
    PASSWORD_CHECKS = "password checks"  # noqa: S105 - no password: a name
    ASYNC_CALLS = "async calls"  # that wait for one component
    ASYNC_RESULTS = "async results"  # on the disk, with the calls


_BYTES = frozenset(
    {
        Resource.MEMORY,
        Resource.STORAGE,
        Resource.QUEUE_SIZE,
        Resource.RUN_FILES,
        Resource.IMAGES,
        Resource.PULLED_IMAGES,
        Resource.SCRATCH,
        Resource.BUILD_FILES,
        Resource.ASYNC_RESULTS,
    }
)
#: What the gateway's workers report: each has a share of its own, and the fullest one is shown.
OF_WORKERS = (
    *(Resource.CALLS, Resource.SOCKETS, Resource.API_REQUESTS, Resource.TRANSFERS, Resource.PASSWORD_CHECKS),
    *(Resource.ASYNC_CALLS, Resource.ASYNC_RESULTS),
)
#: Declared resources, and those that runs use temporarily, may be used up without harm. If the others are
#: full, something is refused.
_FILLING = frozenset(
    {
        Resource.STORAGE,
        Resource.QUEUE,
        Resource.QUEUE_SIZE,
        Resource.RUN_FILES,
        Resource.IMAGES,
        Resource.PULLED_IMAGES,
        Resource.SCRATCH,
        Resource.BUILD_FILES,
        *OF_WORKERS,
    }
)


@dataclass(frozen=True)
class BuildCount:
    """Builds of an app: those under way, and those that wait for them."""

    running: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class TakenShare:
    """The most of a resource that an app took at once in one worker of the gateway, some seconds ago."""

    app: AppName
    resource: Resource
    most: int


@dataclass(frozen=True)
class Usage:
    """`bound` is None where there is none."""

    app: AppName
    resource: str
    used: float
    bound: float | None

    @property
    def fills(self) -> bool:
        """True if something is refused once it is full."""
        return self.resource in _FILLING or self.resource.startswith(BOX)

    @property
    def is_nearly_full(self) -> bool:
        return self.fills and self.bound is not None and self.used >= NEARLY * self.bound > 0

    @property
    def is_in_bytes(self) -> bool:
        return self.resource in _BYTES or self.resource.startswith(BOX)

    def told(self, value: float | None) -> str:
        if value is None:
            return "-"
        return about_size(int(value)) if self.is_in_bytes else f"{value:g}"


@dataclass(frozen=True)
class Bounds:
    """The limits of each app, from the configuration."""

    runs: int
    stages: int
    queue: int
    queue_size: int
    run_files: int
    images: int
    pulled_images: int
    scratch: int
    build_files: int
    of_workers: Mapping[Resource, int] = field(default_factory=dict)  # of one worker


@dataclass(frozen=True)
class MeasuredUse:
    """The measured use of all apps: `declared` by components, and what was measured in bytes."""

    declared: Mapping[AppName, Use]
    active: tuple[Run, ...]
    counts: tuple[RunCount, ...]
    boxes: tuple[BoxRecord, ...]
    queued: Mapping[AppName, int] = field(default_factory=dict)
    run_files: Mapping[AppName, int] = field(default_factory=dict)
    images: Mapping[AppName, ImageUse] = field(default_factory=dict)
    scratch: Mapping[AppName, int] = field(default_factory=dict)  # of the container that has written the most
    builds: Mapping[AppName, BuildCount] = field(default_factory=dict)
    taken: tuple[TakenShare, ...] = ()


def usage(app: AppName, limits: Limits, bounds: Bounds, found: MeasuredUse) -> Iterator[Usage]:
    """Return the use of each resource, in display order."""
    stages = in_use(run for run in found.active if run.app == app)
    use = found.declared.get(app, Use()) + stages
    boxes = sorted((box for box in found.boxes if box.app == app), key=lambda box: box.box)
    waiting = sum(each.number for each in _of(app, found.counts) if each.state is RunState.QUEUED)
    going_on = sum(each.number for each in _of(app, found.counts) if each.active)
    images, builds = found.images.get(app, ImageUse()), found.builds.get(app, BuildCount())
    for resource, used, bound in (
        (Resource.CPUS, round(use.cpus, 3), limits.cpus),
        (Resource.MEMORY, use.memory, limits.memory),
        (Resource.CONTAINERS, use.containers, limits.containers),
        (Resource.GPUS, use.gpus, limits.gpus),
        (Resource.STORAGE, sum(box.used for box in boxes), limits.storage),
        *((f"{BOX}{box.box}", box.used, box.capacity) for box in boxes),
        (Resource.RUNS, going_on, bounds.runs),
        (Resource.STAGES, stages.containers, bounds.stages),
        (Resource.QUEUE, waiting, bounds.queue),
        (Resource.QUEUE_SIZE, found.queued.get(app, 0), bounds.queue_size),
        (Resource.RUN_FILES, found.run_files.get(app, 0), bounds.run_files),
        (Resource.IMAGES, images.built, bounds.images),
        (Resource.PULLED_IMAGES, images.pulled, bounds.pulled_images),
        (Resource.SCRATCH, found.scratch.get(app, 0), bounds.scratch),
        (Resource.BUILDS, builds.running, 1),
        (Resource.BUILDS_WAITING, builds.waiting, None),
        (Resource.BUILD_FILES, images.being_built, bounds.build_files),
        *((each, _fullest(app, each, found.taken), bounds.of_workers.get(each)) for each in OF_WORKERS),
    ):
        if resource != Resource.GPUS or used or bound is not None:
            yield Usage(app, resource, used, bound)


def _fullest(app: AppName, resource: Resource, taken: Iterable[TakenShare]) -> int:
    return max((each.most for each in taken if (each.app, each.resource) == (app, resource)), default=0)


def _of(app: AppName, counts: Iterable[RunCount]) -> Iterator[RunCount]:
    return (count for count in counts if count.app == app)
