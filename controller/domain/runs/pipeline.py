"""A pipeline as it can be run: images resolved to content, defaults filled in. Pure. The daemon makes one of each
declared pipeline; a run carries its own copy, so that no later commit changes what was started.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace

from controller.domain.apps.mounts import MOUNT
from controller.domain.apps.spec import CronSchedule, EnvVar, Limits, PipelineVar, Resources, Retries, Webhook
from controller.domain.names import AppName, ComponentName

_LIMITS = Limits()


@dataclass(frozen=True)
class Stage:
    """`image` is what a container is created from: `name@sha256:…` or an image id. Values of Secrets are looked up
    when an attempt starts; nothing of them is kept here."""

    name: str
    image: str
    _: KW_ONLY
    command: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[str, ...] = ()  # names of Secrets
    resources: Resources
    timeout: float | None = None  # seconds of one attempt
    retries: Retries
    read_only_root: bool


@dataclass(frozen=True)
class Pipeline:
    """`boxes` are the connected ones, the default first: where a caller's files lie. `stage_limits`: what the
    limits of the app leave to all its stages together."""

    app: AppName
    name: ComponentName
    revision: str
    stages: tuple[Stage, ...]
    _: KW_ONLY
    vars: tuple[PipelineVar, ...] = ()
    boxes: tuple[ComponentName, ...] = ()
    continue_with: ComponentName | None = None
    concurrency: int
    ttl_succeeded: float
    ttl_failed: float
    optional: tuple[str, ...] = ()  # variables that callers may leave out
    webhook: Webhook | None = None
    schedule: CronSchedule | None = None
    stage_limits: Limits = _LIMITS

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def with_image(self, before: str, now: str) -> Pipeline:
        """Return the pipeline with one image replaced."""
        stages = (replace(stage, image=now) if stage.image == before else stage for stage in self.stages)
        return replace(self, stages=tuple(stages))

    def var(self, name: str) -> PipelineVar:
        return next((var for var in self.vars if var.name == name), PipelineVar(name))

    @property
    def made(self) -> Mapping[str, str]:
        """Variable -> the stage that outputs it."""
        return {name: stage.name for stage in self.stages for name in stage.outputs}

    @property
    def passed(self) -> tuple[str, ...]:
        """Variables that the caller passes: inputs that no stage makes and no box holds. Sorted."""
        taken = {name for stage in self.stages for name in stage.inputs}
        return tuple(sorted(n for n in taken - self.made.keys() if self.var(n).mount_from is None))

    @property
    def offered(self) -> tuple[str, ...]:
        """Variables that the caller is given: outputs that no stage takes in and no box of the module gets.
        Sorted."""
        taken = {name for stage in self.stages for name in stage.inputs}
        return tuple(sorted(self.made.keys() - taken - set(self.releases)))

    @property
    def releases(self) -> tuple[str, ...]:
        """Variables that become the module's own data (`publishTo`). Sorted."""
        return tuple(sorted(name for name in self.made if self.var(name).publish_to))

    def needs(self, stage: Stage) -> frozenset[str]:
        """Stages that must have succeeded before this one starts."""
        return frozenset(self.made[name] for name in stage.inputs if name in self.made)

    def ready(self, succeeded: Iterable[str], begun: Iterable[str]) -> tuple[Stage, ...]:
        """Stages that may start now, in the order of the manifest."""
        done, gone = frozenset(succeeded), frozenset(begun)
        return tuple(s for s in self.stages if s.name not in gone and self.needs(s) <= done)


def mount_path(var: PipelineVar) -> str:
    """Return the path of the variable in every container that uses it."""
    return var.mount_to or f"{MOUNT}/{var.name}"


def env_name(variable: str) -> str:
    """The environment variable that holds the path: `in-data` → `UNIP_PIPELINE_IN_DATA`."""
    return f"UNIP_PIPELINE_{variable.upper().replace('-', '_')}"
