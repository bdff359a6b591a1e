"""Desired state ready for planning: the spec of a commit joined with what lives outside Git (image pins, secrets).

`resolve` in `controller.reconcile` makes it; the planner compares it with `observed`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.domain.names import AppName, ComponentName
from controller.domain.observed import ImagePin
from controller.domain.routes import Api
from controller.domain.secret import Secret
from controller.domain.spec import BuildImage, MLComponentSpec


@dataclass(frozen=True)
class BuildInput:
    """What a build is made from; `commit` and the spec name the tree that becomes the build context."""

    commit: str
    source: BuildImage


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
    revision: str = ""
    asleep: bool = (
        False  # nobody calls: what runs of the version in service is to be stopped (see hibernation.py)
    )
    failure_reason: str = ""
    failure: str = (
        ""  # set: a newer version failed for this reason; this is the last good one, kept up meanwhile
    )

    @property
    def fingerprint(self) -> str:
        return self.fingerprints[-1]


@dataclass(frozen=True)
class Unresolved:
    """Declared, but it cannot be planned (say, its image does not exist): what runs of it is left alone."""

    name: ComponentName
    reason: str
    why: str
    transient: bool = False  # it may get better by itself


@dataclass(frozen=True)
class DesiredApp:
    app: AppName
    revision: str
    components: tuple[DesiredComponent, ...] = ()  # sorted by name
    unresolved: tuple[Unresolved, ...] = ()
    prune: bool = True
    approved: bool = False  # a person confirmed that everything may go at once
