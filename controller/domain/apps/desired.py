"""Desired state ready for planning: the spec of a commit joined with what lives outside Git (image pins, secrets).

`resolve` in `controller.reconcile` makes it; the planner compares it with `observed`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.domain.apps.observed import ImagePin
from controller.domain.apps.smoke import SmokeCase
from controller.domain.apps.spec import (
    BoxSpec,
    BuildImage,
    ComponentKind,
    MLComponentSpec,
    Registry,
    SecretSpec,
)
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Api, Service
from controller.domain.runs.pipeline import Pipeline
from controller.domain.secret import Secret
from controller.domain.storage.box import ModelPin, StorageAccount
from controller.domain.volumes import Volume


@dataclass(frozen=True)
class BuildInput:
    """The input of a build; `commit` and the spec name the tree that becomes the build context. `secrets` has the
    values of those that the spec declares, by id; `registries` those of the app, for images that serve as cache."""

    commit: str
    source: BuildImage
    secrets: tuple[tuple[str, Secret], ...] = field(default=(), repr=False)
    registries: tuple[tuple[Registry, SecretSpec | None], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class ModelMount:
    """`volume` holds the model under `name`; a container sees it read-only."""

    volume: Volume
    name: str


@dataclass(frozen=True)
class Workload:
    """A container to be created; an engine needs nothing else. `env` holds secrets, hence no repr."""

    app: AppName
    component: ComponentName
    replica: int
    fingerprint: str
    revision: str
    image: str  # ImagePin.deploy
    spec: MLComponentSpec
    env: tuple[tuple[str, Secret], ...] = field(default=(), repr=False)
    model: ModelMount | None = None
    gpus: tuple[str, ...] = ()  # ids of those that it gets, as many as the spec's resources say


@dataclass(frozen=True)
class DesiredComponent:
    """`fingerprints` holds the fingerprint under every version that this controller knows (see fingerprint.py);
    the newest one is last and names new workloads."""

    spec: MLComponentSpec
    pin: ImagePin
    fingerprints: tuple[str, ...]
    apis: tuple[Api, ...] = ()  # sorted by path
    env: tuple[tuple[str, Secret], ...] = field(default=(), repr=False)
    build: BuildInput | None = None
    account: StorageAccount | None = None  # of the storage; its keys are part of `env`
    model: ModelPin | None = None
    smoke: SmokeCase | None = None  # what it must answer before it gets traffic
    revision: str = ""
    asleep: bool = (
        False  # there are no calls: stop the containers of the version in service (see hibernation.py)
    )
    failure_reason: Reason = Reason.NONE
    failure: str = ""  # set: a newer version failed for this reason; this is the last good one

    last_good: DesiredComponent | None = (
        None  # the version that serves, if this one could not be started so far, or may have to wait
    )

    @property
    def fingerprint(self) -> str:
        return self.fingerprints[-1]


@dataclass(frozen=True)
class DesiredStage:
    """The image of one stage. `name` is `<pipeline>.<stage>`, which no component can be called."""

    name: ComponentName
    pin: ImagePin
    build: BuildInput | None = None


@dataclass(frozen=True)
class DesiredPipeline:
    pipeline: Pipeline
    stages: tuple[DesiredStage, ...]
    account: StorageAccount | None = None  # of the storage; stages are given its keys when they start


@dataclass(frozen=True)
class Unresolved:
    """A component that cannot be planned, for example because its image does not exist: its containers are
    not changed."""

    name: ComponentName
    reason: Reason
    why: str
    transient: bool = False  # the failure may resolve itself
    kind: ComponentKind = ComponentKind.ML_COMPONENT
    waiting: bool = False  # nothing is wrong, but something that it needs does not exist yet


@dataclass(frozen=True)
class DesiredApp:
    app: AppName
    revision: str
    components: tuple[DesiredComponent, ...] = ()  # sorted by name
    left: tuple[
        DesiredComponent, ...
    ] = ()  # those in service that left Git, to be repaired as long as they stay
    boxes: tuple[BoxSpec, ...] = ()  # sorted by name
    pipelines: tuple[DesiredPipeline, ...] = ()  # sorted by name
    services: tuple[Service, ...] = ()  # sorted by path
    unresolved: tuple[Unresolved, ...] = ()
    holders: tuple[
        tuple[str, ComponentName | None], ...
    ] = ()  # path of an API -> component, None: the platform itself
    prune: bool = True
    approved: bool = False  # a person confirmed that everything may be removed at once
    disconnected: bool = False  # no PlatformApp names it: data is always kept
    is_preview: bool = False  # of a branch: with the end of it the data goes, too
    boxes_of: AppName | None = None  # the app whose boxes those of this preview begin as copies of

    def moved(self, path: str, component: ComponentName | None) -> bool:
        """Return True if the commit gives this path to something else than `component` (None: the platform
        itself)."""
        return any(declared == path and holder != component for declared, holder in self.holders)

    @property
    def empty(self) -> bool:
        """Return True if nothing at all is declared: perhaps the folder is wrong."""
        return not (self.components or self.boxes or self.pipelines or self.services or self.unresolved)
