"""Desired state ready for planning: the spec of a commit joined with what lives outside Git (image pins, secrets).

`resolve` in `controller.reconcile` makes it; the planner compares it with `observed`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from controller.domain.apps.observed import ImagePin
from controller.domain.apps.spec import BoxSpec, BuildImage, ComponentKind, MLComponentSpec
from controller.domain.names import AppName, ComponentName
from controller.domain.routing.routes import Api, Service
from controller.domain.runs.pipeline import Pipeline
from controller.domain.secret import Secret
from controller.domain.storage.box import Account, ModelPin


@dataclass(frozen=True)
class BuildInput:
    """The input of a build; `commit` and the spec name the tree that becomes the build context."""

    commit: str
    source: BuildImage


@dataclass(frozen=True)
class ModelMount:
    """`folder` of this host holds the model under `name`; a container sees it read-only."""

    folder: Path
    name: str


@dataclass(frozen=True)
class Workload:
    """One container to be made; an engine needs nothing else. `env` holds secrets, hence no repr."""

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
    account: Account | None = None  # of the storage; its keys are part of `env`
    model: ModelPin | None = None
    revision: str = ""
    asleep: bool = (
        False  # nobody calls: what runs of the version in service is to be stopped (see hibernation.py)
    )
    failure_reason: str = ""
    failure: str = (
        ""  # set: a newer version failed for this reason; this is the last good one, kept up meanwhile
    )

    last_good: DesiredComponent | None = (
        None  # what serves, where this version could not be brought up so far
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
    account: Account | None = None  # of the storage; stages are given its keys when they start


@dataclass(frozen=True)
class Unresolved:
    """Declared, but it cannot be planned (say, its image does not exist): what runs of it is left alone."""

    name: ComponentName
    reason: str
    why: str
    transient: bool = False  # it may get better by itself
    kind: ComponentKind = ComponentKind.ML_COMPONENT
    waiting: bool = False  # nothing is wrong, something that it needs has not been made yet


@dataclass(frozen=True)
class DesiredApp:
    app: AppName
    revision: str
    components: tuple[DesiredComponent, ...] = ()  # sorted by name
    boxes: tuple[BoxSpec, ...] = ()  # sorted by name
    pipelines: tuple[DesiredPipeline, ...] = ()  # sorted by name
    services: tuple[Service, ...] = ()  # sorted by path
    unresolved: tuple[Unresolved, ...] = ()
    holders: tuple[
        tuple[str, ComponentName | None], ...
    ] = ()  # path of an API -> component, None: the platform itself
    prune: bool = True
    approved: bool = False  # a person confirmed that everything may go at once
    disconnected: bool = False  # no PlatformApp names it: data stays, whatever its manifests said

    def moved(self, path: str, component: ComponentName | None) -> bool:
        """Return True if the commit gives this path to something else than `component` (None: the platform
        itself)."""
        return any(declared == path and holder != component for declared, holder in self.holders)

    @property
    def empty(self) -> bool:
        """True if nothing at all is declared: perhaps a wrong folder."""
        return not (self.components or self.boxes or self.pipelines or self.services or self.unresolved)
